"""The pool of 22 tasks: its sums are those in print, its rows those of the golden table, its kinds exist."""

import csv
import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from raypath.benchmarks.pool22 import TASKS, PoolTask, availability, is_readable, task_named
from raypath.benchmarks.settings import KINDS
from raypath.cli import app
from raypath.errors import BadInput

REAL = Path(os.environ.get("RAYPATH_REAL_DATA", Path(__file__).parents[3] / "shared" / "data"))
GOLDEN = REAL / "golden" / "mtask_pool.csv"
COLLABORATORS = {"Necrosis", "ProliferativePattern", "CellInclusion", "MouseLba", "HumanLba", "Lung", "Glomeruli"}
COLLABORATORS |= {"Breast1", "Breast2"}


def test_sums_are_those_in_print():
    assert len(TASKS) == len({task.name for task in TASKS}) == 22
    assert sum(task.num_classes for task in TASKS) == 81
    assert tuple(map(sum, zip(*(task.train for task in TASKS)))) == (663_918, 3_374)
    assert tuple(map(sum, zip(*(task.val for task in TASKS)))) == (104_363, 778)
    assert tuple(map(sum, zip(*(task.test for task in TASKS)))) == (114_519, 1_949)
    assert tuple(map(sum, zip(*(task.total for task in TASKS)))) == (882_800, 6_101)


def test_what_is_not_public_says_why_and_what_is_read_names_a_kind():
    assert {task.name for task in TASKS if "collaborators" in availability(task)} == COLLABORATORS
    assert availability(task_named("BoneMarrow")).startswith("not public: its source is a paper (Kainz")
    kinds = {settings.kind: settings for settings in KINDS}
    named = {task.name: task.kind for task in TASKS if task.kind is not None}
    assert set(named.values()) <= set(kinds)
    assert all(availability(task_named(name)) == f"readable: kind={kind}" for name, kind in named.items())
    assert all(is_readable(task) == (task.name in named) for task in TASKS)
    assert not any(task.not_public for task in TASKS if task.kind)
    assert {"Janowczyk1", "Janowczyk2", "Janowczyk5", "Janowczyk6", "Janowczyk7", "StromaLBP"} <= set(named)


def test_readers_publish_the_counts_of_their_tasks():
    for name in ("Janowczyk1", "Janowczyk2", "Janowczyk5", "Janowczyk6", "Janowczyk7"):
        task = task_named(name)
        facts = next(settings.FACTS for settings in KINDS if settings.kind == task.kind)
        assert facts.counts["images"] == task.total[0]
        assert facts.counts.get("patients", task.total[1]) == task.total[1]


def test_a_public_task_without_reader_says_so():
    task = PoolTask("new", "detection", "breast", "H&E", 2, *[task_named("WarwickCRC").train] * 3, "image")
    assert availability(task) == "public, but no kind of benchmark reads it here"
    with pytest.raises(BadInput, match="'Janowczyk3' is no task of the pool; expected one of Necrosis"):
        task_named("Janowczyk3")


def test_the_list_says_of_every_task_what_it_is_and_whether_it_can_be_had():
    said = CliRunner().invoke(app, ["tasks"], env={"COLUMNS": "300"}).output.splitlines()
    assert len(said) == 2 * len(TASKS)
    for task, what, whether in zip(TASKS, said[::2], said[1::2]):
        assert what.startswith(f"{task.name}: {task.origin}, {task.organ}")
        assert whether.strip() == availability(task)
    necrosis = "2 classes; images of slides: train 695 of 9, val 96 of 1, test 91 of 3"
    assert said[0].endswith(necrosis)


@pytest.mark.real
@pytest.mark.skipif(not GOLDEN.is_file(), reason="no golden tables here")
def test_rows_are_those_of_the_golden_table():
    with GOLDEN.open(newline="") as file:
        lines = {line["name"]: line for line in csv.DictReader(file)}
    assert set(lines) == {task.name for task in TASKS}
    short = {"classification": "CLF", "detection": "DET", "segmentation": "SEG"}
    for task in TASKS:
        line = lines[task.name]
        assert short[task.origin] == line["type"].split("/")[-1], task.name  # Breast1 and 2: CLF/SEG
        assert (task.num_classes, task.split_by) == (int(line["classes"]), line["split_by"])
        for split in ("train", "val", "test", "total"):
            part = getattr(task, split)
            assert part == (int(line[f"{split}_img"]), int(line[f"{split}_ps"])), task.name
