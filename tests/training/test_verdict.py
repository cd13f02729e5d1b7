"""The end of a run says no more than was seen: a monitor that fell, and a run too short to judge, are not called healthy."""

import pytest

from raypath.metric_spool import MetricSpool
from raypath.run_folder import RunFolder
from raypath.training.alarms import ALARMS
from raypath.training.settings import PretrainConfig
from raypath.training.verdict import verdict

HEALTHY = ["0 alarm(s); the training looks healthy"]


def finished(folder, looks, knn=(), colour=0.775):
    """A run whose health was looked at `looks` times and whose monitor said `knn`, a number per step."""
    run = RunFolder.create(folder, "run", PretrainConfig())
    with MetricSpool(run.metrics) as spool:
        for step in range(1, 1 + max(looks, len(knn), 4)):
            metrics = {"loss": 1.0} | ({"health/feature_std": 0.4} if step <= looks else {})
            if step <= len(knn):
                metrics |= {"monitor/knn": knn[step - 1], "monitor/colour": colour}
            spool.append(metrics, step)
    return run


@pytest.mark.parametrize(
    ("knn", "said"),
    [
        ((0.812, 0.9, 0.713), "the monitor fell: 0.713 at the end, 0.812 at the start, colour 0.775"),
        ((0.9, 0.95, 0.85), "the monitor fell: 0.850 at the end, 0.900 at the start, colour 0.775"),
        ((0.6, 0.7), "the monitor is below colour: 0.700 at the end, 0.600 at the start, colour 0.775"),
        ((0.9, float("nan")), "the monitor fell: nan at the end, 0.900 at the start, colour 0.775"),
    ],
)
def test_a_run_whose_monitor_came_down_is_not_called_healthy(tmp_path, knn, said):
    assert verdict(finished(tmp_path, 3, knn)) == ["0 alarm(s)", said]


def test_a_run_that_nothing_speaks_against_looks_healthy(tmp_path):
    assert verdict(finished(tmp_path, 3)) == HEALTHY
    assert verdict(finished(tmp_path, 3, (0.8, 0.7, 0.8))) == HEALTHY  # what counts is where it ended
    assert verdict(finished(tmp_path, 3, (0.5, 0.775))) == HEALTHY


@pytest.mark.parametrize("looks", [0, 2])
def test_a_run_that_was_hardly_looked_at_cannot_be_judged(tmp_path, looks):
    said = f"0 alarm(s); health was looked at {looks} time(s): too short to judge"
    assert verdict(finished(tmp_path, looks)) == [said]


def test_alarms_are_counted_and_steps_done_again_count_once(tmp_path):
    run = finished(tmp_path, 2)
    with MetricSpool(run.metrics) as spool:
        spool.append({"loss": 1.0, "health/feature_std": 0.4}, 2)
    assert "looked at 2 time(s)" in verdict(run)[0]
    run.append(ALARMS, {"step": 2, "alarm": "collapse"})
    assert verdict(run) == [f"1 alarm(s): {run.path / ALARMS}"]
