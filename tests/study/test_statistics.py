import time

import numpy as np
import pytest

from raypath.benchmarks import Predictions, score
from raypath.errors import BadInput
from raypath.study.statistics import paired_difference, score_interval


def make(label, is_right, patient, num_classes=2, sample=None):
    """Predictions that are right where `is_right`."""
    label = np.asarray(label)
    predicted = np.where(is_right, label, (label + 1) % num_classes)
    sample = sample or [f"s{i}" for i in range(len(label))]
    return Predictions(sample, patient, label, np.eye(num_classes)[predicted], [f"c{k}" for k in range(num_classes)])


def simulate(num_patients, rng, num_classes=2):
    """Two encoders on clustered data: a patient's difficulty is shared by its images and, in part, by the encoders."""
    sizes = rng.integers(5, 15, size=num_patients)
    patient = np.repeat(np.arange(num_patients), sizes)
    shared, own_a, own_b = rng.normal(0, [[1.0], [0.5], [0.5]], size=(3, num_patients))
    label = rng.integers(num_classes, size=len(patient))
    names = [f"p{p}" for p in patient]
    return tuple(
        make(label, rng.random(len(patient)) < _sigmoid(mean + (shared + own)[patient]), names, num_classes)
        for mean, own in ((1.2, own_a), (0.6, own_b))
    )


def _sigmoid(x):
    return 1 / (1 + np.exp(-x))


def _true_scores():
    effect = np.random.default_rng(1).normal(0, np.hypot(1.0, 0.5), size=2_000_000)
    return [_sigmoid(mean + effect).mean() for mean in (1.2, 0.6)]


@pytest.mark.parametrize("num_patients", [20, 44])
def test_intervals_cover_the_truth_on_clustered_data(num_patients):
    true_a, true_b = _true_scores()
    rng, start_s = np.random.default_rng(5), time.monotonic()
    hits = np.zeros(2)
    for number in range(300):
        a, b = simulate(num_patients, rng)
        difference = paired_difference(a, b, num_resamples=500, seed=number)
        interval = score_interval(a, num_resamples=500, seed=number)
        hits += [difference.low <= true_a - true_b <= difference.high, interval.low <= true_a <= interval.high]
    coverage = hits / 300
    print(f"\n{num_patients} patients: coverage {coverage}, {time.monotonic() - start_s:.1f} s")
    assert (coverage >= 0.90).all()
    assert (coverage <= 0.995).all(), "intervals this wide say nothing"


def _slow_interval(predictions, metric, num_resamples, seed):
    """Patients drawn one by one, scores from images, a jackknife that leaves each drawn patient out in turn."""
    sign = [1, -1]
    first = predictions[0]
    rows_of = {p: [i for i, q in enumerate(first.patient) if q == p] for p in sorted(set(first.patient))}

    def value(patients):
        rows = [i for p in patients for i in rows_of[p]]
        parts = []
        for each in predictions:
            right, label = (each.predicted == each.label)[rows], each.label[rows]
            recalls = [right[label == k].mean() for k in np.unique(label)]
            parts.append(right.mean() if metric == "accuracy" else np.mean(recalls))
        return sum(s * part for s, part in zip(sign, parts, strict=False))

    def error(patients):
        left = np.array([value(patients[:i] + patients[i + 1 :]) for i in range(len(patients))])
        return np.sqrt((len(left) - 1) / len(left) * ((left - left.mean()) ** 2).sum())

    everyone = list(rows_of)
    estimate, standard_error = value(everyone), error(everyone)
    draws = np.random.default_rng(seed).multinomial(
        len(everyone), np.full(len(everyone), 1 / len(everyone)), num_resamples
    )
    t = []
    for weights in draws:
        patients = [p for p, times in zip(everyone, weights, strict=True) for _ in range(times)]
        t.append((value(patients) - estimate) / error(patients))
    low, high = (
        np.quantile(t, [0.025, 0.975]) if len(predictions) == 1 else np.quantile(np.abs(t), 0.95) * np.array([-1, 1])
    )
    return estimate, estimate - high * standard_error, estimate - low * standard_error


@pytest.mark.parametrize("metric", ["accuracy", "balanced_accuracy"])
def test_equal_to_a_slow_loop(metric):
    # names in the order of the counts, so that both draw the same patients from the same random numbers
    a, b = simulate(12, np.random.default_rng(2), num_classes=3)
    a, b = (_renamed_in_order_of_counts(each, a, b) for each in (a, b))
    slow = _slow_interval([a, b], metric, 60, seed=4)
    fast = paired_difference(a, b, metric, num_resamples=60, seed=4)
    assert fast.method == "bootstrap-t"
    assert (fast.estimate, fast.low, fast.high) == pytest.approx(slow)
    a = _renamed_in_order_of_counts(a, a)
    estimate, low, high = _slow_interval([a], metric, 60, seed=4)
    fast = score_interval(a, metric, num_resamples=60, seed=4)
    assert (fast.estimate, fast.low, fast.high) == pytest.approx((estimate, max(low, 0), min(high, 1)))


