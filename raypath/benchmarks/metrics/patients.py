"""Scores of patients, where what was predicted is tiles or images of them.

Two questions, two functions:

    of_patients          the patient has the label (and every tile with it): what do the tiles say together? The answer is
                         predictions again, one per patient, so every metric and every interval applies to it.
    recognition_rates    the images have the labels: what share of each patient's images is right, and the mean of that over
                         patients? A patient with a hundred images weighs as much as one with ten (Spanhol et al. 2016; the score
                         of BreakHis, and of Mormont et al. 2020 on it).

One decision: a sample without a patient is an error here, as no patient can be made of it. What it costs: one sort per patient.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from raypath.benchmarks.metrics.classification import Predictions
from raypath.errors import BadInput

_MAX_NAMED = 3


@dataclass(frozen=True, kw_only=True)
class RecognitionRate:
    """Mean over patients of the share of their images that are right."""

    rate: float
    """0 to 1."""
    num_patients: int
    num_images: int


def of_patients(predictions: Predictions, *, top_k: int | None = None) -> Predictions:
    """What the samples of each patient say together: one row per patient, named by it, in the order of the names.

    The probability of a class is the mean over the patient's samples; with `top_k` the mean of its `top_k` highest (of all, where
    there are fewer), class by class, scaled so that the row sums to 1, which leaves the order of the classes as it is. That is
    the top-k pooling of Lu et al., CVPR 2023 (MI-Zero): a class that few tiles show is not outvoted by those which show none.

    Raises BadInput for samples without a patient and for patients whose samples have different labels, or are of different folds.
    """
    if top_k is not None and top_k < 1:
        raise BadInput(f"top_k {top_k}: expected 1 or more, or None for the mean of all samples")
    rows_of = _rows_of_patients(predictions)
    mixed = [name for name, rows in rows_of.items() if len(np.unique(predictions.label[rows])) > 1]
    if mixed:
        raise BadInput(
            f"patient scores: {len(mixed)} of {len(rows_of)} patients have samples with different labels: {_names(mixed)}; "
            "expected one label per patient: score the samples, or take recognition_rates"
        )
    fold = None if predictions.fold is None else [predictions.fold[rows[0]] for rows in rows_of.values()]
    if fold is not None and any(len(np.unique(predictions.fold[rows])) > 1 for rows in rows_of.values()):
        raise BadInput("patient scores: samples of one patient are of different folds; expected folds by patient")
    pooled = np.stack([_pooled(predictions.probability[rows], top_k) for rows in rows_of.values()])
    label = [predictions.label[rows[0]] for rows in rows_of.values()]
    return Predictions(tuple(rows_of), tuple(rows_of), label, pooled, predictions.classes, fold)


def recognition_rates(
    predictions: Predictions, group: Callable[[str], str] = lambda sample: "all"
) -> dict[str, RecognitionRate]:
    """The patient recognition rate of each group of samples, by the names of the groups.

    `group` says from a sample's id what it belongs to, e.g. its magnification: each group is scored by itself, over the patients
    it holds. Definition: Spanhol et al., IEEE TBME 63 (2016) 1455: the patient score is the share of the patient's images that
    are right, the rate is its mean over patients. Raises BadInput for samples without a patient.
    """
    names = np.array([group(sample) for sample in predictions.sample], dtype=object)
    rates = {}
    for name in sorted(set(names)):
        chosen = predictions.take(np.flatnonzero(names == name))
        is_right = chosen.predicted == chosen.label
        shares = [is_right[rows].mean() for rows in _rows_of_patients(chosen).values()]
        rates[name] = RecognitionRate(
            rate=float(np.mean(shares)), num_patients=len(shares), num_images=len(chosen.sample)
        )
    return rates


def _rows_of_patients(predictions: Predictions) -> dict[str, np.ndarray]:
    """Patient -> row numbers, patients in the order of their names."""
    nameless = [s for s, patient in zip(predictions.sample, predictions.patient, strict=True) if patient is None]
    if nameless:
        raise BadInput(
            f"patient scores: {len(nameless)} of {len(predictions.sample)} samples name no patient: {_names(nameless)}; "
            "expected one for each: say it in the manifest"
        )
    names, number = np.unique(np.array(predictions.patient, dtype=object), return_inverse=True)
    order = np.argsort(number)
    parts = np.split(order, np.flatnonzero(np.diff(number[order])) + 1)
    return dict(zip(names, parts, strict=True))


def _pooled(probability: np.ndarray, top_k: int | None) -> np.ndarray:
    """One row [K] of many [T, K], float64."""
    highest = np.sort(probability.astype(np.float64), axis=0)[-(top_k or len(probability)) :]
    mean = highest.mean(axis=0)
    return mean / mean.sum()


def _names(all_names: Sequence[str]) -> str:
    more = f" and {len(all_names) - _MAX_NAMED} more" if len(all_names) > _MAX_NAMED else ""
    return ", ".join(map(repr, all_names[:_MAX_NAMED])) + more
