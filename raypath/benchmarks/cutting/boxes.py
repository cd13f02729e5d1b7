"""Samples cut out of larger images: which boxes, and which of them hold what was annotated.

One decision: a box lies wholly inside its image; what does not fit is not cut, because padding would invent pixels. Everything is a
function of sizes, annotations and a key, so the same set is cut the same on every machine.

Boxes are int64 [N, 4]: left, top, width, height in px. Costs: one summed area per mask, 8 bytes per pixel.
"""

from pathlib import Path

import numpy as np

from raypath.benchmarks.splits.making import keyed
from raypath.data.image_files import UNREADABLE, size_of
from raypath.errors import BadInput


def image_size(path: Path) -> tuple[int, int]:
    """Width and height of an image file in px, from its header; raises BadInput for what is no image."""
    try:
        return size_of(str(path))
    except UNREADABLE as error:
        raise BadInput(f"{path}: cannot be read ({error}); fetch the file again") from None


def grid_boxes(size: tuple[int, int], extent_px: int, stride_px: int | None = None) -> np.ndarray:
    """Squares of `extent_px` on a grid from the top left corner, row by row; `size` is (width, height). Empty if none fits."""
    stride_px = stride_px or extent_px
    left, top = (np.arange(0, length - extent_px + 1, stride_px) for length in size)
    tops, lefts = np.meshgrid(top, left, indexing="ij")
    return np.stack([lefts.ravel(), tops.ravel(), *np.full((2, lefts.size), extent_px)], axis=1).astype(np.int64)


def share_inside(mask: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """The part of every box that a mask (bool [H, W]) covers, float64 [N], exact."""
    area = np.pad(np.cumsum(np.cumsum(mask, axis=0, dtype=np.int64), axis=1), ((1, 0), (1, 0)))
    left, top, width, height = boxes.T
    right, bottom = left + width, top + height
    covered = area[bottom, right] - area[top, right] - area[bottom, left] + area[top, left]
    return covered / (width * height)


def holds_point(boxes: np.ndarray, points: np.ndarray, margin_px: float = 0.0) -> np.ndarray:
    """Whether any of `points` (x, y; float [P, 2]) lies in each box, at least `margin_px` from its edge, bool [N]."""
    if not len(points):
        return np.zeros(len(boxes), bool)
    low = boxes[:, None, :2] + margin_px  # [N, 1, 2]
    high = boxes[:, None, :2] + boxes[:, None, 2:] - margin_px
    return ((points[None] >= low) & (points[None] < high)).all(2).any(1)


def boxes_around(
    points: np.ndarray, size: tuple[int, int], extent_px: int, *, num_per_point: int, shift_px: float, key: str
) -> tuple[np.ndarray, np.ndarray]:
    """Squares around points (x, y; float [P, 2]), each shifted at random by up to `shift_px` along both axes: boxes, point numbers.

    A square that would leave the image is moved inside; `key` names the draw (image and seed), so that it can be repeated. Points
    whose image is smaller than `extent_px` have no boxes.
    """
    if min(size) < extent_px or not len(points):
        return np.empty((0, 4), np.int64), np.empty(0, np.int64)
    generator = np.random.default_rng(int.from_bytes(keyed(0, "boxes", key)[:8], "big"))
    numbers = np.repeat(np.arange(len(points)), num_per_point)
    shifts = generator.uniform(-shift_px, shift_px, (len(numbers), 2))
    corners = np.rint(points[numbers] + shifts - extent_px / 2).astype(np.int64)
    corners = np.clip(corners, 0, np.array(size) - extent_px)
    return np.concatenate([corners, np.full((len(corners), 2), extent_px)], axis=1), numbers


def capped(names: list[str], groups: list[str], most: int, *, seed: int) -> list[int]:
    """Which of N samples stay if each group (a class of a slide, say) may have `most`: the first in a keyed order of names."""
    taken: dict[str, int] = {}
    kept = []
    for number in sorted(range(len(names)), key=lambda n: keyed(seed, "cap", names[n])):
        taken[groups[number]] = taken.get(groups[number], 0) + 1
        if taken[groups[number]] <= most:
            kept.append(number)
    return sorted(kept)
