import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raypath.errors import BadInput, SlideTooCoarse
from raypath.slides import TileGrid, TileSpec, regions


def spec(**changes):
    return TileSpec(**{"extent_px": 256, "mpp": 0.5, "stride_px": 256, "min_tissue": 0.5, **changes})


@pytest.mark.parametrize(
    ("extent_px", "mpp", "native_mpp", "extent_l0"),
    [
        (256, 0.5, 0.5, 256),
        (256, 0.5, 0.25, 512),
        (512, 0.39, 0.25, 799),  # 798.72: the papers' 200 um tile on a 40x slide
        (512, 0.39, 0.5, 399),  # 399.36: upsampled 1.28
        (256, 0.5, 0.2528, 506),
        (1, 0.1, 5.0, 1),  # never less than a pixel
    ],
)
def test_a_tile_in_level_0_pixels(extent_px, mpp, native_mpp, extent_l0):
    assert spec(extent_px=extent_px, mpp=mpp).extent_l0(native_mpp) == extent_l0
    assert spec(stride_px=extent_px, mpp=mpp).stride_l0(native_mpp) == extent_l0


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("extent_px", 0),
        ("stride_px", -1),
        ("extent_px", 2.5),
        ("mpp", 0),
        ("mpp", float("nan")),
        ("min_tissue", 50),
        ("max_upsample", 0.5),
    ],
)
def test_a_wrong_setting_is_named_with_its_value(name, value):
    with pytest.raises(BadInput, match=rf"{name} = {value!r} .*allowed"):
        spec(**{name: value})


def test_too_coarse_slides_are_refused_by_name():
    assert spec(mpp=0.39).require_fine("a.svs", 0.5) == pytest.approx(1.282, abs=1e-3)
    assert spec().require_fine("a.svs", 0.65) == pytest.approx(1.3)  # exactly the limit
    with pytest.raises(SlideTooCoarse, match=r"a\.svs: .*0\.688.* 1\.38.* 1\.30"):
        spec().require_fine("a.svs", 0.688)


@pytest.mark.parametrize(
    ("size_l0", "extent_l0", "stride_l0", "corners"),
    [
        ((10, 10), 4, 4, [(0, 0), (4, 0), (0, 4), (4, 4)]),
        ((12, 8), 4, 4, [(0, 0), (4, 0), (8, 0), (0, 4), (4, 4), (8, 4)]),
        ((10, 4), 4, 3, [(0, 0), (3, 0), (6, 0)]),  # overlapping; the last ends at the edge
        ((10, 5), 4, 6, [(0, 0), (6, 0)]),  # gaps
        ((4, 4), 4, 4, [(0, 0)]),
        ((3, 100), 4, 4, []),  # narrower than a tile
    ],
)
def test_exact_corners(size_l0, extent_l0, stride_l0, corners):
    grid = TileGrid.of(size_l0, 1.0, spec(extent_px=extent_l0, stride_px=stride_l0, mpp=1.0))
    x_l0, y_l0 = grid.corners(np.arange(grid.num_cells, dtype=np.uint32))
    assert list(zip(x_l0.tolist(), y_l0.tolist())) == corners
    assert x_l0.dtype == y_l0.dtype == np.int64


def test_the_first_cells_of_the_morton_curve():
    grid = TileGrid.of((4, 4), 1.0, spec(extent_px=1, stride_px=1, mpp=1.0))
    order = grid.morton_order(np.arange(16, dtype=np.uint32))
    assert order.tolist() == [0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15]
    assert order.dtype == np.uint32


def test_cells_outside_the_grid_and_too_many_cells_are_errors():
    grid = TileGrid.of((8, 8), 1.0, spec(extent_px=4, stride_px=4, mpp=1.0))
    with pytest.raises(ValueError, match="0 to 3"):
        grid.corners(np.array([4]))
    with pytest.raises(ValueError, match="stride_px = 1"):
        TileGrid.of((100_000, 100_000), 1.0, spec(extent_px=4, stride_px=1, mpp=1.0))


sides = st.integers(1, 5000)


@given(sides, sides, st.integers(1, 600), st.integers(1, 600))
def test_every_tile_lies_inside_and_one_more_would_not(width, height, extent, stride):
    grid = TileGrid.of((width, height), 1.0, spec(extent_px=extent, stride_px=stride, mpp=1.0))
    for count, side in ((grid.num_columns, width), (grid.num_rows, height)):
        assert count == len([start for start in range(0, side, stride) if start + extent <= side])
    if grid.num_cells:
        x_l0, y_l0 = grid.corners(np.array([0, grid.num_cells - 1]))
        assert x_l0[1] + extent <= width
        assert y_l0[1] + extent <= height


@given(st.lists(st.tuples(st.integers(0, 65535), st.integers(0, 65535)), max_size=30, unique=True))
def test_morton_order_is_the_order_of_interleaved_bits(places):
    grid = TileGrid((65536, 65536), 1, 1, 65536, 65536)
    cells = np.array([row * 65536 + column for row, column in places], np.uint32)

    def interleaved(cell):
        row, column = divmod(int(cell), 65536)
        return int("".join(r + c for r, c in zip(f"{row:016b}", f"{column:016b}")), 2)

    assert grid.morton_order(cells).tolist() == sorted(cells.tolist(), key=interleaved)


@settings(max_examples=50)
@given(st.integers(1, 200), st.integers(0, 2**32 - 1), st.sampled_from([1.0, 1.5, 2.0]), st.sampled_from([20, 50, 80]))
def test_regions_hold_every_tile_once_and_waste_little(num_tiles, seed, max_waste, stride):
    extent = 50
    grid = TileGrid.of((3000, 2000), 1.0, spec(extent_px=extent, stride_px=stride, mpp=1.0))
    cells = np.random.default_rng(seed).choice(grid.num_cells, min(num_tiles, grid.num_cells), replace=False)
    xs, ys = grid.corners(grid.morton_order(cells))
    groups = regions(xs, ys, extent, max_waste=max_waste, max_box_px=200_000)
    assert np.concatenate(groups).tolist() == list(range(len(xs)))
    for group in groups:
        box = (np.ptp(xs[group]) + extent) * (np.ptp(ys[group]) + extent)
        assert len(group) == 1 or (box <= max_waste * len(group) * extent**2 and box <= 200_000)


def test_a_full_morton_chunk_is_one_region_and_a_scattered_one_is_not():
    grid = TileGrid.of((4096, 4096), 1.0, spec(mpp=1.0))
    xs, ys = grid.corners(grid.morton_order(np.arange(grid.num_cells))[64:128])
    assert [len(group) for group in regions(xs, ys, 256)] == [64]
    assert len(regions(np.array([0, 3840]), np.array([0, 3840]), 256)) == 2
    assert regions(np.array([]), np.array([]), 256) == []
    with pytest.raises(ValueError, match=r"max_waste = 0\.5"):
        regions(xs, ys, 256, max_waste=0.5)
