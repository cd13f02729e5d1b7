"""One slide on disk: its size, its um per px, and the pixels of any square of it.

`read` takes the coarsest level that is still as fine as the target, cuts the square, and resizes it with antialiasing, so a
tile at 0.5 um per px from a 0.25 slide has the frequencies of a 0.5 scan and no more. The one decision: a square is snapped
to whole pixels of the level it is read from (left = round(x_l0 / downsample), side = round(extent_l0 / downsample)). This
moves it by at most half a pixel of that level, and in return a tile has the same pixels whether it is read alone or in a
chunk.

OpenSlide takes positions in level-0 pixels only and interpolates where they fall between the pixels of a level. With a
downsample of 4.0002, as floor-halved pyramids have, no position is exact; such a level is read tile by tile, each with a
blur of at most 0.5 / downsample of its pixels. Level 0, and levels of whole downsample, are exact and read by region.

No pixel is invented: a tile with transparent pixels, or one that cannot be decoded, is an error. The ICC profile is not
applied and leaves with no array. After an error the file is opened anew, for OpenSlide's error state is terminal. Costs
in CPU ms per tile of 256 px: JPEG 1.3 to 2.1 alone and in a chunk, JPEG 2000 7 alone and 4 in a chunk; 800 -> 512 px 13.
"""

from pathlib import Path

import numpy as np
import openslide

from raypath.errors import SlideChanged, SlideTooCoarse, SlideUnsupported, TileCorrupt, TileMissing
from raypath.slides.header import read_magic, stat_slide
from raypath.slides.mpp import native_mpp, objective_power
from raypath.slides.resize import resize
from raypath.slides.thumbnail import make_thumbnail
from raypath.slides.tiles import regions

MAX_UPSAMPLE = 1.3
LEVEL_TOLERANCE = 1.01  # a level 1 % coarser than the target still serves it: 64.38 for 64
SOLID_ALPHA = 250  # seams of tiles painted between pixels come out at 253 or 254; a missing tile at 0


