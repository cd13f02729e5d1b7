"""A small part of what experiments/measure_statistics.py measures, with wide bounds."""

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "experiments"))
from measure_statistics import World, coverage_row, false_positive_row, few_errors_row, fold_row, recipe_row


def test_the_truth_of_a_world_is_what_large_studies_come_to():
    world = World(luck=0.5, quirk=0.3)
    draws = np.random.default_rng(0).normal(size=400_000) * np.sqrt(1 + 0.5**2 + 0.5**2 + 0.3**2)
    expected = [np.mean(1 / (1 + np.exp(-skill - draws))) for skill in world.skill]
    assert world.true_scores() == pytest.approx(expected, abs=0.002)


def test_the_default_covers_and_images_do_not():
    found = coverage_row(20, 150)
    assert min(found["bootstrap-t"]) >= 0.88
    assert max(found["image"]) <= 0.92
    assert found["image"][0] <= 0.75
    assert found["percentile"][0] < found["bootstrap-t"][0]


def test_folds_on_scales_of_their_own_are_covered_pair_by_pair():
    found = fold_row(44, False, 80)
    assert min(found["within a fold"]) >= 0.88
    assert found["all"][0] <= 0.4


def test_where_errors_are_few_exact_bounds_cover():
    found = few_errors_row(5.0, 20, 60)
    assert 0.3 <= found["exact"] <= 0.8
    assert found["score"] >= 0.90
    assert found["score"] > found["percentile"]


def test_a_recipe_covers_where_a_checkpoint_does_not():
    found = recipe_row(20, 3, 0.5, 80)
    assert min(found["recipe"]) >= 0.90
    assert found["checkpoint"][1] <= 0.85


def test_equal_encoders_are_rarely_told_apart():
    found = false_positive_row(20, 200)
    assert found["permutation"] <= 0.10
    assert found["bootstrap-t"] <= 0.10
    assert found["image"] >= 0.10
