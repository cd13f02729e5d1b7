"""Whole studies as people start them, in processes of their own: tiny images, 20 steps, real Ray, MLflow, folds and kills.

Three labelled sets of 32 px whose classes differ in stripes and not in colour; 12 patients each, two folds.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from raypath.errors import EXIT_INCOMPLETE
from raypath.slides.phantom import write_phantoms
from raypath.study.comparisons import comparisons
from raypath.study.results import load_results
from raypath.study.study_report import write_report
from raypath.tracking import open_tracking

ROOT = Path(__file__).parents[1]
NAMES = ("stripes", "checks", "waves")
TINY = [
    "encoder.architecture=resnet10t",
    'encoder.options={"channels": [8, 16, 24, 32]}',
    "encoder.input_px=32",
    "views.extent_px=32",
    "loop.global_batch=24",
    "loop.num_steps=20",
    "loop.checkpoint_every=10",
    "workers.num_workers=1",
]


def write_set(folder: Path, number: int) -> None:
    """60 images of 12 patients: class 1 has stripes of `number` + 2 px, both classes have a patient's own brightness."""
    rng, lines = np.random.default_rng(number), ["path,label,patient"]
    for row in range(60):
        label, patient = row % 2, row % 12
        wave = np.sin(np.arange(32) * 2 * np.pi / (number + 3))
        image = 128 + 6 * patient + 10 * rng.standard_normal((32, 32)) + label * 50 * wave[None, :]
        place = folder / f"{row:02}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.repeat(np.clip(image, 0, 255).astype(np.uint8)[..., None], 3, axis=2)).save(place)
        lines.append(f"{place.name},{'ab'[label]},{folder.name}-p{patient}")
    (folder / "manifest.csv").write_text("\n".join(lines) + "\n")


@pytest.fixture(scope="module")
def sets(tmp_path_factory) -> Path:
    home = tmp_path_factory.mktemp("sets")
    for number, name in enumerate(NAMES):
        write_set(home / name, number)
    return home


def toml(sets: Path, encoders: list[dict], *, names=NAMES, **settings) -> str:
    """A study's file."""
    common = {
        "transfer": ["extent_px=32", "num_folds=2", "num_repeats=2", "max_near_duplicate_samples=0"],
        "alterations": ["grey"],
        "num_resamples": 200,
        "num_permutations": 200,
    }
    lines = [
        f"{key} = {json.dumps(value)}" for key, value in (common | settings).items() if not isinstance(value, dict)
    ]
    for key, value in settings.items():
        if isinstance(value, dict):
            lines += [f"[{key}]", *(f"{k} = {_toml(v)}" for k, v in value.items())]
    for encoder in encoders:
        lines += ["[[encoders]]", *(f"{key} = {json.dumps(value)}" for key, value in encoder.items())]
    for name in names:
        lines += ["[[benchmarks]]", f'path = "{sets / name}"', f'pool = "{sets / name}?val=0.2"']
    return "\n".join(lines) + "\n"


def _toml(value) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f'"{k}" = {json.dumps(v)}' for k, v in value.items()) + " }"
    return json.dumps(value)


def started(place: Path, runs: Path, *words: str) -> subprocess.Popen:
    """The study's command in a process group of its own, its Ray with it."""
    environment = os.environ | {
        "RAYPATH_RUNS": str(runs),
        "PYTHONPATH": str(ROOT),
        "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.1",
    }
    command = [sys.executable, str(ROOT / "experiments" / "study.py"), str(place), *words]
    log = (place.parent / f"{runs.name}.log").open("a")
    return subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True, cwd=place.parent)


def finished(place: Path, runs: Path, *words: str, timeout_s: float = 600) -> str:
    """Carry a study out to its end; what it said."""
    process = started(place, runs, *words)
    assert process.wait(timeout=timeout_s) == 0, (place.parent / f"{runs.name}.log").read_text()[-4000:]
    return (place.parent / f"{runs.name}.log").read_text()


def journal_of(study: Path) -> list[dict]:
    place = study / "journal.jsonl"
    return [json.loads(line) for line in place.read_text().splitlines()] if place.exists() else []


@pytest.fixture(scope="module")
def left_out(sets, tmp_path_factory):
    """Leave-one-task-out on three tasks, two combinations, 20 steps each; the home of its runs and what was said."""
    home = tmp_path_factory.mktemp("loto")
    multitask = {
        "name": "multi-task",
        "recipe": "multitask_small",
        "settings": TINY,
        "leave_out": True,
    }
    encoders = [{"name": "random", "source": "random"}, multitask, {"name": "colour", "source": "colour"}]
    grid = {"grid": {"optim.lr": [0.05, 1e-6]}, "protocol": "probe", "together": [["stripes", "checks"]]}
    place = home / "loto.toml"
    place.write_text(toml(sets, encoders, baseline="random", protocols=["probe"], leave_out=grid))
    return place, home / "runs", finished(place, home / "runs")