class Slide:
    """An open slide; a context manager. Not for several threads, nor across processes (see `SlideHandles`)."""

    def __init__(self, path: str, handle: openslide.OpenSlide, mpp: float, mpp_source: str):
        self.path, self.mpp, self.mpp_source = path, mpp, mpp_source
        self._handle: openslide.OpenSlide | None = handle
        self._stamp = _stamp(path)
        self.size_l0: tuple[int, int] = handle.dimensions
        self.vendor: str = handle.properties.get("openslide.vendor", "unknown")
        self.objective_power = objective_power(handle.properties)
        # the left top corner of what was scanned, where the whole slide is larger (MIRAX, SCN): some programs count from there
        self.seen_from_l0 = tuple(int(handle.properties.get(f"openslide.bounds-{axis}", 0)) for axis in "xy")
        self.level_downsamples: tuple[float, ...] = handle.level_downsamples
        self.level_sizes: tuple[tuple[int, int], ...] = handle.level_dimensions

    @classmethod
    def open(cls, path: str | Path, mpp: float | None = None) -> "Slide":
        """Open a slide that `check_slide` has found sound (a malformed one can kill the process).

        `mpp`, um per px of level 0, overrides the file. Raises SlideMissing, SlidePermission, SlideEmpty,
        SlideUnsupported, SlideMppMissing, SlideMppImplausible.
        """
        path = str(path)
        magic = read_magic(path)
        handle = _open(path, magic)
        try:
            value, source = native_mpp(path, handle.properties, mpp)
            return cls(path, handle, value, source)
        except BaseException:
            handle.close()
            raise

    def read(
        self, x_l0: int, y_l0: int, extent_l0: int, extent_px: int, *, max_upsample: float = MAX_UPSAMPLE
    ) -> np.ndarray:
        """The square of side `extent_l0` with top left corner (x_l0, y_l0), as uint8 [extent_px, extent_px, 3].

        Raises TileCorrupt, TileMissing, SlideTooCoarse (extent_px above `max_upsample` * extent_l0), and ValueError for a
        square that is not wholly inside the slide.
        """
        return self.read_chunk([x_l0], [y_l0], extent_l0, extent_px, max_upsample=max_upsample)[0]

    def read_chunk(
        self, xs_l0, ys_l0, extent_l0: int, extent_px: int, *, max_upsample: float = MAX_UPSAMPLE
    ) -> np.ndarray:
        """N squares at once, uint8 [N, extent_px, extent_px, 3]: the pixels of `read`, bit for bit.

        Neighbours (`tiles.regions`) share one read of their bounding box. An error names one tile and fails all N.
        """
        xs_l0, ys_l0 = np.asarray(xs_l0, np.int64), np.asarray(ys_l0, np.int64)
        self._require_inside(xs_l0, ys_l0, extent_l0)
        if extent_px > max_upsample * (extent_l0 + 0.5):
            raise SlideTooCoarse(
                f"{self.path}: {extent_l0} px of level 0 cannot give {extent_px} px (upsampling {extent_px / extent_l0:.2f}, "
                f"allowed {max_upsample:.2f}); read at a larger mpp"
            )
        tiles = np.empty((len(xs_l0), extent_px, extent_px, 3), np.uint8)
        level = self.best_level(extent_l0 / extent_px)
        left, top, side = self._level_squares(level, xs_l0, ys_l0, extent_l0)
        is_exact = self.level_downsamples[level].is_integer()
        groups = regions(left, top, side) if is_exact else [np.array([i]) for i in range(len(left))]
        for group in groups:
            tiles[group] = resize(self._crops(level, left[group], top[group], side), extent_px)
        return tiles

    def thumbnail(self, mpp: float) -> np.ndarray:
        """The whole slide at about `mpp` um per px, uint8 [h, w, 3]; see `thumbnail.make_thumbnail`."""
        return make_thumbnail(self, mpp)

    def best_level(self, downsample: float) -> int:
        """The coarsest level that is not coarser than `downsample` level-0 pixels per pixel."""
        return max(i for i, d in enumerate(self.level_downsamples) if i == 0 or d <= downsample * LEVEL_TOLERANCE)

    def whole_level(self, downsample: float) -> int:
        """As `best_level`, of the levels of whole downsample: there OpenSlide gives stored pixels and mixes none (for masks)."""
        return max(i for i, d in enumerate(self.level_downsamples) if i == 0 or (d.is_integer() and d <= downsample))

    def read_level(self, level: int, left: int, top: int, width: int, height: int) -> np.ndarray:
        """A rectangle in pixels of `level` as OpenSlide gives it, uint8 RGBA [height, width, 4]; raises TileCorrupt."""
        downsample, (level_width, level_height) = self.level_downsamples[level], self.level_sizes[level]
        x_l0 = _location_l0(left, left + width == level_width, downsample)
        y_l0 = _location_l0(top, top + height == level_height, downsample)
        try:
            return np.asarray(self._openslide().read_region((x_l0, y_l0), level, (width, height)))
        except openslide.OpenSlideError as error:
            self.close()
            raise TileCorrupt(
                f"{self.path}: cannot decode {width} x {height} px of level {level} at x_l0 = {x_l0}, y_l0 = {y_l0} ({error})"
            ) from None

    @property
    def is_open(self) -> bool:
        """Whether OpenSlide holds the file; after an error or `close` it does not, until the next read."""
        return self._handle is not None

    def close(self) -> None:
        """Let go of the file; a later read opens it again, if it is still the same."""
        if self._handle is not None:
            self._handle.close()
            self._handle = None

    def __enter__(self) -> "Slide":
        return self

    def __exit__(self, *_exception) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Slide({self.path!r}, size_l0={self.size_l0}, mpp={self.mpp:.4g} from {self.mpp_source})"

    def _openslide(self) -> openslide.OpenSlide:
        if self._handle is None:
            if _stamp(self.path) != self._stamp:
                raise SlideChanged(f"{self.path}: is no longer the file that was opened; index the slide again")
            self._handle = _open(self.path, b"")
        return self._handle

    def _require_inside(self, xs_l0: np.ndarray, ys_l0: np.ndarray, extent_l0: int) -> None:
        width, height = self.size_l0
        outside = (xs_l0 < 0) | (ys_l0 < 0) | (xs_l0 + extent_l0 > width) | (ys_l0 + extent_l0 > height)
        if extent_l0 < 1 or outside.any():
            i = int(outside.argmax())
            raise ValueError(
                f"{self.path}: the square at x_l0 = {xs_l0[i]}, y_l0 = {ys_l0[i]} of {extent_l0} px is not inside the slide "
                f"of {width} x {height} px"
            )

    def _level_squares(self, level: int, xs_l0: np.ndarray, ys_l0: np.ndarray, extent_l0: int):
        """Corners and side in whole pixels of `level`."""
        downsample, (width, height) = self.level_downsamples[level], self.level_sizes[level]
        side = min(max(1, round(extent_l0 / downsample)), width, height)
        left = np.minimum(np.floor(xs_l0 / downsample + 0.5).astype(np.int64), width - side)
        top = np.minimum(np.floor(ys_l0 / downsample + 0.5).astype(np.int64), height - side)
        return left, top, side

    def _crops(self, level: int, left: np.ndarray, top: np.ndarray, side: int) -> np.ndarray:
        """Squares of one level from one read of their bounding box, uint8 [N, side, side, 3]."""
        x, y = int(left.min()), int(top.min())
        box = self.read_level(level, x, y, int(left.max()) - x + side, int(top.max()) - y + side)
        crops = np.empty((len(left), side, side, 3), np.uint8)
        for i, (column, row) in enumerate(zip(left - x, top - y)):
            square = box[row : row + side, column : column + side]
            if square[..., 3].min() < SOLID_ALPHA:
                downsample = self.level_downsamples[level]
                raise TileMissing(
                    f"{self.path}: the slide has no pixels inside the tile at x_l0 = {round(left[i] * downsample)}, "
                    f"y_l0 = {round(top[i] * downsample)}"
                )
            crops[i] = square[..., :3]
        return crops


def _location_l0(start_px: int, reaches_edge: bool, downsample: float) -> int:
    """The level-0 position nearest to a pixel of a level; at the far edge not beyond it, where there are no pixels."""
    location = round(start_px * downsample)
    return location - 1 if reaches_edge and location / downsample > start_px else location


def _open(path: str, magic: bytes) -> openslide.OpenSlide:
    try:
        return openslide.OpenSlide(path)
    except openslide.OpenSlideUnsupportedFormatError:
        raise SlideUnsupported(
            f"{path}: OpenSlide knows no such slide; the file begins with {magic!r} (a TIFF begins with II*, MM*, II+ or MM+)"
        ) from None
    except openslide.OpenSlideError as error:
        raise SlideUnsupported(f"{path}: OpenSlide cannot open it ({error})") from None


def _stamp(path: str) -> tuple[int, int, int]:
    found = stat_slide(path)
    return found.st_size, found.st_mtime_ns, found.st_ino
