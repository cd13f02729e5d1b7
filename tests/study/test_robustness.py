"""Curves of scores under alterations: their places, their differences, and what they show."""

import io

import numpy as np
import pytest

from raypath.benchmarks import PixelPredictions, Predictions
from raypath.data.alterations import KINDS, parse_alteration
from raypath.errors import BadInput
from raypath.study.robustness import AS_IS, SHIFTS, TITLES, curves
from raypath.study.robustness_figures import robustness_figure
from raypath.study.statistics import paired_difference, score_interval

METRIC = "accuracy"
NUM = 200  # samples of 40 patients


def said(num_wrong: int) -> Predictions:
    """Predictions of which `num_wrong` are wrong, spread evenly over the patients."""
    label = np.arange(NUM) % 2
    predicted = label.copy()
    places = np.random.default_rng(0).permutation(NUM)[:num_wrong]
    predicted[places] = 1 - predicted[places]
    patients = [f"p{i // 5}" for i in range(NUM)]
    return Predictions([f"s{i:03}" for i in range(NUM)], patients, label, np.eye(2)[predicted], ("a", "b"))


WRONG = {
    AS_IS: 20,
    "jpeg=10": 60,
    "jpeg=90": 22,
    "mpp=2": 40,
    "mpp=0.5": 50,
    "mpp=1.25": 20,
    "grey": 30,
    "hed=0.10": 24,
}


@pytest.fixture(scope="module")
def made():
    return curves({text: said(num) for text, num in WRONG.items()}, METRIC, num_resamples=300)


def test_points_stand_by_strength_with_the_images_as_they_are_in_their_place(made):
    assert {curve.kind: [point.label for point in curve.points] for curve in made} == {
        "grey": ["as is", "grey"],
        "hed": ["as is", "0.1"],
        "jpeg": ["as is", "90", "10"],
        "mpp": ["0.5", "as is", "1.25", "2"],
    }


def test_scores_and_differences_are_those_of_the_statistics(made):
    for curve in made:
        for point in curve.points:
            text = "hed=0.10" if point.alteration == "hed=0.1" else point.alteration
            num_wrong = WRONG[text]
            assert point.score.estimate == pytest.approx(1 - num_wrong / NUM)
            assert point.score == score_interval(said(num_wrong), METRIC, num_resamples=300)
            if point.difference is not None:
                expected = paired_difference(said(num_wrong), said(20), METRIC, num_resamples=300)
                assert point.difference == expected
                assert point.difference.estimate == pytest.approx((20 - num_wrong) / NUM)
        assert curve.as_is.alteration == AS_IS
    jpeg = next(curve for curve in made if curve.kind == "jpeg")
    assert jpeg.worst.alteration == "jpeg=10"
    assert str(jpeg).startswith("JPEG: accuracy 0.900 as is, 0.700 at jpeg=10 (-20.0 points [-2")
    assert "not separable" not in str(jpeg)


def test_what_changes_nothing_is_not_separable():
    (curve,) = curves({AS_IS: said(20), "blur=1": said(20)}, METRIC, num_resamples=200)
    assert curve.worst.difference.estimate == 0
    assert "not separable from none" in str(curve)


def test_segmentations_have_curves_too():
    confusion = np.random.default_rng(0).integers(50, 100, (6, 2, 2)) + 200 * np.eye(2, dtype=np.int64)
    plain = PixelPredictions(tuple("abcdef"), tuple("uvwxyz"), confusion, ("no", "yes"))
    worse = confusion.copy()
    worse[:, 0, 0] -= 40
    worse[:, 0, 1] += 40
    altered = PixelPredictions(tuple("abcdef"), tuple("uvwxyz"), worse, ("no", "yes"))
    (curve,) = curves({AS_IS: plain, "blur=2": altered}, "miou_macro", num_resamples=200)
    assert curve.worst.difference.high < 0


def test_the_images_as_they_are_are_wanted_and_texts_are_checked():
    with pytest.raises(BadInput, match="no predictions of the images as they are"):
        curves({"grey": said(3)}, METRIC)
    with pytest.raises(BadInput, match="alteration='gray'"):
        curves({AS_IS: said(3), "gray": said(3)}, METRIC)


def test_the_curves_of_a_study_are_alterations_of_their_kind_that_reach_as_far_as_they_should():
    assert tuple(SHIFTS) == tuple(TITLES) == KINDS
    for kind, texts in SHIFTS.items():
        parsed = [parse_alteration(text) for text in texts]
        assert {alteration.kind for alteration in parsed} == {kind}
        assert [str(alteration) for alteration in parsed] == list(texts)  # as they are in names of files and keys
    assert (SHIFTS["mpp"][0], SHIFTS["mpp"][-1]) == ("mpp=0.5", "mpp=2")


def test_the_figure_has_every_score_at_its_place_and_what_is_missing_is_missing(made):
    other = [curve for curve in made if curve.kind == "jpeg"]
    figure = robustness_figure({"imagenet": made, "colour": other}, chance=0.5)
    figure.savefig(io.BytesIO(), format="svg")
    assert [axes.get_title() for axes in figure.axes] == [TITLES[k] for k in ("grey", "hed", "jpeg", "mpp")]
    jpeg, mpp = figure.axes[2:]
    assert [text.get_text() for text in jpeg.get_xticklabels()] == ["as is", "90", "10"]
    first, second, chance = jpeg.lines
    np.testing.assert_allclose(first.get_ydata(), [0.9, 0.89, 0.7])
    assert [round(x) for x in first.get_xdata()] == [0, 1, 2]
    assert (np.array(second.get_xdata()) > first.get_xdata()).all()
    assert list(chance.get_ydata()) == [0.5, 0.5]
    assert len(mpp.lines) == 2  # colour was not asked
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["imagenet", "colour"]
    bars = jpeg.collections[0].get_segments()
    score = other[0].points[2].score
    np.testing.assert_allclose(bars[2][:, 1], [score.low, score.high])


def test_a_figure_of_nothing_is_refused():
    with pytest.raises(ValueError, match="no curves"):
        robustness_figure({"imagenet": []})
