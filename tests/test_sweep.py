"""Real sweeps on real Tune, as small as they come: 2 or 3 epochs of a tiny encoder on 24 images of 32 px."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from raypath.benchmarks import score
from raypath.errors import BadInput
from raypath.protocols import FinetuneSettings, ProbeSettings
from raypath.protocols.transfer import SweepSettings, TransferConfig
from raypath.sweep import TrialLog, check_sweep, num_trials, sweep, trial_name
from raypath.sweep.space import concurrency, param_space
from raypath.sweep.trial import selection
from raypath.tracking import Tracker, open_tracking
from tests.protocols import small

ROOT = Path(__file__).parents[1]
METRIC = "balanced_accuracy"
GOOD, USELESS, DIVERGING = 1e-2, 1e-9, 1e30  # learning rates


def transfer(encoder: Path, *, epochs: int, lrs: list[float], **settings) -> TransferConfig:
    """Fine-tuning of `encoder`; one trial at a time on the 4 CPUs of the test run."""
    settings = {"grace_looks": 1, "cpus_per_trial": 4.0, "space": {"protocol.lr": lrs}} | settings
    protocol = FinetuneSettings(epochs=epochs, batch=8)
    return TransferConfig(encoder=str(encoder), protocol=protocol, sweep=SweepSettings(**settings))


def data():
    return small.samples(24, seed=0), small.samples(16, seed=1)


def logged_sweep(config: TransferConfig, home: Path, *, resume: bool = False):
    """(winner or error, tracker, children by trial id) of a sweep in `home` with its runs in `home/mlflow.db`."""
    tracker = open_tracking(f"sqlite:///{home}/mlflow.db", "sweep")
    parent_file = home / "parent"
    known = parent_file.read_text() if parent_file.exists() else None
    parent = tracker.start_run("an encoder", resume=known)
    parent_file.write_text(parent)
    tags = {"encoder": "e", "seed": 0}
    log = TrialLog(config, uri=tracker.uri, experiment="sweep", parent=parent, folder=home, tags=tags, show=print)
    try:
        winner = sweep(config, *data(), metric=METRIC, folder=home, callbacks=[log], resume=resume)
    finally:
        log.end_open_runs()
    return winner, tracker, children_of(tracker, parent)


def children_of(tracker: Tracker, parent: str) -> dict:
    """The child runs of a parent by trial id."""
    runs = tracker.client.search_runs([tracker.experiment_id], f"tags.`mlflow.parentRunId` = '{parent}'")
    return {run.data.tags["raypath.trial"]: run for run in runs}


def steps_of(tracker: Tracker, run, name: str = "val_loss") -> list[int]:
    return [point.step for point in tracker.client.get_metric_history(run.info.run_id, name)]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory) -> Path:
    return small.write_encoder(tmp_path_factory.mktemp("encoder") / "tiny.safetensors")


@pytest.fixture(scope="module")
def swept(ray_instance, encoder, tmp_path_factory):
    """A sweep with a diverging, a good and a useless learning rate (what seed 2 draws), ASHA after every epoch."""
    home = tmp_path_factory.mktemp("sweep")
    config = replace(transfer(encoder, epochs=3, lrs=[GOOD, USELESS, DIVERGING], num_trials=3), seed=2)
    return config, *logged_sweep(config, home)


@pytest.mark.ray
def test_the_winner_is_the_best_epoch_on_val_of_all_trials(swept):
    _, winner, tracker, children = swept
    best = {}
    for trial, run in children.items():
        scores, losses = (tracker.client.get_metric_history(run.info.run_id, n) for n in (f"val_{METRIC}", "val_loss"))
        best |= {(selection(s.value, loss.value), trial, s.step): run for s, loss in zip(scores, losses)}
    (_, trial, look), run = max(best.items(), key=lambda item: item[0])
    assert winner.params == {"protocol.lr": GOOD}
    assert winner.place == f"epoch {look} of 3"
    assert run.data.params["protocol.lr"] == str(GOOD)
    history = {p.step: p.value for p in tracker.client.get_metric_history(run.info.run_id, f"val_{METRIC}")}
    assert score(winner.val)[METRIC] == history[look]
    assert (winner.num_trials, winner.num_failed) == (3, 1)


@pytest.mark.ray
def test_the_winners_weights_reproduce_its_saved_predictions_exactly(swept):
    config, winner, _, _ = swept
    _, val = data()
    again = winner.predict(config, val, torch.device("cpu"))
    np.testing.assert_array_equal(again.probability, winner.val.probability)
    assert again.sample == winner.val.sample
    assert score(winner.predict(config, small.samples(40, seed=9), torch.device("cpu")))["accuracy"] > 0.8


@pytest.mark.ray
def test_every_trial_is_a_child_run_with_its_settings_and_a_number_per_epoch(swept):
    _, _, tracker, children = swept
    assert len(children) == 3
    for run in children.values():
        lr = float(run.data.params["protocol.lr"])
        assert run.info.run_name == trial_name({"protocol.lr": lr})
        assert run.data.params["protocol.epochs"] == "3"
        assert run.data.tags["raypath.encoder"] == "e"
        names = {"train_loss", "val_loss", f"val_{METRIC}", "look"}
        assert set(run.data.metrics) == (names if lr != DIVERGING else set())
        steps = steps_of(tracker, run)
        assert steps == list(range(1, len(steps) + 1))
    assert {run.info.run_name for run in children.values()} == {"lr=0.01", "lr=1e-09", "lr=1e+30"}


@pytest.mark.ray
def test_the_status_of_a_child_says_how_its_trial_ended(swept):
    _, _, tracker, children = swept
    by_status: dict[str, list] = {}
    for run in children.values():
        by_status.setdefault(run.info.status, []).append(run)
    assert by_status.keys() == {"FINISHED", "KILLED", "FAILED"}
    for run in by_status["FINISHED"]:
        assert steps_of(tracker, run) == [1, 2, 3]
        assert "raypath.stopped" not in run.data.tags
    for run in by_status["KILLED"]:
        last = steps_of(tracker, run)[-1]
        assert last < 3
        assert run.data.tags["raypath.stopped"] == f"early, after epoch {last} of 3"
    for run in by_status["FAILED"]:
        assert run.data.params["protocol.lr"] == str(DIVERGING)
        assert run.data.tags["raypath.error"].startswith("Diverged: update ")
        assert run.data.tags["raypath.error"].endswith("lower protocol.lr=1e+30")
        assert run.data.tags["raypath.traceback"].startswith("Traceback")


_DRIVER = """
import sys, tempfile
import tests.conftest  # Ray's switches, before anything imports it
import ray
from pathlib import Path
from tests.test_sweep import logged_sweep, grid
ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level="ERROR",
         object_store_memory=128 * 2**20, _temp_dir=sys.argv[3])
