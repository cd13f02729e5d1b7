"""Swapping encoders by patient, and Holm's correction."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, balanced_accuracy_score, cohen_kappa_score, roc_auc_score

from raypath.benchmarks import Predictions
from raypath.errors import BadInput
from raypath.study.permutation import holm, permutation_p


def predictions_of(is_right, label, patient, rng):
    sure = rng.uniform(0.55, 0.95, len(label))
    positive = np.where((label == 1) == is_right, sure, 1 - sure)
    names = [f"s{i}" for i in range(len(label))], [f"p{p}" for p in patient]
    return Predictions(*names, label, np.stack([1 - positive, positive], axis=1), "ab")


def two_encoders(rng, num_patients=8, skills=(0.9, 0.6)):
    patient = np.repeat(np.arange(num_patients), rng.integers(2, 7, size=num_patients))
    label = np.arange(len(patient)) % 2
    return [predictions_of(rng.random(len(label)) < skill, label, patient, rng) for skill in skills]


JUDGES = {
    "accuracy": accuracy_score,
    "balanced_accuracy": balanced_accuracy_score,
    "quadratic_kappa": lambda label, predicted: cohen_kappa_score(label, predicted, weights="quadratic"),
}


@pytest.mark.parametrize("metric", JUDGES)
def test_equal_to_trying_every_swap(metric):
    a, b = two_encoders(np.random.default_rng(0), num_patients=7)
    number = np.array([int(p[1:]) for p in a.patient])

    def difference(swap):
        rows = np.array(swap)[number]
        mixed = (np.where(rows, x.predicted, y.predicted) for x, y in ((b, a), (a, b)))
        one, other = (JUDGES[metric](a.label, predicted) for predicted in mixed)
        return one - other

    every = np.array(
        [difference(swap) for swap in itertools.product([False, True], repeat=7)][:64]
    )  # the rest mirror these
    exact = np.mean(np.abs(every) >= abs(every[0]) - 1e-9)
    assert 0.005 < exact < 0.9, "a case that tells something"
    assert permutation_p(a, b, metric, num_permutations=40_000) == pytest.approx(exact, abs=0.01)


def test_areas_by_pseudo_values_come_near_swapping_ranks():
    a, b = two_encoders(np.random.default_rng(1), num_patients=8, skills=(0.95, 0.75))
    number = np.array([int(p[1:]) for p in a.patient])
    rank_a, rank_b = (each.probability[:, 1].argsort().argsort() for each in (a, b))

    def difference(swap):
        rows = np.array(swap)[number]
        mixed = (np.where(rows, rank_b, rank_a), np.where(rows, rank_a, rank_b))
        one, other = (roc_auc_score(a.label, rank) for rank in mixed)
        return one - other

    every = np.array([difference(swap) for swap in itertools.product([False, True], repeat=8)][:128])
    exact = np.mean(np.abs(every) >= abs(every[0]) - 1e-9)
    assert 0.01 < exact < 0.5, "a case that tells something"
    assert permutation_p(a, b, "auroc", num_permutations=5000) == pytest.approx(exact, abs=0.08)


@pytest.mark.parametrize("metric", ["balanced_accuracy", "auroc"])
def test_equal_encoders_are_never_told_apart_and_p_is_never_zero(metric):
    a, b = two_encoders(np.random.default_rng(2), num_patients=20, skills=(1.0, 0.3))
    assert permutation_p(a, a, metric, num_permutations=500) == 1
    assert permutation_p(a, b, metric, num_permutations=500) == pytest.approx(1 / 501)
    assert permutation_p(b, a, metric, num_permutations=500) == permutation_p(a, b, metric, num_permutations=500)
    shuffled = b.take(np.random.default_rng(0).permutation(len(b.sample)))
    assert permutation_p(a, shuffled, metric) == permutation_p(a, b, metric)


def test_patients_and_not_images_are_swapped():
    # 3 patients, 300 images: three swaps can show nothing below 2 / 8
    patient = np.repeat(np.arange(3), 100)
    label = np.arange(300) % 2
    rng = np.random.default_rng(3)
    a, b = (predictions_of(np.full(300, right), label, patient, rng) for right in (True, False))
    assert permutation_p(a, b) == pytest.approx(0.25, abs=0.02)
    images = [Predictions(p.sample, [None] * 300, p.label, p.probability, p.classes) for p in (a, b)]
    assert permutation_p(*images, num_permutations=999) == 0.001


def test_of_several_seeds_the_means_are_compared():
    rng = np.random.default_rng(4)
    a, b = two_encoders(rng, num_patients=12)
    assert permutation_p([[a, a], [a, a]], [[b]]) == permutation_p(a, b)
    patient = np.array([int(p[1:]) for p in a.patient])
    worse = predictions_of(rng.random(len(a.label)) < 0.2, a.label, patient, rng)
    assert permutation_p([[a], [worse]], [[b]]) > permutation_p(a, worse)


def test_a_class_alone_has_no_area_and_no_p():
    one = Predictions(["a", "b"], ["p", "q"], [0, 0], [[0.9, 0.1], [0.6, 0.4]], "ab")
    assert np.isnan(permutation_p(one, one, "auroc"))
    with pytest.raises(BadInput, match="metric 'macro_f1'"):
        permutation_p(one, one, "macro_f1")


def test_holm_by_hand():
    # Holm 1979: 0.01 x 4, 0.02 x 3, then 0.03 x 2 is below 0.06 and stays there, 0.04 x 1 too
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.9, 0.8]) == pytest.approx([1, 1])
    assert holm([]).shape == (0,)
    for wrong in (1.2, -0.1, np.nan):
        with pytest.raises(BadInput, match="expected numbers from 0 to 1"):
            holm([0.1, wrong])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20), st.randoms())
def test_holm_keeps_the_order_and_lies_between_alone_and_bonferroni(p_values, random):
    adjusted, p = holm(p_values), np.array(p_values)
    assert (adjusted >= p).all()
    assert (adjusted <= np.minimum(p * len(p), 1) + 1e-12).all()
    assert (np.diff(adjusted[np.argsort(p, kind="stable")]) >= 0).all()
    assert adjusted.min() == pytest.approx(min(p.min() * len(p), 1))
    order = list(range(len(p)))
    random.shuffle(order)
    assert holm(p[order]) == pytest.approx(adjusted[order])
