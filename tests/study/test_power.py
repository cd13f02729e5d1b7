"""The smallest difference a benchmark can show, against simulated tests."""

import re

import numpy as np
import pytest
from scipy.stats import norm, ttest_1samp

from raypath.benchmarks import Predictions
from raypath.errors import BadInput
from raypath.study.power import Assumptions, in_deviations, smallest_detectable
from raypath.study.statistics import paired_difference


def design(num_patients, rng, share=0.5):
    sizes = np.maximum(1, np.rint(8 * np.exp(0.7 * rng.normal(size=num_patients)))).astype(int)
    patient = np.repeat(np.arange(num_patients), sizes)
    return (rng.random(len(patient)) < share).astype(int), patient


def drawn(difference, label, patient, assumed, rng):
    """Two encoders that disagree as assumed: each image copies its patient's draw with probability sqrt(correlation)."""
    edges = np.cumsum([(assumed.disagreement + difference) / 2, (assumed.disagreement - difference) / 2])

    def draw(num):
        return np.array([1, -1, 0])[np.searchsorted(edges, rng.random(num), side="right")]

    copies = rng.random(len(label)) < np.sqrt(assumed.correlation)
    d = np.where(copies, draw(patient.max() + 1)[patient], draw(len(label)))
    both = rng.random(len(label)) < 0.75
    names = [f"s{i}" for i in range(len(label))], [f"p{p}" for p in patient]
    rights = (np.where(d == 0, both, d == 1), np.where(d == 0, both, d == -1))
    return [Predictions(*names, label, np.eye(2)[np.where(r, label, 1 - label)], "ab") for r in rights]


@pytest.mark.parametrize("metric", ["accuracy", "balanced_accuracy"])
def test_four_tests_of_five_find_it(metric):
    rng = np.random.default_rng(0)
    label, patient = design(30, rng, share=0.5 if metric == "accuracy" else 0.25)
    assumed = Assumptions(correlation=0.15)
    found = smallest_detectable(label, [f"p{p}" for p in patient], metric, assumed)
    power = {}
    for factor in (0.8, 1.0, 1.2):
        pairs = [drawn(factor * found.difference, label, patient, assumed, rng) for _ in range(120)]
        tests = [paired_difference(*pair, metric, num_resamples=150, seed=s) for s, pair in enumerate(pairs)]
        power[factor] = np.mean([test.is_clear and test.estimate > 0 for test in tests])
    print(f"\n{metric}: {found.words}; power {power}")
    assert power[0.8] < 0.8 < power[1.2]
    assert abs(power[1.0] - 0.8) < 0.12


def test_areas_against_simulated_tests():
    # independent images, binormal scores: nothing but the formula of Hanley and McNeil is at stake
    rng, num, area = np.random.default_rng(1), 120, 0.85
    label = np.arange(num) % 2
    assumed = Assumptions(area=area, area_correlation=0.5)
    found = smallest_detectable(label, [None] * num, "auroc", assumed)
    names = [f"s{i}" for i in range(num)], [None] * num

    def encoders():
        shared = rng.normal(size=num)
        for sign in (1, -1):
            shift = np.sqrt(2) * norm.ppf(area + sign * found.difference / 2)
            positive = norm.cdf(shift * (label - 0.5) + np.sqrt(0.55) * shared + np.sqrt(0.45) * rng.normal(size=num))
            yield Predictions(*names, label, np.stack([1 - positive, positive], axis=1), "ab")

    power = np.mean([paired_difference(*encoders(), "auroc").is_clear for _ in range(200)])
    print(f"\n{found.words}; power {power}")
    assert abs(power - 0.8) < 0.15


