import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score, jaccard_score

from raypath.benchmarks.metrics.objects import compare_objects, score_objects
from raypath.benchmarks.metrics.pixels import PixelPredictions, pixel_confusion, score_pixels
from raypath.errors import BadInput


def predict(truths, predictions, num_classes, patient=None):
    """Predictions of whole masks."""
    confusion = [pixel_confusion(t, p, num_classes) for t, p in zip(truths, predictions, strict=True)]
    names = [f"s{i}" for i in range(len(confusion))]
    return PixelPredictions(names, patient or [None] * len(names), confusion, [f"c{k}" for k in range(num_classes)])


def test_an_example_by_hand():
    truths = [np.array([[0, 0, 0, 1]], np.uint8), np.array([[1, 1]], np.uint8)]
    said = [np.array([[0, 0, 1, 1]], np.uint8), np.array([[1, 0]], np.uint8)]
    scores = score_pixels(predict(truths, said, 2))
    assert scores["confusion"].tolist() == [[2, 1], [1, 2]]
    # both classes: 2 right, 1 too many, 1 too few
    assert scores["iou"] == {"c0": 2 / 4, "c1": 2 / 4}
    assert scores["dice"] == {"c0": pytest.approx(4 / 6), "c1": pytest.approx(4 / 6)}
    assert scores["miou_micro"] == pytest.approx(4 / 8)
    assert scores["dice_micro"] == scores["pixel_accuracy"] == pytest.approx(4 / 6)
    assert scores["mean_pixel_accuracy"] == pytest.approx(2 / 3)
    assert scores["mean_image_miou"] == pytest.approx(((2 / 3 + 1 / 2) / 2 + (0 + 1 / 2) / 2) / 2)
    assert scores["missing"] == ()


def test_micro_and_macro_differ_where_classes_are_uneven():
    confusion = [[[90, 0, 0], [5, 5, 0], [0, 0, 0]]]
    scores = score_pixels(PixelPredictions(["a"], ["p"], confusion, ["background", "gland", "tumour"]))
    assert scores["miou_macro"] == pytest.approx((90 / 95 + 5 / 10) / 2)
    assert scores["miou_micro"] == pytest.approx(95 / (95 + 5 + 5))
    assert scores["dice_macro"] == pytest.approx((180 / 185 + 10 / 15) / 2)
    assert scores["mean_pixel_accuracy"] == pytest.approx((1 + 1 / 2) / 2)
    assert scores["missing"] == ("tumour",)
    assert np.isnan(scores["iou"]["tumour"])
    assert np.isnan(scores["dice"]["tumour"])


def test_a_class_that_is_only_predicted_counts_with_nothing_right():
    scores = score_pixels(PixelPredictions(["a"], [None], [[[3, 1], [0, 0]]], ["x", "y"]))
    assert scores["iou"] == {"x": 3 / 4, "y": 0}
    assert scores["miou_macro"] == pytest.approx(3 / 8)
    assert scores["mean_pixel_accuracy"] == pytest.approx(3 / 4)  # no pixel of y can be recalled
    assert scores["missing"] == ()


masks = st.integers(1, 5).flatmap(
    lambda k: st.tuples(st.just(k), st.integers(1, 4), st.integers(1, 6), st.integers(0, 2**31))
)


@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true")  # left out by scikit-learn as well
@pytest.mark.filterwarnings("ignore:A single label was found")
@settings(max_examples=40, deadline=None)
@given(masks)
def test_equal_to_other_implementations_on_random_masks(drawn):
    num_classes, num_images, extent, seed = drawn
    rng = np.random.default_rng(seed)
    truths, said = rng.integers(num_classes, size=(2, num_images, extent, extent + 1), dtype=np.uint8)
    scores = score_pixels(predict(truths, said, num_classes))
    flat, called = truths.reshape(-1), said.reshape(-1)
    known = np.union1d(flat, called)
    assert scores["missing"] == tuple(f"c{k}" for k in range(num_classes) if k not in known)
    for name, oracle in (("iou", jaccard_score), ("dice", f1_score)):
        by_class = oracle(flat, called, labels=known, average=None, zero_division=0)
        assert [scores[name][f"c{k}"] for k in known] == pytest.approx(by_class)
    assert scores["miou_macro"] == pytest.approx(jaccard_score(flat, called, average="macro", zero_division=0))
    assert scores["miou_micro"] == pytest.approx(jaccard_score(flat, called, average="micro"))
    assert scores["dice_macro"] == pytest.approx(f1_score(flat, called, average="macro", zero_division=0))
    assert scores["dice_micro"] == pytest.approx(f1_score(flat, called, average="micro"))
    assert scores["pixel_accuracy"] == pytest.approx(accuracy_score(flat, called))
    assert scores["mean_pixel_accuracy"] == pytest.approx(balanced_accuracy_score(flat, called))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from([None, 0, 2, 255]))
