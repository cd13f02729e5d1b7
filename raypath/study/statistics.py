"""How sure a score is, and whether two encoders differ: intervals that know about patients.

Images of one patient resemble each other, so the patient is what is drawn again: an interval over images is too narrow. Where no
sample names a patient, or all are of one, each image stands for itself and the result says level "image".

One decision: bootstrap-t. Every resample is judged by its own jackknife standard error (delete one patient), because with 20 to
40 patients the plain percentile interval covers too rarely. Most scores need no more than counts per patient (`counts`: how many
of each class, how many of them right; for segmentations pixels, pooled over the set as the score pools them), and patients with
equal counts are one pattern with a multiplicity: a resample is a row of multinomial weights, everything is a few matrix products,
and a classification without patients has only a handful of patterns.

The area under the ROC curve is no function of counts; it has a closed form of its own (`auroc`, Student's t over patients).

What it costs: R resamples x U patterns x C numbers, in blocks (2,000 x 40 x 10 takes 10 ms; 2,000 x 300 x 12 0.2 s). Sources:
Efron and Tibshirani, An Introduction to the Bootstrap (1993), 11.5 (jackknife) and 12.5 (bootstrap-t); Field and Welsh, JRSS B 69
(2007) 369 (clusters).

Falls back to the percentile interval (`method` says so) where a standard error degenerates: it is zero (everything right, or
both encoders alike), a class lives in fewer than two patients (where the score is a mean over classes), or more than 5 % of the
resamples have none. Where the estimate is the same in every resample that interval has no width, which means "not enough errors
to tell", not certainty.

Legend: R resamples, P patients, U patterns, C numbers that are counted, M encoders (1, or 2 for a difference).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np
from scipy.special import expit, logit
from scipy.stats import t as t_distribution

from raypath.benchmarks.benchmark import Primary
from raypath.benchmarks.metrics.classification import Predictions
from raypath.benchmarks.metrics.pixels import PixelPredictions
from raypath.errors import BadInput
from raypath.study.auroc import auroc_influence
from raypath.study.counts import COUNTED, Counted

P = TypeVar("P", Predictions, PixelPredictions)
METRICS = ("accuracy", "balanced_accuracy", "auroc", "quadratic_kappa", "miou_macro", "dice_macro")
MAX_DEGENERATE_SHARE = 0.05
MAX_BLOCK_NUMBERS = 4_000_000  # floats of one block of resamples: 32 MB
SMALLEST_ERROR = 1e-9  # a standard error below it is rounding


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A score with its confidence interval, as a fraction (0 to 1; a kappa -1 to 1)."""

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
    """Score of `a` minus score of `b` on the same samples (-1 to 1; of kappas -2 to 2)."""

    @property
    def is_clear(self) -> bool:
        """Whether the interval leaves out zero (and has a width)."""
        return self.low < self.high and not self.low <= 0 <= self.high


@dataclass(frozen=True)
class _Patterns:
    """Sufficient statistics: patients with equal counts are one pattern."""

    numbers: np.ndarray
    """float64 [U, M, C], what is counted of each encoder."""
    multiplicity: np.ndarray
    """int64 [U], patients with this pattern."""


def score_interval(
    predictions: Predictions | PixelPredictions,
    metric: Primary = "balanced_accuracy",
    *,
    num_resamples: int = 2000,
    seed: int = 0,
    confidence: float = 0.95,
) -> Interval:
    """The score of one encoder with its interval.

    Raises BadInput for another metric, one that these predictions do not have (pixels or labels), or fewer than two samples.
    """
    return Interval(**_interval([predictions], metric, num_resamples, seed, confidence))


def paired_difference(
    a: P,
    b: P,
    metric: Primary = "balanced_accuracy",
    *,
    num_resamples: int = 2000,
    seed: int = 0,
    confidence: float = 0.95,
) -> Difference:
    """Score of `a` minus score of `b`, resampling the patients of both together.

    Raises BadInput where the two were not asked about the same samples (ids, labels, patients, classes; any order).
    """
    return Difference(**_interval([a, _aligned(b, a)], metric, num_resamples, seed, confidence))


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


