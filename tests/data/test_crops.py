"""Images with masks, read from files of every kind, and crops in which the two still agree."""

import h5py
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from raypath.data import masked_images
from raypath.data.crops import Crops
from raypath.data.masked_images import read_masked
from raypath.data.views import Colours, Views, ViewSettings
from raypath.errors import BadInput

SCHEMA = pa.schema([("path", pa.string()), ("item", pa.int64()), ("box", pa.list_(pa.int64())), ("mask", pa.string())])
CLASSES = ("a", "b", "c", "d")


def masked(height, width, *, seed=0):
    """An image whose red level says its class, and whose other levels say its place."""
    mask = np.random.default_rng(seed).integers(0, 4, (height, width)).astype(np.uint8)
    rows, columns = np.mgrid[:height, :width]
    return np.stack([60 * mask, rows, columns], axis=-1).astype(np.uint8), mask


def test_images_too_small_for_a_crop_are_refused_with_what_mends_it():
    with pytest.raises(
        BadInput, match=r"crops of 96 px.*smallest is 70 px.*as it is fed.*set protocol.crop_px=64 or less"
    ):
        Crops([masked(100, 100), masked(100, 70)], 96, seed=0)
    with pytest.raises(
        BadInput, match=r"crops of 32 px.*smallest is 31 px.*scale=match_mpp made them small set scale=native"
    ):
        Crops([masked(31, 100)], 32, seed=0)


def table(*rows):
    return pa.Table.from_pylist([{"item": None, "box": None} | row for row in rows], schema=SCHEMA)


def write(folder, name, size, *, seed=0):
    image, mask = masked(*size, seed=seed)
    Image.fromarray(image).save(folder / f"{name}.png")
    Image.fromarray(mask).save(folder / f"{name}-mask.png")
    return {"path": str(folder / f"{name}.png"), "mask": str(folder / f"{name}-mask.png")}


def test_images_of_several_extents_come_whole_and_in_order(tmp_path):
    rows = [write(tmp_path, f"{i}", size, seed=i) for i, size in enumerate([(40, 50), (64, 33), (9, 9)])]
    read = read_masked(table(*rows, rows[1]), "values", CLASSES)
    expected = [masked(40, 50, seed=0), masked(64, 33, seed=1), masked(9, 9, seed=2), masked(64, 33, seed=1)]
    assert len(read) == 4
    for own, (image, mask) in zip(read, expected):
        np.testing.assert_array_equal(own[0], image)
        np.testing.assert_array_equal(own[1], mask)


def test_boxes_and_items_are_cut_of_image_and_mask_alike(tmp_path):
    whole = write(tmp_path, "whole", (40, 50))
    np.save(tmp_path / "masks.npy", np.stack([masked(8, 8, seed=s)[1] for s in range(3)]))
    with h5py.File(tmp_path / "images.h5", "w") as file:
        file["x"] = np.stack([masked(8, 8, seed=s)[0] for s in range(3)])
    item = {"path": str(tmp_path / "images.h5"), "mask": str(tmp_path / "masks.npy"), "item": 2}
    read = read_masked(
        table(whole | {"box": [5, 7, 20, 10]}, item, whole | {"box": [30, 0, 20, 40]}), "values", CLASSES
    )
    image, mask = masked(40, 50)
    np.testing.assert_array_equal(read[0][0], image[7:17, 5:25])
    np.testing.assert_array_equal(read[0][1], mask[7:17, 5:25])
    np.testing.assert_array_equal(read[1][0], masked(8, 8, seed=2)[0])
    np.testing.assert_array_equal(read[1][1], masked(8, 8, seed=2)[1])
    np.testing.assert_array_equal(read[2][1], mask[:, 30:])


