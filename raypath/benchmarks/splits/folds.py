"""Small sets: a score from repeated outer folds, where every sample is tested once and nothing that is tested was tuned on.

One decision: a fold is a benchmark. Each outer fold is the whole set with another split (test: the fold; val: 20 % of the rest, for
tuning inside; train: what is left), with a hash of its own, so everything that runs on a benchmark runs on a fold: sweeps, ledger,
cells of a study. One test of 30 patients says little; the pooled predictions of all folds are one per sample of the whole set.

What it costs: folds x repeats times the work; one reading of the files of samples that have neither patient nor slide.
"""

from collections import Counter
from collections.abc import Iterator, Sequence, Set
from dataclasses import replace
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
import pyarrow as pa
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from raypath.benchmarks.benchmark import Benchmark, groups_of, hash_rows
from raypath.benchmarks.metrics.classification import Predictions
from raypath.benchmarks.metrics.gathering import gathered
from raypath.benchmarks.metrics.pixels import PixelPredictions
from raypath.benchmarks.splits.leakage import check_leaks, find_leaks
from raypath.benchmarks.splits.making import MAX_LISTED, check_classes, fold_split, keyed, undivided
from raypath.errors import BadInput
from raypath.hashing import file_sha256

P = TypeVar("P", Predictions, PixelPredictions)
NUM_FOLDS, NUM_REPEATS, MAX_DRAWS = 5, 3, 100
FEWEST_PATIENTS, FEWEST_TEST_IMAGES = 200, 1_000  # below either, one given test is too small to tell encoders apart


def default_protocol(benchmark: Benchmark) -> Literal["given", "nested"]:
    """How a set is scored unless somebody says otherwise: "nested" below 200 patients or 1,000 test images.

    Where no patient is known, samples count as patients. A split that was asked for by name stands.
    """
    if benchmark.is_split_chosen:
        return "given"
    num_patients = len(set(groups_of(benchmark.table)))
    num_test = sum(benchmark.counts()["test"].values())
    return "nested" if num_patients < FEWEST_PATIENTS or num_test < FEWEST_TEST_IMAGES else "given"


def nested(
    benchmark: Benchmark,
    *,
    num_folds: int = NUM_FOLDS,
    num_repeats: int = NUM_REPEATS,
    seed: int = 0,
    together: Sequence[tuple[str, str]] = (),
) -> Iterator[Benchmark]:
    """Every outer fold as a benchmark, repeat after repeat; the folds of one repeat are disjoint and cover the set.

    Folds are by patient (else slide, else image with its copies and parts), stratified, and another draw in every repeat: a draw
    that holds a fold of an earlier one, as happens with few patients, is drawn anew, since a test is opened once.
    `together`: pairs of samples that no fold divides either (near-duplicates), nor what belongs to them. Raises BadInput where a
    class has too few patients for train, val and test of a fold, and where the set cannot be divided in so many ways.
    """
    groups = _joined(undivided_groups(benchmark.table), benchmark.table["sample"].to_pylist(), together)
    met: set[str] = set()
    for repeat in range(num_repeats):
        note = f"nested, repeat {repeat}, seed {seed}"
        note += f", {len(together)} pairs of near-duplicates kept together" if together else ""
        folds = _new_draw(benchmark, groups, num_folds, repeat, seed, note, met)
        met |= {fold.data_hash for fold in folds}
        yield from folds


def pool(folds: Sequence[P], benchmark: Benchmark, *, num_repeats: int = 1) -> list[P]:
    """The predictions on the tests of `nested` (in its order) as one per repeat, every sample once, in the order of their names.

    Each keeps the number of the fold that said it: what two folds say is on two scales.

    Raises BadInput for folds that do not divide into repeats, for a sample that is missing, there twice or not of the benchmark,
    and for a label, patient or class that is not the benchmark's.
    """
    if not folds or len(folds) % num_repeats:
        raise BadInput(
            f"{benchmark.name}: predictions of {len(folds)} folds for {num_repeats} repeats; expected a multiple"
        )
    each = len(folds) // num_repeats
    return [_pooled(folds[repeat * each : (repeat + 1) * each], benchmark, repeat) for repeat in range(num_repeats)]


def _new_draw(
    benchmark: Benchmark, groups: Sequence[str], num_folds: int, repeat: int, seed: int, note: str, met: Set[str]
) -> list[Benchmark]:
    """The folds of a repeat, none of which has a hash in `met`."""
    for attempt in range(MAX_DRAWS):
        name = f"{repeat}, drawn anew {attempt}" if attempt else str(repeat)
        draw = int.from_bytes(keyed(seed, "repeat", name)[:8], "big")
        folds = [_outer_fold(benchmark, groups, num_folds, fold, draw, note) for fold in range(num_folds)]
        if met.isdisjoint(fold.data_hash for fold in folds):
            return folds
    raise BadInput(
        f"{benchmark.name}: {MAX_DRAWS} draws of {num_folds} folds, and each holds a fold of a draw before: too few patients for"
        f" {repeat + 1} draws; set num_repeats={repeat}"
    )


