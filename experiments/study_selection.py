"""Leave-one-task-out selection (second paper, RECIPES 2.4): which settings of the recipe each left-out task is reported with.

Every combination of the grid is trained once per left-out set and seed; the transfer score of a task is its val score by frozen
features and `leave_out.protocol`, from the encoders that never saw it. Combinations are ranked per task, and a task is reported
with the one of the best mean rank over the *other* tasks: its own val and test decide nothing about it.

    runs/transfer_scores/KEY.json     a score and what it took, for certain weights, data and settings
    STUDY/search.json                 what selecting took, by encoder

One decision: the grid belongs to the study, with the same pretrainings by the same keys, so the final encoders are those that were
selected, and nothing is trained again. Each encoder of the study that leaves tasks out is a network of its own.
"""

import hashlib
import json
import time
from collections.abc import Iterable
from dataclasses import asdict, replace
from itertools import product
from pathlib import Path
from typing import Any

import launch
import numpy as np
import ray
from launch import say
from recipes.transfers import TRANSFERS
from scoring import device_here, features_root, scores_of
from study_benchmarks import Loaded, settings_for
from study_fits import held, images_of
from study_plan import Chosen, Point, grid_of, left_out_sets
from study_pretraining import checkpoints_of

from raypath.config import canonical_json, identity, override
from raypath.errors import BadInput
from raypath.protocols import fit
from raypath.protocols.encoders import weights_id
from raypath.protocols.transfer import TransferConfig
from raypath.run_folder import RunFolder, runs_root
from raypath.study.cells import PROTOCOL_VERSION, Cost, write_json
from raypath.study.graph import Graph, Node
from raypath.study.leave_out import LeaveOutPlan, TransferScores, select
from raypath.study.settings import EncoderEntry, StudyConfig
from raypath.training.checkpoint import ENCODER


def select_combinations(study) -> Chosen:
    """The combination that each encoder with left-out tasks is reported with on each benchmark; nothing where there is no grid."""
    config, benchmarks = study.config, study.benchmarks
    chosen: Chosen = {}
    for entry in (entry for entry in config.encoders if entry.leave_out and config.leave_out.grid):
        try:
            scores, by_seed = transfer_scores(study, entry)
            own = selected(config, benchmarks, entry, scores)
        except BadInput as error:
            study.lost[entry.name] = str(error)
            say(f"{entry.name}: {error}")
            continue
        chosen |= own
        kept = {"combinations": scores.combinations, "tasks": scores.tasks, "scores": scores.values.tolist()}
        kept |= {"by_seed": by_seed.tolist()}
        kept |= {"chosen": {one.name: dict(chosen[entry.name, one.name]) for one in benchmarks}}
        write_json(study.folder / "selection" / f"{entry.name}.json", kept)
    return chosen


def selected(config: StudyConfig, benchmarks: list[Loaded], entry: EncoderEntry, scores: TransferScores) -> Chosen:
    """The combination of an encoder on each benchmark. Raises BadInput where no other task is left to select by."""
    chosen, sets = {}, left_out_sets(config, benchmarks)
    for one in benchmarks:
        # folds test the val of relatives too; on a given split that is left to the paper's rule
        relatives = [name for name in sets[one.name] if name != one.name] if one.is_nested else []
        name = select(scores, reported_task=one.name, network=entry.name, also_excluding=relatives)
        say(f"{entry.name} on {one.name}: {name}, best mean rank over the other tasks")
        chosen[entry.name, one.name] = grid_of(config)[scores.combinations.index(name)]
    return chosen


