"""What the weights of a study have cost: of all pretrainings for the bill, of one of them for what is compared."""

import json
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "experiments"))

from study_lineage import forget_opening, opening_words
from study_plan import Point
from study_pretraining import cost_of, cpus_of
from study_selection import cost_of_search
from study_weights import Weights, training_of

from raypath.errors import BadInput
from raypath.run_folder import RunFolder
from raypath.study.cells import Checkpoint, Cost
from raypath.study.graph import Node
from raypath.study.settings import EncoderEntry, StudyConfig
from raypath.training.checkpoint import STATE_JSON
from raypath.training.loop import LoopSettings
from raypath.training.settings import PretrainConfig, WorkerSettings

ENTRY = EncoderEntry(name="ssl", recipe="simclr_small")


class WeightsByFold(Weights):
    """Every fold's weights are there, and have seen 9,600 tiles."""

    def checkpoint(self, point, step):
        if point.num_folds:
            return self.checkpoint_by_fold(point, step)
        return Checkpoint(encoder="ssl", seed=0, source="x", weights=f"w{point.fold}", cost=Cost(tiles_seen=9_600))


def test_weights_of_all_folds_cost_their_sum_and_know_how_many_they_are(tmp_path):
    weights = WeightsByFold(StudyConfig(encoders=(ENTRY,)), tmp_path)
    found = weights.checkpoint(Point(ENTRY, 0, held_back="set", num_folds=5), None)
    assert (found.cost, found.num_trainings) == (Cost(tiles_seen=48_000), 5)
    assert [part.num_trainings for part in found.by_fold] == [1] * 5
    assert weights.checkpoint(Point(ENTRY, 0), None).num_trainings == 1


def test_a_checkpoint_on_the_way_that_was_not_kept_is_named(tmp_path, monkeypatch):
    """Three points are asked of a run that kept its last two checkpoints."""
    entry = replace(ENTRY, curve_points=3)
    point = Point(entry, 0)
    weights = Weights(StudyConfig(encoders=(entry,)), tmp_path, {training_of(point): tmp_path / "run"})
    monkeypatch.setattr("study_weights.checkpoints_of", lambda run, points: [Path("step-2"), Path("step-3")])
    with pytest.raises(BadInput, match=r"curve_points=3, and 1 checkpoints before the last were kept: .*run"):
        weights.checkpoint(point, 1)


def test_a_pretraining_costs_the_processors_that_it_reserves(tmp_path):
    """Ten steps a minute apart, then a night of standing still."""
    workers = WorkerSettings(num_workers=3, cpus_per_worker=1.5, torch_threads=7, use_gpu=True)
    config = PretrainConfig(loop=LoopSettings(num_steps=20, global_batch=24), workers=workers)
    config = replace(config, stream=replace(config.stream, read_cpus=0.5))
    assert cpus_of(config) == 3 * (1.5 + 0.5)
    run = RunFolder.create(tmp_path, "ssl", config)
    times = [60_000 * step for step in range(1, 11)] + [100_000_000 + 60_000 * step for step in range(11, 21)]
    lines = [{"step": step, "time": time, "metrics": {}} for step, time in enumerate(times, start=1)]
    run.metrics.write_text("".join(json.dumps(line) + "\n" for line in lines))
    for step, minutes in ((10, 9), (20, 18)):
        place = run.checkpoints / f"step-{step:08}"
        place.mkdir(parents=True)
        (place / STATE_JSON).write_text(json.dumps({"step": step}))
        cost = cost_of(run, place)
        assert cost.tiles_seen == 24 * step
        assert (cost.cpu_hours, cost.gpu_hours) == pytest.approx((6 * minutes / 60, 3 * minutes / 60))


def test_a_search_costs_every_combination_and_not_only_the_chosen_one():
    nodes = [Node(f"pretrain {number}", "pretrain") for number in range(24)]
    nodes += [Node(f"score {number}", "select") for number in range(48)]
    cost = {"pretrain": Cost(tiles_seen=100, cpu_hours=2.0), "select": Cost(tiles_seen=10, gpu_hours=0.5)}
    said = {node.name: {"cost": asdict(cost[node.kind])} for node in nodes[1:]}  # one has failed
    assert cost_of_search(nodes, said) == {
        "num_trainings": 23,
        "pretraining": asdict(Cost(tiles_seen=2_300, cpu_hours=46.0)),
        "scoring": asdict(Cost(tiles_seen=480, gpu_hours=24.0)),
    }


def test_tests_are_opened_again_for_one_reason_until_all_are_scored(tmp_path):
    assert opening_words(tmp_path, "") == ""
    assert opening_words(tmp_path, "a bug in the metric") == "a bug in the metric"
    assert opening_words(tmp_path, "") == "a bug in the metric"  # killed, and started again without words
    forget_opening(tmp_path)
    assert opening_words(tmp_path, "") == ""
