"""Leave-one-task-out selection (second paper, RECIPES 2.4): which settings of the recipe each left-out task is reported with.

Every combination of the grid is trained once per left-out set and seed; the transfer score of a task is its val score by frozen
features and `leave_out.protocol`, from the encoders that never saw it. Combinations are ranked per task, and a task is reported
with the one of the best mean rank over the *other* tasks: its own val and test decide nothing about it.

One decision: the grid belongs to the study, with the same pretrainings by the same keys, so the final encoders are those that were
selected, and nothing is trained again. Each encoder of the study that leaves tasks out is a network of its own.
"""

from dataclasses import replace
from itertools import product
from pathlib import Path

import launch
import numpy as np
import ray
from launch import say
from recipes.transfers import TRANSFERS
from scoring import device_here, features_root, scores_of
from study_benchmarks import Loaded, settings_for, with_evaluation
from study_plan import Chosen, Point, grid_of, left_out_sets
from study_pretraining import checkpoints_of

from raypath.config import canonical_json, override
from raypath.errors import BadInput
from raypath.protocols import fit
from raypath.protocols.transfer import TransferConfig
from raypath.run_folder import RunFolder
from raypath.study.cells import write_json
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
        except BadInput as error:
            study.lost[entry.name] = str(error)
            say(f"{entry.name}: {error}")
            continue
        sets = left_out_sets(config, benchmarks)
        for one in benchmarks:
            # folds test the val of relatives too; on a given split that is left to the paper's rule
            relatives = [name for name in sets[one.name] if name != one.name] if one.is_nested else []
            name = select(scores, reported_task=one.name, network=entry.name, also_excluding=relatives)
            say(f"{entry.name} on {one.name}: {name}, best mean rank over the other tasks")
            chosen[entry.name, one.name] = grid_of(config)[scores.combinations.index(name)]
        kept = {"combinations": scores.combinations, "tasks": scores.tasks, "scores": scores.values.tolist()}
        kept |= {"by_seed": by_seed.tolist()}
        kept |= {"chosen": {one.name: dict(chosen[entry.name, one.name]) for one in benchmarks}}
        write_json(study.folder / "selection" / f"{entry.name}.json", kept)
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
    values = np.full((len(grid), len(benchmarks), entry.num_seeds), np.nan)
    for name, place in places.items():
        values[place] = study.selected.get(name, np.nan)
    networks = (entry.name,) * len(names)
    return TransferScores(combinations=names, networks=networks, tasks=plan.tasks, values=values.mean(axis=2)), values


def selecting_transfer(config: StudyConfig, one: Loaded, extent_px: int) -> TransferConfig:
    """The protocol of the transfer score on a benchmark."""
    data = next(iter(one.transfers.values()))
    transfer = override(
        TRANSFERS[config.leave_out.protocol](), settings_for(config.leave_out.protocol, config.transfer)
    )
    transfer = replace(transfer, benchmark=data.benchmark, seed=config.seed, extent_px=transfer.extent_px or extent_px)
    return with_evaluation(transfer, one.benchmark)


def transfer_score(config: TransferConfig, run: str, reference: list[ray.ObjectRef]) -> dict[str, float]:
    """The val score of a run's encoder, fitted on train alone; runs as a task of the cluster."""
    benchmark = ray.get(reference[0]).benchmark
    place = checkpoints_of(RunFolder(Path(run)), 0)[-1] / ENCODER
    progress = launch.counter("samples embedded")
    fitted = fit(
        replace(config, encoder=str(place)),
        benchmark,
        features_root=features_root(),
        device=device_here(),
        progress=progress,
    )
    return {"score": scores_of("val", fitted.val)[f"val_{benchmark.primary}"]}
