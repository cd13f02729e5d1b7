"""The critical-difference diagram joins what cannot be told apart, and nothing else."""

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raypath.study.rank_figures import joined, rank_figure
from raypath.study.ranks import RankTest


@pytest.mark.parametrize(
    ("ranks", "difference", "wanted"),
    [
        ([1, 2, 3, 4], 0.5, []),
        ([1, 2, 3, 4], 1, [(0, 1), (1, 2), (2, 3)]),
        ([1, 1.5, 3, 4], 2, [(0, 2), (2, 3)]),
        ([2, 2, 2], 0.1, [(0, 2)]),
        ([1, 2, 4], 9, [(0, 2)]),
    ],
)
def test_runs_are_the_longest_ones(ranks, difference, wanted):
    assert joined(ranks, difference) == wanted


@given(st.lists(st.floats(1, 9), min_size=2, max_size=9).map(sorted), st.floats(0.1, 5))
def test_two_encoders_share_a_bar_exactly_where_they_lie_within_the_difference(ranks, difference):
    runs = joined(ranks, difference)
    for first in range(len(ranks)):
        for last in range(first + 1, len(ranks)):
            is_joined = any(start <= first and last <= end for start, end in runs)
            assert is_joined == (ranks[last] - ranks[first] <= difference)


def test_every_encoder_stands_at_its_rank_from_the_best_down():
    names, ranks = ["slow", "fast", "even"], np.array([2.8, 1.1, 2.1])
    test = RankTest(ranks, 0.01, 0.9, 12)
    figure = rank_figure(names, test, {"slow": "red", "fast": "green", "even": "blue"})
    figure.savefig(io.BytesIO(), format="svg")
    (axes,) = figure.axes
    texts = [text.get_text() for text in axes.texts]
    assert texts == ["critical difference 0.90", "fast  1.10", "even  2.10", "slow  2.80"]
    marks = [(line.get_xdata()[0], line.get_color()) for line in axes.lines if line.get_marker() == "o"]
    assert marks == [(1.1, "green"), (2.1, "blue"), (2.8, "red")]
    bars = [tuple(line.get_xdata()) for line in axes.lines if line.get_marker() != "o"]
    assert bars == [(1, 1.9), (2.1, 2.8)]
    assert "12 benchmarks" in axes.get_xlabel()