@pytest.mark.ray
def test_no_encoder_is_scored_on_a_task_that_was_in_its_pool(left_out):
    _, runs, _ = left_out
    results = load_results(runs / "studies" / "loto")
    places = [place for place in results.places if place.encoder == "multi-task"]
    assert [place.benchmark for place in places] == list(NAMES)
    pools = {}
    for place in places:
        run = Path(place.scored[0].record["source"]).parents[2]
        pools[place.benchmark] = json.loads((run / "config.json").read_text())["pool"]
    assert {name for name in NAMES if f"/{name}?" in pools["waves"]} == {"stripes", "checks"}
    assert {name for name in NAMES if f"/{name}?" in pools["stripes"]} == {"waves"}
    assert pools["checks"] == pools["stripes"]  # a pair that leaves together shares its training
    assert {one.record["contamination"]["status"] for place in results.places for one in place.scored} == {"clean"}


@pytest.mark.ray
def test_a_combination_is_trained_once_and_selected_without_the_reported_task(left_out):
    _, runs, said = left_out
    assert len(list((runs / "pretrainings").glob("*.json"))) == 4  # 2 left-out sets x 2 combinations
    known = json.loads((runs / "studies" / "loto" / "selection" / "multi-task.json").read_text())
    scores = np.array(known["scores"])
    for task, name in enumerate(known["tasks"]):
        others = np.delete(scores, task, axis=1)
        ranks = (others <= others.max(axis=0)).sum(axis=0), (others < others.max(axis=0)).astype(int) + 1
        mean = ranks[1].mean(axis=1) - 1e-9 * others.mean(axis=1)  # two combinations: 1 or 2, ties by the score
        chosen = json.loads(known["combinations"][int(np.argmin(mean))])
        assert known["chosen"][name] == chosen
    assert "2 sets x 2 combinations x 1 seeds = 4 trainings" in said
    took = json.loads((runs / "studies" / "loto" / "search.json").read_text())["multi-task"]
    assert (took["num_combinations"], took["num_trainings"]) == (2, 4)
    assert took["pretraining"]["tiles_seen"] == 4 * 20 * 24
    assert took["pretraining"]["cpu_hours"] > 0
    assert took["scoring"]["tiles_seen"] > 0
    assert len(list((runs / "transfer_scores").glob("*.json"))) == 2 * len(NAMES)


@pytest.mark.ray
def test_runs_nest_as_study_encoder_benchmark(left_out):
    _, runs, _ = left_out
    tracker = open_tracking(f"sqlite:///{runs}/mlflow.db", "raypath")
    all_runs = {run.info.run_id: run for run in tracker.client.search_runs([tracker.experiment_id], max_results=500)}
    on_waves = [run for run in all_runs.values() if run.data.tags.get("raypath.benchmark") == "waves"]
    cells = [run for run in on_waves if "raypath.cell" in run.data.tags]
    scored = [run for run in on_waves if run not in cells]
    assert len(scored) == len(cells) == 3
    assert {run.data.tags["mlflow.parentRunId"] for run in cells} == {run.info.run_id for run in scored}
    for run in cells:
        wanted = {"study": "loto", "protocol": "probe", "fraction": "100%", "benchmark": "waves"}
        assert {name: run.data.tags[f"raypath.{name}"] for name in wanted} == wanted
        assert len(run.data.tags["raypath.config_hash"]) == len(run.data.tags["raypath.data_hash"]) == 64
        assert 0 <= run.data.metrics["test_balanced_accuracy"] <= 1
    for run in scored:
        encoder = all_runs[run.data.tags["mlflow.parentRunId"]]
        study = all_runs[encoder.data.tags["mlflow.parentRunId"]]
        assert (encoder.data.tags["raypath.encoder"], study.info.run_name) == (run.data.tags["raypath.encoder"], "loto")
        assert run.data.tags["raypath.contamination"] == "clean"
        assert 0 <= run.data.metrics["probe/test_balanced_accuracy"] <= 1
    assert {run.info.status for run in all_runs.values()} == {"FINISHED"}


@pytest.mark.ray
def test_the_same_command_again_trains_nothing_and_runs_no_cell(left_out):
    _, runs, _ = left_out
    study = runs / "studies" / "loto"
    before, table = journal_of(study), (study / "table.csv").read_text()
    openings = (runs / "test_openings.jsonl").read_text()
    took = (study / "search.json").read_text()
    finished(study, runs)  # as its report says
    assert (study / "search.json").read_text() == took
    first, last = (study / "commands.jsonl").read_text().splitlines()
    assert json.loads(first)["repeat"] == json.loads(last)["command"].replace(sys.executable, "python")
    assert journal_of(study) == before
    assert (study / "table.csv").read_text() == table
    assert (runs / "test_openings.jsonl").read_text() == openings


@pytest.mark.ray
def test_a_study_that_grows_asks_before_it_opens_a_test_again(left_out, sets):
    place, runs, _ = left_out
    grown = place.with_name("grown.toml")
    grown.write_text(place.read_text().replace('protocols = ["probe"]', 'protocols = ["probe", "knn"]'))
    process = started(grown, runs, "name=loto")
    assert process.wait(timeout=300) == EXIT_INCOMPLETE
    failed = load_results(runs / "studies" / "loto").failures
    assert len(failed) == 3 * len(NAMES)  # every encoder on every set, by the new protocol
    assert all("its test was already opened" in reason for reason in failed.values())


