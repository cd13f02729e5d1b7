import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from raypath.errors import SlideChanged, SlideMissing, SlideMppMissing, SlideTooCoarse, TileCorrupt, TileMissing
from raypath.slides import Slide
from tests.slides import forge


@pytest.fixture(scope="module")
def rgb():
    return forge.picture(512, 384)


@pytest.fixture(scope="module")
def path(rgb, tmp_path_factory):
    return forge.write_svs(tmp_path_factory.mktemp("slide") / "plain.svs", rgb, num_levels=3)


def test_importing_the_slides_pulls_neither_torch_nor_ray_nor_scipy():
    names = "('torch', 'ray', 'mlflow', 'albumentations', 'scipy', 'tifffile')"
    code = f"import sys, raypath.slides; print([name for name in {names} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def test_what_a_slide_says_of_itself(path):
    with Slide.open(path) as slide:
        assert (slide.size_l0, slide.mpp, slide.mpp_source) == ((512, 384), 0.5, "file:openslide.mpp-x")
        assert slide.seen_from_l0 == (0, 0)
        assert (slide.vendor, slide.objective_power, slide.level_downsamples) == ("aperio", 20.0, (1.0, 2.0, 4.0))
        assert str(path) in repr(slide)


def test_opening_what_is_not_there_or_lacks_mpp(tmp_path, rgb):
    with pytest.raises(SlideMissing, match=r"nowhere\.svs"):
        Slide.open(tmp_path / "nowhere.svs")
    unsaid = forge.write_svs(tmp_path / "unsaid.svs", rgb, mpp=None)
    with pytest.raises(SlideMppMissing):
        Slide.open(unsaid)
    assert (Slide.open(unsaid, mpp=0.3).mpp, Slide.open(unsaid, mpp=0.3).mpp_source) == (0.3, "override")


@pytest.mark.parametrize(("x_l0", "y_l0", "extent"), [(0, 0, 64), (17, 33, 100), (412, 284, 100)])
def test_pixels_of_level_0_are_those_of_the_file(path, rgb, x_l0, y_l0, extent):
    tile = Slide.open(path).read(x_l0, y_l0, extent, extent)
    assert tile.dtype == np.uint8
    assert tile.flags.c_contiguous
    assert (tile == rgb[y_l0 : y_l0 + extent, x_l0 : x_l0 + extent]).all()


