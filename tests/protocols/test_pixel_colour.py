import numpy as np
import pytest

from raypath.benchmarks.metrics.pixels import score_pixels
from raypath.errors import BadInput
from raypath.protocols.masked_samples import MaskedSamples
from raypath.protocols.pixel_colour import PixelColourSettings, colours_of, pixel_colour
from tests.protocols import segmented


def samples(seeds, **kwargs):
    masked = [segmented.draw(seed, **kwargs) for seed in seeds]
    return MaskedSamples(masked, tuple(map(str, seeds)), (None,) * len(masked), segmented.CLASSES)


def test_the_surroundings_are_the_mean_of_the_pixels_that_are_there():
    image = np.random.default_rng(0).integers(0, 256, (7, 9, 3), dtype=np.uint8)
    made = colours_of(image, 5)
    for row in range(7):
        for column in range(9):
            square = image[max(0, row - 2) : row + 3, max(0, column - 2) : column + 3].astype(np.float64) / 255
            np.testing.assert_allclose(made[row, column, 3:], square.mean((0, 1)), rtol=1e-4)
    np.testing.assert_allclose(made[..., :3], image / 255, rtol=1e-6)
    np.testing.assert_allclose(colours_of(image, 1)[..., 3:], image / 255, rtol=1e-6)


def test_it_finds_what_is_redder_and_surroundings_help():
    train, val = samples(range(6)), samples([20, 21])
    alone, around = (
        score_pixels(pixel_colour(train, val, PixelColourSettings(neighbourhood_px=n), seed=0).val)["miou_macro"]
        for n in (1, 9)
    )
    assert 0.6 < alone < around - 0.05
    fitted = pixel_colour(train, val, PixelColourSettings(), seed=0)
    np.testing.assert_array_equal(fitted.predict(val).confusion, fitted.val.confusion)


def test_without_colour_there_is_nothing_to_find():
    fitted = pixel_colour(samples(range(6), cue=0), samples([20, 21], cue=0), PixelColourSettings(), seed=0)
    assert score_pixels(fitted.val)["miou_macro"] < 0.5


def test_the_seed_decides_which_pixels_are_looked_at():
    train, val, few = samples(range(4)), samples([20]), PixelColourSettings(num_pixels=40)
    first, again, other = (pixel_colour(train, val, few, seed=s) for s in (0, 0, 1))
    weights = [fitted.classifier[-1].coef_ for fitted in (first, again, other)]
    np.testing.assert_array_equal(weights[0], weights[1])
    assert not np.array_equal(weights[0], weights[2])


def test_one_class_is_refused():
    image, mask = segmented.draw(0)
    flat = MaskedSamples([(image, 0 * mask)], ("a",), (None,), segmented.CLASSES)
    with pytest.raises(BadInput, match="pixels are background: nothing to tell apart"):
        pixel_colour(flat, flat, PixelColourSettings(), seed=0)