KILLED = {"protocols": ["probe", "finetune"], "num_seeds": 2}


@pytest.mark.ray
def test_a_study_killed_three_times_ends_as_one_that_was_not(sets, tmp_path):
    encoders = [
        {"name": "random", "source": "random:resnet10t", "num_seeds": 2},
        {"name": "colour", "source": "colour"},
    ]
    sweeps = [
        "finetune.protocol.epochs=1",
        "finetune.protocol.batch=8",
        "finetune.sweep.search=grid",
        "finetune.sweep.asha=false",
    ]
    space = 'finetune.sweep.space={"protocol.lr": [0.01, 0.001]}'
    # a probe has two draws of the folds, fine-tuning the first of them
    transfer = ["extent_px=32", "num_folds=2", "probe.num_repeats=2", "max_near_duplicate_samples=0", *sweeps, space]
    text = toml(sets, encoders, names=NAMES[:1], transfer=transfer, **KILLED)
    tables = {}
    for runs in (tmp_path / "whole", tmp_path / "killed"):
        place = tmp_path / "killed.toml"
        place.write_text(text)
        study = runs / "studies" / "killed"
        for num in (1, 6, 12) if runs.name == "killed" else ():
            process = started(place, runs)
            deadline = time.monotonic() + 240
            while sum(line["what"] == "finished" for line in journal_of(study)) < num and process.poll() is None:
                assert time.monotonic() < deadline, "nothing was finished"
                time.sleep(0.05)
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            assert "Not finished: " in write_report(study).read_text()
        finished(place, runs)
        assert "Not finished: " not in (study / "report.html").read_text()
        tables[runs.name] = (study / "table.csv").read_text()
        done = Counter((line["cell"], line["fold"]) for line in journal_of(study) if line["what"] == "finished")
        records = [json.loads(place.read_text()) for place in (study / "cells").glob("*/cell.json")]
        assert [(record["state"], record["num_folds"]) for record in records] == [("done", 2)] * 6
        draws = {"probe": 2, "finetune": 1}
        assert [record["num_draws"] for record in records] == [draws[record["protocol"]] for record in records]
        assert set(done.values()) == {1}
        # a kill may come between what a fold has said and its line in the journal, for each of two pairs at once
        assert 18 - len(done) in (range(1) if runs.name == "whole" else range(7))
    assert tables["killed"] == tables["whole"]


@pytest.mark.ray
def test_a_recipe_is_pretrained_for_each_fold_without_the_slides_that_it_tests(tmp_path):
    slides = tmp_path / "slides"
    write_phantoms(slides, num_slides=12, size_px=512, seed=2)
    cli = [sys.executable, "-c", "from raypath.cli import app; app()"]
    index = [*cli, "index", str(slides), "--out", str(tmp_path / "index")]
    subprocess.run([*index, "--extent-px", "64", "--mpp", "0.5"], check=True, cwd=ROOT, stdout=-3, stderr=-3)
    recipe = {"recipe": "simclr_small", "settings": [*TINY[:4], "loop.num_steps=4", "loop.global_batch=24"]}
    recipe["settings"] += [f"index={tmp_path / 'index'}", "workers.num_workers=1", 'splits=["train", "val", "test"]']
    encoders = [
        {"name": "inductive"} | recipe,
        {"name": "transductive", "transductive": True} | recipe,
        {"name": "colour", "source": "colour"},
    ]
    transfer = ["extent_px=32", "num_folds=2"]
    text = toml(tmp_path, encoders, names=(), num_nulls=0, alterations=[], transfer=transfer)
    text += f'[[benchmarks]]\nname = "phantoms"\nkind = "phantoms"\npath = "{slides}"\n'
    text += 'settings = ["extent_px=64", "mpp=0.5", "max_per_class_and_slide=6"]\n'
    (tmp_path / "folds.toml").write_text(text)
    finished(tmp_path / "folds.toml", tmp_path / "runs")
    results = load_results(tmp_path / "runs" / "studies" / "folds")
    status = {place.encoder: place.scored[0].record["contamination"]["status"] for place in results.places}
    assert status == {"inductive": "clean", "transductive": "transductive", "colour": "clean"}
    draws = {place.encoder: place.num_draws for place in results.places}
    assert draws == {"inductive": 1, "transductive": 5, "colour": 5}  # one where each fold is a training
    difference = next(one for one in comparisons(results, "probe") if one.place.encoder == "colour").to_reference
    assert difference.num_seeds == 1  # they are compared on the draw that both have
    trained = sorted((tmp_path / "runs").glob("simclr_small-*/config.json"))
    assert len(trained) == 3  # one for each of two folds, and one that sees all slides
    seen = []
    for place in trained:
        table = pq.read_table(
            Path(json.loads(place.read_text())["index"]) / "index.parquet", columns=["slide", "split"]
        )
        seen.append({row["slide"] for row in table.to_pylist() if row["split"] != "held back"})
    *by_fold, everything = sorted(seen, key=len)
    assert len(everything) == 12
    assert all(0 < len(own) < 12 for own in by_fold)
