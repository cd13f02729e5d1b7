"""Several indexes as one: tiles of several scales (multi-mpp), or slides of several collections, in one pretraining.

One decision: an index stays one tile specification, and joining them makes no new file. `index=idx-05,idx-10` numbers the rows of
both one after the other, so that plan, stream and reading go on as before; a slide that is in both has two rows and one number in
`slide_numbers`, by which the plan keeps them in one group. Costs nothing per tile.
"""

import hashlib
from functools import lru_cache
from pathlib import Path

import numpy as np

from raypath.data.index import Index
from raypath.errors import BadInput
from raypath.slides import TileGrid, TileSpec


class JoinedIndex:
    """Two or more indexes with the face of one `Index`; `parts` are they, in the order they were named."""

    def __init__(self, parts: list[Index]):
        self.parts = parts
        self.folder = ",".join(str(part.folder) for part in parts)
        self.hash = hashlib.sha256(",".join(part.hash for part in parts).encode()).hexdigest()
        self.num_tiles = np.concatenate([part.num_tiles for part in parts])
        self._starts = np.concatenate([[0], np.cumsum([len(part) for part in parts])])
        self.extent_px = _same_extent(parts)
        self.slide_numbers = _slide_numbers(parts)

    def __len__(self) -> int:
        return len(self.num_tiles)

    @property
    def mpp_range(self) -> tuple[float, float]:
        """The finest and the coarsest um per px of its tiles."""
        scales = [part.spec.mpp for part in self.parts]
        return min(scales), max(scales)

    def column(self, name: str) -> np.ndarray:
        """A per-slide column, [S]; text and missing values as objects."""
        return np.concatenate([part.column(name) for part in self.parts])

    def row(self, slide: int) -> dict:
        """The per-slide values of row number `slide`."""
        part, own = self._at(slide)
        return part.row(own)

    def spec_of(self, slide: int) -> TileSpec:
        """The specification of the tiles of a row."""
        return self._at(slide)[0].spec

    def grid(self, slide: int) -> TileGrid:
        """Where the tiles of a row can lie."""
        part, own = self._at(slide)
        return part.grid(own)

    def corners(self, slide: int, tiles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Top left corners (x_l0, y_l0) of tiles, given by their number within the row."""
        part, own = self._at(slide)
        return part.corners(own, tiles)

    def _at(self, slide: int) -> tuple[Index, int]:
        part = int(np.searchsorted(self._starts, slide, side="right")) - 1
        return self.parts[part], slide - int(self._starts[part])


_SAME = ("sha256", "patient", "split")  # what a slide that is in two indexes must have in common

AnyIndex = Index | JoinedIndex


def load_index(folders: str) -> AnyIndex:
    """The index in a folder, or several as one: `idx-05,idx-10`.

    Raises BadInput for a folder without an index, and for indexes that do not go together: tiles of different extents in pixels
    (a batch has one), the same index twice, or one slide id for two files.
    """
    parts = [Index(Path(folder)) for folder in split_folders(folders)]
    if not parts:
        raise BadInput("index: which one? set index=DIR, made with: raypath index MANIFEST --out DIR")
    return parts[0] if len(parts) == 1 else JoinedIndex(parts)


def split_folders(folders: str) -> list[str]:
    """`idx-05,idx-10` as a list."""
    return [folder.strip() for folder in folders.split(",") if folder.strip()]


@lru_cache(maxsize=4)
def open_index(folders: str, content_hash: str) -> AnyIndex:
    """As `load_index`, once per process; for tasks, which are handed a path and a hash instead of a gigabyte.

    Raises BadInput if the folder now holds another index.
    """
    index = load_index(folders)
    if index.hash != content_hash:
        raise BadInput(f"{folders}: the index changed while it was in use ({content_hash[:12]} -> {index.hash[:12]})")
    return index


def _same_extent(parts: list[Index]) -> int:
    extents = [part.spec.extent_px for part in parts]
    if len(set(extents)) > 1:
        there = ", ".join(f"{part.folder}: {part.spec.extent_px} px" for part in parts)
        raise BadInput(
            f"tiles of one pretraining need one extent in pixels; {there}: make the indexes with one --extent-px"
        )
    return extents[0]


def _slide_numbers(parts: list[Index]) -> np.ndarray:
    """[S] One number per slide, the same in every index it is in."""
    seen: dict[str, tuple[int, tuple, Path]] = {}
    hashes = [part.hash for part in parts]
    twice = next((part.folder for part in parts if hashes.count(part.hash) > 1), None)
    if twice is not None:
        raise BadInput(f"index={twice}: the same index is named twice")
    numbers = []
    for part in parts:
        for name, *own in zip(*(part.column(column) for column in ("slide", *_SAME))):
            number, known, folder = seen.setdefault(name, (len(seen), tuple(own), part.folder))
            for column, ours, theirs in zip(_SAME, known, own):
                if ours != theirs:
                    raise BadInput(
                        f"slide {name!r}: {column} is {ours} in {folder} and {theirs} in {part.folder}: make the indexes from one"
                        " manifest, and give different files different ids"
                    )
            numbers.append(number)
    return np.array(numbers)
