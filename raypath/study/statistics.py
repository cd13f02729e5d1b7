"""How sure a score is, and whether two encoders differ: intervals that know about patients.

Images of one patient resemble each other, so the patient is what is drawn again: an interval over images is too narrow. Where no
sample names a patient, each image stands for itself and the result says level "image".

One decision: bootstrap-t. Every resample is judged by its own jackknife standard error (delete one patient), because with 20 to
40 patients the plain percentile interval covers too rarely. Accuracy and balanced accuracy need no more than counts per patient
(how many of each class, how many of them right), and patients with equal counts are one pattern with a multiplicity: a resample
is a row of multinomial weights, everything is a few matrix products, and a set without patients has only a handful of patterns.

The area under the ROC curve is no function of counts; it has a closed form of its own (`auroc`, Student's t over patients).

What it costs: R resamples x U patterns x K classes, in blocks (2,000 x 40 x 5 takes 10 ms). Sources: Efron and Tibshirani, An
Introduction to the Bootstrap (1993), 11.5 (jackknife) and 12.5 (bootstrap-t); Field and Welsh, JRSS B 69 (2007) 369 (clusters).

Falls back to the percentile interval (`method` says so) where a standard error degenerates: it is zero (everything right, or
both encoders alike), a class lives in fewer than two patients, or more than 5 % of the resamples have none. Where the estimate
is the same in every resample that interval has no width, which means "not enough errors to tell", not certainty.

Legend: R resamples, P patients, U patterns, K classes, M encoders (1, or 2 for a difference).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.special import expit, logit
from scipy.stats import t as t_distribution

from raypath.benchmarks.metrics import Predictions
from raypath.errors import BadInput
from raypath.study.auroc import auroc_influence

Metric = Literal["accuracy", "balanced_accuracy", "auroc"]
METRICS = ("accuracy", "balanced_accuracy", "auroc")
MAX_DEGENERATE_SHARE = 0.05
MAX_BLOCK_NUMBERS = 4_000_000  # floats of one block of resamples: 32 MB
SMALLEST_ERROR = 1e-9  # a standard error below it is rounding


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A score with its confidence interval, as a fraction (0 to 1)."""

    estimate: float
    low: float
    high: float
    num_patients: int
    """Units that were resampled: patients, or images at level "image"."""
    num_samples: int
    level: Literal["patient", "image"]
    method: Literal["bootstrap-t", "percentile", "t"]


@dataclass(frozen=True, kw_only=True)
class Difference(Interval):
    """Score of `a` minus score of `b` on the same samples (-1 to 1)."""

    @property
    def is_clear(self) -> bool:
        """Whether the interval leaves out zero (and has a width)."""
        return self.low < self.high and not self.low <= 0 <= self.high


@dataclass(frozen=True)
class _Counts:
    """Sufficient statistics: patients with equal counts are one pattern."""

    total: np.ndarray
    """float64 [U, K], samples of each class."""
    right: np.ndarray
    """float64 [U, M, K], how many of them each encoder got right."""
    multiplicity: np.ndarray
    """int64 [U], patients with this pattern."""


def score_interval(
    predictions: Predictions,
    metric: Metric = "balanced_accuracy",
    *,
    num_resamples: int = 2000,
    seed: int = 0,
    confidence: float = 0.95,
) -> Interval:
    """The score of one encoder with its interval. Raises BadInput for another metric or fewer than two patients."""
    return Interval(**_interval([predictions], metric, num_resamples, seed, confidence, bounds=(0.0, 1.0)))


def paired_difference(
    a: Predictions,
    b: Predictions,
    metric: Metric = "balanced_accuracy",
    *,
    num_resamples: int = 2000,
    seed: int = 0,
    confidence: float = 0.95,
) -> Difference:
    """Score of `a` minus score of `b`, resampling the patients of both together.

    Raises BadInput where the two were not asked about the same samples (ids, labels, patients, classes; any order).
    """
    return Difference(**_interval([a, _aligned(b, a)], metric, num_resamples, seed, confidence, bounds=(-1.0, 1.0)))


