import json
import threading
import time
from dataclasses import dataclass

import pytest
import torch

from raypath.metric_spool import MetricSpool
from raypath.models import EncoderSettings, build_encoder
from raypath.run_folder import RunFolder
from raypath.training.checkpoint import save_checkpoint
from raypath.training.failures import FAILURES, FailureLog, read_failures
from raypath.training.loop import TrainState
from raypath.training.progress import ProgressLines, progress_line, steps_to_repeat


@dataclass(frozen=True)
class SimpleConfig:
    seed: int = 0


def metrics(loss: float = 1.0) -> dict[str, float]:
    return {"loss": loss, "step_s": 0.5, "waiting_share": 0.2, "tiles_per_s": 64.0, "lr": 0.1}


@pytest.fixture
def run(tmp_path) -> RunFolder:
    return RunFolder.create(tmp_path, "run", SimpleConfig())


class Shown(list):
    """The lines that were shown; can be waited for."""

    def __init__(self):
        super().__init__()
        self.arrived = threading.Condition()

    def __call__(self, line: str) -> None:
        with self.arrived:
            self.append(line)
            self.arrived.notify_all()

    def wait_for(self, text: str) -> str:
        with self.arrived:
            assert self.arrived.wait_for(lambda: any(text in line for line in self), timeout=10), list(self)
        return next(line for line in self if text in line)


def test_lines_follow_the_spool_while_it_grows(run):
    shown = Shown()
    with ProgressLines(run, 10, shown, every_s=0.02):
        shown.wait_for("starting workers (0 s)")
        with MetricSpool(run.metrics) as spool:
            spool.append(metrics(2.5), 1)
            line = shown.wait_for("step 1/10")
            spool.append(metrics(1.25), 2)
            spool.append(metrics(0.75), 3)
            shown.wait_for("step 3/10")
    assert line == "step 1/10  loss 2.500  64 tiles/s  waiting for data 20%  0:04 left"
    assert "loss 0.750" in shown[-1]
    assert sum("starting workers" in line for line in shown) >= 1
    assert not any("starting workers" in line for line in shown[shown.index(line) :])


def test_a_torn_line_is_shown_once_it_is_whole(run):
    shown = Shown()
    whole = json.dumps({"step": 1, "time": 0, "metrics": metrics()}) + "\n"
    with ProgressLines(run, 4, shown, every_s=0.02), run.metrics.open("w", buffering=1) as file:
        file.write(whole[:30])
        file.flush()
        time.sleep(0.1)
        assert not any("step" in line for line in shown)
        file.write(whole[30:])
        file.flush()
        shown.wait_for("step 1/4")
    assert sum("step 1/4" in line for line in shown) == 1


def test_a_resumed_run_shows_only_what_is_new(run):
    with MetricSpool(run.metrics) as spool:
        spool.append(metrics(9.0), 1)
        shown = Shown()
        with ProgressLines(run, 4, shown, every_s=60):
            spool.append(metrics(1.0), 2)
    assert [line for line in shown if "step" in line] == [
        "step 2/4  loss 1.000  64 tiles/s  waiting for data 20%  0:01 left"
    ]


def test_steps_that_are_done_again_are_announced(run):
    with MetricSpool(run.metrics) as spool:
        for step in (1, 2, 3):
            spool.append(metrics(), step)
        shown = Shown()
        with ProgressLines(run, 9, shown, every_s=0.02):
            shown.wait_for("starting workers, then the steps up to 3 that no checkpoint holds, again (0 s)")
            spool.append(metrics(), 4)
            shown.wait_for("step 4/9")
            FailureLog(run).after_exception(None, {1: RuntimeError("killed")})
            shown.wait_for("waiting for workers or data, then the steps up to 4 that no checkpoint holds, again")
            spool.append(metrics(), 5)
            shown.wait_for("step 5/9")


