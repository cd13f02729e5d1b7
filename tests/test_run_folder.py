import json
import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from raypath import errors
from raypath.errors import BadInput, Diverged, Preempted, RaypathError
from raypath.run_folder import RunFolder, runs_root


@dataclass(frozen=True, kw_only=True)
class Config:
    seed: int = 0
    lr: float = 0.1


def test_a_new_run_never_reuses_a_name(tmp_path):
    runs = [RunFolder.create(tmp_path / "runs", "demo", Config()) for _ in range(20)]
    assert len({run.path for run in runs}) == 20
    assert all(re.fullmatch(r"demo-\d{8}-\d{6}-[0-9a-f]{4}", run.id) for run in runs)
    assert all(run.path.parent == tmp_path / "runs" for run in runs)


@pytest.mark.parametrize(
    ("name", "begins"),
    [
        ("../../etc/x", "etc-x-"),
        ("/abs", "abs-"),
        ("my set", "my-set-"),
        ("a\0b\nc", "a-b-c-"),
        ("..", "run-"),
        ("", "run-"),
        ("-rf", "rf-"),
        ("x" * 300, "x" * 100 + "-"),
    ],
)
def test_a_run_stays_in_its_root_whatever_it_is_called(name, begins, tmp_path):
    run = RunFolder.create(tmp_path, name, Config())
    assert run.path.parent == tmp_path
    assert run.id.startswith(begins)


def test_the_config_comes_back_as_it_was(tmp_path):
    made = RunFolder.create(tmp_path, "demo", Config(seed=3, lr=1e-3))
    opened = RunFolder.open(str(made.path))
    assert opened == made
    assert opened.config(Config) == Config(seed=3, lr=1e-3)


def test_what_is_no_run_says_so(tmp_path):
    with pytest.raises(BadInput, match="no run here .*expected a folder like runs/ID"):
        RunFolder.open(tmp_path)


def test_a_file_that_is_not_there_is_empty_and_a_written_one_leaves_no_draft(tmp_path):
    run = RunFolder.create(tmp_path, "demo", Config())
    assert run.read("run.json") == {}
    run.write("run.json", {"b": 1, "a": [1, None]})
    run.write("run.json", {"b": 2})
    assert run.read("run.json") == {"b": 2}
    assert sorted(p.name for p in run.path.iterdir()) == ["config.json", "run.json"]


def test_a_write_that_fails_leaves_the_old_file(tmp_path):
    run = RunFolder.create(tmp_path, "demo", Config())
    run.write("run.json", {"a": 1})
    with pytest.raises(TypeError):
        run.write("run.json", {"a": object()})
    assert run.read("run.json") == {"a": 1}


@pytest.mark.parametrize("error", [Diverged("loss is nan"), Preempted("asked to"), RaypathError("x")])
def test_the_error_of_a_worker_reaches_the_driver_as_what_it_was(error, tmp_path):
    run = RunFolder.create(tmp_path, "demo", Config())
    run.raise_outcome()
    run.end_with(error)
    with pytest.raises(type(error), match=str(error)) as raised:
        RunFolder.open(run.path).raise_outcome()
    assert raised.value.exit_code == error.exit_code


def test_a_run_that_is_started_again_forgets_how_it_ended(tmp_path):
    run = RunFolder.create(tmp_path, "demo", Config())
    run.end_with(Preempted("asked to"))
    run.stop.touch()
    run.forget_outcome()
    run.raise_outcome()
    assert not run.stop.exists()
    run.forget_outcome()


def test_every_error_class_can_be_an_outcome(tmp_path):
    run = RunFolder.create(tmp_path, "demo", Config())
    classes = [c for c in vars(errors).values() if isinstance(c, type) and issubclass(c, RaypathError)]
    assert len(classes) > 10
    for error in classes:
        run.end_with(error("words"))
        with pytest.raises(error, match="words"):
            run.raise_outcome()


def test_runs_lie_where_the_environment_says_and_never_in_a_jobs_throwaway_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RAYPATH_RUNS", raising=False)
    assert runs_root() == tmp_path / "runs"
    job = tmp_path / "session" / "runtime_resources" / "working_dir_files" / "_ray_pkg_1"
    job.mkdir(parents=True)
    monkeypatch.chdir(job)
    assert runs_root() == Path.home() / "raypath" / "runs"
    monkeypatch.setenv("RAYPATH_RUNS", "shared/runs")
    assert runs_root() == job / "shared" / "runs"


def test_json_files_are_for_people_too(tmp_path):
    run = RunFolder.create(tmp_path, "demo", Config())
    text = (run.path / "config.json").read_text()
    assert text.endswith("}\n")
    assert text.splitlines()[1] == ' "lr": 0.1,'
    assert json.loads(text) == {"seed": 0, "lr": 0.1}