def _aligned(b: Predictions, a: Predictions) -> Predictions:
    """`b` in the order of `a`."""
    place = {sample: row for row, sample in enumerate(b.sample)}
    only_a, only_b = [s for s in a.sample if s not in place], set(b.sample) - set(a.sample)
    if only_a or only_b:
        example = only_a[0] if only_a else min(only_b)
        raise BadInput(
            f"paired difference: {len(only_a)} samples only in the first, {len(only_b)} only in the second, e.g. "
            f"{example!r}; expected predictions for the same samples: score both on the same split"
        )
    rows = [place[sample] for sample in a.sample]
    aligned = Predictions(a.sample, [b.patient[r] for r in rows], b.label[rows], b.probability[rows], b.classes)
    for what, is_same in (
        ("classes", aligned.classes == a.classes),
        ("labels", np.array_equal(aligned.label, a.label)),
        ("patients", aligned.patient == a.patient),
    ):
        if not is_same:
            raise BadInput(f"paired difference: the two predictions have different {what}; use one version of the data")
    return aligned


def _interval(predictions, metric, num_resamples, seed, confidence, bounds) -> dict:
    """The fields of an Interval for one encoder, or for the first minus the second."""
    if metric not in METRICS:
        raise BadInput(f"metric {metric!r}: expected one of {', '.join(METRICS)}")
    first = predictions[0]
    groups = [p if p is not None else f"\0{s}" for p, s in zip(first.patient, first.sample, strict=True)]
    names, group_of = np.unique(np.asarray(groups, dtype=object), return_inverse=True)
    if len(names) < 2:
        raise BadInput(f"an interval needs at least two patients, found {len(names)}; score more patients")
    if metric == "auroc":
        method, estimate, low, high = _student(predictions, group_of, len(names), confidence)
    else:
        counts = _count(predictions, group_of, len(names))
        method, estimate, low, high = _bootstrap(counts, metric, num_resamples, seed, confidence)
    low, high = np.clip([low, high], *bounds)
    return {
        "estimate": float(estimate),
        "low": float(low),
        "high": float(high),
        "num_patients": len(names),
        "num_samples": len(first.label),
        "level": "patient" if any(patient is not None for patient in first.patient) else "image",
        "method": method,
    }


def _student(predictions, group_of, num_patients, confidence) -> tuple[str, float, float, float]:
    """Method, estimate, low and high of the area under the ROC curve, from the influence of every patient."""
    parts = [auroc_influence(each, group_of, num_patients) for each in predictions]
    signs = (1, -1)[: len(parts)]
    estimate = sum(sign * area for sign, (area, _) in zip(signs, parts, strict=True))
    influence = sum(sign * values for sign, (_, values) in zip(signs, parts, strict=True))
    error = np.sqrt(num_patients / (num_patients - 1) * (influence**2).sum())
    label = predictions[0].label
    fewest = min(len(np.unique(group_of[label == k])) for k in np.unique(label))  # patients of the rarest class
    reach = t_distribution.ppf((1 + confidence) / 2, max(fewest - 1, 1)) * error
    if (
        len(parts) == 1 and 0 < estimate < 1
    ):  # on the log-odds scale, where an area near 1 is not squeezed against its bound
        ends = logit(estimate) + np.array([-1, 1]) * reach / (estimate * (1 - estimate))
        return "t", estimate, *expit(ends)
    return "t", estimate, estimate - reach, estimate + reach


