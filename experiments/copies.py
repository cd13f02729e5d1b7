"""Near-duplicates, looked for once before a test is opened: the same picture in train and test makes every score too good.

One decision: on by default, because it costs little beside the scoring it guards, and is remembered under
`runs/near_duplicates`. Across a given split a pair is an error with a sheet to look at; the folds of a nested evaluation are
made here, so the samples of a pair are kept in one fold instead. `benchmark.split.waive=["near_duplicate"]` lets them pass,
and every run says so by a tag. A set of more than `max_near_duplicate_samples` is not searched, which is a tag as well. Nor
are phantoms: each is drawn by itself, and the regular textures of their few classes pass for each other (18 pairs of 900
tiles, correlation up to 0.57).

What it costs, measured with images of 224 px: 5 s of CPU for 1,000; for 20,000, from the parts (3 ms to read an image, 2 to find
its nearest among 20,000, 0.3 to compare a pair), about 150 s. The nearest grow with the square of the number, hence the limit.
"""

from dataclasses import dataclass, field, replace

import launch
from launch import say

from raypath.benchmarks import Benchmark, PhantomsSettings
from raypath.benchmarks.splits.leakage import check_leaks
from raypath.benchmarks.splits.near_duplicate_record import recorded
from raypath.benchmarks.splits.near_duplicates import leaks_of
from raypath.errors import BadInput
from raypath.protocols.transfer import TransferConfig
from raypath.run_folder import runs_root

RULE, TAG = "near_duplicate", "raypath.near_duplicates"


@dataclass(frozen=True)
class Looked:
    """A benchmark that was looked through; `waived` names the rule where somebody waived it and it was broken."""

    benchmark: Benchmark
    tags: dict[str, str]
    together: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    """Samples that no fold may divide."""


def look_for_copies(config: TransferConfig, benchmark: Benchmark) -> Looked:
    """Search the benchmark for near-duplicates (see above); the config's evaluation must be decided.

    Raises BadInput that lists them, with the place of their sheet, where they stand across a given split and are not waived.
    """
    if isinstance(config.benchmark, PhantomsSettings):
        return Looked(benchmark, {TAG: "not searched (phantoms)"})
    num, most = len(benchmark.table), config.max_near_duplicate_samples
    if num > most:
        say(f"{benchmark.name}: not searched for near-duplicates: {num:,} samples, max_near_duplicate_samples={most}")
        return Looked(benchmark, {TAG: f"not searched ({num} samples)"})
    is_nested = config.evaluation == "nested"
    pairs, sheet = recorded(
        benchmark,
        runs_root() / "near_duplicates",
        between_groups=is_nested,
        progress=launch.counter("near-duplicates: pictures read"),
    )
    tags = {TAG: f"{len(pairs)} pairs"}
    if not pairs:
        return Looked(benchmark, tags)
    where = f"look at them: {sheet}"
    split = getattr(config.benchmark, "split", None)  # not every kind can waive by name
    if split and RULE in split.waive:
        say(f"{benchmark.name}: {len(pairs)} pairs of near-duplicates, waived; {where}")
        return Looked(replace(benchmark, waived=(*benchmark.waived, RULE)), tags)
    if is_nested:
        say(f"{benchmark.name}: {len(pairs)} pairs of near-duplicates, each kept in one fold; {where}")
        pairs_of_names = tuple((pair.first["sample"], pair.second["sample"]) for pair in pairs)
        return Looked(benchmark, tags | {TAG: f"{len(pairs)} pairs, kept together"}, pairs_of_names)
    try:
        check_leaks(leaks_of(pairs), (), name=benchmark.name)
    except BadInput as error:
        unless = (
            ""
            if split
            else f"; benchmark.kind={config.benchmark.kind} has no split.waive: max_near_duplicate_samples=0"
        )
        raise BadInput(f"{error}{unless}\n{where}") from None
    raise AssertionError("pairs are a leak")
