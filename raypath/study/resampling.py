"""Patients drawn again: the spread of a statistic that is a weighted sum of scores of counts.

One decision: patients with equal counts are one pattern with a multiplicity. A resample is a row of multinomial weights,
everything is a few matrix products, and a classification without patients has only a handful of patterns.

Bootstrap-t: every resample is judged by its own jackknife standard error (delete one patient), because with 20 to 40 patients the
plain percentile interval covers too rarely. Sources: Efron and Tibshirani, An Introduction to the Bootstrap (1993), 11.5
(jackknife), 12.5 (bootstrap-t) and 13.3 (percentile); Field and Welsh, JRSS B 69 (2007) 369 (clusters). A difference gets
the symmetric kind, the quantile of |t|: Hall, JRSS B 50 (1988) 35; its distribution is nearly symmetric, and one quantile in one
tail is better known than two (measured: one point more coverage, 3 % wider).

Where a standard error degenerates it gives way, and the result says to what and why. Errors are too few where more than 5 % of the
resamples have none: then exact bounds (`few_errors`), but percentiles for a kappa, which is no share. Two encoders that are alike
on every patient get no width: "not enough errors to tell", not certainty. And percentiles where a class lives in one patient (of a
score that is a mean over classes), because without that patient it is another score.

What it costs: R x U x M x C numbers, in blocks (2,000 x 40 x 1 x 10 takes 10 ms); the percentile interval no more than R x M x C.

Legend: R resamples, U patterns, C numbers that are counted, M members (an encoder's checkpoints x fit seeds, or two encoders').
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from raypath.study.counts import Counted
from raypath.study.few_errors import SMALLEST_ERROR, difference_bounds, share_bounds, trials_of_classes

MAX_DEGENERATE_SHARE = 0.05
MAX_BLOCK_NUMBERS = 4_000_000  # floats of one block of resamples: 32 MB


class Ends(NamedTuple):
    """An interval, and how it was had."""

    low: float
    high: float
    method: str
    remark: str = ""
    """Why it is not the method that was asked for; empty where it is."""


@dataclass(frozen=True, eq=False)
class Patterns:
    """Sufficient statistics: patients with equal counts are one pattern."""

    numbers: np.ndarray
    """float64 [U, M, C], what is counted of each member."""
    multiplicity: np.ndarray
    """int64 [U], patients with this pattern."""

    @property
    def num_patients(self) -> int:
        """All patients."""
        return int(self.multiplicity.sum())

    def draw(self, num_resamples: int, seed: int) -> np.ndarray:
        """How often each pattern is in each resample, float64 [R, U]."""
        rng, num = np.random.default_rng(seed), self.num_patients
        return rng.multinomial(num, self.multiplicity / num, size=num_resamples).astype(float)


def patterns_of(counts: Sequence[np.ndarray]) -> Patterns:
    """Equal patients merged; `counts` float64 [P, C] of each member."""
    numbers = np.stack(counts, axis=1)
    flat, multiplicity = np.unique(numbers.reshape(len(numbers), -1), axis=0, return_counts=True)
    return Patterns(flat.reshape(-1, *numbers.shape[1:]), multiplicity)


def scores_under(weights: np.ndarray, patterns: Patterns, counted: Counted) -> np.ndarray:
    """The score of every member float64 [R, M] under patient weights [R, U]; NaN where it is undefined."""
    return _scores(_sums(weights, patterns), counted)


def percentile(
    patterns: Patterns, counted: Counted, member_weight: np.ndarray, num_resamples: int, seed: int, confidence: float
) -> Ends:
    """The quantiles of the resampled statistic; NaN where it is never defined."""
    resampled = scores_under(patterns.draw(num_resamples, seed), patterns, counted) @ member_weight
    if np.isnan(resampled).all():
        return Ends(float("nan"), float("nan"), "percentile")
    low, high = np.nanquantile(resampled, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Ends(float(low), float(high), "percentile")


def bootstrap_t(
    patterns: Patterns, counted: Counted, member_weight: np.ndarray, num_resamples: int, seed: int, confidence: float
) -> Ends:
    """The interval by bootstrap-t, or by what it gave way to."""
    settings = (num_resamples, seed, confidence)
    everyone, is_difference = patterns.multiplicity[None].astype(float), bool((member_weight < 0).any())
    (estimate,), (error,) = _estimate_and_error(everyone, patterns, counted, member_weight)
    is_still = not error > SMALLEST_ERROR  # which NaN is not
    if is_still and is_difference and not np.isnan(error) and abs(estimate) <= SMALLEST_ERROR:
        return percentile(patterns, counted, member_weight, *settings)._replace(remark="no patient tells them apart")
    if _has_lonely_class(patterns, counted) and (not is_still or (is_difference and np.isnan(error))):
        ends = percentile(patterns, counted, member_weight, *settings)
        return ends._replace(remark="interval by percentiles: a class has one patient only")
    if is_still:
        return _few_errors(patterns, counted, member_weight, settings)
    weights = patterns.draw(num_resamples, seed)
    block = max(1, MAX_BLOCK_NUMBERS // patterns.numbers.size)
    blocks = [weights[first : first + block] for first in range(0, num_resamples, block)]
    parts = [_estimate_and_error(each, patterns, counted, member_weight) for each in blocks]
    resampled, errors = (np.concatenate(values) for values in zip(*parts, strict=True))
    is_sound = errors > SMALLEST_ERROR
    if 1 - is_sound.mean() > MAX_DEGENERATE_SHARE:
        return _few_errors(patterns, counted, member_weight, settings)
    t = (resampled[is_sound] - estimate) / errors[is_sound]
    t_high = np.quantile(np.abs(t), confidence) if is_difference else np.quantile(t, (1 + confidence) / 2)
    t_low = -t_high if is_difference else np.quantile(t, (1 - confidence) / 2)
    return Ends(float(estimate - t_high * error), float(estimate - t_low * error), "bootstrap-t")


def _few_errors(patterns: Patterns, counted: Counted, member_weight: np.ndarray, settings: tuple) -> Ends:
    """Exact bounds of each encoder's score, and of their difference; percentiles where a score is no share."""
    if counted.bounds != (0.0, 1.0):
        ends = percentile(patterns, counted, member_weight, *settings)
        return ends._replace(remark="interval by percentiles: too few errors for bootstrap-t")
    everyone, num = patterns.multiplicity[None].astype(float), patterns.num_patients
    num_alike = num if counted.present is None else trials_of_classes(_patients_of_class(patterns, counted)[0], num)
    sides = []
    for weight in (np.maximum(member_weight, 0), np.maximum(-member_weight, 0)):
        if weight.any():
            (estimate,), (error,) = _estimate_and_error(everyone, patterns, counted, weight)
            sides.append((estimate, *share_bounds(estimate, error, num, num_alike, settings[-1])))
    low, high = difference_bounds(*sides) if len(sides) == 2 else sides[0][1:]
    is_perfect = len(sides) == 1 and sides[0][0] > 1 - SMALLEST_ERROR
    remark = "exact bounds by patients: no errors" if is_perfect else "exact bounds: too few errors for bootstrap-t"
    return Ends(float(low), float(high), "clopper-pearson", remark)


