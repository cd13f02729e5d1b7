"""The figures of the grid search hold every score they are given, and hatch what was not run."""

import io

import numpy as np
import pytest

from raypath.errors import BadInput
from raypath.study.published.grid_search import rates_figure, tau_figure
from raypath.study.published.results import Trial


def trial(task, score, rate="1e-4", tau="1", is_warm=False, seed=0, network="resnet50"):
    return Trial(network=network, task=task, rate=rate, tau=tau, is_warm=is_warm, seed=seed, score=score)


def gaps(axes):
    return [patch for patch in axes.patches if patch.get_hatch()]


def test_a_box_has_the_quartiles_of_its_rate():
    scores = [70.0, 71.0, 73.0, 79.0]
    trials = [trial("Lung", s, seed=k, tau=str(k)) for k, s in enumerate(scores)] + [trial("Lung", 5, network="other")]
    figure = rates_figure(trials, "resnet50", ("Lung", "Necrosis"), ("1e-3", "1e-4"))
    figure.savefig(io.BytesIO(), format="svg")
    lung, necrosis = figure.axes[:2]
    (box,) = [patch for patch in lung.patches if not patch.get_hatch()]
    heights = box.get_path().vertices[:, 1]
    assert [heights.min(), heights.max()] == pytest.approx(np.percentile(scores, [25, 75]))
    points = next(line for line in lung.lines if line.get_marker() == "o" and len(line.get_ydata()) == 4)
    assert list(points.get_ydata()) == scores
    assert set(points.get_xdata()) == {1}
    assert len(gaps(lung)) == 1  # 1e-3
    assert len(gaps(necrosis)) == 1
    assert [text.get_text() for text in necrosis.texts] == ["not known"]


def test_bars_are_means_over_seeds_with_twice_sigma():
    trials = [trial("Lung", score, seed=k) for k, score in enumerate((70.0, 72.0, 74.0))]
    trials += [trial("Lung", 80.0, tau="5", is_warm=True), trial("Lung", 1.0, rate="1e-3")]
    figure = tau_figure(trials, "resnet50", ("Lung",), ("1", "5"), "1e-4")
    figure.savefig(io.BytesIO(), format="svg")
    (axes,) = figure.axes
    tops = [patch.get_y() + patch.get_height() for patch in axes.patches if not patch.get_hatch()]
    assert tops == pytest.approx([72, 80])
    (error,) = axes.collections  # one seed has none
    assert error.get_segments()[0][:, 1] == pytest.approx([72 - 2 * 2, 72 + 2 * 2])
    assert len(gaps(axes)) == 2
    assert axes.get_ylim()[0] < 68


def test_a_value_without_a_place_is_refused():
    with pytest.raises(BadInput, match="rate=1e-2: no place in the figure, which has 1e-3"):
        rates_figure([trial("Lung", 1.0, rate="1e-2")], "resnet50", ("Lung",), ("1e-3",))
    with pytest.raises(BadInput, match="tau=7: no place"):
        tau_figure([trial("Lung", 1.0, tau="7")], "resnet50", ("Lung",), ("1",), "1e-4")