def _count(predictions: Sequence[Predictions], group_of: np.ndarray, num_patients: int) -> _Counts:
    """Counts per patient, equal patients merged."""
    num_classes, label = len(predictions[0].classes), predictions[0].label
    total_PK = np.zeros((num_patients, num_classes))
    np.add.at(total_PK, (group_of, label), 1)
    right_PMK = np.zeros((num_patients, len(predictions), num_classes))
    for m, each in enumerate(predictions):
        np.add.at(right_PMK[:, m], (group_of, label), each.predicted == label)
    flat = np.concatenate([total_PK, right_PMK.reshape(num_patients, -1)], axis=1)
    patterns, multiplicity = np.unique(flat, axis=0, return_counts=True)
    total, right = patterns[:, :num_classes], patterns[:, num_classes:].reshape(-1, len(predictions), num_classes)
    return _Counts(total, right, multiplicity)


def _bootstrap(
    counts: _Counts, metric: Metric, num_resamples: int, seed: int, confidence: float
) -> tuple[str, float, float, float]:
    """Method, estimate, low and high."""
    num_patients = int(counts.multiplicity.sum())
    (estimate,), (error,) = _estimate_and_error(counts.multiplicity[None].astype(float), counts, metric)
    rng = np.random.default_rng(seed)
    weights = rng.multinomial(num_patients, counts.multiplicity / num_patients, size=num_resamples).astype(float)
    block = max(1, MAX_BLOCK_NUMBERS // counts.right.size)
    parts = [_estimate_and_error(weights[i : i + block], counts, metric) for i in range(0, num_resamples, block)]
    resampled, errors = (np.concatenate(values) for values in zip(*parts, strict=True))
    tails = [(1 - confidence) / 2, (1 + confidence) / 2]
    if _is_degenerate(counts, metric, error, errors):
        return "percentile", estimate, *np.quantile(resampled, tails)
    is_sound = errors > SMALLEST_ERROR
    t_low, t_high = np.quantile((resampled[is_sound] - estimate) / errors[is_sound], tails)
    return "bootstrap-t", estimate, estimate - t_high * error, estimate - t_low * error


def _is_degenerate(counts: _Counts, metric: Metric, error: float, errors: np.ndarray) -> bool:
    patients_K = ((counts.total > 0) * counts.multiplicity[:, None]).sum(axis=0)
    is_lonely = metric == "balanced_accuracy" and (patients_K == 1).any()
    share = np.mean(errors <= SMALLEST_ERROR)
    return is_lonely or error <= SMALLEST_ERROR or share > MAX_DEGENERATE_SHARE


def _estimate_and_error(weights: np.ndarray, counts: _Counts, metric: Metric) -> tuple[np.ndarray, np.ndarray]:
    """The statistic [R] under patient weights [R, U], and its delete-one-patient jackknife standard error [R]."""
    total = weights @ counts.total  # [R, K]
    right = np.einsum("ru,umk->rmk", weights, counts.right)
    estimate = _statistic(right, total, metric)
    # every pattern once less: [R, U, M, K]; patterns that a resample does not hold have weight 0 below
    left_out = _statistic(right[:, None] - counts.right, total[:, None] - counts.total, metric)
    num_patients = weights.sum(axis=1)
    mean = (weights * left_out).sum(axis=1) / num_patients
    spread = (weights * (left_out - mean[:, None]) ** 2).sum(axis=1)
    return estimate, np.sqrt((num_patients - 1) / num_patients * spread)


def _statistic(right: np.ndarray, total: np.ndarray, metric: Metric) -> np.ndarray:
    """Accuracy or balanced accuracy (mean recall over the classes that are there), last encoder subtracted from the first.

    right: [..., M, K], total: [..., K]; returns [...].
    """
    total = total[..., None, :]
    if metric == "accuracy":
        score = right.sum(axis=-1) / np.maximum(total.sum(axis=-1), 1)
    else:
        is_present = total > 0
        score = (right / np.maximum(total, 1) * is_present).sum(axis=-1) / np.maximum(is_present.sum(axis=-1), 1)
    return score[..., 0] - score[..., 1] if score.shape[-1] == 2 else score[..., 0]
