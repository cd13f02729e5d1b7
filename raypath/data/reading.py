"""Reading the tiles of a window: neighbours together, each slide opened once, nothing invented.

One decision: a tile that cannot be read is replaced at its position by another one that the plan names (a function of the
position), and the row says why. So positions never shift, the count of tiles is kept, and every replacement is on record. A
record from an earlier attempt of the same run decides without trying again, so that a resumed run sees the same tiles.
"""

from collections.abc import Iterator, Mapping
from functools import lru_cache

import numpy as np

from raypath.data.joined_index import AnyIndex
from raypath.data.plan import Plan
from raypath.data.staging import local_path
from raypath.errors import TILE_FAULTS, BadInput, SlideError, SlideUnreadable
from raypath.slides import SlideHandles, regions

_NUM_SUBSTITUTES = 32
_OPEN_SLIDES = 64  # handles per process, 6 ms each to open


class SlideTiles:
    """Reads tiles of the slides of one index; `faults` are the errors that cost a tile only, others come through."""

    def __init__(self, index: AnyIndex, faults: tuple[type[SlideError], ...] = TILE_FAULTS[1:]):
        self.index = index
        self.faults = faults
        self.handles = _handles()

    def read(self, slide: int, tiles: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray | int, int]]:
        """Tiles of one slide region by region: (rows, pixels, fault); a region that fails is read tile by tile."""
        x_l0, y_l0 = self.index.corners(slide, tiles)
        extent_l0 = self.index.grid(slide).extent_l0
        for group in regions(x_l0, y_l0, extent_l0):
            try:
                yield group, self.pixels(slide, x_l0[group], y_l0[group]), 0
            except self.faults:
                for one in group:
                    try:
                        yield np.array([one]), self.pixels(slide, x_l0[[one]], y_l0[[one]]), 0
                    except self.faults as error:
                        yield np.array([one]), 0, TILE_FAULTS.index(type(error))

    def pixels(self, slide: int, x_l0: np.ndarray, y_l0: np.ndarray) -> np.ndarray:
        """Tiles of one slide by their corners, uint8 [n, H, W, 3]; raises the SlideError of the first that cannot be read."""
        row, spec = self.index.row(slide), self.index.spec_of(slide)
        path = local_path(row["path"], row["stamp"])
        mtime_ns = row["mtime_ns"] if path == row["path"] else None  # a staged copy has its own
        extent_l0 = self.index.grid(slide).extent_l0
        try:
            with self.handles.lend(path, row["mpp"], size_bytes=row["size_bytes"], mtime_ns=mtime_ns) as opened:
                return opened.read_chunk(x_l0, y_l0, extent_l0, spec.extent_px, max_upsample=spec.max_upsample)
        except OSError as error:
            raise SlideUnreadable(f"{row['path']}: {error}") from None


class WindowReader:
    """Reads tiles of one index in the order of one plan. `known_faults` maps a position to the number of its fault."""

    def __init__(self, index: AnyIndex, plan: Plan, known_faults: Mapping[int, int]):
        self.index = index
        self.plan = plan
        self.known_faults = known_faults
        self.tiles = SlideTiles(index)

    def read(self, positions: np.ndarray) -> dict[str, np.ndarray]:
        """`image` uint8 [N, H, W, 3] with `position`, `slide`, `tile` int64 [N] and `fault` int8 [N] (index into TILE_FAULTS).

        `slide` and `tile` are the plan's own also where another tile was put in its place (fault above 0). `shown` int64 [N] is
        the slide whose pixels a row has, `place` float32 [N, 3] their centre (x, y) and extent in level-0 px.
        """
        slides, tiles = self.plan.samples(positions)
        extent_px = self.index.extent_px
        images = np.empty((len(positions), extent_px, extent_px, 3), np.uint8)
        faults = np.array([self.known_faults.get(p, 0) for p in positions.tolist()], np.int8)
        place = np.empty((len(positions), 3), np.float32)
        for slide in np.unique(slides).tolist():
            rows = np.flatnonzero(slides == slide)
            place[rows] = self._places(slide, tiles[rows])
            rows = rows[faults[rows] == 0]
            rows = rows[np.argsort(tiles[rows], kind="stable")]
            for part in self.tiles.read(slide, tiles[rows]):
                at, pixels, fault = part
                images[rows[at]], faults[rows[at]] = pixels, fault
        shown = slides.copy()
        for row in np.flatnonzero(faults).tolist():
            shown[row], tile, images[row] = self._substitute(int(positions[row]))
            place[row] = self._places(int(shown[row]), np.array([tile]))[0]
        return {
            "image": images,
            "position": positions,
            "slide": slides,
            "tile": tiles,
            "fault": faults,
            "place": place,
            "shown": shown,
        }

    def _places(self, slide: int, tiles: np.ndarray) -> np.ndarray:
        """Centre x, centre y and extent (level-0 px) of tiles of one slide, float32 [n, 3]."""
        extent_l0 = self.index.grid(slide).extent_l0
        centres = np.stack(self.index.corners(slide, tiles), 1) + extent_l0 / 2
        return np.concatenate([centres, np.full((len(tiles), 1), extent_l0)], 1).astype(np.float32)

    def _substitute(self, position: int) -> tuple[int, int, np.ndarray]:
        for slide, tile in zip(*self.plan.substitutes(position, _NUM_SUBSTITUTES)):
            x_l0, y_l0 = self.index.corners(int(slide), np.array([tile]))
            try:
                return int(slide), int(tile), self.tiles.pixels(int(slide), x_l0, y_l0)[0]
            except SlideError as error:
                last = error
        again = " and ".join(f"raypath index {part.folder / 'manifest.csv'}" for part in self.index.parts)
        raise BadInput(
            f"{self.index.folder}: {_NUM_SUBSTITUTES} tiles in a row cannot be read, nothing can stand at position"
            f" {position}; the last one: {type(last).__name__}: {last}; mend that, or index the slides as they are now: {again}"
        )


@lru_cache(maxsize=1)
def _handles() -> SlideHandles:
    """One set of open slides per process, shared by all windows it reads."""
    return SlideHandles(_OPEN_SLIDES)
