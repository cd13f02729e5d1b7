"""What a folder of labelled images is, and whether it can be used: asked before anything is trained on it.

One decision: an audit is a load. The set is read by the code that a run reads it with (seed 0), so what an audit calls sound does
load, and what it shows (classes, splits, patients, notes, counts beside the published ones) is what a run has. Beyond that the
header of every image file is opened; pixels are not decoded, so damage further down in a file is found when a run reads it. What it
costs: every byte is read once, for the hash that finds exact copies.
"""

import csv
import shlex
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from PIL import Image
from rich.table import Table

from raypath.benchmarks.benchmark import Benchmark
from raypath.benchmarks.facts import Facts
from raypath.benchmarks.masks import MasksSettings
from raypath.benchmarks.settings import KINDS, ImagesSettings
from raypath.data.image_files import UNREADABLE, require_8_bits
from raypath.data.image_rows import IMAGE_SUFFIXES, MANIFEST_NAMES
from raypath.data.manifest import SPLITS
from raypath.errors import BadInput, SlideError

PUBLISHED = tuple(kind for kind in KINDS if hasattr(kind, "recognise"))
MAX_SIZES = 3


@dataclass(frozen=True, kw_only=True)
class Audit:
    """One set that was found, and what became of loading it."""

    place: Path
    kind: str
    """The `benchmark.kind` that reads it; "images" or "masks": no published set, but a person's own."""
    facts: Facts | None
    """What is published of it; None: nothing."""
    benchmark: Benchmark | None
    """None: it did not load."""
    sizes: Counter[tuple[int, int]]
    """(width, height) in px of its image files, and how many have it; array files are not among them."""
    fault: str
    """Why it cannot be used; "" where it can."""


def sets_in(folder: Path) -> tuple[list[Path], list[Path]]:
    """Where the sets of a folder are, and its subfolders that are none of them.

    The folder itself, if a published set is recognised there or if it has a manifest; else those of its subfolders of which that
    is true; else the folder itself, as class folders. Raises BadInput if there is no such folder.
    """
    if not folder.is_dir():
        raise BadInput(f"{folder}: there is no such folder; expected a labelled set, or a folder of such sets")
    if _is_set(folder):
        return [folder], []
    below = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    found = [path for path in below if _is_set(path)]
    return (found, [path for path in below if path not in found]) if found else ([folder], [])


def audit(place: Path) -> list[Audit]:
    """What the set at `place` is: one Audit for every kind that recognises it, else one for class folders or a manifest."""
    return [_audited(place, kind) for kind in kinds_of(place)]


def kinds_of(place: Path) -> list[type]:
    """The settings of each published set that is recognised in a folder; else those of a person's own, of images or of masks.

    `place`: a folder, or a manifest, which is always a person's own. Nothing is loaded.
    """
    published = [kind for kind in PUBLISHED if kind.recognise(place)] if place.is_dir() else []
    return published or [_own_kind(place)]


def report(found: Audit) -> Iterator[str | Table]:
    """An audit for a reader at a terminal: lines, and tables of counts and of splits."""
    yield f"{found.place}: {found.facts.title if found.facts else _unknown(found.place)}"
    if found.facts:
        yield f"  source   {found.facts.source}"
        yield f"  licence  {found.facts.licence}"
        yield f"  pixels   {'um per px not known' if found.facts.mpp is None else f'{found.facts.mpp:g} um per px'}"
    if found.sizes:
        yield f"  files    {_sizes(found.sizes)}"
    if found.benchmark:
        yield f"  task     {found.benchmark.kind} of {len(found.benchmark.classes)} classes, by {found.benchmark.primary}"
        if found.benchmark.built:
            yield _counts(found.benchmark)
        yield _splits(found.benchmark)
        yield from (f"  - {note}" for note in found.benchmark.split_note.split("; "))
    yield f"  {_verdict(found)}"
    if not found.fault:
        kind = f"benchmark.kind={found.kind}"
        which, note = (f" {kind}", "") if len(kinds_of(found.place)) > 1 else ("", f"  ({kind})")
        yield f"  to use it: python experiments/finetune.py {shlex.quote(str(found.place))}{which} --encoder runs/ID{note}"


def _own_kind(place: Path) -> type:
    """Images with masks where there are such pairs, or a manifest that names masks and no label; else images with labels."""
    candidates = [place] if place.is_file() else [place / name for name in MANIFEST_NAMES]
    manifest = next((path for path in candidates if path.is_file()), None)
    if manifest is None:
        has_pairs = any(
            (place / part / "images").is_dir() and (place / part / "masks").is_dir() for part in ("", *SPLITS)
        )
        return MasksSettings if has_pairs else ImagesSettings
    columns = [column.strip().lower() for column in _columns(manifest)]
    has_masks = any(column.startswith("mask") for column in columns)
    return MasksSettings if has_masks and "label" not in columns else ImagesSettings