@pytest.mark.parametrize(
    ("extent_l0", "extent_px", "level"),
    [(128, 64, 1), (256, 64, 2), (128, 90, 0), (200, 100, 1), (130, 64, 1), (250, 64, 1), (100, 128, 0)],
)
def test_reads_the_finest_level_not_coarser_than_the_target(path, rgb, extent_l0, extent_px, level):
    x_l0, y_l0 = 40, 24
    slide = Slide.open(path)
    assert slide.best_level(extent_l0 / extent_px) == level
    left, top, side = (value // 2**level for value in (x_l0, y_l0, extent_l0))
    source = forge.halve(rgb, level)[top : top + side, left : left + side]
    expected = Image.fromarray(source).resize((extent_px, extent_px), Image.Resampling.BICUBIC)
    assert np.abs(slide.read(x_l0, y_l0, extent_l0, extent_px).astype(int) - np.asarray(expected)).max() <= 1


def test_a_slide_of_one_level_is_averaged_and_not_subsampled(tmp_path, rgb):
    slide = Slide.open(forge.write_svs(tmp_path / "flat.svs", rgb, num_levels=1))
    tile = slide.read(0, 0, 384, 48).astype(float)
    assert np.abs(tile - forge.halve(rgb[:384, :384], 3)).mean() < 3
    assert np.abs(tile - rgb[:384:8, :384:8]).mean() > 8


def test_upsampling_has_a_bound(path):
    slide = Slide.open(path)
    assert slide.read(0, 0, 100, 130).shape == (130, 130, 3)
    with pytest.raises(SlideTooCoarse, match=r"upsampling 1\.35, allowed 1\.30"):
        slide.read(0, 0, 100, 135)
    assert slide.read(0, 0, 100, 135, max_upsample=1.5).shape == (135, 135, 3)


@pytest.mark.parametrize("corner", [(-1, 0), (0, -1), (449, 0), (0, 321)])
def test_outside_is_an_error_that_names_the_square(path, corner):
    with pytest.raises(ValueError, match=rf"x_l0 = {corner[0]}, y_l0 = {corner[1]} of 64 px .* 512 x 384"):
        Slide.open(path).read(*corner, 64, 64)


@pytest.mark.parametrize(("extent_l0", "extent_px"), [(64, 64), (64, 32), (64, 48), (60, 20), (50, 60)])
@pytest.mark.parametrize("size", [(512, 384), (517, 391)])  # downsamples 2, 4 and 2.0019..., 4.0...
def test_a_chunk_has_the_pixels_of_single_reads_bit_for_bit(tmp_path, size, extent_l0, extent_px):
    path = forge.write_svs(tmp_path / "slide.svs", forge.picture(*size), num_levels=3)
    random = np.random.default_rng(0)
    xs, ys = random.integers(0, size[0] - extent_l0 + 1, 40), random.integers(0, size[1] - extent_l0 + 1, 40)
    xs[:4], ys[:4] = (0, size[0] - extent_l0, 64, 128), (0, size[1] - extent_l0, 64, 64)
    with Slide.open(path) as slide:
        chunk = slide.read_chunk(xs, ys, extent_l0, extent_px)
        assert chunk.shape == (40, extent_px, extent_px, 3)
        for x_l0, y_l0, tile in zip(xs.tolist(), ys.tolist(), chunk):
            assert (slide.read(x_l0, y_l0, extent_l0, extent_px) == tile).all()
        assert slide.read_chunk([], [], extent_l0, extent_px).shape == (0, extent_px, extent_px, 3)


def test_one_corrupt_tile_of_64_costs_only_itself(tmp_path):
    path = forge.write_svs(tmp_path / "corrupt.svs", forge.picture(512, 512), num_levels=1)
    forge.break_tile(path, 27)
    failed = []
    with Slide.open(path) as slide:
        for number in range(64):
            try:
                slide.read(number % 8 * 64, number // 8 * 64, 64, 64)
            except TileCorrupt as error:
                failed.append(number)
                assert "x_l0 = 192, y_l0 = 192" in str(error)
    assert failed == [27]


def test_a_tile_without_bytes_is_missing_and_not_black(tmp_path):
    path = forge.write_svs(tmp_path / "empty.svs", forge.picture(256, 256), num_levels=1)
    forge.empty_tile(path, 5)
    with Slide.open(path) as slide:
        with pytest.raises(TileMissing, match=r"no pixels inside the tile at x_l0 = 64, y_l0 = 64"):
            slide.read(64, 64, 64, 64)
        with pytest.raises(TileMissing):
            slide.read(1, 1, 64, 64)  # one column of it
        assert slide.read(0, 0, 64, 64).mean() > 20
        thumbnail = slide.thumbnail(2.0)
        assert (thumbnail[17:31, 17:31] == 255).all()  # white, where there is nothing to see


def test_a_replaced_file_is_not_read_on_as_if_the_same(tmp_path):
    path = forge.write_svs(tmp_path / "slide.svs", forge.picture(128, 128), num_levels=1)
    slide = Slide.open(path)
    slide.close()
    assert slide.read(0, 0, 64, 64).shape == (64, 64, 3)  # opened again
    slide.close()
    forge.write_svs(path, forge.picture(128, 128, seed=1), num_levels=1)
    with pytest.raises(SlideChanged):
        slide.read(0, 0, 64, 64)


@pytest.mark.parametrize("mpp", [1.0, 1.7, 4.0, 6.1])
@pytest.mark.parametrize("num_levels", [1, 3])
def test_thumbnail_is_the_averaged_slide(tmp_path, monkeypatch, mpp, num_levels):
    rgb = forge.picture(517, 391)
    slide = Slide.open(forge.write_svs(tmp_path / "slide.svs", rgb, num_levels=num_levels))
    monkeypatch.setattr("raypath.slides.thumbnail.STRIP_BYTES", 4 * 517 * 24)  # many strips
    size_px = (round(517 * 0.5 / mpp), round(391 * 0.5 / mpp))
    expected = np.asarray(Image.fromarray(rgb).resize(size_px, Image.Resampling.BOX)).astype(int)
    thumbnail = slide.thumbnail(mpp)
    assert thumbnail.shape == expected.shape
    assert np.abs(thumbnail - expected).mean() < 6
    assert np.abs(thumbnail.mean((0, 1)) - rgb.mean((0, 1))).max() < 1


def test_thumbnail_of_a_slide_with_a_corrupt_tile_is_white_only_there(tmp_path, monkeypatch):
    monkeypatch.setattr("raypath.slides.thumbnail.BLOCK_PX", 64)
    path = forge.write_svs(tmp_path / "slide.svs", forge.picture(512, 512), num_levels=1)
    forge.break_tile(path, 0)
    white = (Slide.open(path).thumbnail(4.0) == 255).all(-1)
    assert white[1:7, 1:7].all()
    assert white.sum() < 81
    for number in range(1, 64):
        forge.break_tile(path, number)
    with pytest.raises(TileCorrupt, match="no part of level 0"):
        Slide.open(path).thumbnail(4.0)


def test_a_thumbnail_is_not_finer_than_the_slide(path):
    with pytest.raises(ValueError, match=r"0\.2 um per px is finer"):
        Slide.open(path).thumbnail(0.2)


@pytest.mark.real
def test_reads_jpeg_2000_and_drops_the_colour_profile(real_slides):
    slide = Slide.open(real_slides / "TCGA-CR-7395-01A-01-TS1.svs", mpp=0.5)
    xs, ys = np.array([1500, 1756, 2012]), np.array([1500, 1500, 1500])
    for extent_px in (256, 128):  # level 0, and level 1 with a downsample of 2.0005
        chunk = slide.read_chunk(xs, ys, 256, extent_px)
        assert type(chunk) is np.ndarray
        assert chunk.std() > 15
        assert (slide.read(1756, 1500, 256, extent_px) == chunk[1]).all()


@pytest.mark.real
def test_tissue_tiles_of_real_slides_have_pixels_up_to_every_edge(real_slides):
    for name in ("her2st_C2.tiff", "her2st_C4.tiff", "CMU-1-Small-Region.svs"):
        with Slide.open(real_slides / name) as slide:
            width, height = slide.size_l0
            for downsample in slide.level_downsamples[:4]:
                extent_l0 = round(128 * downsample)
                xs, ys = np.array([0, width - extent_l0]), np.array([height - extent_l0, 0])
                assert slide.read_chunk(xs, ys, extent_l0, 128).mean() > 50
