"""Exact bounds of scores with few errors."""

import numpy as np
import pytest
from scipy.stats import binomtest, norm
from scipy.stats import t as t_distribution

from raypath.study.few_errors import difference_bounds, share_bounds, trials_of_classes


def test_independent_images_get_the_bounds_of_clopper_and_pearson():
    for num_right, num in ((0, 12), (29, 30), (30, 30)):
        share = num_right / num
        ratio = t_distribution.ppf(0.975, num - 1) / norm.ppf(0.975)
        error = np.sqrt(share * (1 - share) / num) / ratio  # so that n comes out whole
        wanted = binomtest(num_right, num).proportion_ci(0.95, "exact")
        assert share_bounds(share, error, num, num, 0.95) == pytest.approx((wanted.low, wanted.high))


def test_few_patients_widen_and_nothing_gives_nothing():
    ends = [share_bounds(0.99, 0.01, num, num, 0.95) for num in (5, 20, 1000)]
    assert ends[0][0] < ends[1][0] < ends[2][0] < 0.99 < ends[2][1] < ends[1][1]
    assert np.isnan(share_bounds(np.nan, np.nan, 20, 20, 0.95)).all()


def test_differences_by_hand():
    low, high = difference_bounds((0.9, 0.8, 0.95), (0.7, 0.6, 0.82))
    assert low == pytest.approx(0.2 - np.hypot(0.1, 0.12))
    assert high == pytest.approx(0.2 + np.hypot(0.05, 0.1))


def test_trials_of_classes():
    assert trials_of_classes(np.array([10, 10, 0]), 20) == pytest.approx(20)
    assert trials_of_classes(np.array([20, 20]), 20) == 20  # patients that have both count once
    assert trials_of_classes(np.array([19, 1]), 20) == pytest.approx(4 / (1 / 19 + 1))
