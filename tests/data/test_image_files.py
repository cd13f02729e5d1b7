"""One image's pixels: items of array files, parts, and what has no 8-bit colours of its own."""

import h5py
import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import ExifTags, Image

from raypath.data.image_files import UNREADABLE, open_image, read_image, size_of

NUM, HEIGHT, WIDTH = 3, 12, 20


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(0, 256, (NUM, HEIGHT, WIDTH, 3), dtype=np.uint8)


def write_h5(path, **arrays):
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            file[name] = array
    return str(path)


def write_npy(path, array):
    np.save(path, array)
    return str(path)


def test_items_of_array_files_are_what_was_written(tmp_path, pixels):
    paths = [
        write_h5(tmp_path / "a.h5", x=pixels, ids=np.arange(NUM)),
        write_npy(tmp_path / "a.npy", pixels),
        write_npy(tmp_path / "b.npy", pixels.astype(np.float64)),
    ]
    for path in paths:
        for item in range(NUM):
            np.testing.assert_array_equal(np.asarray(open_image(path, item=item)), pixels[item])


@pytest.mark.parametrize("box", [(0, 0, WIDTH, HEIGHT), (3, 2, 5, 7), (WIDTH - 1, HEIGHT - 1, 1, 1)])
def test_a_box_is_a_slice_of_file_and_item(tmp_path, pixels, box):
    left, top, width, height = box
    Image.fromarray(pixels[1]).save(tmp_path / "a.png")
    expected = pixels[1][top : top + height, left : left + width]
    np.testing.assert_array_equal(np.asarray(open_image(str(tmp_path / "a.png"), box=box)), expected)
    path = write_npy(tmp_path / "a.npy", pixels)
    np.testing.assert_array_equal(np.asarray(open_image(path, item=1, box=box)), expected)


@pytest.mark.parametrize("box", [(-1, 0, 5, 5), (0, -1, 5, 5), (WIDTH - 4, 0, 5, 5), (0, HEIGHT - 4, 5, 5)])
def test_a_box_outside_is_refused_not_padded(tmp_path, pixels, box):
    Image.fromarray(pixels[0]).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match=f"leaves the image of {WIDTH} x {HEIGHT} px"):
        open_image(str(tmp_path / "a.png"), box=box)


@pytest.mark.parametrize("box", [(0, 0, 0, 5), (0, 0, 5, -2)])
def test_a_box_without_area_is_refused(tmp_path, pixels, box):
    Image.fromarray(pixels[0]).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match="has no area"):
        open_image(str(tmp_path / "a.png"), box=box)


def test_a_square_is_cut_after_the_box_and_resized(tmp_path, pixels):
    path = write_npy(tmp_path / "a.npy", pixels)
    np.testing.assert_array_equal(read_image(path, 6, item=2, box=(1, 2, 6, 6)), pixels[2][2:8, 1:7])
    np.testing.assert_array_equal(read_image(path, HEIGHT, item=0), pixels[0][:, 4:16])  # the centre of 20 px
    np.testing.assert_array_equal(read_image(path, HEIGHT, 1.0, item=0), pixels[0][:, 8:])
    assert read_image(path, 5, item=0).shape == (5, 5, 3)


def test_an_item_that_is_not_there_is_unreadable(tmp_path, pixels):
    for path in (write_npy(tmp_path / "a.npy", pixels), write_h5(tmp_path / "a.h5", x=pixels)):
        for item in (NUM, -1):
            with pytest.raises(UNREADABLE):
                open_image(path, item=item)


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((2, 4, 4)),
        np.zeros((2, 4, 4, 1)),
        np.zeros((2, 4, 4, 4)),
        np.full((2, 4, 4, 3), 0.5),
        np.full((2, 4, 4, 3), 256),
        np.full((2, 4, 4, 3), -1),
        np.full((2, 4, 4, 3), np.nan),
        np.full((2, 4, 4, 3), np.inf),
    ],
)
def test_arrays_that_are_not_rgb_of_8_bits_are_refused_in_silence(tmp_path, array, recwarn):
    with pytest.raises(ValueError, match="expected RGB of 8 bits"):
        open_image(write_npy(tmp_path / "a.npy", array), item=0)
    assert not list(recwarn)


def test_files_that_hold_no_images_or_several_are_refused(tmp_path, pixels):
    with pytest.raises(ValueError, match="0 arrays of images"):
        open_image(write_h5(tmp_path / "a.h5", ids=np.arange(4)), item=0)
    with pytest.raises(ValueError, match=r"2 arrays of images in it \(x, y\)"):
        open_image(write_h5(tmp_path / "a.h5", x=pixels, y=pixels), item=0)
    (tmp_path / "b.h5").write_bytes(b"no hdf5")
    with pytest.raises(UNREADABLE):
        open_image(str(tmp_path / "b.h5"), item=0)
    np.save(tmp_path / "c.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="Python objects"):
        open_image(str(tmp_path / "c.npy"), item=0)


def test_an_array_file_without_an_item_is_unreadable(tmp_path, pixels):
    with pytest.raises(UNREADABLE):
        open_image(write_npy(tmp_path / "a.npy", pixels))


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
@pytest.mark.parametrize("num_channels", [3, 4])
def test_colours_of_16_bits_are_refused_not_cut_off(tmp_path, name, num_channels):
    pixels = np.full((HEIGHT, WIDTH, num_channels), 3000, np.uint16)  # of 12 bits: Pillow would make 11 of 255 of them
    pixels[..., 3:] = np.iinfo(np.uint16).max
    if name.endswith(".png"):
        (tmp_path / name).write_bytes(imagecodecs.png_encode(pixels))
    else:
        alpha = [] if num_channels == 3 else ["unassalpha"]
        tifffile.imwrite(tmp_path / name, pixels, photometric="rgb", extrasamples=alpha)
    with pytest.raises(ValueError, match="of 16 bits, expected 8 bits per channel"):
        open_image(str(tmp_path / name))


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_image_that_is_marked_as_turned_comes_upright(tmp_path, suffix, orientation):
    path, exif = str(tmp_path / f"a.{suffix}"), Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    corner = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    corner[: HEIGHT // 2, : WIDTH // 2] = 255
    Image.fromarray(corner).save(path, exif=exif)
    # where the first row and column of the file belong in the picture, by the standard: EXIF 2.3, 4.6.4, tag 274
    is_right, is_bottom = orientation in (2, 3, 6, 7), orientation in (3, 4, 7, 8)
    width, height = (WIDTH, HEIGHT) if orientation < 5 else (HEIGHT, WIDTH)
    pixels = np.asarray(open_image(path))
    assert pixels.shape == (height, width, 3)
    assert size_of(path) == (width, height)
    for y, x in ((0, 0), (0, 1), (1, 0), (1, 1)):
        expected = 255 if (y, x) == (is_bottom, is_right) else 0
        assert abs(int(pixels[-y, -x, 0]) - expected) < 20
