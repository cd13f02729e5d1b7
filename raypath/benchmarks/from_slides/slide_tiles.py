"""The tiles of slides that a benchmark can choose from: where there is tissue, as numbers and no pixels.

One decision: an index of the same slides (`raypath index`) is taken where one is named, because it has checked every slide, found
its tissue and hashed its bytes once; without one that is done here, every time. Both find the same tiles.

What it costs: without an index a thumbnail and one pass over the bytes of every slide, in four threads (1 GB in about a second);
with one, a `stat` of every slide.
"""

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from raypath.benchmarks.from_slides.label_rules import squares_at
from raypath.benchmarks.splits.making import keyed
from raypath.data.hidden_files import is_hidden
from raypath.data.index import Index
from raypath.data.manifest import SLIDE_SUFFIXES
from raypath.data.permutation import derive_key, permute
from raypath.errors import BadInput
from raypath.hashing import file_sha256
from raypath.slides import Slide, TileGrid, TileSpec, tissue_fractions, tissue_mask
from raypath.slides.handles import require_same
from raypath.slides.tissue import THUMBNAIL_MPP

NUM_THREADS = 4
MAX_LISTED = 10


@dataclass(frozen=True, eq=False)
class SlideTiles:
    """N tiles of one slide, row by row from its top left corner."""

    slide: str
    """The id: the name of the file without its suffix."""
    path: str
    mpp: float
    """um per level-0 px."""
    size_l0: tuple[int, int]
    extent_l0: int
    x_l0: np.ndarray
    y_l0: np.ndarray
    sha256: str

    def __len__(self) -> int:
        return len(self.x_l0)

    @property
    def samples(self) -> list[str]:
        """The id of every tile."""
        return [f"{self.slide}/{x}-{y}" for x, y in zip(self.x_l0.tolist(), self.y_l0.tolist())]

    @property
    def boxes(self) -> np.ndarray:
        """int64 [N, 4]: left, top, width, height in level-0 px, as `cutting` and `label_rules` want them."""
        return squares_at(self.x_l0, self.y_l0, self.extent_l0)

    def kept(self, which: np.ndarray) -> "SlideTiles":
        """The tiles of a mask or of ascending numbers."""
        return replace(self, x_l0=self.x_l0[which], y_l0=self.y_l0[which])


def slides_below(folder: Path) -> list[Path]:
    """The slides in a folder and its subfolders, sorted."""
    found = (p for p in folder.rglob("*") if p.suffix.lower() in SLIDE_SUFFIXES and not is_hidden(p, folder))
    return sorted(p for p in found if p.is_file())


def find_tiles(
    paths: Sequence[Path], spec: TileSpec, *, slide_mpp: float | None = None, index: str = ""
) -> list[SlideTiles]:
    """The tissue tiles of each slide, in the order of `paths`; with `spec.min_tissue` 0 every tile that fits.

    `slide_mpp` is taken for all slides in place of what their files say; `index` is the folder of an index with the same `spec`.
    Raises a SlideError for a slide that cannot be used, BadInput for one that the index does not have.
    """
    twice = [name for name, count in Counter(path.stem for path in paths).items() if count > 1]
    if twice:
        raise BadInput(f"{paths[0].parent}: two slides have the same name ({listed(twice)}); expected every slide once")
    if index:
        return _indexed(paths, spec, Index(Path(index)))
    with ThreadPoolExecutor(NUM_THREADS) as pool:
        return list(pool.map(lambda path: _tiles_of(path, spec, slide_mpp), paths))


def draw(tiles: SlideTiles, most: int, seed: int) -> SlideTiles:
    """At most `most` of the tiles, drawn by a key of (seed, slide): fewer are a part of more."""
    if len(tiles) <= most:
        return tiles
    key = derive_key(seed, int.from_bytes(keyed(0, "tiles", tiles.slide)[:8], "big"))
    return tiles.kept(np.sort(permute(np.arange(most), len(tiles), key)))


def listed(names: Sequence[str]) -> str:
    """The first names, and how many there are more."""
    more = f" and {len(names) - MAX_LISTED} more" if len(names) > MAX_LISTED else ""
    return ", ".join(names[:MAX_LISTED]) + more


def _tiles_of(path: Path, spec: TileSpec, slide_mpp: float | None) -> SlideTiles:
    with Slide.open(path, slide_mpp) as slide:
        spec.require_fine(str(path), slide.mpp)
        grid = TileGrid.of(slide.size_l0, slide.mpp, spec)
        cells = np.arange(grid.num_cells)
        if spec.min_tissue > 0:
            fractions = tissue_fractions(tissue_mask(slide.thumbnail(THUMBNAIL_MPP), THUMBNAIL_MPP), grid)
            cells = np.flatnonzero(fractions.reshape(-1) >= spec.min_tissue)
        return _slide_tiles(path, slide.mpp, grid, cells, file_sha256(path))


def _indexed(paths: Sequence[Path], spec: TileSpec, index: Index) -> list[SlideTiles]:
    if index.spec != spec:
        raise BadInput(f"{index.folder}: has tiles of {index.spec}; expected {spec}: make an index with these settings")
    numbers = {path: number for number, path in enumerate(index.slides["path"].to_pylist())}
    absent = [path for path in paths if str(path.absolute()) not in numbers]
    if absent:
        raise BadInput(
            f"{index.folder}: does not have {len(absent)} of {len(paths)} slides ({listed([p.name for p in absent])}); see its "
            "quarantine.jsonl, and move what cannot be used out of the folder"
        )
    found = []
    for path in paths:
        row = index.row(numbers[str(path.absolute())])
        require_same(path, row["size_bytes"], row["mtime_ns"])
        cells = np.sort(index.cells(numbers[str(path.absolute())]))
        grid = TileGrid.of((row["width_l0"], row["height_l0"]), row["mpp"], spec)
        found.append(_slide_tiles(path, row["mpp"], grid, cells, row["sha256"]))
    return found


def _slide_tiles(path: Path, mpp: float, grid: TileGrid, cells: np.ndarray, sha256: str) -> SlideTiles:
    x_l0, y_l0 = grid.corners(cells)
    return SlideTiles(path.stem, str(path.absolute()), mpp, grid.size_l0, grid.extent_l0, x_l0, y_l0, sha256)