logged_sweep(grid(Path(sys.argv[1])), Path(sys.argv[2]))
"""


def grid(encoder: Path) -> TransferConfig:
    """Four cells; the useless learning rate comes first and would be stopped early if anything were."""
    config = transfer(encoder, epochs=2, lrs=[GOOD, USELESS], num_trials=1, search="grid", cpus_per_trial=1.0)
    space = {"protocol.lr": [USELESS, GOOD], "protocol.batch": [8, 12]}
    return replace(config, sweep=replace(config.sweep, space=space))


@pytest.mark.ray
def test_a_grid_whose_driver_was_killed_goes_on_in_the_same_runs_and_repeats_nothing(
    ray_instance, encoder, tmp_path, capsys
):
    folder = tempfile.mkdtemp(prefix="rp-", dir="/tmp")
    environment = os.environ | {"PYTHONPATH": str(ROOT), "TUNE_GLOBAL_CHECKPOINT_S": "0"}
    command = [sys.executable, "-c", _DRIVER, str(encoder), str(tmp_path), folder]
    with subprocess.Popen(command, cwd=ROOT, env=environment, start_new_session=True, stdout=-3, stderr=-3) as driver:
        try:
            tracker, before = wait_for_finished(driver, tmp_path, 1)
        finally:
            os.killpg(driver.pid, signal.SIGKILL)
            driver.wait()
            shutil.rmtree(folder, ignore_errors=True)
    parent = (tmp_path / "parent").read_text()
    before = children_of(tracker, parent)
    finished = {trial for trial, run in before.items() if run.info.status == "FINISHED"}
    assert 1 <= len(finished) < 4
    ended = {trial: before[trial].info.end_time for trial in finished}
    reports = [place.read_text() for trial in finished for place in tmp_path.glob(f"tune/*{trial}*/result.json")]
    seconds = sum(json.loads(text.splitlines()[-1])["time_total_s"] for text in reports)

    winner, tracker, after = logged_sweep(grid(encoder), tmp_path, resume=True)

    told = [line for line in capsys.readouterr().out.splitlines() if line.startswith("  trial ")]
    assert 1 <= len(told) <= 3
    assert told[-1].startswith("  trial 4: lr=")
    for trial in finished:  # not run again
        assert after[trial].info.end_time == ended[trial]
        assert steps_of(tracker, after[trial]) == [1, 2]
    whole = [run for run in after.values() if run.info.status == "FINISHED"]
    cells = {(float(run.data.params["protocol.lr"]), int(run.data.params["protocol.batch"])) for run in whole}
    assert cells == {(lr, batch) for lr in (USELESS, GOOD) for batch in (8, 12)}
    assert len(whole) == 4
    assert all(sorted(set(steps_of(tracker, run))) == [1, 2] for run in whole)  # no cell is stopped early
    assert {trial: run.info.run_id for trial, run in before.items()}.items() <= {
        trial: run.info.run_id for trial, run in after.items()
    }.items()
    assert {run.info.status for run in after.values()} <= {"FINISHED", "KILLED"}
    assert winner.params["protocol.lr"] == GOOD
    assert (winner.num_trials, winner.num_failed) == (4, 0)
    assert winner.hours * 3600 > seconds > 0  # of the trials before the kill too


def test_a_finished_trial_is_on_disk_within_a_second():
    assert float(os.environ["TUNE_GLOBAL_CHECKPOINT_S"]) <= 1  # read by Tune when a sweep starts


def statuses_in(state: Path) -> list[str]:
    """How Tune says each trial stands; nothing while it is writing."""
    try:
        return [json.loads(text)["status"] for text, _ in json.loads(state.read_text())["trial_data"]]
    except ValueError:
        return []


def wait_for_finished(driver: subprocess.Popen, home: Path, num: int):
    """Wait until `num` trials are finished in MLflow and Tune has written that down, while others are still to come."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        assert driver.poll() is None, f"the driver ended with {driver.returncode}"
        states = sorted(home.glob("tune/experiment_state-*.json"))
        if (home / "parent").exists() and states:
            trials = statuses_in(states[-1])
            if trials.count("TERMINATED") >= num:
                tracker = open_tracking(f"sqlite:///{home}/mlflow.db", "sweep")
                return tracker, children_of(tracker, (home / "parent").read_text())
        time.sleep(0.05)
    raise AssertionError("no trial was finished in two minutes")


