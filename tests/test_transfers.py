"""Encoders compared: the rule of the test set, and what is left behind, on real sweeps of one trial."""

import json
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "experiments"))

import finetune as finetune_script
import transfers
from entrants import expand_encoders
from results import table_of
from transfers import LEDGER, compare

from raypath.benchmarks import Predictions, load_images, score
from raypath.errors import BadInput, Preempted
from raypath.protocols import FinetuneSettings, ProbeSettings
from raypath.protocols.encoders import encoder_id
from raypath.protocols.transfer import SweepSettings, TransferConfig
from raypath.run_folder import RunFolder
from raypath.sweep import TrialLog
from raypath.tracking import open_tracking
from tests.protocols import small

SWEEP = SweepSettings(num_trials=1, grace_looks=1, cpus_per_trial=4.0, space={"protocol.batch": [8]})


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """An encoder in `encoders/tiny.safetensors`, a labelled set in `set/`, and a folder for everything else."""
    home = tmp_path_factory.mktemp("compare")
    (home / "encoders").mkdir()
    small.write_encoder(home / "encoders" / "tiny.safetensors")
    small.write_set(home / "set")
    return home


@pytest.fixture(scope="module")
def benchmark(home):
    return load_images(home / "set", name="tiny-set")


@pytest.fixture(scope="module")
def config(home) -> TransferConfig:
    protocol = FinetuneSettings(epochs=2, batch=8, lr=1e-2)
    return TransferConfig(
        encoder=str(home / "encoders" / "tiny.safetensors"), protocol=protocol, sweep=SWEEP, evaluation="given"
    )


def openings(ledger: Path) -> list[dict]:
    return [json.loads(line) for line in ledger.read_text().splitlines()] if ledger.exists() else []


def statuses(tracker) -> dict[str, str]:
    runs = tracker.client.search_runs([tracker.experiment_id])
    return {run.info.run_name: run.info.status for run in runs}


@pytest.mark.ray
def test_the_test_is_opened_once_for_each_encoder_and_after_all_selection(
    ray_instance, home, benchmark, config, monkeypatch, capsys
):
    monkeypatch.chdir(home)  # encoders by relative paths, as they are typed
    sources = expand_encoders("encoders/tiny.safetensors,colour")
    config = replace(config, encoder=",".join(sources))
    run = RunFolder.create(home / "runs", "sweep", config)
    tracker = open_tracking(f"sqlite:///{home}/mlflow.db", transfers.launch.PROJECT)
    ledger = home / LEDGER
    ids = [encoder_id(source, seed=0) for source in sources]

    # 1. Ctrl-C in the first sweep: nothing is opened, and nothing is left running
    log_result = TrialLog.on_trial_result

    def interrupt(self, *args, **kwargs):
        log_result(self, *args, **kwargs)
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(TrialLog, "on_trial_result", interrupt)
    with pytest.raises(Preempted, match="interrupted; what is finished is kept: go on with resume"):
        compare(config, sources, benchmark, run, tracker, ledger=home)
    assert openings(ledger) == []
    assert set(statuses(tracker).values()) == {"KILLED"}
    monkeypatch.setattr(TrialLog, "on_trial_result", log_result)

    # 2. Resumed to the end: one line for each encoder
    results = compare(config, sources, benchmark, run, tracker, ledger=home, resume=True)
    assert [(o["encoder"], o["opening"]) for o in openings(ledger)] == [(name, 1) for name in ids]
    assert {o["data_hash"] for o in openings(ledger)} == {benchmark.data_hash}
    assert all(o["reason"] == f"winner of {run.id}" for o in openings(ledger))
    assert [r.encoder for r in results] == ["tiny.safetensors", "colour"]
    assert results[1].how.startswith("probe, C=")
    assert score(results[1].test)["accuracy"] == 1  # the cue is colour
    assert set(statuses(tracker).values()) == {"FINISHED"}
    assert {f"{r.encoder} on tiny-set" for r in results} < statuses(tracker).keys()

    # 3. The predictions on disk are the results
    for result, name in zip(results, ids):
        kept = Predictions.load(run.path / f"{name.replace(' ', '-')}.test.parquet")
        np.testing.assert_array_equal(kept.probability, result.test.probability)
        test = benchmark.table.filter(np.array(benchmark.table["split"].to_pylist()) == "test")
        assert sorted(kept.sample) == test["sample"].to_pylist()
        parent = tracker.client.get_run(result.mlflow_run_id)
        assert parent.data.metrics["test_balanced_accuracy"] == score(kept)["balanced_accuracy"]
        assert parent.data.tags["raypath.encoder_id"] == name
        assert parent.data.tags["raypath.how"] == result.how
    assert len(table_of(results, benchmark).rows) == 2

    # 4. Resumed once more: the scores of then, no second look
    again = compare(config, sources, benchmark, run, tracker, ledger=home, resume=True)
    assert len(openings(ledger)) == 2
    np.testing.assert_array_equal(again[0].test.probability, results[0].test.probability)

    # 5. Another sweep of one of them is refused before anything is trained
    monkeypatch.setattr(transfers, "sweep", lambda *a, **k: pytest.fail("trained for a test that is used up"))
    monkeypatch.setattr(transfers, "fit", lambda *a, **k: pytest.fail("trained for a test that is used up"))
    other = small.write_encoder(home / "encoders" / "new.safetensors", seed=1)
    for used in ("colour", str(home / "encoders" / "tiny.safetensors")):
        second = RunFolder.create(home / "runs", "sweep", config)
        with pytest.raises(BadInput, match="its test was already opened for encoder"):
            compare(config, [str(other), used], benchmark, second, tracker, ledger=home)
    assert len(openings(ledger)) == 2

    # 6. So is a single fine-tuning that wants the test
    monkeypatch.setenv("RAYPATH_RUNS", str(home))
    monkeypatch.setattr(finetune_script, "fit", lambda *a, **k: pytest.fail("trained for a test that is used up"))
    own = replace(config, encoder="colour", protocol=ProbeSettings())
    own = replace(own, benchmark=replace(own.benchmark, path=str(home / "set")), evaluation="given")
    with pytest.raises(BadInput, match="its test was already opened for encoder 'colour'"):
        finetune_script.run_transfer(own, opens_test=True)