def _outer_fold(
    benchmark: Benchmark, groups: Sequence[str], num_folds: int, fold: int, draw: int, note: str
) -> Benchmark:
    table = benchmark.table
    columns = {name: table[name].to_pylist() for name in ("sample", "label", "patient")}
    splits, made = fold_split(columns["label"], groups, num_folds, fold, seed=draw)
    table = table.set_column(table.schema.get_field_index("split"), table.schema.field("split"), [splits])
    name, strata = benchmark.name, benchmark.strata or benchmark.classes
    waived = check_leaks(find_leaks(table), benchmark.waived, name=name)
    check_classes(columns["label"], splits, strata, name=f"{name}, fold {fold} of {num_folds}")
    # the contents are in the hash of the set; what is new is who is tested
    content = [benchmark.data_hash] * len(table)
    rows = zip(columns["sample"], columns["label"], splits, columns["patient"], content, strict=True)
    notes = filter(None, [f"{note}: {made}", waived, f"of the set: {benchmark.split_note}"])
    return replace(benchmark, table=table, data_hash=hash_rows(rows, strata), split_note="; ".join(notes))


def undivided_groups(table: pa.Table) -> list[str]:
    """What no fold divides, one name per row: the patient, else the slide, else the image with its copies and parts."""
    patients, slides = table["patient"].to_pylist(), table["slide"].to_pylist()
    if "path" not in table.column_names:
        return undivided(patients, slides, [""] * len(table))[0]
    paths, items = table["path"].to_pylist(), table["item"].to_pylist()
    unnamed = {p for p, patient, slide in zip(paths, patients, slides, strict=True) if not (patient or slide)}
    sha256 = {path: file_sha256(Path(path)) for path in sorted(unnamed)}
    images = [f"{sha256.get(path, path)} item {item}" for path, item in zip(paths, items, strict=True)]
    return undivided(patients, slides, images)[0]


def _joined(groups: Sequence[str], samples: Sequence[str], pairs: Sequence[tuple[str, str]]) -> list[str]:
    """The groups, those that `pairs` of samples connect made one, by the first of their names."""
    names, number_of = np.unique(np.array(groups, dtype=str), return_inverse=True)
    row_of = {sample: row for row, sample in enumerate(samples)}
    ends = [[number_of[row_of[sample]] for sample in pair] for pair in pairs]
    first, second = zip(*ends) if ends else ((), ())
    links = coo_array((np.ones(len(ends)), (first, second)), shape=(len(names),) * 2)
    _, part_of = connected_components(links, directed=False)
    _, first_of = np.unique(part_of, return_index=True)  # names are sorted: the first of a part is its first name
    return names[first_of[part_of[number_of]]].tolist()


def _pooled(folds: Sequence[P], benchmark: Benchmark, repeat: int) -> P:
    name = f"{benchmark.name}, repeat {repeat}"
    wrong = next((fold.classes for fold in folds if fold.classes != benchmark.classes), None)
    if wrong is not None:
        raise BadInput(f"{name}: predictions of the classes {wrong}; expected {benchmark.classes}")
    is_of_pixels = isinstance(folds[0], PixelPredictions)  # which carry no labels: those only stratify
    columns = ("patient",) if is_of_pixels else ("patient", "label")
    said = [row for fold in folds for row in zip(fold.sample, *(list(getattr(fold, c)) for c in columns), strict=True)]
    rows = zip(*(benchmark.table[column].to_pylist() for column in ("sample", *columns)), strict=True)
    expected = {sample: tuple(rest) for sample, *rest in rows}
    times = Counter(sample for sample, *_ in said)
    faults = {
        "are missing": sorted(expected.keys() - times.keys()),
        "are there more than once": sorted(sample for sample, num in times.items() if num > 1),
        "are not of the set": sorted(times.keys() - expected.keys()),
        "have another label or patient": sorted(s for s, *rest in said if s in expected and tuple(rest) != expected[s]),
    }
    listed = [f"{len(s)} samples {what}: {', '.join(s[:MAX_LISTED])}" for what, s in faults.items() if s]
    if listed:
        raise BadInput(f"{name}: {'; '.join(listed)}; expected the test of every fold, each sample once")
    if not is_of_pixels:
        folds = [replace(fold, fold=np.full(len(fold.sample), number)) for number, fold in enumerate(folds)]
    return gathered(folds, sorted(expected))
