import numpy as np
import pytest
from scipy.stats import norm

from raypath.benchmarks import Predictions, score
from raypath.study.auroc import auroc_influence
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


def test_areas_and_influences_equal_a_loop_over_pairs():
    rng = np.random.default_rng(0)
    label, patient = rng.integers(3, size=40), rng.integers(8, size=40)
    probability = rng.integers(1, 5, size=(40, 3)).astype(float)  # many ties
    predictions = as_predictions(label, probability / probability.sum(axis=1, keepdims=True), patient)
    area, influence = auroc_influence(predictions, patient, 8)
    expected_area, expected = [], np.zeros((3, 8))
    for k in range(3):
        value = predictions.probability[:, k]
        positives, negatives = np.flatnonzero(label == k), np.flatnonzero(label != k)
        won = {(i, j): (value[i] > value[j]) + 0.5 * (value[i] == value[j]) for i in positives for j in negatives}
        expected_area.append(np.mean(list(won.values())))
        for i in positives:
            mine = np.mean([won[i, j] for j in negatives]) - expected_area[k]
            expected[k, patient[i]] += mine / len(positives)
        for j in negatives:
            mine = np.mean([won[i, j] for i in positives]) - expected_area[k]
            expected[k, patient[j]] += mine / len(negatives)
    assert area == pytest.approx(np.mean(expected_area))
    assert influence == pytest.approx(expected.mean(axis=0))
    assert score(predictions)["auroc"] == pytest.approx(area)
    assert score_interval(predictions, "auroc").estimate == pytest.approx(area)


def test_one_class_alone_has_no_area():
    predictions = as_predictions([0, 0], np.array([[0.9, 0.1], [0.8, 0.2]]), [0, 1])
    interval = score_interval(predictions, "auroc")
    assert np.isnan([interval.estimate, interval.low, interval.high]).all()
