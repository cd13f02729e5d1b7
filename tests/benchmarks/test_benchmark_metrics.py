import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

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


def test_what_is_no_prediction_is_refused(tmp_path):
    good = np.array([[0.5, 0.5], [1, 0]])
    for sample, label, probability, message in (
        (["a", "a"], [0, 1], good, "'a' occurs twice"),
        (["a", "b"], [0, 2], good, "labels from 0 to 2; expected 0 to 1"),
        (["a", "b"], [0, 1], good * np.nan, "2 rows are no probabilities, first 'a'"),
        (["a", "b"], [0, 1], good * 3, "expected finite numbers that sum to 1"),
        (["a", "b"], [0], good, "have shapes"),
    ):
        with pytest.raises(BadInput, match=message):
            Predictions(sample, [None] * 2, label, probability, ("a", "b"))
    pq.write_table(pa.table({"x": [1]}), tmp_path / "other.parquet")
    with pytest.raises(BadInput, match="expected predictions"):
        Predictions.load(tmp_path / "other.parquet")
