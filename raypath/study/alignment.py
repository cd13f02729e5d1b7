"""Which predictions belong together: an encoder's checkpoints and fit seeds, all about the same samples in one order.

One decision: everything is one flat list of members with a weight each. An encoder is the mean over its checkpoints of the mean
over their fit seeds, a difference subtracts the second encoder's, so any statistic of a study is one weighted sum of scores, and
nothing else has to know how deep the lists were.

What it costs: a dictionary of the samples per member. Legend: N samples, M members, P patients.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from raypath.benchmarks.metrics.classification import Predictions
from raypath.benchmarks.metrics.pixels import PixelPredictions
from raypath.errors import BadInput

P = TypeVar("P", Predictions, PixelPredictions)
Checkpoints = P | Sequence[Sequence[P]]
"""One encoder's predictions: one alone, or checkpoints (pretraining seeds) x fit seeds."""


@dataclass(frozen=True, eq=False)
class Members:
    """The predictions behind a statistic, in the order of the samples of the first."""

    predictions: tuple[Predictions | PixelPredictions, ...]
    side: np.ndarray
    """int64 [M], the encoder it belongs to: 0, 1 ..."""
    checkpoint: np.ndarray
    """int64 [M], the number of its checkpoint within the encoder."""
    fit: np.ndarray
    """int64 [M], the number of the fit within its checkpoint."""
    share: np.ndarray
    """float64 [M], its part of its encoder's mean; they sum to 1 for each encoder."""

    @property
    def num_sides(self) -> int:
        """Encoders."""
        return int(self.side.max()) + 1

    @property
    def weight(self) -> np.ndarray:
        """float64 [M]: the statistic is the sum of weight x score (one encoder, or the first minus the second)."""
        return np.where(self.side == 0, self.share, -self.share)

    def num_checkpoints(self, side: int) -> int:
        """Checkpoints of an encoder."""
        return int(self.checkpoint[self.side == side].max()) + 1

    def num_seeds(self, side: int) -> int:
        """Fit seeds of each checkpoint of an encoder, the fewest where they differ."""
        return int(np.bincount(self.checkpoint[self.side == side]).min())


def members_of(*encoders: Checkpoints) -> Members:
    """The members of one or several encoders.

    Raises BadInput for an encoder without checkpoints, a checkpoint without fits, and where any two members were not asked about
    the same samples (ids, labels, patients, classes; any order).
    """
    nested = [[[each]] if isinstance(each, Predictions | PixelPredictions) else each for each in encoders]
    if not all(checkpoints and all(checkpoints) for checkpoints in nested):
        raise BadInput("an encoder has a checkpoint or a fit without predictions: leave it out, or score it first")
    rows = [
        (predictions, side, number, fit, 1 / (len(checkpoints) * len(fits)))
        for side, checkpoints in enumerate(nested)
        for number, fits in enumerate(checkpoints)
        for fit, predictions in enumerate(fits)
    ]
    predictions, side, checkpoint, fit, share = zip(*rows, strict=True)
    first = predictions[0]
    aligned = (first, *(_aligned(each, first) for each in predictions[1:]))
    return Members(aligned, np.array(side), np.array(checkpoint), np.array(fit), np.array(share))


def groups_of(predictions: Predictions | PixelPredictions, *, by_image: bool = False) -> tuple[np.ndarray, int, bool]:
    """The unit of every sample int64 [N], how many units there are, and whether they are patients.

    Images stand for themselves where asked for, where they name no patient, and where all are of one. Raises BadInput for fewer
    than two units.
    """
    is_by_patient = not by_image and len(set(predictions.patient)) > 1
    groups = [
        patient if is_by_patient and patient is not None else f"\0{sample}"
        for patient, sample in zip(predictions.patient, predictions.sample, strict=True)
    ]
    names, group_of = np.unique(np.asarray(groups, dtype=object), return_inverse=True)
    if len(names) < 2:
        raise BadInput(f"an interval needs at least two samples, found {len(names)}; score more")
    return group_of, len(names), is_by_patient


def _aligned(b: P, a: P) -> P:
    """`b` in the order of `a`."""
    if type(a) is not type(b):
        raise BadInput(f"paired difference: {type(a).__name__} and {type(b).__name__}; expected two of one kind")
    place = {sample: row for row, sample in enumerate(b.sample)}
    only_a, only_b = [s for s in a.sample if s not in place], set(b.sample) - set(a.sample)
    if only_a or only_b:
        example = only_a[0] if only_a else min(only_b)
        raise BadInput(
            f"paired difference: {len(only_a)} samples only in the first, {len(only_b)} only in the second, e.g. "
            f"{example!r}; expected predictions for the same samples: score both on the same split"
        )
    aligned = b.take([place[sample] for sample in a.sample])
    for what, is_same in (
        ("classes", aligned.classes == a.classes),
        ("labels", np.array_equal(_truth(aligned), _truth(a))),
        ("patients", aligned.patient == a.patient),
    ):
        if not is_same:
            raise BadInput(f"paired difference: the two predictions have different {what}; use one version of the data")
    return aligned


def _truth(predictions: Predictions | PixelPredictions) -> np.ndarray:
    """What the samples are: their labels [N], or the pixels of each class [N, K]."""
    return predictions.label if isinstance(predictions, Predictions) else predictions.confusion.sum(axis=2)
