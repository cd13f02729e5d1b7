"""The index: the tiles of every slide, as numbers and no pixels.

One decision: one row per slide. Its kept tiles are grid cells (uint32) along a Morton curve with their tissue fractions, about
24 KB a slide, so 170k slides with 1.3e9 tiles are 4 GB of Parquet read by row group, and a driver holds counts only.

An index is a folder:

    index.parquet     one row per slide (SCHEMA)
    index.json        tile specification, hash, counts
    quarantine.jsonl  slides set aside, with the reason
    manifest.csv      the slides that were asked for
    slides/           one part per slide while it is made; a re-run takes a part whose slide and settings are unchanged

How it is made stands in `indexing`.
"""

import hashlib
import json
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from raypath.errors import BadInput
from raypath.slides import TileGrid, TileSpec

SCHEMA = pa.schema(
    {
        "slide": pa.string(),
        "path": pa.string(),
        "patient": pa.string(),
        "site": pa.string(),
        "label": pa.string(),
        "split": pa.string(),
        "size_bytes": pa.int64(),
        "mtime_ns": pa.int64(),
        "stamp": pa.string(),  # the version of a remote object; none for a local file
        "sha256": pa.string(),
        "vendor": pa.string(),
        "width_l0": pa.int64(),
        "height_l0": pa.int64(),
        "mpp": pa.float64(),
        "mpp_source": pa.string(),
        "upsample": pa.float64(),  # native mpp / tile mpp: above 1 the pixels are interpolated
        "num_tiles": pa.int64(),
        "cells": pa.list_(pa.uint32()),
        "tissue": pa.list_(pa.float16()),
    }
)
_PER_TILE = ("cells", "tissue")


class Index:
    """An index on disk; columns with one value per slide are in memory, tiles are read when asked for."""

    def __init__(self, folder: Path):
        self.folder = Path(folder)
        try:
            about = json.loads((self.folder / "index.json").read_text())
            self._file = pq.ParquetFile(self.folder / "index.parquet")
        except (OSError, ValueError, pa.ArrowInvalid) as error:
            raise BadInput(
                f"{self.folder}: no finished index here ({error}); make one with: raypath index MANIFEST --out DIR"
            ) from None
        missing = set(SCHEMA.names) - set(self._file.schema_arrow.names)
        if missing:
            raise BadInput(
                f"{self.folder}: an index of another version, without {', '.join(sorted(missing))}; make it again with: raypath"
                f" index {self.folder / 'manifest.csv'} --out {self.folder}"
            )
        self.hash: str = about["hash"]
        self.spec = TileSpec(**about["spec"])
        self.slides: pa.Table = self._file.read(columns=[c for c in SCHEMA.names if c not in _PER_TILE])
        self.num_tiles: np.ndarray = self.column("num_tiles")
        self._group_of = np.concatenate(
            [np.full(self._file.metadata.row_group(g).num_rows, g) for g in range(self._file.num_row_groups)] or [[]]
        ).astype(np.int64)
        self._group = lru_cache(maxsize=8)(self._read_group)
        self._corners = lru_cache(maxsize=256)(self._read_corners)
        self.row = lru_cache(maxsize=4096)(self._row)
        self.grid = lru_cache(maxsize=4096)(self._grid)

    def __len__(self) -> int:
        return len(self.num_tiles)

    @property
    def parts(self) -> list["Index"]:
        """Itself; a `JoinedIndex` has several."""
        return [self]

    @property
    def extent_px(self) -> int:
        """Side length of all its tiles in pixels."""
        return self.spec.extent_px

    @property
    def mpp_range(self) -> tuple[float, float]:
        """The finest and the coarsest um per px of its tiles: one scale."""
        return self.spec.mpp, self.spec.mpp

    @property
    def slide_numbers(self) -> np.ndarray:
        """[S] Which slide each row is of."""
        return np.arange(len(self))

    def spec_of(self, slide: int) -> TileSpec:
        """The specification of the tiles of a row: the same for all."""
        return self.spec

    def column(self, name: str) -> np.ndarray:
        """A per-slide column, [S]; text and missing values as objects. `tile_mpp` is the scale of the tiles, as text."""
        if name == "tile_mpp":
            return np.full(len(self), f"{self.spec.mpp:g}", dtype=object)
        return self.slides[name].to_numpy()

    def _row(self, slide: int) -> dict:
        """The per-slide values of slide number `slide`."""
        return {name: self.slides[name][slide].as_py() for name in self.slides.column_names}

    def _grid(self, slide: int) -> TileGrid:
        """Where tiles can lie on a slide."""
        row = self.row(slide)
        return TileGrid.of((row["width_l0"], row["height_l0"]), row["mpp"], self.spec)

    def cells(self, slide: int) -> np.ndarray:
        """The grid cells (uint32) of the kept tiles of a slide, in Morton order."""
        return self._tiles(slide, "cells")

    def tissue(self, slide: int) -> np.ndarray:
        """The tissue fractions (float16) of the kept tiles of a slide."""
        return self._tiles(slide, "tissue")

    def corners(self, slide: int, tiles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Top left corners (x_l0, y_l0) of tiles, given by their number within the slide."""
        x_l0, y_l0 = self._corners(slide)
        return x_l0[tiles], y_l0[tiles]

    def _read_corners(self, slide: int) -> tuple[np.ndarray, np.ndarray]:
        return self.grid(slide).corners(self.cells(slide))

    def _tiles(self, slide: int, name: str) -> np.ndarray:
        group = int(self._group_of[slide])
        first = int(np.searchsorted(self._group_of, group))
        return self._group(group)[name][slide - first].values.to_numpy()

    def _read_group(self, group: int) -> pa.Table:
        return self._file.read_row_group(group, columns=list(_PER_TILE))


class IndexHash:
    """sha256 over the specification and, slide by slide, (slide, sha256, mpp, positions): what decides the tiles."""

    def __init__(self, spec: TileSpec):
        self._digest = hashlib.sha256(json.dumps(asdict(spec), sort_keys=True).encode())

    def add(self, slides: pa.Table) -> None:
        """Take in some slides, in the order of the index."""
        for row in range(len(slides)):
            facts = [slides[name][row].as_py() for name in ("slide", "sha256", "mpp")]
            self._digest.update(json.dumps(facts).encode())
            self._digest.update(slides["cells"][row].values.to_numpy().tobytes())

    def hex(self) -> str:
        """The hash of all that was added."""
        return self._digest.hexdigest()
