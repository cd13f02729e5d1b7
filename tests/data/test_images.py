"""Pixels of labelled samples: from files and from slides, in order, and what is refused."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from raypath.benchmarks import IMAGE_SCHEMA, load_phantoms
from raypath.benchmarks.benchmark import TILE_SCHEMA
from raypath.data import images
from raypath.data.image_files import read_image
from raypath.data.images import Frame, read_pixels
from raypath.errors import BadInput
from raypath.protocols import Samples
from raypath.slides import Slide


def rows_of(*paths: Path) -> pa.Table:
    names = [path.name for path in paths]
    none = [None] * len(names)
    columns = [
        names,
        range(len(names)),
        none,
        ["train"] * len(names),
        none,
        [str(p) for p in paths],
        none,
        none,
        none,
        none,
    ]
    return pa.table([pa.array(c, f.type) for c, f in zip(columns, IMAGE_SCHEMA)], schema=IMAGE_SCHEMA)


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.ray
def test_files_come_in_the_order_they_were_asked_for(ray_instance, tmp_path):
    pictures = [noise(24, 24, seed) for seed in range(300)]  # more than one task reads
    paths = [tmp_path / f"{number}.{'png' if number % 3 else 'bmp'}" for number in range(300)]
    for picture, path in zip(pictures, paths):
        Image.fromarray(picture).save(path)
    order = np.random.default_rng(0).permutation(300)
    samples = Samples.of(rows_of(*(paths[i] for i in order)), tuple(map(str, range(300))), 24)
    assert samples.images.dtype == np.uint8
    np.testing.assert_array_equal(samples.images, np.stack([pictures[i] for i in order]))
    assert samples.names == tuple(paths[i].name for i in order)
    assert samples.labels.tolist() == list(range(300))
    assert samples.patients == (None,) * 300


@pytest.mark.ray
def test_tiles_of_slides_are_those_of_the_slide(ray_instance, phantom_folder):
    benchmark = load_phantoms(phantom_folder, extent_px=64, mpp=0.5, max_per_class_and_slide=2)
    rows = benchmark.rows("train")
    assert rows.schema == TILE_SCHEMA
    order = np.random.default_rng(1).permutation(len(rows))
    pixels = read_pixels(rows.take(order), Frame(extent_px=48))
    assert pixels.shape == (len(rows), 48, 48, 3)
    for image, row in zip(pixels, rows.take(order).to_pylist()):
        with Slide.open(row["slide"], row["slide_mpp"]) as slide:
            np.testing.assert_array_equal(image, slide.read(row["x_l0"], row["y_l0"], row["extent_l0"], 48))


@pytest.mark.ray
def test_the_first_file_that_cannot_be_read_is_named(ray_instance, tmp_path):
    good, bad = tmp_path / "good.png", tmp_path / "bad.png"
    Image.fromarray(noise(32, 32)).save(good)
    bad.write_bytes(good.read_bytes()[:1500])
    with pytest.raises(BadInput, match=r"bad\.png: cannot be read \(.*truncated.*\); mend or remove the file"):
        read_pixels(rows_of(good, bad), Frame(extent_px=32))


@pytest.mark.ray
def test_a_slide_that_is_gone_is_named(ray_instance, phantom_folder, tmp_path):
    rows = load_phantoms(phantom_folder, extent_px=64, mpp=0.5, max_per_class_and_slide=1).rows("train")
    gone = str(tmp_path / "gone.svs")
    rows = rows.set_column(rows.schema.get_field_index("slide"), "slide", pa.array([gone] * len(rows)))
    with pytest.raises(BadInput, match=r"gone\.svs: cannot be read"):
        read_pixels(rows, Frame(extent_px=64))


def test_a_set_that_does_not_fit_is_refused_with_its_size_before_anything_is_read(tmp_path):
    with pytest.raises(BadInput, match=r"3 samples of 40000 px are 13\.4 GiB, more than the 8 GiB .*lower extent_px"):
        read_pixels(rows_of(*[tmp_path / "absent.png"] * 3), Frame(extent_px=40_000))


@pytest.mark.parametrize(("size", "box"), [((20, 12), (4, 0, 16, 12)), ((12, 21), (0, 4, 12, 16))])
def test_what_is_not_square_is_cropped_to_its_centre(size, box, tmp_path):
    picture = Image.fromarray(noise(size[1], size[0]))
    picture.save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(str(tmp_path / "a.png"), 12), np.asarray(picture.crop(box)))


def test_another_extent_is_a_smooth_resize_and_jpeg_is_close(tmp_path):
    ramp = np.broadcast_to(np.arange(64, dtype=np.uint8)[None, :, None] * 4, (64, 64, 3))
    Image.fromarray(ramp).save(tmp_path / "a.jpg", quality=95)
    small = read_image(str(tmp_path / "a.jpg"), 16)
    expected = ramp.reshape(16, 4, 16, 4, 3).mean((1, 3))
    assert small.shape == (16, 16, 3)
    assert np.abs(small.astype(float) - expected)[:, 1:-1].max() < 4


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "LA"])
def test_other_8_bit_colours_become_rgb(mode, tmp_path):
    gray = Image.fromarray(np.full((8, 8, 3), 77, np.uint8)).convert(mode, palette=Image.Palette.ADAPTIVE)
    gray.save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(str(tmp_path / "a.png"), 8), np.full((8, 8, 3), 77))


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.float32])
def test_more_than_8_bits_are_refused_and_not_cut_off(dtype, tmp_path):
    Image.fromarray(np.full((8, 8), 3000, dtype)).save(tmp_path / "a.tif")
    with pytest.raises(ValueError, match="expected 8 bits per channel"):
        read_image(str(tmp_path / "a.tif"), 8)


def test_a_pixel_one_can_look_through_has_no_colour(tmp_path):
    pixels = np.full((8, 8, 4), 255, np.uint8)
    pixels[3, 3] = 0  # would become black
    Image.fromarray(pixels).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match="transparent pixels"):
        read_image(str(tmp_path / "a.png"), 8)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_what_pillow_says_of_damaged_files_is_caught(tmp_path, monkeypatch):
    """Flipped bytes, cuts and impossible sizes: a fault that names the file, or pixels; never another error."""
    rng = np.random.default_rng(0)
    names = []
    for kind in ("png", "jpg", "tif", "bmp", "webp"):
        whole = tmp_path / f"whole.{kind}"
        Image.fromarray(noise(24, 24)).save(whole)
        for number in range(30):
            damaged = bytearray(whole.read_bytes())
            for _ in range(rng.choice([1, 4, 16])):
                damaged[rng.integers(min(len(damaged), 300))] = rng.integers(256)
            names.append(tmp_path / f"{number}.{kind}")
            names[-1].write_bytes(damaged[: rng.integers(1, len(damaged) + 1)] if number % 5 == 0 else damaged)
    huge = tmp_path / "huge.bmp"
    header = bytearray((tmp_path / "whole.bmp").read_bytes())
    header[18:26] = (60_000).to_bytes(4, "little") * 2
    huge.write_bytes(header)
    read = list(images._each(rows_of(*names, huge), Frame(extent_px=16)))
    faults = [fault for pixels, fault in read if pixels is None]
    assert 30 < len(faults) <= 151
    assert all(f"{tmp_path}/" in fault and "cannot be read (" in fault for fault in faults)
    assert "huge.bmp: cannot be read (Image size (3600000000 pixels) exceeds limit" in read[-1][1]