def test_what_does_not_fit_is_named(tmp_path, monkeypatch):
    row = write(tmp_path, "x", (40, 50))
    with pytest.raises(BadInput, match=r"x\.png.*the value 3: expected classes 0 to 2"):
        read_masked(table(row), "values", CLASSES[:3])
    with pytest.raises(BadInput, match=r"the box \(45, 0, 10, 10\) leaves the image of 50 x 40 px"):
        read_masked(table(row | {"box": [45, 0, 10, 10]}), "values", CLASSES)
    other = write(tmp_path, "y", (41, 50))
    with pytest.raises(BadInput, match=r"x\.png.*its mask is 50 x 41 px, the image 50 x 40"):
        read_masked(table(row | {"mask": other["mask"]}), "values", CLASSES)
    monkeypatch.setattr(masked_images, "MAX_BYTES", 4 * 40 * 50 * 2)
    assert len(read_masked(table(row, row), "values", CLASSES)) == 2
    monkeypatch.setattr(masked_images, "open_image", lambda *a, **k: pytest.fail("decoded for nothing"))
    with pytest.raises(BadInput, match=r"3 images with masks are 0\.0 GiB, more than"):
        read_masked(table(row, row, row), "values", CLASSES)


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 2**32), first=st.integers(0, 10**9), has_turns=st.booleans())
def test_a_crop_is_a_part_of_its_image_and_the_mask_is_its_colour(seed, first, has_turns):
    samples = [masked(48, 48, seed=1), masked(33, 70, seed=2), masked(60, 32, seed=3)]
    images, masks = Crops(samples, 32, seed=seed, has_turns=has_turns).at(first + np.arange(9))
    assert images.shape == (9, 32, 32, 3)
    assert images.dtype == masks.dtype == np.uint8
    np.testing.assert_array_equal(images[..., 0], 60 * masks)
    for image in images:
        rows, columns = image[..., 1].astype(int), image[..., 2].astype(int)
        assert rows.max() - rows.min() == columns.max() - columns.min() == 31  # neighbours stay neighbours
        assert len({*zip(rows.flat, columns.flat)}) == 32 * 32
        assert has_turns or (rows == rows[:, :1]).all()
        inside = [own for own, _ in samples if rows.max() < own.shape[0] and columns.max() < own.shape[1]]
        assert any(np.array_equal(image, own[rows, columns]) for own in inside)


def way(image):
    """Where rows and columns grow along the two edges of a crop: one of eight for the ways to lay down a square."""
    edges = [np.subtract(corner, image[0, 0], dtype=int)[1:] for corner in (image[0, 31], image[31, 0])]
    return tuple(np.sign(np.concatenate(edges)).tolist())


def test_all_eight_ways_and_all_places_come_up_and_each_image_once_per_epoch():
    made = Crops([masked(34, 35, seed=s) for s in range(5)], 32, seed=3)
    images, _ = made.at(np.arange(600))
    places = {(image[..., 1].min(), image[..., 2].min()) for image in images}
    assert places == {(top, left) for top in range(3) for left in range(4)}
    assert len({way(image) for image in images}) == 8
    flips = Crops([masked(34, 35, seed=s) for s in range(5)], 32, seed=3, has_turns=False).at(np.arange(200))[0]
    assert len({way(image) for image in flips}) == 4
    order = [made.plan.samples(np.arange(5 * e, 5 * e + 5))[1].tolist() for e in range(4)]
    assert all(sorted(epoch) == list(range(5)) for epoch in order)


def test_a_crop_depends_on_its_position_alone_and_colours_leave_the_mask():
    samples, colours = [masked(48, 50, seed=s) for s in range(4)], ViewSettings(extent_px=32, num_views=1, stain=0.1)
    made = Crops(samples, 32, seed=5, colours=colours)
    images, masks = made.at(np.arange(12))
    again = made.at(np.arange(12)[::-1])
    np.testing.assert_array_equal(images, again[0][::-1])
    plain = Crops(samples, 32, seed=5).at(np.arange(12))
    np.testing.assert_array_equal(masks, plain[1])
    assert sum(not np.array_equal(*pair) for pair in zip(images, plain[0])) >= 8
    other = Crops(samples, 32, seed=6).at(np.arange(12))
    assert not np.array_equal(masks, other[1])


def test_colours_keep_every_pixel_in_its_place():
    """Levels change, but two pixels of one colour keep one colour (no blur), so no pixel has moved."""
    image = np.repeat(np.repeat(np.random.default_rng(0).integers(0, 256, (8, 8, 3)), 4, 0), 4, 1).astype(np.uint8)
    settings = ViewSettings(extent_px=32, num_views=1, blur_p=0.0, gray_p=0.0, jitter_p=1.0)
    made = Colours(settings, 0)(np.stack([image] * 6), np.arange(6))
    assert all(not np.array_equal(own, image) for own in made)
    np.testing.assert_array_equal(made, np.repeat(np.repeat(made[:, ::4, ::4], 4, 1), 4, 2))
    order = [np.argsort(own[::4, ::4].sum(-1), axis=None)[[0, -1]].tolist() for own in made]
    assert order.count(np.argsort(image[::4, ::4].astype(int).sum(-1), axis=None)[[0, -1]].tolist()) >= 4
    whole = Views(settings, 0)(np.stack([image] * 6), np.arange(6))[:, 0]
    assert not np.array_equal(whole, made)  # keys of their own


def test_images_smaller_than_a_crop_are_refused_with_the_remedy():
    with pytest.raises(BadInput, match=r"crops of 128 px.*smallest is 70 px.*protocol.crop_px=64 or less"):
        Crops([masked(200, 300), masked(70, 300)], 128, seed=0)
