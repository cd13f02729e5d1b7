"""Masks of whole slides as TIFF: a pyramid whose pixels are class numbers (PANDA: the first channel of RGB).

One decision: a mask has the extent of its slide, so a tile lies at the same level-0 place in both; another extent is refused,
because an offset would have to be guessed. The share of every class in a tile is counted at a level of whole downsample (1, 2, 3,
...), for elsewhere OpenSlide interpolates, and there are no classes between two classes. Shares choose tiles; the labels of pixels
are read by `raypath.data.mask_tiles`.

What it costs: one pass over that level, a row of tiles at a time.
"""

from pathlib import Path

import numpy as np

from raypath.data.mask_tiles import class_numbers
from raypath.errors import BadInput, SlideError
from raypath.slides import Slide, TileGrid

MAX_DOWNSAMPLE = 8  # at 0.5 um per px a pixel of 4 um: finer than a gland's wall


def mask_shares(path: Path, slide_mpp: float, grid: TileGrid, num_classes: int) -> np.ndarray:
    """The part of every tile that each class covers, float64 [num_cells, num_classes], in the order of the grid's cells.

    `slide_mpp` is that of the slide: masks seldom say it. Raises BadInput for a mask that cannot be opened, is of another extent
    than the slide, or has other values than 0 to num_classes - 1.
    """
    try:
        with Slide.open(path, mpp=slide_mpp) as mask:
            if mask.size_l0 != grid.size_l0:
                raise BadInput(
                    f"{path}: {mask.size_l0[0]} x {mask.size_l0[1]} px, but its slide has {grid.size_l0[0]} x "
                    f"{grid.size_l0[1]}; expected the mask of this slide at level 0"
                )
            return _shares(mask, grid, num_classes)
    except (SlideError, ValueError) as error:
        raise BadInput(f"{error}; expected a mask (TIFF with class numbers)") from None


def _shares(mask: Slide, grid: TileGrid, num_classes: int) -> np.ndarray:
    level = mask.whole_level(MAX_DOWNSAMPLE)
    downsample = int(mask.level_downsamples[level])
    level_width, level_height = mask.level_sizes[level]
    shares = np.empty((grid.num_rows, grid.num_columns, num_classes))
    lefts = np.arange(grid.num_columns) * grid.stride_l0 // downsample
    side = max(1, grid.extent_l0 // downsample)
    for row in range(grid.num_rows):
        top = row * grid.stride_l0 // downsample
        values = mask.read_level(level, 0, top, level_width, min(side, level_height - top))
        classes = class_numbers(values, mask.path, num_classes)
        # class counts of the columns, summed from the left: a tile is the difference of two of them
        counts = np.stack([(classes == number).sum(axis=0) for number in range(num_classes)], axis=1)
        sums = np.concatenate([np.zeros((1, num_classes)), counts.cumsum(axis=0)])
        inside = sums[np.minimum(lefts + side, level_width)] - sums[lefts]
        shares[row] = inside / inside.sum(axis=1, keepdims=True)
    return shares.reshape(grid.num_cells, num_classes)