def _has_lonely_class(patterns: Patterns, counted: Counted) -> bool:
    """Whether a class of which the score is a mean lives in one patient only."""
    return counted.present is not None and bool((_patients_of_class(patterns, counted) == 1).any())


def _patients_of_class(patterns: Patterns, counted: Counted) -> np.ndarray:
    """Patients with a class of which the score is a mean, int [M, K]."""
    return (counted.present(patterns.numbers) * patterns.multiplicity[:, None, None]).sum(axis=0)


def _estimate_and_error(
    weights: np.ndarray, patterns: Patterns, counted: Counted, member_weight: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The statistic [R] under patient weights [R, U], and its delete-one-patient jackknife standard error [R]."""
    sums = _sums(weights, patterns)
    estimate = _scores(sums, counted) @ member_weight
    # every pattern once less: [R, U, M, C]; patterns that a resample does not hold mean nothing and are taken out
    left_out = np.where(weights > 0, _scores(sums[:, None] - patterns.numbers, counted) @ member_weight, 0)
    num_patients = weights.sum(axis=1)
    mean = (weights * left_out).sum(axis=1) / num_patients
    spread = (weights * (left_out - mean[:, None]) ** 2).sum(axis=1)
    return estimate, np.sqrt((num_patients - 1) / num_patients * spread)


def _sums(weights: np.ndarray, patterns: Patterns) -> np.ndarray:
    """What is counted under patient weights [R, U]; [R, M, C]."""
    num_patterns, *shape = patterns.numbers.shape
    return (weights @ patterns.numbers.reshape(num_patterns, -1)).reshape(-1, *shape)


def _scores(sums: np.ndarray, counted: Counted) -> np.ndarray:
    """The scores of sums [..., M, C]; [..., M]."""
    with np.errstate(divide="ignore", invalid="ignore"):  # 0 / 0 is a class that is not there
        return counted.score(sums)