def _interval(predictions, metric, num_resamples, seed, confidence) -> dict:
    """The fields of an Interval for one encoder, or for the first minus the second."""
    if metric not in METRICS:
        raise BadInput(f"metric {metric!r}: expected one of {', '.join(METRICS)}")
    first = predictions[0]
    kind = Predictions if metric == "auroc" else COUNTED[metric].kind
    if not isinstance(first, kind):
        raise BadInput(f"metric {metric!r} is a score of {kind.__name__}, not of {type(first).__name__}")
    is_by_patient = len(set(first.patient)) > 1
    groups = [
        p if is_by_patient and p is not None else f"\0{s}" for p, s in zip(first.patient, first.sample, strict=True)
    ]
    names, group_of = np.unique(np.asarray(groups, dtype=object), return_inverse=True)
    if len(names) < 2:
        raise BadInput(f"an interval needs at least two samples, found {len(names)}; score more")
    if metric == "auroc":
        bounds = (0.0, 1.0)
        method, estimate, low, high = _student(predictions, group_of, len(names), confidence)
    else:
        counted = COUNTED[metric]
        bounds = counted.bounds
        patterns = _patterns([counted.count(each, group_of, len(names)) for each in predictions])
        method, estimate, low, high = _bootstrap(patterns, counted, num_resamples, seed, confidence)
    if len(predictions) == 2:
        bounds = (bounds[0] - bounds[1], bounds[1] - bounds[0])
    low, high = np.clip([low, high], *bounds)
    return {
        "estimate": float(estimate),
        "low": float(low),
        "high": float(high),
        "num_patients": len(names),
        "num_samples": len(first.sample),
        "level": "patient" if is_by_patient else "image",
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


def _patterns(counts: Sequence[np.ndarray]) -> _Patterns:
    """Equal patients merged; `counts` [P, C] of each encoder."""
    numbers = np.stack(counts, axis=1)
    flat, multiplicity = np.unique(numbers.reshape(len(numbers), -1), axis=0, return_counts=True)
    return _Patterns(flat.reshape(-1, *numbers.shape[1:]), multiplicity)


def _bootstrap(
    patterns: _Patterns, counted: Counted, num_resamples: int, seed: int, confidence: float
) -> tuple[str, float, float, float]:
    """Method, estimate, low and high."""
    num_patients = int(patterns.multiplicity.sum())
    (estimate,), (error,) = _estimate_and_error(patterns.multiplicity[None].astype(float), patterns, counted)
    if np.isnan(estimate):  # a kappa of one class only
        return "percentile", estimate, estimate, estimate
    rng = np.random.default_rng(seed)
    weights = rng.multinomial(num_patients, patterns.multiplicity / num_patients, size=num_resamples).astype(float)
    block = max(1, MAX_BLOCK_NUMBERS // patterns.numbers.size)
    parts = [_estimate_and_error(weights[i : i + block], patterns, counted) for i in range(0, num_resamples, block)]
    resampled, errors = (np.concatenate(values) for values in zip(*parts, strict=True))
    tails = [(1 - confidence) / 2, (1 + confidence) / 2]
    is_sound = errors > SMALLEST_ERROR  # which NaN is not
    share = 1 - is_sound.mean()
    if _has_lonely_class(patterns, counted) or not error > SMALLEST_ERROR or share > MAX_DEGENERATE_SHARE:
        return "percentile", estimate, *np.nanquantile(resampled, tails)
    t_low, t_high = np.quantile((resampled[is_sound] - estimate) / errors[is_sound], tails)
    return "bootstrap-t", estimate, estimate - t_high * error, estimate - t_low * error


def _has_lonely_class(patterns: _Patterns, counted: Counted) -> bool:
    """Whether a class of which the score is a mean lives in one patient only."""
    if counted.present is None:
        return False
    patients_MK = (counted.present(patterns.numbers) * patterns.multiplicity[:, None, None]).sum(axis=0)
    return bool((patients_MK == 1).any())


def _estimate_and_error(weights: np.ndarray, patterns: _Patterns, counted: Counted) -> tuple[np.ndarray, np.ndarray]:
    """The statistic [R] under patient weights [R, U], and its delete-one-patient jackknife standard error [R]."""
    sums = np.einsum("ru,umc->rmc", weights, patterns.numbers)
    estimate = _statistic(sums, counted)
    # every pattern once less: [R, U, M, C]; patterns that a resample does not hold mean nothing and are taken out
    left_out = np.where(weights > 0, _statistic(sums[:, None] - patterns.numbers, counted), 0)
    num_patients = weights.sum(axis=1)
    mean = (weights * left_out).sum(axis=1) / num_patients
    spread = (weights * (left_out - mean[:, None]) ** 2).sum(axis=1)
    return estimate, np.sqrt((num_patients - 1) / num_patients * spread)


def _statistic(sums: np.ndarray, counted: Counted) -> np.ndarray:
    """The score of sums [..., M, C], the last encoder's subtracted from the first; [...]."""
    with np.errstate(divide="ignore", invalid="ignore"):  # 0 / 0 is a class that is not there
        score = counted.score(sums)
    return score[..., 0] - score[..., 1] if score.shape[-1] == 2 else score[..., 0]
