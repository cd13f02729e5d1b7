"""Where the tiles of a slide lie: specification, grid, order and grouping, as pure integer geometry.

A tile is said in micrometres (`extent_px` pixels at `mpp`) and cut in level-0 pixels, so that slides of different native
mpp give the same physical squares. The one decision: a tile is one number, its **cell** = row * num_columns + column on the
slide's grid (uint32), and everything else (corner, neighbours, order) follows from it; an index of 170k slides is then
4 bytes per tile. Only tiles wholly inside the slide have a cell.

Cells are kept along a Morton curve of (row, column): any run of consecutive cells is a square-ish patch of the slide, which
`regions` cuts into boxes worth one read each. Costs: vectorised numpy, about 50 ns per tile.
"""

import math
from dataclasses import dataclass

import numpy as np

from raypath.errors import BadInput, SlideTooCoarse

MAX_CELLS = 2**32


@dataclass(frozen=True, kw_only=True)
class TileSpec:
    """What a tile is, independent of any slide."""

    extent_px: int
    """Side length of a tile as the network sees it, in pixels at `mpp`."""
    mpp: float
    """Micrometres per pixel of the tile."""
    stride_px: int
    """Distance between neighbouring tiles, in pixels at `mpp`; equal to `extent_px`: no overlap, no gap."""
    min_tissue: float
    """Least fraction of a tile's area that must be tissue, 0 to 1."""
    max_upsample: float = 1.3
    """How much coarser than `mpp` level 0 may be; 0.5 um slides give 0.39 um tiles at 1.28."""

    def __post_init__(self):
        _require(
            self.extent_px >= 1 and self.extent_px == int(self.extent_px), "extent_px", self.extent_px, "1, 2, ..."
        )
        _require(
            self.stride_px >= 1 and self.stride_px == int(self.stride_px), "stride_px", self.stride_px, "1, 2, ..."
        )
        _require(0.05 <= self.mpp <= 100, "mpp", self.mpp, "0.05 to 100 um per px")
        _require(0 <= self.min_tissue <= 1, "min_tissue", self.min_tissue, "0 to 1 (a fraction of the tile's area)")
        _require(1 <= self.max_upsample <= 4, "max_upsample", self.max_upsample, "1 to 4")

    def extent_l0(self, native_mpp: float) -> int:
        """Side length of a tile in level-0 pixels of a slide with `native_mpp`, at least 1."""
        return _in_level0(self.extent_px * self.mpp, native_mpp)

    def stride_l0(self, native_mpp: float) -> int:
        """Distance between neighbouring tiles in level-0 pixels, at least 1."""
        return _in_level0(self.stride_px * self.mpp, native_mpp)

    def upsample(self, native_mpp: float) -> float:
        """`native_mpp` / `mpp`; above 1 level 0 is coarser than the tile and its pixels are interpolated."""
        return native_mpp / self.mpp

    def require_fine(self, path: str, native_mpp: float) -> float:
        """The upsample factor of the slide at `path`; raises SlideTooCoarse beyond `max_upsample`."""
        factor = self.upsample(native_mpp)
        if factor > self.max_upsample * (1 + 1e-6):
            raise SlideTooCoarse(
                f"{path}: level 0 has {native_mpp:.4g} um per px, tiles at {self.mpp:.4g} need an upsampling of "
                f"{factor:.2f}, allowed is {self.max_upsample:.2f}; raise mpp or max_upsample, or leave the slide out"
            )
        return factor


def _require(is_valid: bool, name: str, value: object, allowed: str) -> None:
    if not is_valid:
        raise BadInput(f"TileSpec: {name} = {value!r} is not possible; allowed: {allowed}")


def _in_level0(length_um: float, native_mpp: float) -> int:
    if not native_mpp > 0:
        raise ValueError(f"native_mpp = {native_mpp!r}; it must be above 0 um per px")
    return max(1, math.floor(length_um / native_mpp + 0.5))


