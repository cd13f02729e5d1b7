"""The colour encoder against plain NumPy."""

import numpy as np
import torch

from raypath.models import ColourEncoder


def reference(image):
    """30 numbers of one uint8 tile [H, W, 3]."""
    values = image.reshape(-1, 3) / 255
    histograms = [np.histogram(image[..., c], bins=8, range=(0, 256))[0] / image[..., 0].size for c in range(3)]
    return np.concatenate([values.mean(0), values.std(0), *histograms])


def test_it_is_mean_spread_and_histogram():
    images = np.random.default_rng(0).integers(0, 256, (5, 17, 13, 3), dtype=np.uint8)
    images[1] //= 40  # dark
    images[2, ..., 1] = 255  # the last bin, and no spread
    images[3] = np.array([31, 32, 223])  # both sides of an edge between bins
    features = ColourEncoder()(torch.from_numpy(images))
    assert features.shape == (5, ColourEncoder.width) == (5, 30)
    np.testing.assert_allclose(features.numpy(), [reference(image) for image in images], atol=1e-6)


def test_the_order_of_pixels_and_the_rest_of_the_batch_do_not_matter():
    image = torch.randint(0, 256, (1, 8, 8, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    together = ColourEncoder()(torch.cat([image, 255 - image, image.flip(1, 2)]))
    torch.testing.assert_close(together[0], ColourEncoder()(image)[0])
    torch.testing.assert_close(together[0], together[2])
    assert not torch.allclose(together[0], together[1])
