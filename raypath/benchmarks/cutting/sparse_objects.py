"""Sets that mark rare objects by points: reading the points, and the boxes that make a classification of them.

One decision: a box is what it holds. Boxes around objects (several per object, shifted at random) and a grid over the whole image
are labelled by the same rule: the first kind of object that lies in a box is its class. Of the grid only boxes stay that are empty
with some clearance, so that no part of an object is called empty (the second paper's recipe, appendix B of its thesis chapter:
negatives exhaustive with overlap, positives with random shifts, 10 per object; its stride and shifts are not published).
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from raypath.benchmarks.cutting.boxes import boxes_around, grid_boxes, holds_point
from raypath.data.csv_files import csv_lines
from raypath.data.image_rows import ImageRow
from raypath.errors import BadInput

_EDGE_PX = 1.0  # a point may lie on the far edge, or count pixels from 1


def read_points(path: Path, size: tuple[int, int], *, is_row_first: bool) -> np.ndarray:
    """Points float64 [P, 2], x and y in px, of a CSV file without header whose first two columns are x, y (or row, column).

    Repeated lines count once. Raises BadInput with file and line for what is no point, or none of an image of `size`.
    """
    points: dict[tuple[float, float], None] = {}
    for number, cells in csv_lines(path):
        wanted = "row,column" if is_row_first else "x,y"
        try:
            first, second = float(cells[0]), float(cells[1])
        except (ValueError, IndexError):
            raise BadInput(f"{path}: line {number}: {','.join(cells)!r}; expected {wanted}") from None
        points[(second, first) if is_row_first else (first, second)] = None
    return inside(np.array(list(points), np.float64).reshape(-1, 2), size, path)


def inside(points: np.ndarray, size: tuple[int, int], path: Path) -> np.ndarray:
    """Points that lie in an image of `size`; raises BadInput if one is more than a pixel outside (or no number)."""
    is_inside = ((points >= 0) & (points < np.array(size) + _EDGE_PX)).all(axis=1)
    if not is_inside.all():
        x, y = points[~is_inside][0]
        raise BadInput(f"{path}: a point at x {x:g}, y {y:g}; expected points of the image of {size[0]} x {size[1]} px")
    return np.minimum(points, np.array(size) - 0.5)


def object_boxes(
    kinds: Sequence[np.ndarray],
    size: tuple[int, int],
    extent_px: int,
    *,
    stride_px: int,
    num_per_object: int,
    shift_px: float,
    clearance_px: float,
    key: str,
) -> tuple[np.ndarray, np.ndarray]:
    """Boxes int64 [N, 4] and the kind each holds, int64 [N]: a number of `kinds` (points float64 [P, 2]), or len(kinds) for empty.

    Where a box holds several kinds, the first counts. `key` names the draw (image and seed).
    """
    around = [
        boxes_around(points, size, extent_px, num_per_point=num_per_object, shift_px=shift_px, key=f"{key} {kind}")[0]
        for kind, points in enumerate(kinds)
    ]
    grid = grid_boxes(size, extent_px, stride_px)
    grid = grid[~holds_point(grid, np.concatenate([*kinds]), margin_px=-clearance_px)]
    boxes = np.concatenate([*around, grid])
    holds = np.stack([holds_point(boxes, points) for points in kinds], axis=1)
    return boxes, np.where(holds.any(axis=1), holds.argmax(axis=1), len(kinds))


def box_rows(
    sample: str, path: Path, boxes: np.ndarray, labels: Sequence[str], patient: str, slide: str | None = None
) -> list[ImageRow]:
    """A row for every box of an image; numbered, since two boxes of an object may coincide."""
    return [
        ImageRow(f"{sample}/{number}", path, label, "", patient, slide=slide, box=tuple(box))
        for number, (box, label) in enumerate(zip(boxes.tolist(), labels, strict=True))
    ]
