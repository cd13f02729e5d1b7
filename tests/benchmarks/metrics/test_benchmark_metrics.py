from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, brier_score_loss, cohen_kappa_score, log_loss

from raypath.benchmarks import Predictions, score
from raypath.errors import BadInput


def predict(label, predicted, classes=("a", "b"), confidence=0.9):
    """Predictions that are `confidence` sure of `predicted`."""
    num_classes = len(classes)
    rest = (1 - confidence) / (num_classes - 1)
    probability = np.where(np.arange(num_classes) == np.asarray(predicted)[:, None], confidence, rest)
    sample = [f"s{i}" for i in range(len(label))]
    return Predictions(sample, [None] * len(label), label, probability, classes)


def test_an_example_by_hand():
    scores = score(predict([0, 0, 0, 0, 1, 1], [0, 0, 0, 1, 1, 0]))
    assert scores["confusion"].tolist() == [[3, 1], [1, 1]]
    assert scores["accuracy"] == pytest.approx(4 / 6)
    assert scores["balanced_accuracy"] == pytest.approx((3 / 4 + 1 / 2) / 2)
    assert scores["macro_f1"] == pytest.approx((3 / 4 + 1 / 2) / 2)
    assert scores["auroc"] == pytest.approx((3 * 1 + (3 * 1 + 1 * 1) * 0.5) / 8)  # of 8 pairs: 3 won, 4 tied, 1 lost
    assert scores["missing"] == ()


def test_a_binary_area_counts_ordered_pairs():
    probability = np.array([[0.9, 0.1], [0.6, 0.4], [0.7, 0.3], [0.2, 0.8]])
    predictions = Predictions("wxyz", [None] * 4, [0, 0, 1, 1], probability, ("a", "b"))
    assert score(predictions)["auroc"] == pytest.approx(3 / 4)


def test_an_absent_class_is_named_and_left_out_of_the_means():
    scores = score(predict([0, 0, 1, 1], [0, 0, 1, 0], classes=("a", "b", "c")))
    assert scores["missing"] == ("c",)
    assert scores["balanced_accuracy"] == pytest.approx(3 / 4)
    assert scores["auroc"] == pytest.approx(3 / 4)
    assert scores["confusion"].shape == (3, 3)
    alone = score(predict([0, 0], [0, 1]))
    assert alone["missing"] == ("b",)
    assert np.isnan(alone["auroc"])


def test_precision_recall_by_hand():
    # by falling probability of class 1: right, wrong, right, wrong; precision 1 at the first right one, 2/3 at the second
    probability = np.array([[0.1, 0.9], [0.3, 0.7], [0.4, 0.6], [0.8, 0.2]])
    scores = score(Predictions("wxyz", [None] * 4, [1, 0, 1, 0], probability, ("a", "b")))
    assert scores["auprc"] == pytest.approx((1 + 2 / 3) / 2)


def test_kappa_by_hand():
    # observed: one disagreement of two steps, weight 4 of 4 samples; by chance: labels (2, 0, 2)/4, predicted (3, 0, 1)/4
    by_chance = (2 * 1 + 2 * 3) / 16 * 4
    scores = score(predict([0, 0, 2, 2], [0, 0, 2, 0], classes=("low", "mid", "high")))
    assert scores["quadratic_kappa"] == pytest.approx(1 - (1 / 4 * 4) / by_chance)
    near = score(predict([0, 0, 2, 2], [0, 0, 2, 1], classes=("low", "mid", "high")))
    assert near["quadratic_kappa"] > scores["quadratic_kappa"], "a near miss weighs less than a far one"


