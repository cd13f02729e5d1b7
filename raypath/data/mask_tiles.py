"""The classes of the pixels of one tile, from the mask TIFF of its slide: the counterpart of a tile's colours.

One decision: class numbers are taken and never mixed. Every pixel of a tile asks the mask at its own centre (nearest neighbour), at
the coarsest level that is as fine as the tile and whose downsample is whole, because elsewhere OpenSlide interpolates. The first
channel counts (PANDA). Where a mask stores no tile it says nothing, and nothing is class 0: background or unknown.

What it costs: as a tile of the slide; level 0 is read where no coarser level is whole.
"""

from collections.abc import Mapping

import numpy as np

from raypath.data.staging import local_path
from raypath.slides import SlideHandles


def read_mask_tile(
    handles: SlideHandles, row: Mapping, extent_px: int, *, num_classes: int | None = None
) -> np.ndarray:
    """Classes uint8 [extent_px, extent_px] of one row of TILE_SCHEMA (its `mask`, `slide_mpp`, `x_l0`, `y_l0`, `extent_l0`).

    Raises one of `image_files.UNREADABLE`: SlideError for a mask that cannot be opened or decoded, ValueError for a tile that is
    not inside it, and for a class number of `num_classes` or more.
    """
    x_l0, y_l0, extent_l0 = row["x_l0"], row["y_l0"], row["extent_l0"]
    with handles.lend(local_path(row["mask"]), row["slide_mpp"]) as mask:
        width, height = mask.size_l0
        if min(x_l0, y_l0) < 0 or x_l0 + extent_l0 > width or y_l0 + extent_l0 > height:
            raise ValueError(
                f"{row['mask']}: the tile at x_l0 = {x_l0}, y_l0 = {y_l0} of {extent_l0} px is not inside the mask of "
                f"{width} x {height} px"
            )
        level = mask.whole_level(extent_l0 / extent_px)
        centres = (np.arange(extent_px) + 0.5) * extent_l0 / extent_px  # of the tile's pixels, from its corner
        columns, rows = (
            np.minimum((start + centres) // mask.level_downsamples[level], side - 1).astype(np.int64)
            for start, side in zip((x_l0, y_l0), mask.level_sizes[level])
        )
        left, top = int(columns[0]), int(rows[0])
        box = mask.read_level(level, left, top, int(columns[-1]) - left + 1, int(rows[-1]) - top + 1)
    return class_numbers(box, row["mask"], num_classes)[np.ix_(rows - top, columns - left)]


def class_numbers(rgba: np.ndarray, path: str, num_classes: int | None) -> np.ndarray:
    """The first channel of RGBA uint8 [H, W, 4]; ValueError for a number of `num_classes` or more."""
    numbers = rgba[..., 0]
    if num_classes is not None and numbers.size and numbers.max() >= num_classes:
        raise ValueError(
            f"{path}: has the value {numbers.max()}; expected class numbers of 0 to {num_classes - 1} in the first channel (was it "
            "compressed with losses?)"
        )
    return numbers
