"""What a score means: labelled sets with their splits, the one door to their test rows, predictions and metrics.

A new kind of benchmark is one file and one line in `settings.KINDS`.
"""

from raypath.benchmarks.benchmark import IMAGE_SCHEMA, TILE_SCHEMA, Benchmark, groups_of
from raypath.benchmarks.images import load_images
from raypath.benchmarks.metrics.classification import Predictions, score
from raypath.benchmarks.metrics.gathering import gathered
from raypath.benchmarks.metrics.patients import of_patients, recognition_rates
from raypath.benchmarks.metrics.pixels import PixelPredictions, pixel_confusion, score_pixels
from raypath.benchmarks.opening import check_unopened, open_test
from raypath.benchmarks.phantoms import load_phantoms
from raypath.benchmarks.settings import BenchmarkSettings, ImagesSettings, PhantomsSettings
from raypath.benchmarks.splits.making import label_budget, label_fraction

__all__ = [
    "IMAGE_SCHEMA",
    "TILE_SCHEMA",
    "Benchmark",
    "BenchmarkSettings",
    "ImagesSettings",
    "PhantomsSettings",
    "PixelPredictions",
    "Predictions",
    "check_unopened",
    "gathered",
    "groups_of",
    "label_budget",
    "label_fraction",
    "load_images",
    "load_phantoms",
    "of_patients",
    "open_test",
    "pixel_confusion",
    "recognition_rates",
    "score",
    "score_pixels",
]
