"""The colour baseline of a segmentation: logistic regression on the colours of a pixel and of its surroundings.

One decision: it sees three numbers of a pixel and three of the mean of the square around it, and nothing of shape or place. What an
encoder cannot beat here it has not learnt from form; on stained nuclei this is a good deal. The mean is over those pixels of the
square that lie in the image.

Costs seconds: it is fitted on a fixed number of pixels, as many of each image, drawn by the seed.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.ndimage import uniform_filter
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from raypath.benchmarks.metrics.pixels import PixelPredictions
from raypath.errors import BadInput
from raypath.protocols.masked_samples import MaskedSamples


@dataclass(frozen=True, kw_only=True)
class PixelColourSettings:
    """How large the surroundings are, and how many pixels are looked at."""

    kind: Literal["pixel_colour"] = "pixel_colour"
    neighbourhood_px: int = 9
    """Extent of the square whose mean colour counts too; 1: none."""
    num_pixels: int = 50_000
    """Pixels it is fitted on, spread evenly over the images."""
    max_iter: int = 1_000

    def __post_init__(self):
        for name in ("neighbourhood_px", "num_pixels", "max_iter"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: expected 1 or more")
        if self.neighbourhood_px % 2 == 0:
            raise ValueError(
                f"neighbourhood_px={self.neighbourhood_px}: expected an odd number, for a pixel in its middle"
            )


@dataclass(frozen=True, eq=False)
class PixelColour:
    """The fitted baseline."""

    classifier: Pipeline
    settings: PixelColourSettings
    val: PixelPredictions

    def predict(self, samples: MaskedSamples, device: object = None) -> PixelPredictions:
        """How often each class was called each class; `device` is taken for the sake of the other protocols."""
        return samples.predictions(self.classes_of)

    def classes_of(self, image: np.ndarray, device: object = None) -> np.ndarray:
        """The class of each pixel, int64 [H, W], of an image uint8 [H, W, 3]."""
        return _classes_of(self.classifier, image, self.settings)


def pixel_colour(train: MaskedSamples, val: MaskedSamples, settings: PixelColourSettings, *, seed: int) -> PixelColour:
    """Fit on pixels of train, unweighted; raises BadInput if they are all of one class."""
    features, labels = _drawn(train, settings, seed)
    if len(np.unique(labels)) < 2:
        raise BadInput(f"pixel_colour: all {len(labels)} pixels are {train.classes[labels[0]]}: nothing to tell apart")
    classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=settings.max_iter)).fit(features, labels)
    return PixelColour(classifier, settings, val.predictions(lambda image: _classes_of(classifier, image, settings)))


def colours_of(image: np.ndarray, neighbourhood_px: int) -> np.ndarray:
    """float32 [H, W, 6]: the levels of each pixel in 0 to 1, and the mean over the square around it."""
    levels = image.astype(np.float32) / 255
    square = (neighbourhood_px, neighbourhood_px)
    there = uniform_filter(np.ones(image.shape[:2], np.float32), square, mode="constant")
    means = uniform_filter(levels, (*square, 1), mode="constant") / there[..., None]
    return np.concatenate([levels, means], axis=-1)


def _drawn(samples: MaskedSamples, settings: PixelColourSettings, seed: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    per_image = -(-settings.num_pixels // len(samples))
    features, labels = [], []
    for image, mask in samples.masked:
        drawn = generator.choice(mask.size, min(per_image, mask.size), replace=False)
        features.append(colours_of(image, settings.neighbourhood_px).reshape(mask.size, -1)[drawn])
        labels.append(mask.reshape(-1)[drawn])
    return np.concatenate(features), np.concatenate(labels).astype(np.int64)


def _classes_of(classifier: Pipeline, image: np.ndarray, settings: PixelColourSettings) -> np.ndarray:
    features = colours_of(image, settings.neighbourhood_px)
    return classifier.predict(features.reshape(-1, features.shape[-1])).reshape(image.shape[:2])