@pytest.mark.ray
def test_a_small_set_is_tuned_inside_each_fold_and_nothing_is_repeated(ray_instance, home, benchmark, config, tmp_path):
    searched = SweepSettings(search="grid", space={"protocol.lr": [1e-9, 1e-2]}, cpus_per_trial=2.0)
    config = replace(config, evaluation="nested", num_folds=2, sweep=searched)
    run = RunFolder.create(tmp_path / "runs", "sweep", config)
    tracker = open_tracking(f"sqlite:///{tmp_path}/mlflow.db", transfers.launch.PROJECT)
    (result,) = compare(config, [config.encoder], benchmark, run, tracker, ledger=tmp_path)

    assert result.test.sample == tuple(benchmark.table["sample"].to_pylist())  # every sample is tested once
    assert result.how.startswith("2 outer folds: best of 2 trials: lr=0.01, epoch ")
    opened = openings(tmp_path / LEDGER)
    assert [line["reason"] for line in opened] == [f"winner of {run.id}, outer fold {n} of 2" for n in (1, 2)]

    def trials():
        runs = tracker.client.search_runs([tracker.experiment_id], "tags.`raypath.trial` != ''")
        return {(r.data.tags["raypath.fold"], r.data.params["protocol.lr"]): r.info for r in runs}

    before = trials()
    assert before.keys() == {(fold, lr) for fold in "01" for lr in ("1e-09", "0.01")}
    assert {info.status for info in before.values()} == {"FINISHED"}

    (again,) = compare(config, [config.encoder], benchmark, run, tracker, ledger=tmp_path, resume=True)
    np.testing.assert_array_equal(again.test.probability, result.test.probability)
    assert {key: info.end_time for key, info in trials().items()} == {k: info.end_time for k, info in before.items()}
    assert openings(tmp_path / LEDGER) == opened


@pytest.mark.ray
def test_what_fails_leaves_no_run_open(ray_instance, home, benchmark, config, tmp_path):
    tracker = open_tracking(f"sqlite:///{tmp_path}/mlflow.db", transfers.launch.PROJECT)
    greedy = replace(config, sweep=replace(SWEEP, cpus_per_trial=64.0))
    run = RunFolder.create(tmp_path / "runs", "sweep", greedy)
    with pytest.raises(BadInput, match="a trial wants 64 CPUs and 0 GPUs, the cluster has 4 and 0"):
        compare(greedy, ["colour", config.encoder], benchmark, run, tracker, ledger=tmp_path)
    assert statuses(tracker) == {"colour on tiny-set": "FAILED", "tiny.safetensors on tiny-set": "FAILED"}
    assert not (tmp_path / LEDGER).exists()


