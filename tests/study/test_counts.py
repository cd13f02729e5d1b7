"""Scores from counts, and the intervals that are drawn with them."""

from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score

from raypath.benchmarks import Predictions, score
from raypath.benchmarks.benchmark import Primary
from raypath.benchmarks.metrics.pixels import PixelPredictions, score_pixels
from raypath.errors import BadInput
from raypath.study.counts import COUNTED
from raypath.study.statistics import METRICS, paired_difference, score_interval

OF_LABELS = [name for name, counted in COUNTED.items() if counted.kind is Predictions]
OF_PIXELS = [name for name, counted in COUNTED.items() if counted.kind is PixelPredictions]


def labels(patient, num_classes, rng, skill=0.5):
    """Predictions of images that are often right."""
    label = rng.integers(num_classes, size=len(patient))
    probability = rng.dirichlet(np.ones(num_classes), size=len(patient)) + skill * np.eye(num_classes)[label]
    return _predictions(patient, label, probability / (1 + skill), num_classes)


def _predictions(patient, label, probability, num_classes):
    names = [f"s{i}" for i in range(len(patient))]
    return Predictions(names, patient, label, probability, [f"c{k}" for k in range(num_classes)])


def pixels(patient, num_classes, rng, skill=20, sizes=None):
    """Masks whose counts are mostly on the diagonal; `sizes` [N, K]: pixels of each class in the truth of each image."""
    sizes = rng.integers(200, size=(len(patient), num_classes)) if sizes is None else sizes
    share = skill * np.eye(num_classes) + 1
    confusion = [[rng.multinomial(n, rng.dirichlet(share[k])) for k, n in enumerate(image)] for image in sizes]
    return PixelPredictions(
        [f"s{i}" for i in range(len(patient))], patient, confusion, [f"c{k}" for k in range(num_classes)]
    )


def judge(predictions, metric):
    if metric == "quadratic_kappa":  # the other scores of a classification would be computed for nothing
        label, predicted = predictions.label, predictions.predicted
        is_one = len(np.union1d(label, predicted)) < 2
        numbers = np.arange(len(predictions.classes))
        return np.nan if is_one else cohen_kappa_score(label, predicted, labels=numbers, weights="quadratic")
    return (score if isinstance(predictions, Predictions) else score_pixels)(predictions)[metric]


def test_every_metric_that_can_be_primary_has_an_interval():

    assert set(get_args(Primary)) == set(METRICS) == {*COUNTED, "auroc"}


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(OF_LABELS + OF_PIXELS), st.integers(2, 5), st.integers(1, 25), st.integers(0, 2**31))
def test_counts_of_patients_add_up_to_the_score(metric, num_classes, num_samples, seed):
    rng = np.random.default_rng(seed)
    group_of = rng.integers(4, size=num_samples)
    make = labels if metric in OF_LABELS else pixels
    predictions = make([f"p{g}" for g in group_of], num_classes, rng)
    counted = COUNTED[metric]
    counts = counted.count(predictions, group_of, 4)
    assert len(counts) == 4
    with np.errstate(invalid="ignore", divide="ignore"):
        found = counted.score(counts.sum(axis=0))
        of_one = counted.score(counts[group_of[0]])
    assert found == pytest.approx(judge(predictions, metric), nan_ok=True)
    alone = predictions.take(np.flatnonzero(group_of == group_of[0]))
    assert of_one == pytest.approx(judge(alone, metric), nan_ok=True)


def _slow_interval(first, second, metric, num_resamples, seed):
    """Patients drawn one by one and scored from their samples; a jackknife that leaves each drawn patient out in turn."""
    rows_of = {p: [i for i, q in enumerate(first.patient) if q == p] for p in sorted(set(first.patient))}

    def value(patients):
        rows = np.array([i for p in patients for i in rows_of[p]])
        drawn = []
        for each in (first, second):
            names = [f"{i}" for i in range(len(rows))]
            values = (each.label[rows], each.probability[rows]) if metric in OF_LABELS else (each.confusion[rows],)
            drawn.append(judge(type(each)(names, [None] * len(rows), *values, each.classes), metric))
        return drawn[0] - drawn[1]

    def error(patients):
        left = np.array([value(patients[:i] + patients[i + 1 :]) for i in range(len(patients))])
        return np.sqrt((len(left) - 1) / len(left) * ((left - left.mean()) ** 2).sum())

    everyone = list(rows_of)
    estimate, standard_error = value(everyone), error(everyone)
    draws = np.random.default_rng(seed).multinomial(
        len(everyone), np.full(len(everyone), 1 / len(everyone)), num_resamples
    )
    drawn = [[p for p, times in zip(everyone, weights, strict=True) for _ in range(times)] for weights in draws]
    reach = standard_error * np.quantile([abs(value(each) - estimate) / error(each) for each in drawn], 0.95)
    return estimate, estimate - reach, estimate + reach


