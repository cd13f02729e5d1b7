"""Figures are drawn from saved values, and show those values."""

import io
import json

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from raypath.benchmarks import Predictions
from raypath.study.figures import confusion_figure, loss_figure, score_figure, segmentation_figure

CLASSES = ("glandular", "spindle", "solid and a name that goes on for rather long")


def predictions(labels, guesses):
    probability = np.eye(len(CLASSES))[guesses]
    names = [f"s{i}" for i in range(len(labels))]
    return Predictions(names, [None] * len(labels), np.array(labels), probability, CLASSES)


def texts(figure):
    figure.savefig(io.BytesIO(), format="svg")  # what is only found out while drawing is found out here
    return [text.get_text() for axes in figure.axes for text in axes.texts]


def test_the_confusion_has_every_count_and_its_share_of_the_row():
    figure = confusion_figure(predictions([0, 0, 0, 0, 1, 1], [0, 0, 0, 1, 1, 2]), "title")
    shown = texts(figure)
    assert shown[::2] == ["3", "1", "0", "0", "1", "1", "0", "0", "0"]
    assert shown[1::2] == ["75%", "25%", "0%", "0%", "50%", "50%", "0%", "0%", "0%"]  # a class without samples: no NaN
    names = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert [name.replace("\n", " ") for name in names] == list(CLASSES)
    assert "\n" in names[-1]


def test_scores_stand_from_top_to_bottom_with_their_intervals():
    rows = [("pretrained", 0.75, 0.7, 0.8), ("random", 0.6, 0.5, 0.7)]
    figure = score_figure(rows, "balanced_accuracy", 1 / 3)
    axes = figure.axes[0]
    assert texts(figure) == ["0.750", "0.600", "chance"]
    bars = [line.get_xdata() for line in axes.lines[::2]]
    assert [list(bar) for bar in bars] == [[0.7, 0.8], [0.5, 0.7], [1 / 3, 1 / 3]]
    assert axes.get_ylim()[0] > axes.get_ylim()[1]  # the first one on top
    assert axes.get_xlabel() == "balanced accuracy on test, 95 % interval"


@pytest.mark.parametrize("num_steps", [1, 5, 100])
def test_the_loss_is_drawn_over_its_steps(num_steps, tmp_path):
    lines = [{"step": s, "time": 0, "metrics": {"loss": 5 - s / 100, "lr": 0.1}} for s in range(1, num_steps + 1)]
    lines.append({"step": num_steps + 1, "time": 0, "metrics": {"lr": 0.1}})  # no loss
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"step": 9, "met')  # torn by a crash
    figure = loss_figure(path)
    texts(figure)
    every, *mean = figure.axes[0].lines
    assert list(every.get_xdata()) == list(range(1, num_steps + 1))
    assert every.get_ydata()[-1] == pytest.approx(5 - num_steps / 100)
    assert len(mean) == (num_steps == 100)
    assert all(tick == round(tick) for tick in figure.axes[0].get_xticks())
    assert figure.axes[0].get_title() == "Loss by step"
    strongest = np.array(to_rgb((mean or [every])[0].get_color()))
    assert strongest @ [0.3, 0.6, 0.1] < 0.5  # dark enough on white
    assert np.array(to_rgb(every.get_color())) @ [0.3, 0.6, 0.1] < 0.7


def test_the_loss_of_who_knows_nothing_is_a_dashed_line(tmp_path):
    path = tmp_path / "metrics.jsonl"
    lines = [{"step": s, "time": 0, "metrics": {"loss": 4.0, "uninformed_loss": 3 + s / 10}} for s in (1, 2, 3)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    figure = loss_figure(path)
    _, dashed = figure.axes[0].lines
    assert (list(dashed.get_xdata()), dashed.get_linestyle()) == ([1, 2, 3], "--")
    assert dashed.get_ydata() == pytest.approx([3.1, 3.2, 3.3])
    assert "knows nothing" in figure.axes[0].get_legend().get_texts()[1].get_text()


def test_a_run_without_steps_or_with_a_loss_that_is_no_number_is_drawn(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text("")
    texts(loss_figure(path))
    path.write_text(json.dumps({"step": 1, "time": 0, "metrics": {"loss": "nan"}}) + "\n")
    figure = loss_figure(path)
    assert np.isnan(figure.axes[0].lines[0].get_ydata()).all()


def test_segmented_images_stand_beside_their_truth():
    rng = np.random.default_rng(0)
    image, truth = rng.integers(0, 256, (20, 30, 3), dtype=np.uint8), rng.integers(0, 3, (20, 30))
    wrong = truth.copy()
    wrong[:5] = (truth[:5] + 1) % 3
    figure = segmentation_figure([("first", image, truth, truth), ("second", image, truth, wrong)], CLASSES)
    shown = [axes.images[0].get_array() for axes in figure.axes]
    for own, expected in zip(shown, [image, truth, truth, image, truth, wrong], strict=True):
        np.testing.assert_array_equal(own, expected)
    assert [axes.get_title() for axes in figure.axes[:3]] == ["image", "truth", "prediction"]
    assert [figure.axes[k].get_ylabel() for k in (0, 3)] == ["first", "second"]
    assert [figure.axes[k].get_xlabel() for k in (2, 5)] == ["100% of pixels right", "75% of pixels right"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == list(CLASSES)
    colours = [{tuple(axes.images[0].cmap(axes.images[0].norm(k))) for axes in figure.axes[1:3]} for k in range(3)]
    assert all(len(own) == 1 for own in colours)
    assert len(set.union(*colours)) == 3
    figure.savefig(io.BytesIO())