def test_the_same_weights_twice_are_refused(home, benchmark, config, tmp_path):
    copy = tmp_path / "tiny.safetensors"
    copy.write_bytes((home / "encoders" / "tiny.safetensors").read_bytes())
    renamed = copy.with_name("other.safetensors")
    renamed.write_bytes(copy.read_bytes())
    run = RunFolder.create(tmp_path, "sweep", config)
    for sources in (
        [config.encoder, config.encoder],
        [config.encoder, str(copy)],
        [config.encoder, str(renamed)],
        [config.encoder, "colour", "colour"],
    ):
        with pytest.raises(BadInput, match="the same weights are given twice"):
            compare(config, sources, benchmark, run, None, ledger=tmp_path)


def test_an_encoder_that_cannot_be_fed_is_refused_before_another_is_trained(config, benchmark, tmp_path, monkeypatch):
    monkeypatch.setattr(transfers, "sweep", lambda *a, **k: pytest.fail("trained beside an encoder that cannot be fed"))
    knows = small.write_encoder(tmp_path / "knows.safetensors", mpp=0.5)
    config = replace(config, scale="match_mpp", encoder=f"{knows},{config.encoder}")
    run = RunFolder.create(tmp_path, "sweep", config)
    sources = config.encoder.split(",")
    with pytest.raises(BadInput, match=r"^tiny\.safetensors: scale=match_mpp: um per px of the encoder is not known"):
        compare(config, sources, replace(benchmark, mpp=0.5), run, None, ledger=tmp_path)


def test_encoders_with_the_same_name_have_folders_of_their_own(config, benchmark, tmp_path):
    other = small.write_encoder(tmp_path / "tiny.safetensors", seed=8)
    sources = [config.encoder, str(other), "colour"]
    stems = [e.stem for e in transfers.entrants_of(config, sources, ["tiny", "tiny", "colour"], benchmark, None)]
    assert len(set(stems)) == 3
    assert all(" " not in stem and "/" not in stem for stem in stems)


def test_encoders_are_named_in_one_word_list(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert expand_encoders("runs/a, random ,colour,random:runs/b") == [
        f"{tmp_path}/runs/a",
        f"random:{tmp_path}/runs/a",
        "colour",
        f"random:{tmp_path}/runs/b",
    ]
    assert expand_encoders("imagenet:resnet18,random_bn,random:resnet18,resnet18@w.safetensors,file") == [
        "imagenet:resnet18",
        "random_bn:imagenet:resnet18",
        "random:resnet18",
        f"resnet18@{tmp_path}/w.safetensors",
        "file",
    ]
    for text in ("", "random,runs/a", "colour", " , "):
        with pytest.raises(BadInput, match="begin with runs/ID or a .safetensors file"):
            expand_encoders(text)


@pytest.mark.ray
def test_a_frozen_transfer_says_how_it_was_fed_and_what_it_found(
    ray_instance, home, config, monkeypatch, capsys, tmp_path
):
    monkeypatch.setenv("RAYPATH_RUNS", str(tmp_path))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    arguments = ["encoder=colour", f"benchmark.path={home / 'set'}", "protocol.kind=probe", "benchmark.mpp=0.5"]
    finetune_script.main([*arguments, "test=true", "evaluation=given"])
    said = capsys.readouterr().out
    assert "fed with all of each sample at 96 px (0.167 um per px)" in said
    assert "probe, C=" in said
    assert "test: balanced_accuracy" in said
    assert list((tmp_path / "features").glob("*/part-*.parquet"))
    tracker = open_tracking(f"sqlite:///{tmp_path / 'mlflow.db'}", "raypath")
    (run,) = tracker.client.search_runs([tracker.experiment_id])
    assert run.data.tags["raypath.um_per_px"] == "0.1667"
    with pytest.raises(BadInput, match="um per px of the encoder is not known"):
        finetune_script.main([*arguments, "scale=match_mpp"])
    assert len(tracker.client.search_runs([tracker.experiment_id])) == 1  # nothing was started
    with pytest.raises(BadInput, match="encoder=file has nothing to fine-tune: set protocol.kind=probe"):
        finetune_script.main(["encoder=file", *arguments[1:2]])
