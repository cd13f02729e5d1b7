"""Several checkpoints and fit seeds: what is averaged, what is aligned, what a recipe's interval adds."""

import numpy as np
import pytest
from scipy.stats import t as t_distribution
from scipy.stats import ttest_ind

from raypath.benchmarks import Predictions, score
from raypath.errors import BadInput
from raypath.study.alignment import members_of
from raypath.study.seeds import with_seeds
from raypath.study.statistics import paired_difference, score_interval


def encoder(num_checkpoints, num_fits, rng, num_patients=15, skill=0.8):
    """Checkpoints x fits about the same samples, by the same seed of the data."""
    data = np.random.default_rng(99)
    patient = np.repeat(np.arange(num_patients), data.integers(3, 9, size=num_patients))
    label = data.integers(2, size=len(patient))
    effect = data.normal(0, 0.8, num_patients)[patient]

    def fit(luck):
        is_right = rng.random(len(label)) < 1 / (1 + np.exp(-skill - luck - effect))
        noise = rng.uniform(0.55, 0.9, len(label))
        probability = np.where((label == 1) == is_right, noise, 1 - noise)
        return Predictions(
            [f"s{i}" for i in range(len(label))],
            [f"p{p}" for p in patient],
            label,
            np.stack([1 - probability, probability], axis=1),
            "ab",
        )

    return [[fit(luck) for _ in range(num_fits)] for luck in rng.normal(0, 0.3, num_checkpoints)]


def shuffled(predictions, rng):
    return predictions.take(rng.permutation(len(predictions.sample)))


def mean_score(checkpoints, metric):
    return np.mean([np.mean([score(each)[metric] for each in fits]) for fits in checkpoints])


@pytest.mark.parametrize("metric", ["accuracy", "balanced_accuracy", "quadratic_kappa", "auroc"])
def test_the_statistic_is_the_mean_over_checkpoints_of_the_mean_over_fits(metric):
    rng = np.random.default_rng(0)
    a, b = encoder(3, 2, rng), encoder(2, 1, rng)
    a[0] = a[0][:1]  # a fit that failed: its checkpoint still weighs a third
    interval = score_interval(a, metric, num_resamples=200)
    assert interval.estimate == pytest.approx(mean_score(a, metric))
    assert (interval.num_checkpoints, interval.num_seeds, interval.population) == (3, 1, "checkpoint")
    difference = paired_difference(a, b, metric, num_resamples=200)
    assert difference.estimate == pytest.approx(mean_score(a, metric) - mean_score(b, metric))
    assert (difference.num_checkpoints, difference.num_checkpoints_b) == (3, 2)
    assert difference.low < difference.estimate < difference.high


@pytest.mark.parametrize("metric", ["balanced_accuracy", "auroc"])
def test_one_prediction_or_a_list_of_one_and_copies_of_it_are_the_same(metric):
    one = encoder(1, 1, np.random.default_rng(1))[0][0]
    alone = score_interval(one, metric, num_resamples=200)
    assert score_interval([[one]], metric, num_resamples=200) == alone
    copies = score_interval([[one, one], [one]], metric, num_resamples=200)
    assert (copies.low, copies.high) == pytest.approx((alone.low, alone.high))


def test_order_of_samples_means_nothing():
    rng = np.random.default_rng(2)
    a, b = encoder(3, 1, rng), encoder(1, 2, rng)
    turned_a, turned_b = ([[shuffled(each, rng) for each in fits] for fits in side] for side in (a, b))
    turned_a[0][0] = a[0][0]
    assert paired_difference(turned_a, turned_b, num_resamples=100) == paired_difference(a, b, num_resamples=100)


@pytest.mark.parametrize("metric", ["balanced_accuracy", "auroc"])
def test_swapping_the_encoders_turns_the_sign(metric):
    rng = np.random.default_rng(3)
    a, b = encoder(3, 1, rng, skill=1.2), encoder(3, 1, rng, skill=0.2)
    one, other = paired_difference(a, b, metric), paired_difference(b, a, metric)
    assert one.estimate == pytest.approx(-other.estimate)
    half = (one.high - one.low) / 2  # the draws differ, so the ends agree to Monte Carlo error
    assert (one.low, one.high) == pytest.approx((-other.high, -other.low), abs=0.08 * half)


