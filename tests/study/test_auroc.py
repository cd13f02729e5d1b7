from dataclasses import replace

import numpy as np
import pytest
from scipy.special import expit, logit
from scipy.stats import norm

from raypath.benchmarks import Predictions, score
from raypath.study.auroc import auroc_influence
from raypath.study.permutation import permutation_p
from raypath.study.statistics import paired_difference, score_interval


def simulate(num_patients, rng, shifts=(1.5, 1.0)):
    """Two encoders whose scores are normal within a class and shifted together within a patient."""
    patient = np.repeat(np.arange(num_patients), rng.integers(5, 15, size=num_patients))
    label = rng.integers(2, size=len(patient))
    shared = rng.normal(0, 0.6, num_patients)
    encoders = []
    for shift in shifts:
        effect = (shared + rng.normal(0, 0.3, num_patients))[patient]
        positive = norm.cdf(shift * label + effect + rng.normal(0, 1, len(patient)))
        encoders.append(as_predictions(label, np.stack([1 - positive, positive], axis=1), patient))
    return encoders


def as_predictions(label, probability, patient):
    names = [f"s{i}" for i in range(len(label))]
    return Predictions(
        names, [f"p{p}" for p in patient], label, probability, [f"c{k}" for k in range(len(probability[0]))]
    )


def true_area(shift):
    return norm.cdf(shift / np.sqrt(2 * (1 + 0.6**2 + 0.3**2)))


@pytest.mark.parametrize("num_patients", [20, 44])
def test_intervals_cover_the_truth_on_clustered_data(num_patients):
    rng, hits = np.random.default_rng(1), np.zeros(2)
    for _ in range(300):
        a, b = simulate(num_patients, rng)
        difference, interval = paired_difference(a, b, "auroc"), score_interval(a, "auroc")
        hits += [
            difference.low <= true_area(1.5) - true_area(1.0) <= difference.high,
            interval.low <= true_area(1.5) <= interval.high,
        ]
    print(f"\n{num_patients} patients: coverage {hits / 300}")
    assert (hits / 300 >= 0.90).all()
    assert (hits / 300 <= 0.995).all(), "intervals this wide say nothing"


@pytest.mark.parametrize("num_folds", [None, 1, 3, 5])
def test_areas_and_influences_equal_a_loop_over_pairs(num_folds):
    rng = np.random.default_rng(0)
    label, patient = rng.integers(3, size=40), rng.integers(8, size=40)
    probability = rng.integers(1, 5, size=(40, 3)).astype(float)  # many ties
    fold = None if num_folds is None else rng.integers(num_folds, size=40)
    predictions = as_predictions(label, probability / probability.sum(axis=1, keepdims=True), patient)
    predictions = replace(predictions, fold=fold)
    area, influence = auroc_influence(predictions, patient, 8)
    expected_area, expected = [], np.zeros((3, 8))
    for k in range(3):
        value = predictions.probability[:, k].astype(float)
        pairs = [
            (i, j)
            for i in np.flatnonzero(label == k)
            for j in np.flatnonzero(label != k)
            if fold is None or fold[i] == fold[j]
        ]
        won = {(i, j): (value[i] > value[j]) + 0.5 * (value[i] == value[j]) for i, j in pairs}
        expected_area.append(np.mean(list(won.values())))
        for pair in pairs:
            for one in pair:  # what the area loses by this pair, of each of the two
                expected[k, patient[one]] += (won[pair] - expected_area[k]) / len(pairs)
    assert area == pytest.approx(np.mean(expected_area))
    assert influence == pytest.approx(expected.mean(axis=0))
    assert influence.sum() == pytest.approx(0, abs=1e-12)
    assert score(predictions)["auroc"] == pytest.approx(area)
    assert score_interval(predictions, "auroc").estimate == pytest.approx(area)


def on_scales(predictions, num_folds, rng):
    """The same, as if every fold's classifier had a scale of its own: the order within a fold stays."""
    fold = np.array([int(p[1:]) for p in predictions.patient]) % num_folds
    odds = logit(predictions.probability[:, 1].astype(float))
    positive = expit(rng.normal(0, 3, num_folds)[fold] + 10.0 ** rng.uniform(-2, 0, num_folds)[fold] * odds)
    return replace(predictions, probability=np.stack([1 - positive, positive], axis=1), fold=fold)


def test_a_scale_of_its_own_in_every_fold_changes_nothing():
    rng = np.random.default_rng(2)
    a, b = simulate(30, rng)
    folds = np.array([int(p[1:]) for p in a.patient]) % 5
    scaled = on_scales(a, 5, rng)
    mine, other = (replace(each, fold=folds) for each in (a, b))
    assert score(scaled)["auroc"] == pytest.approx(
        score(mine)["auroc"], abs=2e-3
    )  # odds rounded to float32 tie here and there
    assert score(replace(scaled, fold=None))["auroc"] < score(mine)["auroc"] - 0.1
    got, wanted = (paired_difference(each, other, "auroc") for each in (scaled, mine))
    assert [got.estimate, got.low, got.high] == pytest.approx([wanted.estimate, wanted.low, wanted.high], abs=5e-3)
    p_values = [permutation_p(each, other, "auroc", num_permutations=500) for each in (scaled, mine)]
    assert p_values[0] == pytest.approx(p_values[1], abs=0.05)


def test_members_may_have_folds_of_their_own():
    a, b = simulate(24, np.random.default_rng(3))
    rng = np.random.default_rng(4)
    fits = [on_scales(a, 4, rng), replace(a, fold=np.array([int(p[1:]) // 8 for p in a.patient]))]
    rows = rng.permutation(len(a.sample))
    shuffled = [fits[0], fits[1].take(rows)]  # joined by name, folds as well
    found = score_interval([shuffled], "auroc")
    assert found.estimate == pytest.approx(np.mean([score(fit)["auroc"] for fit in fits]))
    assert found == score_interval([fits], "auroc")
    assert paired_difference([shuffled], b, "auroc").estimate == pytest.approx(found.estimate - score(b)["auroc"])


def test_folds_of_one_class_say_nothing():
    label = np.array([0, 0, 0, 1, 0, 1])
    positive = np.array([0.9, 0.8, 0.7, 0.6, 0.1, 0.2])
    names = [np.arange(6), np.stack([1 - positive, positive], axis=1)]
    predictions = replace(as_predictions(label, names[1], names[0]), fold=[0, 0, 1, 1, 2, 2])
    assert score(predictions)["auroc"] == pytest.approx(0.5)  # one pair lost, one won
    apart = replace(predictions, fold=label)
    assert np.isnan(score(apart)["auroc"])
    assert np.isnan(score_interval(apart, "auroc").low)


def test_one_class_alone_has_no_area():
    predictions = as_predictions([0, 0], np.array([[0.9, 0.1], [0.8, 0.2]]), [0, 1])
    interval = score_interval(predictions, "auroc")
    assert np.isnan([interval.estimate, interval.low, interval.high]).all()