# What needs no Ray.


def config_with(space: dict, search: str = "optuna") -> TransferConfig:
    return TransferConfig(sweep=SweepSettings(space=space, search=search))


@pytest.mark.parametrize(
    ("space", "search", "message"),
    [
        ({"protocol.learning_rate": [1e-3]}, "optuna", "no setting 'learning_rate' here"),
        ({"protocol.lr": ["fast"]}, "optuna", r"protocol.*lr.*'fast'"),
        ({"protocol.batch": [8, 0]}, "grid", "batch=0: expected 1 or more"),
        ({"protocol.lr": {"log": [0, 1]}}, "optuna", r"expected a list of values, \{\"log\": \[low, high\]\}"),
        ({"protocol.lr": {"log": [1e-2, 1e-4]}}, "optuna", "sweep.space: protocol.lr: "),
        ({"protocol.lr": {"log": ["a", "b"]}}, "optuna", "sweep.space: protocol.lr: "),
        ({"protocol.lr": {"uniform": [1]}}, "random", "sweep.space: protocol.lr: "),
        ({"protocol.lr": []}, "optuna", "sweep.space: protocol.lr: "),
        ({"protocol.lr": 1e-3}, "optuna", "sweep.space: protocol.lr: 0.001: expected a list"),
        ({"protocol.lr": {"log": [1e-4, 1e-2]}}, "grid", r"\{'log': .*: expected a list of values$"),
        ({"protocol.batch": {"uniform": [1, 9.5]}}, "optuna", "protocol.*batch"),
        (
            {"protocol.batch": {"uniform": [8, 64]}},
            "optuna",
            r"batch: .*valid integer, got 8\.0 \(whole numbers: give a list of choices\)$",
        ),
        ({"per_class_train": [5, 20]}, "optuna", "per_class_train: only settings of the protocol are searched"),
        ({"encoder": ["a", "b"]}, "grid", "encoder: only settings of the protocol are searched"),
        ({"protocol.kind": ["probe"]}, "grid", "protocol.kind: only settings of the protocol are searched"),
    ],
)
def test_a_space_that_is_none_is_refused_before_anything_starts(space, search, message):
    with pytest.raises(BadInput, match=message):
        param_space(config_with(space, search))