@pytest.mark.parametrize("metric", ["quadratic_kappa", "miou_macro", "dice_macro"])
def test_equal_to_a_slow_loop(metric):
    rng = np.random.default_rng(3)
    number = np.repeat(np.arange(7), rng.integers(3, 6, size=7))
    make = labels if metric in OF_LABELS else pixels
    names = [f"p{n}" for n in number]
    first = make(names, 3, rng)
    if metric in OF_LABELS:
        second = _predictions(names, first.label, rng.permutation(first.probability), 3)
    else:
        second = pixels(names, 3, rng, skill=5, sizes=first.confusion.sum(axis=2))
    # the order of the patterns, so that both draw the same patients from the same random numbers
    counts = np.concatenate([COUNTED[metric].count(each, number, 7) for each in (first, second)], axis=1)
    place = {p: rank for rank, p in enumerate(np.lexsort(counts.T[::-1]))}
    names = [f"q{place[n]}" for n in number]
    first, second = (type(e)(e.sample, names, *_values(e), e.classes) for e in (first, second))
    slow = _slow_interval(first, second, metric, 20, seed=1)
    fast = paired_difference(first, second, metric, num_resamples=20, seed=1)
    assert fast.method == "bootstrap-t"
    assert (fast.estimate, fast.low, fast.high) == pytest.approx(slow)
    assert (fast.num_patients, fast.num_samples) == (7, len(number))


def _values(predictions):
    if isinstance(predictions, Predictions):
        return predictions.label, predictions.probability
    return (predictions.confusion,)


def test_intervals_of_pooled_pixels_cover_the_truth():
    def draw(num_patients, rng):
        """Patients of very different skill and size, three images each."""
        sizes = np.repeat(rng.integers(50, 800, size=(num_patients, 2)), 3, axis=0)
        recall = np.repeat(rng.beta(8, 2, size=(num_patients, 2)), 3, axis=0)
        right = rng.binomial(sizes, recall)
        wrong = sizes - right
        confusion = np.stack([right[:, 0], wrong[:, 0], wrong[:, 1], right[:, 1]], axis=1).reshape(-1, 2, 2)
        names = [f"p{i // 3}" for i in range(3 * num_patients)]
        return PixelPredictions([f"s{i}" for i in range(len(names))], names, confusion, ("background", "gland"))

    rng = np.random.default_rng(2)
    truth = score_pixels(draw(100_000, rng))["miou_macro"]
    hits_by_patient = hits_by_image = 0
    for seed in range(120):
        found = draw(25, rng)
        images = PixelPredictions(found.sample, [None] * len(found.sample), found.confusion, found.classes)
        by_patient = score_interval(found, "miou_macro", num_resamples=200, seed=seed)
        by_image = score_interval(images, "miou_macro", num_resamples=200, seed=seed)
        hits_by_patient += by_patient.low <= truth <= by_patient.high
        hits_by_image += by_image.low <= truth <= by_image.high
    print(f"\ncoverage by patient {hits_by_patient / 120}, by image {hits_by_image / 120}")
    assert 0.90 <= hits_by_patient / 120 <= 0.995
    assert hits_by_image / 120 < 0.85, "images of a patient are no independent witnesses"


def test_a_kappa_may_be_negative_and_has_no_value_for_one_class():
    names = [f"p{i // 2}" for i in range(20)]
    label = np.array([0, 1] * 10)
    wrong = _predictions(names, label, np.eye(2)[1 - label], 2)
    right = _predictions(names, label, np.eye(2)[label], 2)
    assert score_interval(wrong, "quadratic_kappa").low == -1
    assert paired_difference(right, wrong, "quadratic_kappa").estimate == 2
    alone = score_interval(_predictions(names, label * 0, np.eye(2)[label * 0], 2), "quadratic_kappa")
    assert np.isnan([alone.estimate, alone.low, alone.high]).all()


def test_a_class_of_one_patient_is_a_percentile_interval():
    rng = np.random.default_rng(0)
    sizes = rng.integers(50, 200, size=(12, 3))
    sizes[1:, 2] = 0  # the third class is in the first image only, and nobody calls it elsewhere
    confusion = np.zeros((12, 3, 3), int)
    confusion[:, :2, :2] = pixels([None] * 12, 2, rng, sizes=sizes[:, :2]).confusion
    confusion[0, 2, 2] = sizes[0, 2]
    predictions = PixelPredictions([f"s{i}" for i in range(12)], [None] * 12, confusion, "abc")
    assert score_interval(predictions, "miou_macro").method == "percentile"
    assert score_interval(predictions, "miou_macro").level == "image"


def test_a_patient_as_large_as_a_resample_without_it():
    # one draw in three holds six images of the five small patients; taking the large one out of it would leave no image at all
    patient = [f"p{i}" for i in range(5)] + ["large"] * 6
    is_right = np.array([1, 1, 1, 0, 0, 1, 1, 1, 0, 0, 0])
    predictions = _predictions(patient, 1 - is_right, np.eye(2)[[1] * 11][:, ::-1], 2)
    interval = score_interval(predictions, "accuracy")
    assert (interval.estimate, interval.method) == (pytest.approx(6 / 11), "bootstrap-t")


def test_predictions_of_the_wrong_kind_are_refused():
    rng, names = np.random.default_rng(1), ["p", "p", "q", "q"]
    images, masks = labels(names, 2, rng), pixels(names, 2, rng)
    for predictions, metric in ((images, "miou_macro"), (masks, "accuracy"), (masks, "auroc")):
        with pytest.raises(BadInput, match=f"metric '{metric}' is a score of .*, not of {type(predictions).__name__}"):
            score_interval(predictions, metric)
    with pytest.raises(BadInput, match="Predictions and PixelPredictions; expected two of one kind"):
        paired_difference(images, masks)
    other = PixelPredictions(masks.sample, names, masks.confusion + 1, masks.classes)
    with pytest.raises(BadInput, match="different labels"):
        paired_difference(masks, other, "miou_macro")
    turned = masks.take([3, 1, 0, 2])
    assert paired_difference(masks, turned, "miou_macro").estimate == 0
