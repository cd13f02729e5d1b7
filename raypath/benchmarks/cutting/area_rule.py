"""Segmentation as classification: boxes cut out of an image, each labelled by how much of it its mask covers.

One decision: a box is positive if the annotated part of it is larger than a share, and negative otherwise (Mormont et al. 2020,
appendix: "if surface of positive annotation was larger than the given value"), so one box with a little less than the share is a
negative that holds some of what is looked for. Labels depend on masks, so every mask is read when the rows are made.

What it costs: one decoding and one summed area per image, 0.2 s for 2000 x 2000 px with two busy cores; four threads share them.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial

import numpy as np

from raypath.benchmarks.cutting.boxes import grid_boxes, image_size, share_inside
from raypath.data.image_files import UNREADABLE
from raypath.data.image_rows import ImageRow
from raypath.data.masks import read_mask
from raypath.errors import BadInput

_NUM_THREADS = 4


def rows_by_area(
    images: Sequence[ImageRow], *, extent_px: int, overlap_px: int, above: float, classes: tuple[str, str]
) -> list[ImageRow]:
    """One row for every box of every image, image by image; `images` have a mask each.

    A box of `extent_px` is labelled `classes[1]` if more than the share `above` of its pixels is not 0 in the mask, else
    `classes[0]`. Raises BadInput for a mask or image that cannot be read, and for an image in which no box fits.
    """
    cut = partial(_cut, extent_px=extent_px, overlap_px=overlap_px, above=above, classes=classes)
    with ThreadPoolExecutor(_NUM_THREADS) as pool:
        return [row for rows in pool.map(cut, images) for row in rows]


def mask_of(row: ImageRow) -> np.ndarray:
    """What is annotated of an image, bool [H, W], nothing where it has no mask.

    Raises BadInput naming the mask (or the image) that cannot be read.
    """
    size = image_size(row.path)
    if row.mask is None:
        return np.zeros(size[::-1], bool)
    try:
        return read_mask(str(row.mask), "binary", size=size).astype(bool)
    except UNREADABLE as error:
        raise BadInput(
            f"{row.mask}: cannot be read as the mask of {row.path.name} ({error}); fetch both again"
        ) from None


def cut_out(row: ImageRow, box: Sequence[int], label: str, suffix: str = "") -> ImageRow:
    """The part of an image as a row of its own, named by the image and its left top corner."""
    left, top, width, height = map(int, box)
    sample = f"{row.sample}@{left}_{top}{suffix}"
    return replace(row, sample=sample, label=label, box=(left, top, width, height), mask=None)


def boxes_of(row: ImageRow, mask: np.ndarray, extent_px: int, stride_px: int) -> np.ndarray:
    """The grid of an image, int64 [N, 4]; raises BadInput if it is smaller than one box."""
    height, width = mask.shape
    boxes = grid_boxes((width, height), extent_px, stride_px)
    if not len(boxes):
        raise BadInput(f"{row.path}: {width} x {height} px; expected at least {extent_px} x {extent_px} px")
    return boxes


def _cut(row: ImageRow, *, extent_px: int, overlap_px: int, above: float, classes: tuple[str, str]) -> list[ImageRow]:
    mask = mask_of(row)
    boxes = boxes_of(row, mask, extent_px, extent_px - overlap_px)
    is_positive = share_inside(mask, boxes) > above
    return [cut_out(row, box, classes[int(positive)]) for box, positive in zip(boxes, is_positive, strict=True)]