def test_a_grid_has_one_trial_for_each_of_its_cells():
    space = {"protocol.lr": [1e-3, 1e-2, 1e-1], "protocol.batch": [8, 16]}
    assert num_trials(SweepSettings(search="grid", space=space)) == 6
    assert num_trials(SweepSettings(search="optuna", space=space, num_trials=5)) == 5


def test_a_space_becomes_tunes_and_keeps_its_values():
    space = param_space(config_with({"protocol.lr": {"log": [1e-4, 1e-2]}, "protocol.batch": [8, 16]}))
    assert (space["protocol.lr"].lower, space["protocol.lr"].upper) == (1e-4, 1e-2)
    assert space["protocol.batch"].categories == [8, 16]
    assert param_space(config_with({"protocol.batch": [8, 16]}, "grid")) == {"protocol.batch": {"grid_search": [8, 16]}}


@pytest.mark.parametrize(
    ("cpus", "gpus", "cluster", "expected"),
    [
        (1.0, 0.0, {"CPU": 2.0}, 2),
        (2.0, 0.0, {"CPU": 7.0}, 3),
        (0.5, 0.0, {"CPU": 2.0}, 4),
        (1.0, 0.5, {"CPU": 16.0, "GPU": 2.0}, 4),
        (8.0, 0.5, {"CPU": 16.0, "GPU": 4.0}, 2),
    ],
)
def test_as_many_trials_at_once_as_fit(cpus, gpus, cluster, expected):
    assert concurrency(SweepSettings(cpus_per_trial=cpus, gpus_per_trial=gpus), cluster) == expected


@pytest.mark.parametrize(("cpus", "gpus"), [(3.0, 0.0), (1.0, 1.0)])
def test_a_trial_that_fits_nowhere_is_refused_with_the_numbers(cpus, gpus):
    with pytest.raises(
        BadInput, match=rf"wants {cpus:g} CPUs and {gpus:g} GPUs, the cluster has 2 and 0: lower sweep\."
    ):
        concurrency(SweepSettings(cpus_per_trial=cpus, gpus_per_trial=gpus), {"CPU": 2.0})


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (TransferConfig(protocol=ProbeSettings()), "protocol.kind=probe: a sweep tunes what is trained"),
        (TransferConfig(sweep=SweepSettings(num_trials=0)), "sweep.num_trials=0: expected 1 or more"),
        (TransferConfig(sweep=SweepSettings(num_trials=-1)), "sweep.num_trials=-1: expected 1 or more"),
        (TransferConfig(sweep=SweepSettings(grace_looks=0)), "sweep.grace_looks=0: expected 1 or more"),
        (TransferConfig(sweep=SweepSettings(cpus_per_trial=0.0)), "sweep.cpus_per_trial=0: expected more than 0"),
    ],
)
def test_numbers_that_make_no_sweep_are_refused(config, message):
    with pytest.raises(BadInput, match=message):
        check_sweep(config)


def test_a_trial_is_called_by_what_was_searched():
    params = {"protocol.lr": 0.00123, "protocol.weight_decay": 3e-05, "protocol.batch": 128, "sweep.asha": True}
    assert trial_name(params) == "lr=0.0012 weight_decay=3e-05 batch=128 asha=True"


def test_the_loss_decides_among_equal_scores_and_only_there():
    assert selection(0.8, 0.1) > selection(0.8, 0.2) > selection(0.799998, 0.0)
