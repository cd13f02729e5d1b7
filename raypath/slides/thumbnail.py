"""A small picture of a whole slide, for finding tissue and for people; never a source of tiles.

The one decision: it is made from the pyramid itself, not from the associated thumbnail (which may be of another scale,
stale, or next to a label with a name on it). Strips of the best level are shrunk by whole factors as they are read, so that
a slide with one level of 100,000 px fits in 64 MB, and a last antialiased resize gives the exact size. Areas without pixels,
and blocks that cannot be decoded, become white: here, and only here, because white is what holds no tissue.
"""

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from raypath.errors import TileCorrupt

if TYPE_CHECKING:
    from raypath.slides.slide import Slide

STRIP_BYTES = 64 * 2**20
BLOCK_PX = 512  # where a strip cannot be decoded, its blocks of this side are tried one by one


def make_thumbnail(slide: "Slide", mpp: float) -> np.ndarray:
    """The slide at about `mpp` um per px, uint8 [h, w, 3] with h = round(height_l0 * native mpp / mpp), w alike.

    Raises ValueError for an mpp finer than level 0, TileCorrupt when no block of the level can be decoded.
    """
    downsample = mpp / slide.mpp
    if downsample < 1:
        raise ValueError(f"{slide.path}: a thumbnail at {mpp:g} um per px is finer than level 0 ({slide.mpp:g})")
    level = slide.best_level(downsample)
    shrink = max(1, int(downsample / slide.level_downsamples[level]))
    width, height = slide.level_sizes[level]
    rows = max(1, STRIP_BYTES // (4 * width * shrink)) * shrink
    strips = [_strip(slide, level, top, min(rows, height - top), shrink) for top in range(0, height, rows)]
    if all(strip is None for strip in strips):
        raise TileCorrupt(f"{slide.path}: no part of level {level} can be decoded")
    blank = [strip is None for strip in strips]
    for i in np.flatnonzero(blank):
        num_rows = -(-min(rows, height - int(i) * rows) // shrink)
        strips[i] = np.full((num_rows, -(-width // shrink), 3), 255, np.uint8)
    size_px = tuple(max(1, round(side / downsample)) for side in slide.size_l0)
    picture = Image.fromarray(np.concatenate(strips))
    covered = (0, 0, width / shrink, height / shrink)  # the last row and column may hold fewer than `shrink` pixels
    return np.array(picture.resize(size_px, Image.Resampling.BILINEAR, box=covered))


def _strip(slide: "Slide", level: int, top: int, height: int, shrink: int) -> np.ndarray | None:
    """Rows of a level on white, shrunk by a whole factor; None when nothing of them can be decoded."""
    width = slide.level_sizes[level][0]
    try:
        rgba = slide.read_level(level, 0, top, width, height)
    except TileCorrupt:
        rgba = _blocks(slide, level, top, width, height)
        if rgba is None:
            return None
    return np.asarray(Image.fromarray(_on_white(rgba)).reduce(shrink))


def _blocks(slide: "Slide", level: int, top: int, width: int, height: int) -> np.ndarray | None:
    """The same rows in blocks, those that cannot be decoded transparent."""
    rgba, is_readable = np.zeros((height, width, 4), np.uint8), False
    for y in range(0, height, BLOCK_PX):
        for x in range(0, width, BLOCK_PX):
            rows, columns = min(BLOCK_PX, height - y), min(BLOCK_PX, width - x)
            try:
                rgba[y : y + rows, x : x + columns] = slide.read_level(level, x, top + y, columns, rows)
                is_readable = True
            except TileCorrupt:
                continue
    return rgba if is_readable else None


def _on_white(rgba: np.ndarray) -> np.ndarray:
    alpha = rgba[..., 3:]
    if alpha.min() == 255:
        return np.ascontiguousarray(rgba[..., :3])
    weight = alpha.astype(np.uint16)
    return ((rgba[..., :3] * weight + 255 * (255 - weight) + 127) // 255).astype(np.uint8)
