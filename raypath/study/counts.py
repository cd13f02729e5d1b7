"""Scores that are functions of counts, so that drawing patients again means adding numbers and not looking at samples.

One decision: a score is two pure functions. `count` says what one encoder's predictions come to for each patient, `score` turns
the sum over any patients into the number that `benchmarks.score` or `score_pixels` gives for their samples (a test holds them
together). How the sum came about, by weights, by leaving somebody out, is nobody's business here.

What it costs: C numbers per patient: 2 K, or K * K for the kappa.

Legend: N samples, P patients, K classes, C numbers.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from raypath.benchmarks.metrics.classification import Predictions
from raypath.benchmarks.metrics.pixels import PixelPredictions


@dataclass(frozen=True)
class Counted:
    """How a score is had from counts."""

    kind: type
    """Predictions or PixelPredictions."""
    count: Callable[..., np.ndarray]
    """(predictions, patient number of each sample int [N], P) -> float64 [P, C]."""
    score: Callable[[np.ndarray], np.ndarray]
    """Sums [..., C] -> [...], NaN where it is undefined."""
    present: Callable[[np.ndarray], np.ndarray] | None = None
    """Sums [..., C] -> bool [..., K], the classes of which the score is a plain mean; None: it is no such mean."""
    bounds: tuple[float, float] = (0.0, 1.0)


def _rights(predictions: Predictions, group_of: np.ndarray, num_groups: int) -> np.ndarray:
    """Samples of each class, then how many of them are right: C = 2 K."""
    num_classes, label = len(predictions.classes), predictions.label
    counts = np.zeros((num_groups, 2 * num_classes))
    np.add.at(counts, (group_of, label), 1)
    np.add.at(counts, (group_of, num_classes + label), predictions.predicted == label)
    return counts


def _accuracy(counts: np.ndarray) -> np.ndarray:
    total, right = _halves(counts)
    return right.sum(axis=-1) / total.sum(axis=-1)


def _balanced_accuracy(counts: np.ndarray) -> np.ndarray:
    total, right = _halves(counts)
    return _mean_of_present(right / total, total > 0)


def _confusions(predictions: Predictions, group_of: np.ndarray, num_groups: int) -> np.ndarray:
    """The confusion matrix row by row: C = K * K."""
    num_classes = len(predictions.classes)
    counts = np.zeros((num_groups, num_classes**2))
    np.add.at(counts, (group_of, predictions.label * num_classes + predictions.predicted), 1)
    return counts


def _quadratic_kappa(counts: np.ndarray) -> np.ndarray:
    num_classes = round(counts.shape[-1] ** 0.5)
    confusion = counts.reshape(*counts.shape[:-1], num_classes, num_classes)
    labelled, called = confusion.sum(axis=-1), confusion.sum(axis=-2)
    weight = np.subtract.outer(np.arange(num_classes), np.arange(num_classes)) ** 2
    by_chance = np.einsum("...i,ij,...j->...", labelled, weight, called) / labelled.sum(axis=-1)
    return 1 - (confusion * weight).sum(axis=(-2, -1)) / by_chance


def _pixels(predictions: PixelPredictions, group_of: np.ndarray, num_groups: int) -> np.ndarray:
    """Pixels labelled or called each class (2 TP + FP + FN), then those that are right (TP): C = 2 K."""
    confusion = predictions.confusion
    right = np.diagonal(confusion, axis1=1, axis2=2)
    counts = np.zeros((num_groups, 2 * len(predictions.classes)))
    np.add.at(counts, group_of, np.concatenate([confusion.sum(axis=1) + confusion.sum(axis=2), right], axis=1))
    return counts


def _miou_macro(counts: np.ndarray) -> np.ndarray:
    both, right = _halves(counts)
    return _mean_of_present(right / (both - right), both > 0)


def _dice_macro(counts: np.ndarray) -> np.ndarray:
    both, right = _halves(counts)
    return _mean_of_present(2 * right / both, both > 0)


def _is_there(counts: np.ndarray) -> np.ndarray:
    return _halves(counts)[0] > 0


def _halves(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    num_classes = counts.shape[-1] // 2
    return counts[..., :num_classes], counts[..., num_classes:]


def _mean_of_present(values: np.ndarray, is_present: np.ndarray) -> np.ndarray:
    return np.where(is_present, values, 0).sum(axis=-1) / is_present.sum(axis=-1)


COUNTED = {
    "accuracy": Counted(Predictions, _rights, _accuracy),
    "balanced_accuracy": Counted(Predictions, _rights, _balanced_accuracy, _is_there),
    "quadratic_kappa": Counted(Predictions, _confusions, _quadratic_kappa, bounds=(-1.0, 1.0)),
    "miou_macro": Counted(PixelPredictions, _pixels, _miou_macro, _is_there),
    "dice_macro": Counted(PixelPredictions, _pixels, _dice_macro, _is_there),
}