def transfer_scores(study, entry: EncoderEntry) -> tuple[TransferScores, np.ndarray]:
    """Mean val score over seeds, and all of them [combinations, tasks, seeds]; trains what is not trained yet.

    Raises BadInput that names what is missing.
    """
    config, benchmarks = study.config, study.benchmarks
    grid, sets = grid_of(config), left_out_sets(config, benchmarks)
    names = tuple(canonical_json(dict(combination)) for combination in grid)
    plan = LeaveOutPlan(
        tasks=tuple(one.name for one in benchmarks),
        left_out=tuple(dict.fromkeys(sets.values())),
        combinations=names,
        num_seeds=entry.num_seeds,
    )
    say(f"{entry.name}: {plan.table().footnotes[0]}")
    nodes: dict[str, Node] = {}
    places: dict[str, tuple[int, int, int]] = {}
    for (number, combination), (task, one), seed in product(
        enumerate(grid), enumerate(benchmarks), range(entry.num_seeds)
    ):
        point = Point(entry, config.seed + seed, sets[one.name], combination)
        training = f"pretrain {point.name}"
        nodes.setdefault(training, Node(training, "pretrain", work=point))
        name = f"{point.name}, transfer score on {one.name}"
        nodes[name] = Node(name, "select", (training,), (point, one, None))
        places[name] = (number, task, seed)
    study.carry_out(Graph.of(nodes.values()))
    study.search[entry.name] = {"num_combinations": len(grid)} | cost_of_search(nodes.values(), study.said)
    write_json(study.folder / "search.json", study.search)
    values = np.full((len(grid), len(benchmarks), entry.num_seeds), np.nan)
    for name, place in places.items():
        values[place] = study.said.get(name, {}).get("score", np.nan)
    networks = (entry.name,) * len(names)
    return TransferScores(combinations=names, networks=networks, tasks=plan.tasks, values=values.mean(axis=2)), values


def cost_of_search(nodes: Iterable[Node], said: dict[str, dict]) -> dict[str, Any]:
    """What has ended of a search took: every combination, left-out set and seed, chosen or not."""
    costs: dict[str, list[Cost]] = {"pretrain": [], "select": []}
    for node in (node for node in nodes if node.name in said):
        costs[node.kind].append(Cost(**said[node.name]["cost"]))
    took = {kind: asdict(sum(own, Cost())) for kind, own in costs.items()}
    return {"num_trainings": len(costs["pretrain"]), "pretraining": took["pretrain"], "scoring": took["select"]}


def selecting_transfer(config: StudyConfig, one: Loaded, extent_px: int) -> TransferConfig:
    """The protocol of the transfer score on a benchmark."""
    data = next(iter(one.transfers.values()))
    transfer = override(
        TRANSFERS[config.leave_out.protocol](), settings_for(config.leave_out.protocol, config.transfer)
    )
    transfer = replace(transfer, benchmark=data.benchmark, seed=config.seed, extent_px=transfer.extent_px or extent_px)
    return replace(transfer, evaluation="given")  # its val: folds have no say


def transfer_score(config: TransferConfig, run: str, reference: list[ray.ObjectRef], share: float) -> dict[str, Any]:
    """The val score of a run's encoder, fitted on train alone, and its cost; runs as a task of the cluster.

    A score that is there is not computed again, so what it took stays what it took. `share`: of the cluster's processors.
    """
    benchmark = ray.get(reference[0]).benchmark
    config = replace(config, encoder=str(checkpoints_of(RunFolder(Path(run)), 0)[-1] / ENCODER))
    made_of = [PROTOCOL_VERSION, identity(config), weights_id(config.encoder, seed=config.seed), benchmark.data_hash]
    key = hashlib.sha256(canonical_json(made_of).encode()).hexdigest()[:24]
    place = runs_root() / "transfer_scores" / f"{key}.json"
    if not place.exists():
        started, progress = time.monotonic(), launch.counter("samples embedded")
        fitted = fit(config, benchmark, features_root=features_root(), device=device_here(), progress=progress)
        score = scores_of("val", fitted.val)[f"val_{benchmark.primary}"]
        num_images = images_of(config, benchmark) + len(benchmark.rows("val"))
        cost = Cost(tiles_seen=num_images, **held((time.monotonic() - started) / 3600, share))
        write_json(place, {"score": score, "cost": asdict(cost)})
    return json.loads(place.read_text())
