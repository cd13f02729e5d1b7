"""Ranks over benchmarks, and whether they hold."""

import itertools

import numpy as np
import pytest
from scipy.stats import chi2, norm
from sklearn.metrics import roc_auc_score

from raypath.benchmarks import Predictions, score
from raypath.errors import BadInput
from raypath.study.ranks import critical_difference, mean_ranks, rank_stability, rank_test, resampled_scores

DEMSAR = np.array(  # Demsar 2006, his example: AUC of C4.5, with m, with cf, with both, on 14 data sets
    [
        [0.763, 0.768, 0.771, 0.798],
        [0.599, 0.591, 0.590, 0.569],
        [0.954, 0.971, 0.968, 0.967],
        [0.628, 0.661, 0.654, 0.657],
        [0.882, 0.888, 0.886, 0.898],
        [0.936, 0.931, 0.916, 0.931],
        [0.661, 0.668, 0.609, 0.685],
        [0.583, 0.583, 0.563, 0.625],
        [0.775, 0.838, 0.866, 0.875],
        [1.000, 1.000, 1.000, 1.000],
        [0.940, 0.962, 0.965, 0.962],
        [0.619, 0.666, 0.614, 0.669],
        [0.972, 0.981, 0.9751, 0.975],
        [0.957, 0.978, 0.946, 0.970],
    ]
)


def test_ranks_and_differences_of_a_published_example():
    found = rank_test(DEMSAR, alpha=0.05)
    assert found.mean_ranks == pytest.approx([3.143, 2.000, 2.893, 1.964], abs=0.001)  # the paper's last line
    # the paper's Nemenyi difference at 0.10 is 2.291 sqrt(4 5 / 6 14) = 1.12, at 0.05 with q = 2.569
    assert critical_difference(4, 14, 0.10) == pytest.approx(1.12, abs=0.005)
    assert found.critical_difference == pytest.approx(2.569 * np.sqrt(20 / 84), abs=0.001)
    assert found.num_benchmarks == 14
    chi_square = 12 * 14 / 20 * ((found.mean_ranks**2).sum() - 4 * 25 / 4)
    assert chi_square == pytest.approx(9.28, abs=0.01)  # as in the paper, which does not correct for ties
    ties = 1 - (4**3 - 4 + 3 * (2**3 - 2)) / (14 * (4**3 - 4))  # one row of four equals, three pairs
    assert found.friedman_p == pytest.approx(chi2.sf(chi_square / ties, 3))


def test_fewer_than_ten_benchmarks_are_refused():
    with pytest.raises(BadInput, match="4 encoders on 9 benchmarks: expected 3 and 10 at least"):
        rank_test(DEMSAR[:9])
    with pytest.raises(BadInput, match="2 encoders on 14 benchmarks"):
        rank_test(DEMSAR[:, :2])
    holed = DEMSAR.copy()
    holed[3, 1] = np.nan
    with pytest.raises(BadInput, match="1 of them missing"):
        mean_ranks(holed)


def test_encoders_that_are_alike_everywhere():
    found = rank_test(np.ones((12, 3)))
    assert found.mean_ranks.tolist() == [2, 2, 2]
    assert found.friedman_p == 1


def test_stability_by_hand():
    # encoder 0 first in two of four, equal in one, last in one
    table = np.array([[3, 2, 1], [3, 2, 1], [2, 2, 1], [1, 2, 3]])
    assert rank_stability(table) == pytest.approx(np.array([[2.5, 0.5, 1.0], [0.5, 3.5, 0.0], [1.0, 0.0, 3.0]]) / 4)
    two_benchmarks = np.stack([table, table], axis=1)
    assert rank_stability(two_benchmarks) == pytest.approx(rank_stability(table))
    assert rank_stability(np.random.default_rng(0).random((50, 4, 5))).sum(axis=0) == pytest.approx(np.ones(5))


def test_all_encoders_are_scored_on_the_same_drawn_patients():
    rng = np.random.default_rng(0)
    patient = np.repeat(np.arange(6), rng.integers(2, 6, 6))
    label = np.arange(len(patient)) % 2

    def encoder(skill):
        is_right = rng.random(len(label)) < skill
        names = [f"s{i}" for i in range(len(label))], [f"p{p}" for p in patient]
        return Predictions(*names, label, np.eye(2)[np.where(is_right, label, 1 - label)], "ab")

    good, fair, poor = encoder(0.95), encoder(0.7), encoder(0.2)
    drawn = resampled_scores([good, [[fair], [poor]], poor], "accuracy", num_resamples=500)
    assert drawn.shape == (500, 3)
    parts = resampled_scores([good, fair, poor], "accuracy", num_resamples=20_000)
    expected = [score(each)["accuracy"] for each in (good, fair, poor)]
    assert parts.mean(axis=0) == pytest.approx(expected, abs=0.02)
    # the very scores that some six of the patients give together
    possible = set()
    for chosen in itertools.combinations_with_replacement(range(6), 6):
        rows = np.concatenate([np.flatnonzero(patient == p) for p in chosen])
        possible.add(tuple(round(float((e.predicted == label)[rows].mean()), 9) for e in (good, fair, poor)))
    assert {tuple(round(float(v), 9) for v in row) for row in parts[:300]} <= possible
    assert rank_stability(parts)[0, 0] > 0.8
    with pytest.raises(BadInput, match="'f1': expected one of"):
        resampled_scores([good, poor], "f1")


def test_areas_are_drawn_again_as_often_as_their_error_says():
    rng = np.random.default_rng(1)
    label, patient = np.arange(300) % 2, np.arange(300) // 5
    names = [f"s{i}" for i in range(300)], [f"p{p}" for p in patient]
    effect = rng.normal(0, 0.5, 60)[patient]
    encoders = []
    for skill in (1.5, 0.5):
        positive = norm.cdf(skill * label + effect + rng.normal(size=300))
        encoders.append(Predictions(*names, label, np.stack([1 - positive, positive], axis=1), "ab"))
    drawn = resampled_scores(encoders, "auroc", num_resamples=4000)
    assert drawn.mean(axis=0) == pytest.approx([score(each)["auroc"] for each in encoders], abs=0.002)
    slow = []  # the areas of patients that are drawn, image by image
    for _ in range(300):
        rows = np.concatenate([np.flatnonzero(patient == p) for p in rng.integers(60, size=60)])
        slow.append([roc_auc_score(label[rows], each.probability[rows, 1]) for each in encoders])
    assert drawn.std(axis=0) == pytest.approx(np.std(slow, axis=0), rel=0.15)
    assert np.corrcoef(drawn.T)[0, 1] == pytest.approx(np.corrcoef(np.transpose(slow))[0, 1], abs=0.15)
