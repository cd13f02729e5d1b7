"""Images and masks at another um per px: the same places in both, and no class that was not there."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from raypath.data import masked_images
from raypath.data.masked_resampling import resample_all, resampled
from raypath.errors import BadInput

LENGTHS = st.integers(1, 90)
FACTORS = st.one_of(st.floats(0.1, 4), st.sampled_from([0.25, 0.5, 2.0, 3.0, 0.39 / 0.5]))


def slow_nearest(mask, height, width):
    """Each new pixel asks the old one in which its centre lies, in exact fractions."""
    found = np.empty((height, width), mask.dtype)
    for row in range(height):
        for column in range(width):
            centre = [(Fraction(2 * k + 1, 2) * o) / n for k, o, n in zip((row, column), mask.shape, (height, width))]
            found[row, column] = mask[int(centre[0]), int(centre[1])]  # int() of a positive fraction is its floor
    return found


@settings(max_examples=40, deadline=None)
@given(LENGTHS, LENGTHS, FACTORS)
def test_classes_are_those_at_the_new_centres_and_colours_are_pillows(height, width, factor):
    generator = np.random.default_rng([height, width])
    image = generator.integers(0, 256, (height, width, 3), dtype=np.uint8)
    mask = generator.integers(0, 9, (height, width), dtype=np.uint8)
    new_image, new_mask = resampled(image, mask, factor)
    size = tuple(max(1, round(length * factor)) for length in (height, width))
    assert new_image.shape == (*size, 3)
    np.testing.assert_array_equal(new_mask, slow_nearest(mask, *size))
    pillows = Image.fromarray(image).resize(size[::-1], Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(new_image, np.asarray(pillows))
    assert new_image.flags.writeable
    assert set(np.unique(new_mask)) <= set(np.unique(mask))


@pytest.mark.parametrize("factor", [0.2, 0.39 / 0.5, 0.5, 1.7, 3.0])
def test_image_and_mask_speak_of_the_same_places(factor):
    """Both say their own row and column; after resampling they differ by what a class, which is whole, cannot say."""
    rows, columns = np.mgrid[:120, :150].astype(np.uint8)
    for place in (rows, columns):
        image, mask = resampled(np.repeat(place[..., None], 3, axis=2), place, factor)
        edge = int(np.ceil(3 * max(factor, 1)))  # where the filter meets the border of the image
        inner = np.s_[edge:-edge, edge:-edge]
        off = image[..., 0][inner].astype(float) - mask[inner]
        assert np.abs(off).max() <= 1
        # of the 2, 3, ... pixels that become one, the middle one; of an even number the second, which is half a pixel late
        assert abs(off.mean()) <= (0.51 if factor == 0.5 else 0.15)


def test_what_keeps_its_extent_is_not_touched():
    image, mask = np.zeros((40, 30, 3), np.uint8), np.zeros((40, 30), np.uint8)
    for factor in (1.0, 1.0 + 1e-12, 1.001):
        same = resampled(image, mask, factor)
        assert same[0] is image
        assert same[1] is mask


def test_a_list_is_resampled_in_its_order_and_what_would_not_fit_is_refused_before(monkeypatch):
    generator = np.random.default_rng(0)
    masked = [
        (generator.integers(0, 256, (s, 40, 3), dtype=np.uint8), generator.integers(0, 4, (s, 40), dtype=np.uint8))
        for s in (10, 20, 30)
    ]
    made = list(masked)
    resample_all(made, 1.5)
    for own, (image, mask) in zip(made, masked):
        expected = resampled(image, mask, 1.5)
        assert own[1].shape == (1.5 * len(mask), 60)
        for ours, theirs in zip(own, expected):
            np.testing.assert_array_equal(ours, theirs)
    needed = 60 * 40 * (4 * 1.5**2 + 1)
    monkeypatch.setattr(masked_images, "MAX_BYTES", needed)
    resample_all(list(masked), 1.5)
    monkeypatch.setattr(masked_images, "MAX_BYTES", needed - 1)
    with pytest.raises(BadInput, match=r"3 images with masks, magnified 1.5 times.*per_class_train.*scale=native"):
        resample_all(made := list(masked), 1.5)
    assert made == masked
