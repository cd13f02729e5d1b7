"""What may not stand on two sides of a split: a patient, a slide, tiles that share pixels.

One decision: a leak is an error that lists what leaks, and only its name makes it pass: `benchmark.split.waive=["patient"]` keeps
the split, and every run on it is tagged. Nothing is moved or dropped to mend a split: it would be another than the given one.

Rectangles are compared by an R-tree (shapely's STRtree) inside one image or slide that stands in several splits, so a million
tiles whose slides are undivided cost two passes over some columns. Near-duplicates need pixels: see `near_duplicates`.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pyarrow as pa
import shapely

from raypath.benchmarks.splits.making import MAX_LISTED, Rule
from raypath.data.manifest import SPLITS
from raypath.errors import BadInput

_EVERYTHING = (0, 0, 2**31, 2**31)  # the whole of an image, whose size a table does not say
_BOXES_AT_ONCE = 1_024  # each may meet all of the other split

_REMEDY = {
    "patient": "a patient belongs to one. Correct the split column, or make a split by patient (benchmark.split.use_given=false)",
    "slide": "a slide belongs to one. Correct the split column, or make a split (benchmark.split.use_given=false)",
    "overlap": "pixels belong to one. Cut without overlap, or keep what overlaps in one split (benchmark.split.use_given=false)",
    "near_duplicate": "where their sheet shows one picture twice, keep both in one split or leave one out",
}


@dataclass(frozen=True)
class Leak:
    """What stands on two sides of a split, by the name under which it may be waived."""

    rule: Rule
    what: str
    """What was found, in the plural, e.g. "patients stand in more than one split"."""
    num: int
    listed: tuple[str, ...]
    """The first ten, each with its splits."""

    def __str__(self) -> str:
        more = f"; ... and {self.num - len(self.listed)} more" if self.num > len(self.listed) else ""
        return f"{self.num} {self.what}: {'; '.join(self.listed)}{more}"


def find_leaks(table: pa.Table) -> list[Leak]:
    """The leaks that the rows of a benchmark (IMAGE_SCHEMA or TILE_SCHEMA) tell without their pixels."""
    splits = table["split"].to_pylist()
    found = [
        _shared("patient", table["patient"].to_pylist(), splits),
        _shared("slide", table["slide"].to_pylist(), splits),
        _overlaps(table, splits),
    ]
    return [leak for leak in found if leak.num]


def check_leaks(leaks: Iterable[Leak], waived: Sequence[str], *, name: str) -> str:
    """A note on the leaks that are waived; raises BadInput naming every other one, with the remedies."""
    leaks = list(leaks)
    faults = [leak for leak in leaks if leak.rule not in waived]
    if faults:
        lines = [
            f'{name}: {leak}; {_REMEDY[leak.rule]}, or waive it: benchmark.split.waive=["{leak.rule}"]'
            for leak in faults
        ]
        raise BadInput("\n".join(lines))
    return "; ".join(f"waived: {leak}" for leak in leaks)


def _shared(rule: Rule, owners: Sequence[str | None], splits: Sequence[str]) -> Leak:
    seen: dict[str, set[str]] = defaultdict(set)
    for owner, split in zip(owners, splits, strict=True):
        if owner is not None:
            seen[owner].add(split)
    shared = sorted(owner for owner, in_splits in seen.items() if len(in_splits) > 1)
    listed = [f"{owner} ({', '.join(s for s in SPLITS if s in seen[owner])})" for owner in shared[:MAX_LISTED]]
    return Leak(rule, f"{rule}s stand in more than one split", len(shared), tuple(listed))


def _overlaps(table: pa.Table, splits: Sequence[str]) -> Leak:
    """Pairs of samples of two splits that have pixels of one image, or of level 0 of one slide, in common."""
    samples, listed, num = table["sample"].to_pylist(), [], 0
    for rows, boxes in _divided_images(table, splits):
        for crossing in _crossing(boxes, [splits[row] for row in rows]):
            num += len(crossing)
            for first, second, area_px in crossing[: MAX_LISTED - len(listed)].tolist():
                a, b = rows[first], rows[second]
                px = "the whole image" if area_px >= _EVERYTHING[2] ** 2 else f"{area_px:,} px"
                listed.append(f"{samples[a]} ({splits[a]}) and {samples[b]} ({splits[b]}), {px}")
    unit = "of level 0 " if "x_l0" in table.column_names else ""
    return Leak("overlap", f"pairs of samples share pixels {unit}across splits", num, tuple(listed))


def _divided_images(table: pa.Table, splits: Sequence[str]) -> Iterator[tuple[list[int], np.ndarray]]:
    """Rows (in the order of their samples) and boxes int64 [N, 4] of every image or slide that stands in several splits."""
    order = np.argsort(np.array(table["sample"].to_pylist(), dtype=str), kind="stable").tolist()
    if "path" in table.column_names:
        images = list(zip(table["path"].to_pylist(), table["item"].to_pylist(), strict=True))
    else:
        images = table["slide"].to_pylist()
    rows_of: dict[object, list[int]] = defaultdict(list)
    for row in order:
        rows_of[images[row]].append(row)
    for rows in rows_of.values():
        if len({splits[row] for row in rows}) > 1:
            part = table.take(rows)
            if "path" in table.column_names:
                boxes = np.array([box or _EVERYTHING for box in part["box"].to_pylist()], np.int64)
            else:
                boxes = np.stack([part[c].to_numpy() for c in ("x_l0", "y_l0", "extent_l0", "extent_l0")], axis=1)
            yield rows, boxes


def _crossing(boxes: np.ndarray, splits: Sequence[str]) -> Iterator[np.ndarray]:
    """(row, row, shared area in px) of the boxes [N, 4] of two splits that overlap, int64 [P, 3]; what only touches does not."""
    low, high = boxes[:, :2], boxes[:, :2] + boxes[:, 2:]
    shapes = shapely.box(*low.T, *high.T)
    of_split = {split: np.flatnonzero(np.array(splits) == split) for split in SPLITS}
    for a, b in combinations(SPLITS, 2):
        tree = shapely.STRtree(shapes[of_split[b]])
        for start in range(0, len(of_split[a]), _BOXES_AT_ONCE):
            asked = of_split[a][start : start + _BOXES_AT_ONCE]
            near_a, near_b = tree.query(shapes[asked])
            first, second = asked[near_a], of_split[b][near_b]
            sides = np.minimum(high[first], high[second]) - np.maximum(low[first], low[second])
            found = np.stack([first, second, sides.prod(axis=1)], axis=1)[(sides > 0).all(axis=1)]
            yield found[np.lexsort((found[:, 1], found[:, 0]))]