def test_how_sure_by_hand():
    probability = [[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [1, 0]]
    scores = score(Predictions("wxyz", [None] * 4, [0, 1, 1, 1], probability, ("a", "b")))
    assert scores["log_loss"] == pytest.approx(-(np.log([0.9, 0.2, 0.7]).sum() + np.log(2**-52)) / 4, rel=1e-5)
    assert scores["brier"] == pytest.approx(2 * (0.1**2 + 0.8**2 + 0.3**2 + 1) / 4)
    assert scores["ece"] == pytest.approx((0.1 + 0.8 + 0.3 + 1) / 4)  # each sample has a bin to itself


def test_confidence_is_compared_within_a_bin():
    probability = [[0.95, 0.05]] * 10  # one bin of ten, of which eight are right
    scores = score(Predictions("abcdefghij", [None] * 10, [0] * 8 + [1] * 2, probability, ("x", "y")))
    assert scores["ece"] == pytest.approx(0.15)
    certain = score(Predictions("ab", [None] * 2, [0, 1], [[0.95, 0.05], [1, 0]], ("x", "y")))
    assert certain["ece"] == pytest.approx(abs(0.05 - 1) / 2)  # being certain is part of the last bin


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 5), st.integers(1, 40), st.integers(0, 2**31))
def test_equal_to_scikit_learn_on_random_predictions(num_classes, num_samples, seed):
    rng = np.random.default_rng(seed)
    label = rng.integers(num_classes, size=num_samples)
    probability = rng.dirichlet(np.ones(num_classes), size=num_samples).astype(np.float32)
    names = [f"c{k}" for k in range(num_classes)]
    predictions = Predictions([f"s{i}" for i in range(num_samples)], [None] * num_samples, label, probability, names)
    scores, numbers = score(predictions), list(range(num_classes))
    exact = probability.astype(np.float64) / probability.sum(axis=1, keepdims=True, dtype=np.float64)
    assert scores["log_loss"] == pytest.approx(log_loss(label, exact, labels=numbers))
    assert scores["brier"] == pytest.approx(brier_score_loss(label, exact, labels=numbers, scale_by_half=False))
    assert scores["ece"] == pytest.approx(_slow_calibration_error(predictions, exact))
    present = np.unique(label)
    if len(present) < 2:
        assert np.isnan(scores["auprc"])
        assert np.isnan(scores["auroc"])
    elif num_classes == 2:
        assert scores["auprc"] == pytest.approx(average_precision_score(label, probability[:, 1]))
    else:
        one_hot = np.eye(num_classes)[label][:, present]
        assert scores["auprc"] == pytest.approx(average_precision_score(one_hot, probability[:, present]))
    if len(np.union1d(label, predictions.predicted)) < 2:
        assert np.isnan(scores["quadratic_kappa"])
    else:
        kappa = cohen_kappa_score(label, predictions.predicted, weights="quadratic", labels=numbers)
        assert scores["quadratic_kappa"] == pytest.approx(kappa)


def _slow_calibration_error(predictions, probability):
    """Bins one by one, as Guo et al. write them."""
    confidence, total = probability.max(axis=1), 0.0
    is_right = predictions.predicted == predictions.label
    for m in range(1, 16):
        is_in = ((m - 1) / 15 < confidence) & (confidence <= m / 15)
        if is_in.any():
            total += is_in.mean() * abs(is_right[is_in].mean() - confidence[is_in].mean())
    return total


def test_predictions_survive_the_disk(tmp_path):
    rng = np.random.default_rng(0)
    probability = rng.dirichlet([1, 1, 1], size=7).astype(np.float32)
    patient = ["p1", None, "p2", "p2", None, "p1", "p3"]
    before = Predictions([f"s{i}" for i in range(7)], patient, rng.integers(3, size=7), probability, ("a", "b", "c"))
    before.save(tmp_path / "run" / "predictions.parquet")
    after = Predictions.load(tmp_path / "run" / "predictions.parquet")
    assert (after.sample, after.patient, after.classes) == (before.sample, before.patient, before.classes)
    assert np.array_equal(after.label, before.label)
    assert after.probability.dtype == np.float32
    assert np.array_equal(after.probability, before.probability)
    assert after.fold is None
    fold = [0, 1, 1, 2, 0, 0, 1]
    replace(before, fold=fold).save(tmp_path / "folds.parquet")
    assert Predictions.load(tmp_path / "folds.parquet").take([3, 0]).fold.tolist() == [2, 0]


def test_what_is_no_prediction_is_refused(tmp_path):
    good = np.array([[0.5, 0.5], [1, 0]])
    for sample, label, probability, message in (
        (["a", "a"], [0, 1], good, "'a' occurs twice"),
        (["a", "b"], [0, 2], good, "labels from 0 to 2; expected 0 to 1"),
        (["a", "b"], [0, 1], good * np.nan, "2 rows are no probabilities, first 'a'"),
        (["a", "b"], [0, 1], good * 3, "expected numbers of 0 or more that sum to 1"),
        (["a", "b"], [0, 1], [[1.5, -0.5], [1, 0]], "1 rows are no probabilities, first 'a'"),
        (["a", "b"], [0], good, "have shapes"),
    ):
        with pytest.raises(BadInput, match=message):
            Predictions(sample, [None] * 2, label, probability, ("a", "b"))
    with pytest.raises(BadInput, match="2 samples, folds of shape"):
        Predictions(["a", "b"], [None] * 2, [0, 1], good, ("a", "b"), [0, 0, 1])
    pq.write_table(pa.table({"x": [1]}), tmp_path / "other.parquet")
    with pytest.raises(BadInput, match="expected predictions"):
        Predictions.load(tmp_path / "other.parquet")