def test_counts_equal_a_loop_over_pixels(seed, ignore):
    rng = np.random.default_rng(seed)
    truth, said = rng.integers(3, size=(2, 5, 4), dtype=np.uint8)
    if ignore == 255:
        truth[rng.random(truth.shape) < 0.3] = 255
    slow = np.zeros((3, 3), np.int64)
    for y in range(5):
        for x in range(4):
            if truth[y, x] != ignore:
                slow[truth[y, x], said[y, x]] += 1
    counted = pixel_confusion(truth, said, 3, ignore=ignore)
    assert counted.dtype == np.int64
    assert np.array_equal(counted, slow)


def test_class_numbers_beyond_a_byte_do_not_wrap():
    truth = said = np.full((1, 2), 200, np.uint8)  # 200 * 250 does not fit uint8
    assert pixel_confusion(truth, said, 250)[200, 200] == 2


def test_what_is_no_mask_is_refused():
    ones = np.ones((2, 2), np.uint8)
    for truth, said, message in (
        (ones, np.ones((2, 3), np.uint8), r"truth is \(2, 2\), the prediction \(2, 3\)"),
        (ones * 255, ones, "the truth has values from 255 to 255: expected classes 0 to 1"),
        (ones, ones * 2, "the prediction has values from 2 to 2"),
        (-ones.astype(int), ones, "the truth has values from -1"),
    ):
        with pytest.raises(ValueError, match=message):
            pixel_confusion(truth, said, 2)


def test_an_image_without_counted_pixels_changes_nothing():
    images = PixelPredictions("ab", [None] * 2, [[[3, 1], [0, 2]], [[0, 0], [0, 0]]], ["x", "y"])
    alone = PixelPredictions("a", [None], [[[3, 1], [0, 2]]], ["x", "y"])
    both = [{k: v for k, v in score_pixels(each).items() if k != "confusion"} for each in (images, alone)]
    assert both[0] == both[1]
    empty = PixelPredictions("b", [None], np.zeros((1, 2, 2), int), ["x", "y"])
    with pytest.raises(BadInput, match="none of 1 images has a counted pixel"):
        score_pixels(empty)


def test_predictions_survive_the_disk(tmp_path):
    confusion = np.random.default_rng(0).integers(10**12, size=(4, 3, 3))
    before = PixelPredictions("abcd", ["p", None, "p", "q"], confusion, ["x", "y", "z"])
    before.save(tmp_path / "run" / "test.parquet")
    after = PixelPredictions.load(tmp_path / "run" / "test.parquet")
    assert (after.sample, after.patient, after.classes) == (before.sample, before.patient, before.classes)
    assert after.confusion.dtype == np.int64
    assert np.array_equal(after.confusion, confusion)


def test_what_is_no_prediction_is_refused(tmp_path):
    good = np.ones((2, 2, 2), int)
    for sample, patient, confusion, message in (
        (["a", "a"], [None] * 2, good, "'a' occurs twice"),
        (["a", "b"], [None], good, "but 1 patients"),
        (["a", "b"], [None] * 2, good[:1], r"counts of shape \(1, 2, 2\)"),
        (["a", "b"], [None] * 2, good / 2, "counts of type float64; expected whole numbers"),
        (["a", "b"], [None] * 2, good * [[[1]], [[-4]]], "'b' has -4 pixels"),
        ([], [], good[:0], "0 samples"),
    ):
        with pytest.raises(BadInput, match=message):
            PixelPredictions(sample, patient, confusion, ("x", "y"))
    pq.write_table(pa.table({"x": [1]}), tmp_path / "other.parquet")
    for path in (tmp_path / "other.parquet", tmp_path / "none.parquet"):
        with pytest.raises(BadInput, match="expected predictions as PixelPredictions.save"):
            PixelPredictions.load(path)


def test_objects_are_scored_and_can_be_had_from_the_disk(tmp_path):
    rng = np.random.default_rng(0)
    objects = [
        compare_objects(*rng.integers(4, size=(2, 9, 8)), with_hausdorff=bool(number % 2)) for number in range(4)
    ]
    before = PixelPredictions("abcd", [None] * 4, rng.integers(9, size=(4, 2, 2)), ["x", "y"], objects)
    before.save(tmp_path / "test.parquet")
    after = PixelPredictions.load(tmp_path / "test.parquet")
    assert after.objects == before.objects == tuple(objects)
    assert {k: v for k, v in score_pixels(after).items() if "object" in k} == score_objects(objects)
    assert after.take([3, 1]).objects == (objects[3], objects[1])
    plain = PixelPredictions("abcd", [None] * 4, before.confusion, ["x", "y"])
    assert plain.take([0]).objects is None
    assert not [name for name in score_pixels(plain) if "object" in name]
    with pytest.raises(BadInput, match="the objects of 3 images for 4 samples"):
        PixelPredictions("abcd", [None] * 4, before.confusion, ["x", "y"], objects[:3])