def _columns(manifest: Path) -> list[str]:
    """The names in a manifest's first line; none where it cannot be read, which is for the load to say."""
    try:
        if manifest.suffix == ".parquet":
            return pq.read_schema(manifest).names
        with manifest.open(encoding="utf-8-sig", newline="", errors="replace") as file:
            return next(csv.reader(file), [])
    except (pa.ArrowInvalid, csv.Error):
        return []


def _is_set(folder: Path) -> bool:
    has_manifest = any((folder / name).is_file() for name in MANIFEST_NAMES)
    return has_manifest or any(kind.recognise(folder) for kind in PUBLISHED)


def _audited(place: Path, kind: type) -> Audit:
    facts = getattr(kind, "FACTS", None)
    settings = kind(path=str(place))
    try:
        benchmark = settings.load(seed=0)
    except (BadInput, SlideError) as error:
        return Audit(place=place, kind=settings.kind, facts=facts, benchmark=None, sizes=Counter(), fault=str(error))
    sizes, faults = _headers(benchmark)
    fault = f"{len(faults)} image(s) cannot be used, the first: {faults[0]}" if faults else ""
    return Audit(place=place, kind=settings.kind, facts=facts, benchmark=benchmark, sizes=sizes, fault=fault)


def _headers(benchmark: Benchmark) -> tuple[Counter[tuple[int, int]], list[str]]:
    """The sizes of the image files, and a line for each that is no image."""
    sizes, faults = Counter(), []
    if "path" not in benchmark.table.column_names:
        return sizes, faults  # tiles: every slide was opened when they were made
    for path in pc.unique(benchmark.table["path"]).to_pylist():
        if path.lower().endswith(IMAGE_SUFFIXES):
            try:
                with (
                    warnings.catch_warnings(action="ignore"),
                    Image.open(path) as image,
                ):  # what matters is an error below
                    require_8_bits(image)
                    sizes[image.size] += 1
            except UNREADABLE as error:
                faults.append(f"{path} ({error})")
    return sizes, faults


def _sizes(sizes: Counter[tuple[int, int]]) -> str:
    common = sizes.most_common(MAX_SIZES)
    shown = ", ".join(f"{count:,} of {width} x {height} px" for (width, height), count in common)
    return shown + (f" and {len(sizes) - len(common)} more sizes" if len(sizes) > len(common) else "")


def _unknown(place: Path) -> str:
    manifest = next((name for name in MANIFEST_NAMES if (place / name).is_file()), None)
    if manifest:
        return f"the images of its {manifest}"
    return f"class folders; none of the published sets is recognised ({', '.join(kind().kind for kind in PUBLISHED)})"


def _verdict(found: Audit) -> str:
    if found.fault:
        known = (
            f" (published sets known here: {', '.join(kind().kind for kind in PUBLISHED)})" if not found.facts else ""
        )
        return f"cannot be used: {found.fault}{known}"
    wrong = [count.what for count in found.benchmark.built if not count.is_equal]
    if wrong:
        return f"sound, but not the published data: {', '.join(wrong)} differ; its runs are tagged so"
    is_published = any(count.published is not None for count in found.benchmark.built)
    return (
        "sound: every published count is met" if is_published else "sound; no counts are published to compare it with"
    )


def _counts(benchmark: Benchmark) -> Table:
    table = Table(box=None, pad_edge=True)
    for heading in ("", "built", "published", ""):
        table.add_column(heading, justify="right" if heading else "left")
    for count in benchmark.built:
        published = "-" if count.published is None else f"{count.published:,}"
        table.add_row(count.what, f"{count.built:,}", published, "" if count.is_equal else "differs")
    return table


def _splits(benchmark: Benchmark) -> Table:
    """Samples of every class and split, and below them how many patients and slides are in each split, where they are known."""
    table = Table(box=None, pad_edge=True)
    for heading in ("", *SPLITS, "all"):
        table.add_column(heading, justify="right" if heading else "left")
    counts = benchmark.counts()
    for name in benchmark.strata or benchmark.classes:
        numbers = [counts[split][name] for split in SPLITS]
        table.add_row(name, *(f"{number:,}" for number in [*numbers, sum(numbers)]))
    totals = [sum(counts[split].values()) for split in SPLITS]
    table.add_row("all samples", *(f"{number:,}" for number in [*totals, sum(totals)]))
    for name in ("patient", "slide"):
        if benchmark.table[name].null_count < len(benchmark.table):
            table.add_row(f"{name}s", *(f"{number:,}" for number in _distinct(benchmark.table, name)))
    return table


def _distinct(table: pa.Table, name: str) -> list[int]:
    """How many different values a column has in train, val, test and in all of them."""
    parts = [table.filter(pc.equal(table["split"], split))[name] for split in SPLITS]
    return [len(pc.unique(part.drop_null())) for part in [*parts, table[name]]]
