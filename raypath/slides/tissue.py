"""Where on a slide there is tissue: a mask from a thumbnail, and the share of tissue in every tile.

The one decision: H&E tissue is what takes up *green* light. The optical density of green (against the white of this very
slide) separates pale frozen sections and dense ones from glass alike; Otsu's threshold on its square root, where the
two groups are about equally wide, is held within 0.05 to 0.09, so that a blank slide has no tissue and a dense one keeps its
pale parts. Ink is told by its hue, as ratios of optical densities, which do not change where it fades: blue and green pens
take up more red than green light, black pens and dust take up all alike, red pens as much blue as green. Purple ink is not
told from hematoxylin.

Costs: 1 s for a thumbnail of 2500 x 2500 px, 0.2 s for the fractions of a million tiles. Needs scipy, at first use.
"""

import numpy as np

from raypath.slides.tiles import TileGrid

TISSUE_VERSION = 2  # raise it when a slide may get another mask: indexes then make their parts anew
THUMBNAIL_MPP = 8.0  # um per px at which the index looks for tissue
SMOOTH_UM = 16.0  # about two nuclei: noise and empty cells vanish, tissue edges stay
MIN_DENSITY, MAX_DENSITY = 0.05, 0.09  # bounds of the threshold; glass with its halos of dye stays below 0.08
DARKEST_WHITE = 205  # a slide without any glass must not call its palest tissue white
HOLE_UM2 = 200.0 * 200.0  # no tile of the papers fits into a smaller hole
SPECK_UM2 = 100.0 * 100.0
INK_REACH_UM = 40.0  # the faded rim of a stroke


def tissue_mask(thumbnail: np.ndarray, mpp: float) -> np.ndarray:
    """Tissue in a thumbnail uint8 [h, w, 3] of `mpp` um per px (4 to 16, best at 8), as bool [h, w].

    Pen strokes, dust and shadows are left out, holes below 0.04 mm2 filled, specks below 0.01 mm2 removed. Background that
    reaches the slide's border is no hole, however small.
    """
    from scipy import ndimage

    if thumbnail.dtype != np.uint8 or thumbnail.ndim != 3 or thumbnail.shape[-1] != 3:
        raise ValueError(f"tissue_mask takes uint8 [h, w, 3], not {thumbnail.dtype} {list(thumbnail.shape)}")
    sigma = SMOOTH_UM / mpp
    density = ndimage.gaussian_filter(optical_density(thumbnail), (sigma, sigma, 0))
    green = density[..., 1]
    ink = _drop_small(_is_ink(density), SPECK_UM2 / mpp**2)
    reach = max(1, round(INK_REACH_UM / mpp))
    ink = ndimage.binary_dilation(ink, iterations=reach) if ink.any() else ink
    mask = (green > density_threshold(green[~ink])) & ~ink
    filled = ~_drop_small(~mask, HOLE_UM2 / mpp**2) & ndimage.binary_fill_holes(mask)
    return _drop_small((mask | filled) & ~ink, SPECK_UM2 / mpp**2)


def optical_density(rgb: np.ndarray) -> np.ndarray:
    """-log10 of transmitted light per channel, float32 [h, w, 3]; 0 where as bright as the slide's own white."""
    white = np.percentile(rgb.reshape(-1, 3), 98, axis=0).clip(DARKEST_WHITE, 255)
    table = -np.log10((np.arange(256)[:, None] + 1) / (white + 1)).astype(np.float32)
    return np.stack([table[rgb[..., channel], channel] for channel in range(3)], axis=-1)


def density_threshold(green: np.ndarray) -> float:
    """Otsu's threshold of sqrt(green optical density), within [MIN_DENSITY, MAX_DENSITY]."""
    counts, edges = np.histogram(np.sqrt(green.clip(0, 1)), 256, (0, 1))
    centres = (edges[1:] + edges[:-1]) / 2
    below, moment = np.cumsum(counts), np.cumsum(counts * centres)
    above = below[-1] - below
    between = (moment[-1] * below - moment * below[-1]) ** 2 / np.maximum(1, below * above)
    return float(np.clip(centres[between.argmax()] ** 2, MIN_DENSITY, MAX_DENSITY))


def _is_ink(density: np.ndarray) -> np.ndarray:
    """Pens, dust and shadows by hue; the bounds lie outside of what real H&E slides show (99.9 % of their pixels)."""
    red, green, blue = np.moveaxis(density, -1, 0)
    darkest, lightest = density.max(-1), density.min(-1)
    is_neutral = (darkest > MIN_DENSITY) & (darkest - lightest < 0.12 * darkest)
    is_blue_or_green = (red > 0.15) & (red > 1.25 * green)
    is_red = (green > 0.5) & (blue > 0.72 * green) & (red < 0.3 * green)
    return is_neutral | is_blue_or_green | is_red


def _drop_small(mask: np.ndarray, min_px: float) -> np.ndarray:
    """The connected parts of `mask` with at least `min_px` pixels."""
    from scipy import ndimage

    labels, _ = ndimage.label(mask)
    is_large = np.bincount(labels.ravel()) >= min_px
    is_large[0] = False
    return is_large[labels]


def tissue_fractions(mask: np.ndarray, grid: TileGrid) -> np.ndarray:
    """Share of tissue in every cell of `grid`, float32 [num_rows, num_columns], 0 to 1.

    `mask` bool [h, w] covers the whole slide. Exact for tiles that cut mask pixels, by a summed-area table.
    """
    width_l0, height_l0 = grid.size_l0
    height, width = mask.shape
    table = np.zeros((height + 1, width + 1))
    table[1:, 1:] = mask.cumsum(0, dtype=np.float64).cumsum(1)
    # the table at the tiles' edges, first along y, then along x: row sums become [num_rows, num_columns]
    bands = _between_edges(table, grid.num_rows, grid.stride_l0, grid.extent_l0, height / height_l0)
    sums = _between_edges(bands.T, grid.num_columns, grid.stride_l0, grid.extent_l0, width / width_l0).T
    area = (grid.extent_l0 * height / height_l0) * (grid.extent_l0 * width / width_l0)
    return (sums / area).clip(0, 1).astype(np.float32)


def _between_edges(table: np.ndarray, count: int, stride_l0: int, extent_l0: int, scale: float) -> np.ndarray:
    """Differences of `table` [n + 1, m] between start and end of `count` intervals along axis 0 -> [count, m]."""
    start = np.arange(count) * stride_l0 * scale
    return _at(table, start + extent_l0 * scale) - _at(table, start)


def _at(table: np.ndarray, position: np.ndarray) -> np.ndarray:
    """Linear interpolation of `table` along axis 0."""
    low = np.minimum(position.astype(np.int64), len(table) - 2)
    weight = (position - low)[:, None]
    return table[low] * (1 - weight) + table[low + 1] * weight