@dataclass(frozen=True)
class TileGrid:
    """All places of one slide where a tile lies wholly inside; row-major cells from the top left corner (0, 0)."""

    size_l0: tuple[int, int]
    """Width and height of the slide in level-0 pixels."""
    extent_l0: int
    stride_l0: int
    num_columns: int
    num_rows: int

    @classmethod
    def of(cls, size_l0: tuple[int, int], native_mpp: float, spec: TileSpec) -> "TileGrid":
        """The grid of `spec` on a slide of `size_l0` (width, height); 0 columns or rows where no tile fits."""
        extent_l0, stride_l0 = spec.extent_l0(native_mpp), spec.stride_l0(native_mpp)
        num_columns, num_rows = (max(0, (side - extent_l0) // stride_l0 + 1) for side in size_l0)
        if num_columns * num_rows > MAX_CELLS:
            raise ValueError(
                f"a grid of {num_columns} x {num_rows} tiles exceeds {MAX_CELLS} cells; stride_px = {spec.stride_px} "
                f"is too small for a slide of {size_l0[0]} x {size_l0[1]} px"
            )
        return cls(tuple(size_l0), extent_l0, stride_l0, num_columns, num_rows)

    @property
    def num_cells(self) -> int:
        """How many tiles fit on the slide."""
        return self.num_columns * self.num_rows

    def rows_columns(self, cells: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Row and column (int64) of every cell; ValueError for a cell outside the grid."""
        cells = np.asarray(cells).astype(np.int64)
        if cells.size and (cells.min() < 0 or cells.max() >= self.num_cells):
            raise ValueError(f"cells reach from {cells.min()} to {cells.max()}; the grid has 0 to {self.num_cells - 1}")
        return np.divmod(cells, max(1, self.num_columns))

    def corners(self, cells: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Top left corners (x_l0, y_l0) of `cells`, int64, in level-0 pixels."""
        rows, columns = self.rows_columns(cells)
        return columns * self.stride_l0, rows * self.stride_l0

    def morton_order(self, cells: np.ndarray) -> np.ndarray:
        """The same cells (uint32) sorted along the Morton curve of (row, column)."""
        rows, columns = self.rows_columns(cells)
        code = (_spread_bits(rows) << np.uint64(1)) | _spread_bits(columns)
        return np.asarray(cells).astype(np.uint32)[np.argsort(code, kind="stable")]


def _spread_bits(values: np.ndarray) -> np.ndarray:
    """Put bit i of every value (below 2**32) at bit 2i."""
    spread = values.astype(np.uint64)
    for shift, keep in (
        (16, 0x0000FFFF0000FFFF),
        (8, 0x00FF00FF00FF00FF),
        (4, 0x0F0F0F0F0F0F0F0F),
        (2, 0x3333333333333333),
        (1, 0x5555555555555555),
    ):
        spread = (spread | (spread << np.uint64(shift))) & np.uint64(keep)
    return spread


def regions(
    xs: np.ndarray, ys: np.ndarray, extent: int, *, max_waste: float = 2.0, max_box_px: int = 2**22
) -> list[np.ndarray]:
    """Cut a run of tiles into groups, each worth one read of its bounding box.

    `xs`, `ys` are top left corners and `extent` the side, all in the pixels of one level. A run is halved until its
    bounding box has at most `max_waste` times the area of its tiles, and at most `max_box_px` pixels (16 MB as RGBA); in
    Morton order the halves are neighbours again. Two is where one read of the box still beats reading the tiles one by one
    (a random 256 px tile touches up to 4 native tiles of 256 px). A pure function of its arguments.

    Returns index arrays (int64) into the run, in order; every tile is in exactly one of them.
    """
    if not max_waste >= 1:
        raise ValueError(f"max_waste = {max_waste!r}; a bounding box is never smaller than one tile, so 1 or more")
    xs, ys = np.asarray(xs, np.int64), np.asarray(ys, np.int64)
    groups, pending = [], [(0, len(xs))]
    while pending:
        start, stop = pending.pop()
        if start == stop:
            continue
        box_px = (int(np.ptp(xs[start:stop])) + extent) * (int(np.ptp(ys[start:stop])) + extent)
        is_worth_it = box_px <= max_waste * (stop - start) * extent**2 and box_px <= max_box_px
        if start + 1 == stop or is_worth_it:
            groups.append(np.arange(start, stop))
        else:
            middle = (start + stop) // 2
            pending += [(middle, stop), (start, middle)]
    return groups