def test_other_methods():
    a, b = (encoder(1, 1, np.random.default_rng(s), num_patients=30)[0][0] for s in (4, 5))
    percentile, image = (paired_difference(a, b, method=method) for method in ("percentile", "image"))
    assert (percentile.method, percentile.level, percentile.num_patients) == ("percentile", "patient", 30)
    assert (image.method, image.level, image.num_patients) == ("image", "image", len(a.sample))
    # by hand: images drawn one by one
    rng, right = np.random.default_rng(0), a.predicted == a.label
    drawn = [rng.integers(len(right), size=len(right)) for _ in range(2000)]
    expected = np.quantile([np.mean([right[d][a.label[d] == k].mean() for k in (0, 1)]) for d in drawn], [0.025, 0.975])
    found = score_interval(a, method="image")
    assert [found.low, found.high] == pytest.approx(expected, abs=0.01)
    assert score_interval(a, "auroc", method="image").level == "image"
    with pytest.raises(BadInput, match="'percentile' has no AUROC"):
        score_interval(a, "auroc", method="percentile")
    with pytest.raises(BadInput, match="method 'magic': expected one of bootstrap-t"):
        score_interval(a, method="magic")
    with pytest.raises(BadInput, match="population 'world': expected one of checkpoint, recipe"):
        score_interval(a, population="world")


def test_without_spread_of_patients_a_recipe_is_a_t_test_of_its_checkpoints():
    rng = np.random.default_rng(6)
    members = members_of(encoder(5, 1, rng), encoder(3, 1, rng))
    scores = rng.normal(0.8, 0.05, 8)
    estimate = scores @ members.weight
    low, high = with_seeds(members, scores, estimate, estimate, 0.95)
    welch = ttest_ind(scores[:5], scores[5:], equal_var=False).confidence_interval(0.95)
    assert (low, high) == pytest.approx((welch.low, welch.high))
    # patients and seeds lie at right angles
    wider = with_seeds(members, scores, estimate - 0.3, estimate + 0.4, 0.95)
    assert wider[0] == pytest.approx(estimate - np.hypot(0.3, estimate - low))
    assert wider[1] == pytest.approx(estimate + np.hypot(0.4, high - estimate))


def test_a_side_of_one_checkpoint_is_fixed():
    rng = np.random.default_rng(7)
    a, imagenet = encoder(4, 2, rng), encoder(1, 1, rng)
    by_patients, by_both = (paired_difference(a, imagenet, population=p) for p in ("checkpoint", "recipe"))
    means = [np.mean([score(each)["balanced_accuracy"] for each in fits]) for fits in a]
    reach = t_distribution.ppf(0.975, 3) * np.std(means, ddof=1) / 2
    assert by_both.estimate - by_both.low == pytest.approx(np.hypot(by_patients.estimate - by_patients.low, reach))
    assert by_both.population == "recipe"
    other_way = paired_difference(imagenet, a, population="recipe")
    assert other_way.estimate - other_way.low == pytest.approx(by_both.high - by_both.estimate, rel=0.1)


def test_too_few_checkpoints_are_no_recipe():
    rng = np.random.default_rng(8)
    one, two, three = (encoder(n, 1, rng) for n in (1, 2, 3))
    for wrong in (one, two):
        with pytest.raises(BadInput, match=f"population 'recipe' with {len(wrong)} checkpoints: expected 3"):
            score_interval(wrong, population="recipe")
    with pytest.raises(BadInput, match="with 3 and 2 checkpoints"):
        paired_difference(three, two, population="recipe")
    with pytest.raises(BadInput, match="with 1 and 1 checkpoints"):
        paired_difference(one, one, population="recipe")


def test_members_must_belong_together():
    rng = np.random.default_rng(9)
    (one,), (other,) = encoder(1, 1, rng)[0], encoder(1, 1, rng)[0]
    with pytest.raises(BadInput, match="only in the second"):
        score_interval([[one.take(range(10))], [other]])
    for empty in ([], [[]], [[one], []]):
        with pytest.raises(BadInput, match="without predictions"):
            score_interval(empty)
