"""A view is a function of (seed, position, view number), and its coins fall one by one."""

from collections import Counter

import numpy as np
import pytest

from raypath.data.views import Views, ViewSettings

ALL = ViewSettings(extent_px=32, min_scale=0.3)
CROP_ONLY = ViewSettings(extent_px=64, num_views=1, min_scale=0.2, jitter_p=0, gray_p=0, blur_p=0)
FLIP_ONLY = ViewSettings(extent_px=16, num_views=1, min_scale=1.0, jitter_p=0, gray_p=0, blur_p=0)


@pytest.fixture(scope="module")
def block():
    """40 noisy tiles that differ, and their positions."""
    images = np.random.default_rng(0).integers(0, 256, (40, 48, 48, 3), dtype=np.uint8)
    return images, np.arange(1000, 1160, 4)


def slopes(extent_px):
    """A tile whose red is its column and whose green is its row, in levels."""
    ramp = np.linspace(0, 255, extent_px).astype(np.uint8)
    return np.stack(np.broadcast_arrays(ramp[None, :], ramp[:, None], np.uint8(128)), axis=-1)


def test_shape_and_type(block):
    views = Views(ALL, seed=1)(*block)
    assert views.shape == (40, 2, 32, 32, 3)
    assert views.dtype == np.uint8
    assert views.flags["C_CONTIGUOUS"]


def test_any_order_and_any_split_give_the_same_pixels(block):
    images, positions = block
    whole = Views(ALL, seed=1)(images, positions)
    order = np.random.default_rng(1).permutation(len(images))
    assert np.array_equal(Views(ALL, seed=1)(images[order], positions[order]), whole[order])
    maker = Views(ALL, seed=1)
    parts = [maker(images[part], positions[part]) for part in np.split(order, [1, 2, 17, 30])]
    assert np.array_equal(np.concatenate(parts), whole[order])
    assert np.array_equal(maker(images, positions), whole)  # nothing is left over from calls before


def test_fewer_views_are_the_first_of_more(block):
    images, positions = block
    three = Views(ViewSettings(extent_px=32, min_scale=0.3, num_views=3), seed=1)(images[:5], positions[:5])
    assert np.array_equal(three[:, :2], Views(ALL, seed=1)(images[:5], positions[:5]))


def test_views_positions_and_seeds_differ(block):
    images, positions = block
    same = np.broadcast_to(images[:1], images.shape)
    views = Views(ALL, seed=1)(same, positions)
    other = Views(ALL, seed=2)(same, positions)
    assert len({view.tobytes() for view in views.reshape(-1, 32 * 32 * 3)}) == 80
    assert not any(np.array_equal(a, b) for a, b in zip(views.reshape(80, -1), other.reshape(80, -1)))


def test_flips_are_independent_of_each_other():
    """One generator per transform, all seeded alike, would flip both ways or not at all."""
    num = 2000
    image = slopes(16)
    views = Views(FLIP_ONLY, seed=3)(np.broadcast_to(image, (num, *image.shape)), np.arange(num))[:, 0].astype(int)
    across = views[:, 0, 0, 0] > views[:, 0, -1, 0]
    down = views[:, 0, 0, 1] > views[:, -1, 0, 1]
    counts = Counter(zip(across.tolist(), down.tolist()))
    assert len(counts) == 4
    assert sum((count - num / 4) ** 2 / (num / 4) for count in counts.values()) < 16.3  # chi square, 3 df, p = 0.001
    for flipped in range(4):
        expected = image[:, :: -1 if flipped & 1 else 1][:: -1 if flipped & 2 else 1]
        some = views[(across == bool(flipped & 1)) & (down == bool(flipped & 2))]
        assert (some == expected).all()  # nothing but the flips was done


def test_crops_keep_their_share_of_the_area():
    num = 600
    views = Views(CROP_ONLY, seed=4)(np.broadcast_to(slopes(128), (num, 128, 128, 3)), np.arange(num))[:, 0].astype(int)
    width = (np.ptp(views[..., 0], axis=(1, 2)) + 1) / 256
    height = (np.ptp(views[..., 1], axis=(1, 2)) + 1) / 256
    area = width * height
    assert area.min() > 0.2 * 0.9  # to a pixel of 128
    assert area.max() <= 1
    assert 0.52 < area.mean() < 0.66  # 0.6, less the large crops that do not fit at their aspect ratio
    assert 0.9 < np.median(width / height) < 1.1
    assert (width / height).min() > 0.7
    assert (width / height).max() < 1.45


def test_gray_and_jitter_happen_as_often_as_they_should():
    num = 1000
    image = np.full((16, 16, 3), (150, 90, 200), np.uint8)
    images = np.broadcast_to(image, (num, *image.shape))
    gray = ViewSettings(extent_px=16, num_views=1, jitter_p=0, gray_p=0.2, blur_p=0)
    made = Views(gray, seed=5)(images, np.arange(num))[:, 0, 8, 8].astype(int)
    assert 0.15 < (np.ptp(made, axis=1) == 0).mean() < 0.25
    jitter = ViewSettings(extent_px=16, num_views=1, jitter_p=0.8, gray_p=0, blur_p=0)
    made = Views(jitter, seed=5)(images, np.arange(num))[:, 0, 8, 8].astype(int)
    assert 0.75 < (np.abs(made - image[0, 0]).max(1) > 1).mean() < 0.85
