"""Several draws of nested folds: what belongs to which, what they add to an interval, and how a report tells of them."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import t as t_distribution
from scipy.stats import ttest_1samp

from raypath.benchmarks import Predictions, score
from raypath.errors import BadInput
from raypath.study.alignment import members_of
from raypath.study.comparisons import comparisons, difference, papers_rule
from raypath.study.draws import by_draw, with_draws
from raypath.study.results import load_results
from raypath.study.sections_draws import draws, scores_by_draw
from raypath.study.statistics import paired_difference, score_interval
from raypath.study.study_figures import point_score
from tests.study.synthetic_study import write_study


def encoder(num_checkpoints, num_fits, rng, num_patients=15):
    """Checkpoints x fits about the same samples."""
    patient = np.repeat(np.arange(num_patients), 6)
    label = np.arange(len(patient)) % 2
    names = ([f"s{n}" for n in range(len(patient))], [f"p{n}" for n in patient])

    def fit():
        predicted = np.where(rng.random(len(label)) < 0.8, label, 1 - label)
        return Predictions(*names, label, np.eye(2)[predicted], ("a", "b"))

    return [[fit() for _ in range(num_fits)] for _ in range(num_checkpoints)]


def scores_of(checkpoints):
    return np.array([[score(fit)["balanced_accuracy"] for fit in fits] for fits in checkpoints])


def test_fits_take_the_draws_in_turn():
    rng = np.random.default_rng(0)
    a, b = encoder(2, 6, rng), encoder(1, 3, rng)
    members = members_of(a, b)
    flat = np.concatenate([scores_of(a).ravel(), scores_of(b).ravel()])
    expected = [scores_of(a)[:, draw::3].mean() - scores_of(b)[0, draw] for draw in range(3)]
    assert by_draw(members, flat, 3) == pytest.approx(expected)
    assert by_draw(members, flat, 1) == pytest.approx([scores_of(a).mean() - scores_of(b).mean()])
    with pytest.raises(BadInput, match="4 draws of the folds, and a checkpoint with 3 fits"):
        by_draw(members, flat, 4)


def test_without_spread_of_patients_an_interval_is_a_t_test_of_the_draws():
    members = members_of(encoder(1, 5, np.random.default_rng(1)))
    scores = np.random.default_rng(2).normal(0.8, 0.02, 5)
    low, high = with_draws(members, scores, scores.mean(), scores.mean(), 5, 0.95)
    expected = ttest_1samp(scores, 0).confidence_interval(0.95)
    assert (low, high) == pytest.approx((expected.low, expected.high))
    wider = with_draws(members, scores, scores.mean() - 0.03, scores.mean() + 0.04, 5, 0.95)
    assert wider[0] == pytest.approx(scores.mean() - np.hypot(0.03, scores.mean() - low))
    assert wider[1] == pytest.approx(scores.mean() + np.hypot(0.04, high - scores.mean()))


def test_from_three_draws_on_their_spread_is_beside_that_of_patients_and_seeds():
    rng = np.random.default_rng(3)
    a, b = encoder(3, 3, rng), encoder(1, 3, rng)
    for population in ("checkpoint", "recipe"):
        own = {"population": population, "num_resamples": 200}
        without, both = paired_difference(a, b, **own), paired_difference(a, b, num_draws=3, **own)
        by = scores_of(a).mean(axis=0) - scores_of(b)[0]
        reach = t_distribution.ppf(0.975, 2) * by.std(ddof=1) / np.sqrt(3)
        assert both.estimate == without.estimate
        assert both.high - both.estimate == pytest.approx(np.hypot(without.high - without.estimate, reach))
    two = encoder(1, 2, rng)
    assert score_interval(two, num_draws=2) == score_interval(two)  # of two, Student's t knows next to nothing


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    return load_results(write_study(tmp_path_factory.mktemp("draws") / "study"))


def drawn(place, num_draws):
    """The place as if its fits had had so many draws of the folds."""
    own = (replace(one, record=one.record | {"num_draws": num_draws}) for one in place.scored)
    return replace(place, scored=tuple(own))


def test_places_are_compared_on_the_draws_that_both_have(results):
    ours, random = (results.place(name, "gains", "probe") for name in ("ours", "random"))
    found = difference(results, drawn(ours, 1), drawn(random, 2))
    fits = [np.array([[score(said)[ours.metric] for said in own] for own in place.said]) for place in (ours, random)]
    assert fits[1].shape[1] == 2
    assert found.estimate == pytest.approx(fits[0].mean() - fits[1][:, 0].mean())
    both = difference(results, drawn(ours, 2), drawn(random, 2))
    assert both.estimate == pytest.approx(fits[0].mean() - fits[1].mean())
    several = results.with_places([drawn(p, 2) for p in results.places])
    assert len(comparisons(several, "probe")) == len(comparisons(results, "probe"))


def test_a_sigma_over_seeds_is_none_over_draws(results):
    ours, random = (results.place(name, "gains", "probe") for name in ("ours", "random"))
    assert [len(own) for own in (ours.by_seed, drawn(ours, 2).by_seed)] == [6, 3]  # fits, checkpoints
    colour = results.place("colour", "gains", "probe")
    assert papers_rule(colour, random) is not None
    assert papers_rule(drawn(colour, 2), drawn(random, 2)) is None  # one checkpoint each: no sigma


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
