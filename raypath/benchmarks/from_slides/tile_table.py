"""From labelled tiles of slides to a benchmark: what every builder on slides ends with.

One decision: the table is put together by columns, and hashed slide by slide (the file, the tiles, their labels), so that millions
of tiles are some arrays. Nothing is written: pixels are cut when they are read.

What it costs: about 1 us and 150 B per tile, 350 B while it is made.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from raypath.benchmarks.benchmark import TILE_SCHEMA, Benchmark, hash_rows, primary_metric, with_contents
from raypath.benchmarks.facts import Count, Facts
from raypath.benchmarks.from_slides.slide_tiles import SlideTiles
from raypath.benchmarks.splits.leakage import check_leaks, find_leaks
from raypath.benchmarks.splits.making import Rule, check_classes
from raypath.errors import BadInput


@dataclass(frozen=True, eq=False)
class LabelledSlide:
    """The tiles of one slide with their labels."""

    tiles: SlideTiles
    labels: np.ndarray
    """int64 [N], numbers of classes (of strata, where classes belong to pixels)."""
    patient: str
    split: str
    mask: str | None = None
    """The mask TIFF of the slide."""
    annotation_sha256: str = ""
    """Of the file that labels came from, or of the mask."""


def tile_benchmark(
    slides: Sequence[LabelledSlide],
    facts: Facts,
    *,
    name: str,
    classes: Sequence[str],
    mpp: float,
    notes: Sequence[str],
    strata: Sequence[str] = (),
    also_built: Mapping[str, int] | None = None,
    waive: Sequence[Rule] = (),
    is_of_one_patient: bool = False,
    is_split_chosen: bool = False,
) -> Benchmark:
    """The benchmark of some slides; those without tiles have no part in it.

    Labels number `classes`; with `strata` classes belong to the pixels of masks and labels number `strata`. Names of either that no
    tile has are left out. `also_built`: numbers to stand beside the published ones, next to slides, patients and tiles. Raises
    BadInput for fewer than two classes, for a patient in two splits (unless waived) and for a class that is not in every split.
    """
    slides = [slide for slide in slides if len(slide.tiles)]
    labels = np.concatenate([slide.labels for slide in slides]) if slides else np.empty(0, np.int64)
    names = tuple(strata or classes)
    present = np.unique(labels)
    if len(present) < (1 if strata else 2):
        raise BadInput(f"{name}: found tiles of {[names[k] for k in present]}; a benchmark needs at least two classes")
    kept = tuple(names[number] for number in present)
    table = _table(slides, np.searchsorted(present, labels))
    leaks = find_leaks(table)
    waived = check_leaks(leaks, waive, name=name)
    check_classes(table["label"].to_pylist(), table["split"].to_pylist(), kept, name=name)
    found = {
        "slides": len(slides),
        "patients": len({slide.patient for slide in slides}),
        "tiles": len(table),
        **(also_built or {}),
    }
    return Benchmark(
        name=name,
        kind="segmentation" if strata else "classification",
        classes=tuple(classes) if strata else kept,
        primary="miou_macro" if strata else primary_metric(table["label"].to_numpy(), len(kept)),
        mpp=mpp,
        table=with_contents(table.sort_by("sample"), {slide.tiles.path: slide.tiles.sha256 for slide in slides}),
        data_hash=hash_rows((_identity(slide) for slide in slides), (*classes, *strata)),
        split_note="; ".join(filter(None, [*notes, facts.note, waived])),
        mask_rule="values" if strata else "none",
        strata=kept if strata else (),
        built=tuple(Count(what, found.get(what, 0), facts.counts.get(what)) for what in {**found, **facts.counts}),
        waived=tuple(leak.rule for leak in leaks),
        is_of_one_patient=is_of_one_patient,
        is_split_chosen=is_split_chosen,
    )


def _table(slides: Sequence[LabelledSlide], labels: np.ndarray) -> pa.Table:
    sizes = [len(slide.tiles) for slide in slides]
    tiles = [slide.tiles for slide in slides]
    columns = {
        "sample": pa.array([sample for part in tiles for sample in part.samples]),
        "label": pa.array(labels, pa.int64()),
        "patient": _repeated([slide.patient for slide in slides], sizes),
        "split": _repeated([slide.split for slide in slides], sizes),
        "slide": _repeated([part.path for part in tiles], sizes),
        "slide_mpp": pa.array(np.repeat([part.mpp for part in tiles], sizes)),
        "x_l0": pa.array(np.concatenate([part.x_l0 for part in tiles]), pa.int64()),
        "y_l0": pa.array(np.concatenate([part.y_l0 for part in tiles]), pa.int64()),
        "extent_l0": pa.array(np.repeat([part.extent_l0 for part in tiles], sizes), pa.int64()),
        "mask": _repeated([slide.mask for slide in slides], sizes),
    }
    columns["content"] = pa.nulls(len(columns["sample"]), pa.string())  # filled when the rows have their order
    return pa.table([columns[field.name] for field in TILE_SCHEMA], schema=TILE_SCHEMA)


def _repeated(values: list[str | None], sizes: list[int]) -> pa.Array:
    return pa.array(values, pa.string()).take(pa.array(np.repeat(np.arange(len(values)), sizes)))


def _identity(slide: LabelledSlide) -> tuple:
    """What decides the tiles of a slide and their labels."""
    tiles = slide.tiles
    digest = hashlib.sha256(np.stack([tiles.x_l0, tiles.y_l0, slide.labels]).astype("<i8").tobytes()).hexdigest()
    content = (tiles.sha256, tiles.mpp, tiles.extent_l0, digest, slide.annotation_sha256)
    return (tiles.slide, slide.split, slide.patient, *content)
