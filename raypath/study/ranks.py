"""Encoders ranked over many benchmarks: mean ranks, Friedman's test, Nemenyi's critical difference, and whether ranks hold.

One decision: benchmarks are the sample, so below ten of them there is no test: Friedman's chi-square needs more than ten or so, and
Nemenyi's difference is wide with fewer (Demšar, Journal of Machine Learning Research 7 (2006) 1, 3.2.2). Below that, ask each
benchmark by itself (`statistics`), or how often a rank holds when its patients are drawn again (`rank_stability`), which describes
these benchmarks and tests nothing. An area under the ROC curve is drawn again to first order, by what each patient adds to it.

What it costs: nothing; `resampled_scores` R x M x C numbers (areas: R x P).

Legend: B benchmarks, E encoders, R resamples, M members, P patients.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import friedmanchisquare, rankdata, studentized_range

from raypath.benchmarks.benchmark import Primary
from raypath.errors import BadInput
from raypath.study.alignment import Checkpoints, groups_of, members_of
from raypath.study.auroc import auroc_influence
from raypath.study.counts import COUNTED
from raypath.study.resampling import patterns_of, scores_under
from raypath.study.statistics import check_metric

FEWEST_BENCHMARKS = 10
FEWEST_ENCODERS = 3


@dataclass(frozen=True, eq=False)
class RankTest:
    """Whether encoders differ over benchmarks, and by how much mean ranks must."""

    mean_ranks: np.ndarray
    """float64 [E], 1 is best."""
    friedman_p: float
    critical_difference: float
    """Mean ranks farther apart than this differ (Nemenyi)."""
    num_benchmarks: int


def mean_ranks(scores: np.ndarray) -> np.ndarray:
    """Mean rank of each encoder float64 [E] over benchmarks, 1 is best, equals share; `scores` [B, E], larger is better.

    Raises BadInput for a score that is missing: ranks among others would mean something else on that benchmark.
    """
    table = np.asarray(scores, dtype=float)
    if table.ndim != 2 or not table.size or not np.isfinite(table).all():
        raise BadInput(
            f"ranks of scores of shape {table.shape}, {int((~np.isfinite(table)).sum())} of them missing: expected every encoder"
            " on every benchmark; leave out the benchmark or the encoder"
        )
    return rankdata(-table, axis=1).mean(axis=0)


def rank_test(scores: np.ndarray, *, alpha: float = 0.05) -> RankTest:
    """Friedman's test and Nemenyi's critical difference of `scores` [B, E].

    Raises BadInput below 10 benchmarks or 3 encoders, and as `mean_ranks` does.
    """
    ranks = mean_ranks(scores)
    num_benchmarks, num_encoders = np.shape(scores)
    if num_benchmarks < FEWEST_BENCHMARKS or num_encoders < FEWEST_ENCODERS:
        raise BadInput(
            f"rank test of {num_encoders} encoders on {num_benchmarks} benchmarks: expected {FEWEST_ENCODERS} and"
            f" {FEWEST_BENCHMARKS} at least; compare them on each benchmark instead"
        )
    with np.errstate(invalid="ignore"):  # all alike everywhere is 0 / 0
        _, p = friedmanchisquare(*np.asarray(scores, dtype=float).T)
    difference = critical_difference(num_encoders, num_benchmarks, alpha)
    return RankTest(ranks, 1.0 if np.isnan(p) else float(p), difference, num_benchmarks)


def critical_difference(num_encoders: int, num_benchmarks: int, alpha: float = 0.05) -> float:
    """Nemenyi's q sqrt(E (E + 1) / 6 B); q is the studentized range of E for infinite degrees of freedom over sqrt 2."""
    q = studentized_range.ppf(1 - alpha, num_encoders, np.inf) / np.sqrt(2)
    return float(q * np.sqrt(num_encoders * (num_encoders + 1) / (6 * num_benchmarks)))


def resampled_scores(
    encoders: Sequence[Checkpoints],
    metric: Primary = "balanced_accuracy",
    *,
    num_resamples: int = 2000,
    seed: int = 0,
) -> np.ndarray:
    """Scores float64 [R, E] of encoders on one benchmark, the same patients drawn again for all of them.

    Raises BadInput for predictions that are not about the same samples, and for another metric.
    """
    members = members_of(*encoders)
    check_metric(metric, members)
    group_of, num_groups, _ = groups_of(members.predictions[0])
    share_ME = np.where(members.side[:, None] == np.arange(len(encoders)), members.share[:, None], 0)
    if metric == "auroc":
        parts = [auroc_influence(each, group_of, num_groups) for each in members.predictions]
        areas, influences = (np.array(values) for values in zip(*parts))
        drawn = np.random.default_rng(seed).multinomial(num_groups, np.full(num_groups, 1 / num_groups), num_resamples)
        return areas @ share_ME + (drawn - 1) @ influences.T @ share_ME
    counted = COUNTED[metric]
    patterns = patterns_of([counted.count(each, group_of, num_groups) for each in members.predictions])
    return scores_under(patterns.draw(num_resamples, seed), patterns, counted) @ share_ME


def rank_stability(resampled: np.ndarray) -> np.ndarray:
    """How often each encoder has each rank, float64 [E, E] (encoder, rank from 1); rows and columns sum to 1.

    `resampled`: [R, E] of one benchmark, or [R, B, E] of several, whose mean ranks are then ranked; equals share their ranks
    evenly.
    """
    table = np.asarray(resampled, dtype=float)
    if table.ndim == 3:
        table = -rankdata(-table, axis=2).mean(axis=1)
    num_encoders = table.shape[1]
    first, last = rankdata(-table, method="min", axis=1), rankdata(-table, method="max", axis=1)  # [R, E]
    places = np.arange(1, num_encoders + 1)
    holds = (first[..., None] <= places) & (places <= last[..., None])  # [R, E, rank]
    return (holds / (last - first + 1)[..., None]).mean(axis=0)
