"""Masks of slides: shares of classes by a slow count, nearest pixels, and what is refused."""

import numpy as np
import pytest
import tifffile

from raypath.benchmarks.annotations.mask_tiff import mask_shares
from raypath.data.mask_tiles import read_mask_tile
from raypath.errors import BadInput, SlideError
from raypath.slides import SlideHandles, TileGrid, TileSpec

NUM_CLASSES, MPP = 6, 0.5


def write_mask(path, classes, *, downsamples=(1,), is_rgb=True):
    """As PANDA's Radboud masks: the class in the first channel of RGB, a tiled lossless pyramid of every n-th pixel."""
    with tifffile.TiffWriter(path) as writer:
        for number, step in enumerate(downsamples):
            level = classes[::step, ::step]
            pixels = np.stack([level, np.zeros_like(level), np.zeros_like(level)], axis=2) if is_rgb else level
            writer.write(
                pixels,
                tile=(64, 64),
                compression="deflate",
                photometric="rgb" if is_rgb else "minisblack",
                subfiletype=int(number > 0),
                metadata=None,
            )
    return path


@pytest.fixture(scope="module")
def classes():
    """Blocks of 8 x 8 px, so that every eighth pixel tells all."""
    return np.random.default_rng(0).integers(NUM_CLASSES, size=(48, 64)).astype(np.uint8).repeat(8, 0).repeat(8, 1)


@pytest.mark.parametrize("downsamples", [(1,), (1, 4), (1, 8)])
def test_shares_are_those_of_a_slow_count(tmp_path, classes, downsamples):
    path = write_mask(tmp_path / "mask.tiff", classes, downsamples=downsamples)
    spec = TileSpec(extent_px=80, mpp=MPP, stride_px=40, min_tissue=0)
    grid = TileGrid.of((512, 384), MPP, spec)
    corners = zip(*(v.tolist() for v in grid.corners(np.arange(grid.num_cells))))
    slow = [[np.mean(classes[y : y + 80, x : x + 80] == number) for number in range(NUM_CLASSES)] for x, y in corners]
    np.testing.assert_allclose(mask_shares(path, MPP, grid, NUM_CLASSES), slow, atol=1e-12)


@pytest.mark.parametrize("is_rgb", [True, False])
@pytest.mark.parametrize("extent_px", [50, 100, 125, 33, 12])
def test_a_mask_tile_is_the_nearest_pixel_of_level_0(tmp_path, classes, extent_px, is_rgb):
    path = write_mask(tmp_path / "mask.tiff", classes, downsamples=(1, 4), is_rgb=is_rgb)
    row = {"mask": str(path), "slide_mpp": MPP, "x_l0": 17, "y_l0": 203, "extent_l0": 100}
    places = ((np.arange(extent_px) + 0.5) * 100 / extent_px).astype(int)
    expected = classes[203 + places][:, 17 + places]
    np.testing.assert_array_equal(read_mask_tile(SlideHandles(1), row, extent_px, num_classes=6), expected)


def test_a_level_between_pixels_is_never_read(tmp_path):
    generator = np.random.default_rng(1)
    classes = generator.choice([0, 5], size=(257, 259)).astype(np.uint8)  # any mixing gives 1 to 4
    path = write_mask(tmp_path / "mask.tiff", classes, downsamples=(1, 3))
    row = {"mask": str(path), "slide_mpp": MPP, "x_l0": 1, "y_l0": 2, "extent_l0": 250}
    tile = read_mask_tile(SlideHandles(1), row, 40)
    places = ((np.arange(40) + 0.5) * 6.25).astype(int)
    np.testing.assert_array_equal(tile, classes[2 + places][:, 1 + places])


def test_pandas_grid_is_822_px_for_1024(tmp_path):
    spec = TileSpec(extent_px=1024, mpp=0.39, stride_px=1024, min_tissue=0)
    assert spec.extent_l0(0.486) == spec.stride_l0(0.486) == 822
    classes = np.random.default_rng(2).integers(NUM_CLASSES, size=(900, 1000)).astype(np.uint8)
    path = write_mask(tmp_path / "mask.tiff", classes)
    row = {"mask": str(path), "slide_mpp": 0.486, "x_l0": 100, "y_l0": 50, "extent_l0": 822}
    tile = read_mask_tile(SlideHandles(1), row, 1024)
    assert tile.shape == (1024, 1024)
    assert tile.dtype == np.uint8
    assert set(np.unique(tile)) <= set(range(NUM_CLASSES))
    np.testing.assert_array_equal(tile[[0, -1]][:, [0, -1]], classes[[50, 871]][:, [100, 921]])


def test_what_is_damaged_is_refused(tmp_path, classes):
    grid = TileGrid.of((512, 384), MPP, TileSpec(extent_px=64, mpp=MPP, stride_px=64, min_tissue=0))
    path = write_mask(tmp_path / "mask.tiff", classes + 1)
    with pytest.raises(BadInput, match=r"mask\.tiff: has the value 6; expected class numbers of 0 to 5"):
        mask_shares(path, MPP, grid, NUM_CLASSES)
    small = write_mask(tmp_path / "small.tiff", classes[:300])
    with pytest.raises(BadInput, match=r"small\.tiff: 512 x 300 px, but its slide has 512 x 384"):
        mask_shares(small, MPP, grid, NUM_CLASSES)
    (tmp_path / "bad.tiff").write_bytes(b"no tiff")
    with pytest.raises(BadInput, match=r"bad\.tiff: .*expected a mask"):
        mask_shares(tmp_path / "bad.tiff", MPP, grid, NUM_CLASSES)
    row = {"mask": str(path), "slide_mpp": MPP, "x_l0": 500, "y_l0": 0, "extent_l0": 64}
    with pytest.raises(ValueError, match="is not inside the mask of 512 x 384 px"):
        read_mask_tile(SlideHandles(1), row, 64)
    with pytest.raises(ValueError, match="has the value 6"):
        read_mask_tile(SlideHandles(1), {**row, "x_l0": 0, "extent_l0": 384}, 64, num_classes=6)
    with pytest.raises(SlideError):
        read_mask_tile(SlideHandles(1), {**row, "mask": str(tmp_path / "bad.tiff")}, 64)
