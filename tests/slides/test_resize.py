import numpy as np
import pytest
from PIL import Image

from raypath.slides.resize import resize
from tests.slides.forge import picture


@pytest.mark.parametrize(("extent", "extent_px"), [(256, 128), (799, 512), (400, 512), (100, 130), (511, 100)])
def test_equals_pillow_bicubic_within_one_level(extent, extent_px):
    image = picture(extent, extent)
    expected = np.asarray(Image.fromarray(image).resize((extent_px, extent_px), Image.Resampling.BICUBIC))
    assert np.abs(resize(image[None], extent_px)[0].astype(int) - expected).max() <= 1


def test_a_tile_alone_and_in_a_batch_is_the_same_to_the_bit():
    images = np.stack([picture(200, 200, seed) for seed in range(5)])
    together = resize(images, 123)
    assert together.flags.c_contiguous
    assert together.shape == (5, 123, 123, 3)
    assert all((resize(image[None], 123)[0] == tile).all() for image, tile in zip(images, together))


def test_the_right_size_comes_back_as_it_is_and_nothing_stays_nothing():
    images = picture(32, 32)[None]
    assert resize(images, 32) is images
    assert resize(images[:0], 16).shape == (0, 16, 16, 3)


def test_other_arrays_are_refused():
    with pytest.raises(ValueError, match=r"not float64 \[1, 8, 8, 3\]"):
        resize(np.zeros((1, 8, 8, 3)), 4)