def test_damaged_lines_and_a_loss_that_is_no_number_do_not_end_it(run):
    shown = Shown()
    with ProgressLines(run, 4, shown, every_s=60):
        run.metrics.write_text('{"step": 1, "met\n[]\n{"step": 1, "metrics": {"lr": 0.1}}\n')
        with MetricSpool(run.metrics) as spool:
            spool.append(metrics(float("nan")), 2)
    assert [line.partition("  64")[0] for line in shown] == ["step 2/4  loss nan"]


def test_a_lost_worker_is_shown_once_with_its_reason(run):
    before = FailureLog(run)
    before.after_exception(None, {0: ValueError("of an earlier attempt")})
    shown = Shown()
    with ProgressLines(run, 4, shown, every_s=0.02):
        errors = {1: RuntimeError("traceback ...\nWorkerDied: killed by signal 9\n"), 0: RuntimeError("")}
        FailureLog(run).after_exception(None, errors)
        shown.wait_for("lost rank")
    lost = [line for line in shown if line.startswith("lost")]
    assert lost == [
        "lost rank 0, 1: RuntimeError; WorkerDied: killed by signal 9; starting again from the last checkpoint"
    ]
    assert [failure["ranks"] for failure in read_failures(run)] == [[0], [0, 1]]


def test_a_line_of_failures_that_a_dying_driver_tore_is_left_out(run):
    FailureLog(run).after_exception(None, {0: ValueError("whole")})
    with (run.path / FAILURES).open("a") as file:
        file.write('{"time": "2026-')
    assert [failure["reasons"] for failure in read_failures(run)] == [{"0": "whole"}]


def test_the_numbers_of_a_line_are_means_over_its_time():
    quick = {"step": 1, "metrics": {"loss": 3.0, "step_s": 1.0, "waiting_share": 0.0, "tiles_per_s": 100.0}}
    slow = {"step": 2, "metrics": {"loss": 2.0, "step_s": 3.0, "waiting_share": 0.8, "tiles_per_s": 20.0}}
    # 100 + 60 tiles in 4 s; 2.4 s of them waiting; 60 more steps of 2 s
    assert progress_line([quick, slow], 62) == "step 2/62  loss 2.000  40 tiles/s  waiting for data 60%  2:00 left"


def test_looks_of_the_monitor_and_at_val_rows_are_lines_of_their_own(run):
    shown = Shown()
    with ProgressLines(run, 9, shown, every_s=60), MetricSpool(run.metrics) as spool:
        spool.append(metrics() | {"monitor/knn": 0.7126, "monitor/colour": 0.775}, 1)
        spool.append(metrics(), 2)
        spool.append(metrics() | {"monitor/knn": 0.8, "monitor/colour": 0.775, "val/a": 0.5, "val/mean": 0.625}, 3)
    assert [line for line in shown if "loss" not in line] == [
        "step 1: monitor/knn 0.713 (monitor/colour 0.775)",
        "step 3: monitor/knn 0.800 (monitor/colour 0.775), val/mean 0.625",
    ]
    assert shown[-1].startswith("step 3/9  loss")


def checkpoint_of(run, step):
    """A checkpoint as training writes it, of a small network."""
    objective = torch.nn.Module()
    objective.encoder = build_encoder(
        EncoderSettings(architecture="resnet10t", options={"channels": [8, 8, 8, 8]}), seed=0
    )
    optimizer = torch.optim.SGD(objective.parameters(), lr=0.1)
    return save_checkpoint(run.checkpoints, TrainState(objective, optimizer, step=step), {})


def test_steps_that_a_checkpoint_holds_are_not_said_to_be_done_again(run):
    with MetricSpool(run.metrics) as spool:
        for step in (1, 2):
            spool.append(metrics(), step)
        checkpoint_of(run, 2)
        assert steps_to_repeat(run) == 0
        shown = Shown()
        with ProgressLines(run, 9, shown, every_s=0.02):
            shown.wait_for("starting workers")
        assert not any("again" in line for line in shown)
        spool.append(metrics(), 3)
    assert steps_to_repeat(run) == 3
    (checkpoint_of(run, 3) / "state.json").write_text("{}")  # a broken one holds nothing
    assert steps_to_repeat(run) == 3
