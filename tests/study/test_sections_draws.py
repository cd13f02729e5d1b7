"""Draws of the folds, one beside the other."""

from dataclasses import replace

import numpy as np
import pytest

from raypath.study.results import load_results
from raypath.study.sections_draws import draws, scores_by_draw
from raypath.study.study_figures import point_score
from tests.study.synthetic_study import write_study


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    return load_results(write_study(tmp_path_factory.mktemp("draws") / "study"))


def drawn(place, num_draws):
    """The place as if its fits had had so many draws of the folds."""
    own = (replace(one, record=one.record | {"num_draws": num_draws}) for one in place.scored)
    return replace(place, scored=tuple(own))


def test_fits_take_draws_in_turn_and_checkpoints_share_them(results):
    place = drawn(results.place("ours", "gains", "probe"), 2)
    scores = np.array([[point_score(said, place.metric) for said in own] for own in place.said])  # checkpoints x fits
    assert scores.shape == (3, 2)
    assert scores_by_draw(place) == pytest.approx(scores.mean(axis=0))
    assert scores_by_draw(drawn(place, 1)) == pytest.approx([scores.mean()])


def test_every_draw_is_told_with_its_difference_and_nothing_where_there_is_one(results):
    assert draws(results) is None
    several = results.with_places([drawn(p, 2) if p.benchmark == "gains" else p for p in results.places])
    (table,) = draws(several).tables
    rows = {row[1]: row for row in table.rows}
    assert {row[0] for row in table.rows} == {"gains"}
    ours, random = (scores_by_draw(several.place(name, "gains", "probe")) for name in ("ours", "random"))
    assert rows["ours"][2] == f"{min(ours):.3f} to {max(ours):.3f}"
    apart = sorted(100 * (a - b) for a, b in zip(ours, random))
    assert rows["ours"][3] == f"{apart[0]:+.1f} to {apart[1]:+.1f}"
    assert rows["random"][3] is None
    assert "In every row: protocol probe, draws 2." in draws(several).words