def _renamed_in_order_of_counts(predictions, *encoders):
    def pattern(patient):
        rows = np.array([p == patient for p in encoders[0].patient])
        columns = [encoders[0].label[rows], *(e.label[rows & (e.predicted == e.label)] for e in encoders)]
        return tuple(n for values in columns for n in np.bincount(values, minlength=len(encoders[0].classes)))

    order = sorted(set(predictions.patient), key=pattern)
    assert len({pattern(p) for p in order}) == len(order), "patterns must differ for this comparison"
    place = {p: f"q{i:03d}" for i, p in enumerate(order)}
    names = [place[p] for p in predictions.patient]
    return Predictions(predictions.sample, names, predictions.label, predictions.probability, predictions.classes)


def test_estimates_equal_the_scores():
    a, b = simulate(20, np.random.default_rng(3), num_classes=3)
    for metric in ("accuracy", "balanced_accuracy"):
        assert score_interval(a, metric).estimate == pytest.approx(score(a)[metric])
        assert paired_difference(a, b, metric).estimate == pytest.approx(score(a)[metric] - score(b)[metric])


def test_patients_make_intervals_wider_than_images_would():
    a, _ = simulate(30, np.random.default_rng(4))
    images = Predictions(a.sample, [None] * len(a.sample), a.label, a.probability, a.classes)
    by_patient, by_image = score_interval(a), score_interval(images)
    assert (by_patient.level, by_patient.num_patients) == ("patient", 30)
    assert (by_image.level, by_image.num_patients) == ("image", len(a.sample))
    assert by_patient.high - by_patient.low > by_image.high - by_image.low


def test_samples_are_joined_by_name_not_by_place():
    a, b = simulate(20, np.random.default_rng(5))
    rows = np.random.default_rng(0).permutation(len(b.sample))
    shuffled = Predictions(
        [b.sample[r] for r in rows], [b.patient[r] for r in rows], b.label[rows], b.probability[rows], b.classes
    )
    assert paired_difference(a, shuffled) == paired_difference(a, b)
    fewer = Predictions(b.sample[1:], b.patient[1:], b.label[1:], b.probability[1:], b.classes)
    with pytest.raises(BadInput, match="1 samples only in the first, 0 only in the second, e.g. 's0'"):
        paired_difference(a, fewer)
    relabelled = Predictions(b.sample, b.patient, 1 - b.label, b.probability, b.classes)
    with pytest.raises(BadInput, match="different labels"):
        paired_difference(a, relabelled)


def test_where_errors_are_few_the_interval_says_how_it_was_had():
    label, patient = [0, 1] * 10, [f"p{i // 2}" for i in range(20)]
    perfect = make(label, np.ones(20, bool), patient)
    interval = score_interval(perfect)
    assert (interval.estimate, interval.high, interval.method) == (1, 1, "clopper-pearson")
    assert interval.low == pytest.approx(0.025 ** (1 / 10))  # no error of 10 patients
    assert interval.remark == "exact bounds by patients: no errors"
    assert score_interval(perfect, method="percentile").remark == "no width: too few errors to tell"
    alike = paired_difference(perfect, perfect)
    assert (alike.low, alike.high, alike.is_clear, alike.remark) == (0, 0, False, "no patient tells them apart")
    collapsed = make(label, np.array(label) == 0, patient)  # one class for everything: as wrong on every patient
    apart = paired_difference(perfect, collapsed)
    assert (apart.estimate, apart.is_clear, apart.remark) == (0.5, True, "exact bounds: too few errors for bootstrap-t")
    assert 0 < apart.low < 0.5 < apart.high <= 1
    lonely = make([0] * 19 + [1], np.arange(20) % 3 > 0, patient)
    assert (score_interval(lonely).method, "one patient only" in score_interval(lonely).remark) == ("percentile", True)
    assert (score_interval(lonely, "accuracy").method, score_interval(lonely, "accuracy").remark) == ("bootstrap-t", "")
    one_error = make(label, np.arange(20) > 0, patient)
    found = score_interval(one_error)
    assert (found.method, found.remark) == ("clopper-pearson", "exact bounds: too few errors for bootstrap-t")
    assert found.low < score_interval(one_error, method="percentile").low
    kappa = score_interval(one_error, "quadratic_kappa")
    assert (kappa.method, kappa.remark) == ("percentile", "interval by percentiles: too few errors for bootstrap-t")
    difference = paired_difference(perfect, one_error)
    assert difference.method == "clopper-pearson"
    assert difference.low < 0 < difference.estimate < difference.high


def test_a_perfect_area_has_a_lower_end():
    label, patient = np.arange(40) % 2, [f"p{i}" for i in range(40)]
    perfect = make(label, np.ones(40, bool), patient)
    found = score_interval(perfect, "auroc")
    assert (found.estimate, found.low, found.high) == (1, pytest.approx(0.025 ** (1 / 20)), 1)
    assert "no pair out of order" in found.remark


def test_images_of_one_patient_stand_for_themselves_and_the_interval_says_so():
    label, is_right = np.arange(40) % 2, np.arange(40) % 3 > 0
    one, unnamed = (make(label, is_right, [patient] * 40) for patient in ("p", None))
    assert score_interval(one) == score_interval(unnamed)
    assert (score_interval(one).level, score_interval(one).num_patients) == ("image", 40)
    assert score_interval(one).low < score_interval(one).high


def test_bad_input():
    alone = make([0], [True], ["p"])
    with pytest.raises(BadInput, match="at least two samples, found 1"):
        score_interval(alone)
    a, _ = simulate(5, np.random.default_rng(6))
    with pytest.raises(BadInput, match="metric 'macro_f1': expected one of accuracy, balanced_accuracy, auroc"):
        score_interval(a, "macro_f1")
