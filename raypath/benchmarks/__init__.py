"""What a score means: labelled sets with their splits, the one door to their test rows, predictions and metrics.

A new kind of benchmark is one file and one line in `LOADERS`.
"""

from raypath.benchmarks.benchmark import IMAGE_SCHEMA, TILE_SCHEMA, Benchmark, groups_of
from raypath.benchmarks.images import load_images
from raypath.benchmarks.metrics import Predictions, score
from raypath.benchmarks.opening import open_test
from raypath.benchmarks.phantoms import load_phantoms
from raypath.benchmarks.splits import label_budget, label_fraction

LOADERS = {"images": load_images, "phantoms": load_phantoms}

__all__ = [
    "IMAGE_SCHEMA",
    "LOADERS",
    "TILE_SCHEMA",
    "Benchmark",
    "Predictions",
    "groups_of",
    "label_budget",
    "label_fraction",
    "load_images",
    "load_phantoms",
    "open_test",
    "score",
]