def test_one_of_many_comparisons_must_differ_by_more():
    label, patient = np.arange(200) % 2, [f"p{i // 10}" for i in range(200)]
    for metric in ("accuracy", "balanced_accuracy", "auroc"):
        alone, among = (smallest_detectable(label, patient, metric, num_comparisons=num) for num in (1, 24))
        strict = smallest_detectable(label, patient, metric, Assumptions(alpha=0.05 / 24))
        assert (alone.difference, alone.corrected) == (among.difference, alone.difference)
        assert among.corrected == strict.difference > 1.2 * alone.difference
        told = f"differences from {100 * among.difference:.1f} points on are found in 80% of tests"
        assert f"{told} ({100 * among.corrected:.1f} where it is one of 24 comparisons); 20 patients" in among.words
        assert "comparisons" not in alone.words


def test_a_score_without_a_formula_is_told_in_deviations():
    rng, num = np.random.default_rng(0), 25
    words = in_deviations([None] * num, "dice_macro", num_comparisons=6)
    alone, among = (float(text) for text in re.findall(r"(\d\.\d\d) (?:standard|where)", words))
    assert words.startswith("dice_macro: no formula in points")
    assert "25 images, image-level" in words
    for shift, level in ((alone, 0.05), (among, 0.05 / 6)):
        power = np.mean(ttest_1samp(rng.normal(shift, 1, size=(4000, num)), 0, axis=1).pvalue < level)
        assert abs(power - 0.8) < 0.03
    of_patients = in_deviations([f"p{i // 5}" for i in range(num)], "dice_macro")
    assert "5 patients, 25 samples; assumed: correlation within patients 0.05" in of_patients
    assert float(re.search(r"(\d\.\d\d) standard", of_patients)[1]) > alone
    with pytest.raises(BadInput, match="1 images of one patient"):
        in_deviations(["p"], "dice_macro")


def test_equal_patients_have_the_design_effect_of_kish():
    label, patient = np.arange(200) % 2, [f"p{i // 10}" for i in range(200)]
    found = smallest_detectable(label, patient, "accuracy", Assumptions(correlation=0.2))
    assert found.design_effect == pytest.approx(1 + 9 * 0.2)
    assert (found.num_patients, found.effective_patients) == (20, pytest.approx(20))
    assert "20 patients, 200 samples" in found.words
    assert "disagreement 20%" in found.words


def test_uneven_patients_and_fewer_patients_show_less():
    label = np.arange(200) % 2
    equal = [f"p{i // 10}" for i in range(200)]
    uneven = [f"p{max(0, i - 180)}" for i in range(200)]  # one of 181 images, 19 of one
    few = [f"p{i // 50}" for i in range(200)]
    alone = [None] * 200
    numbers = [smallest_detectable(label, p, "balanced_accuracy").difference for p in (alone, equal, few, uneven)]
    assert numbers == sorted(numbers)
    rare = np.where(np.arange(200) < 10, 1, 0)
    by_metric = [smallest_detectable(rare, alone, m).difference for m in ("accuracy", "balanced_accuracy")]
    assert by_metric[1] > 1.5 * by_metric[0]
    assert "image-level" in smallest_detectable(label, alone, "accuracy").words


def test_a_difference_is_never_more_than_all():
    tiny = smallest_detectable([0, 1, 0, 1], ["a", "a", "b", "b"], "accuracy")
    assert tiny.difference > 0.2, "the encoders would have to disagree more than was assumed"
    assert tiny.difference <= 1
    assert smallest_detectable([0, 1, 0, 1], ["a", "a", "b", "b"], "auroc").difference <= 1


def test_bad_input():
    with pytest.raises(BadInput, match="'dice_macro': expected one of accuracy, balanced_accuracy, auroc"):
        smallest_detectable([0, 1], ["a", "b"], "dice_macro")
    with pytest.raises(BadInput, match="only one class"):
        smallest_detectable([0, 0], ["a", "b"], "auroc")
    with pytest.raises(BadInput, match="two patients or more"):
        smallest_detectable([0], ["a"], "accuracy")
    with pytest.raises(BadInput, match="2 labels, 3 patients"):
        smallest_detectable([0, 1], ["a", "b", "c"], "accuracy")
    with pytest.raises(BadInput, match="disagreement = 0"):
        Assumptions(disagreement=0)
