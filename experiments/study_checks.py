"""Everything about a study's pretrainings that can be wrong, found before one of them takes its hours.

One decision: what a pretraining itself checks when it starts is asked here of every combination of a grid and of every stage;
of the folds of a benchmark the first stands for all.
"""

from dataclasses import replace
from itertools import product
from pathlib import Path

from launch import say
from pretrain import has_data, warmup_words
from recipes import PRETRAINING
from recipes.transfers import TRANSFERS
from stages import stages_from_recipe
from study_benchmarks import Loaded
from study_plan import Point, grid_of, left_out_sets, points_of, stages_of
from study_weights import Weights
from transfer_words import KIND_NAMES, unknown_benchmark

from raypath.data.pool_spec import parse_pool
from raypath.errors import BadInput
from raypath.protocols import HeadSettings
from raypath.protocols.encoders import RANDOM, RANDOM_BN, WITHOUT_WEIGHTS, weights_id
from raypath.protocols.monitor import check_monitor
from raypath.protocols.own_head import own_head
from raypath.study.settings import StudyConfig
from raypath.training.settings import check_settings


def check_words(config: StudyConfig) -> None:
    """What can be wrong without an image being read, all at once; says where a pretraining ends before its warm-up.

    Raises BadInput for protocols, recipes, settings and places that are none.
    """
    faults = []
    unknown = [name for name in config.protocols if name not in TRANSFERS]
    faults += [f"protocols: {name!r} is none; expected some of {', '.join(TRANSFERS)}" for name in unknown]
    for entry in (entry for entry in config.encoders if entry.recipe):
        try:
            stages = stages_from_recipe(PRETRAINING, entry.recipe, [*config.pretraining, *entry.settings])
            for note in filter(None, map(warmup_words, stages)):  # else it stands in the log of a task alone
                say(f"{entry.name}: {note}")
        except BadInput as error:
            faults.append(f"{entry.name}: {error}")
    for entry in config.benchmarks:
        if entry.path not in ("", *KIND_NAMES) and not is_there(entry.path):
            faults.append(unknown_benchmark(entry.path))
        if entry.sites and not is_there(entry.sites):
            faults.append(f"{entry.sites}: no such file; expected a CSV file of sites")
    if faults:
        raise BadInput("\n".join(faults))


def is_there(place: str) -> bool:
    """Whether a file or folder is there; one that is not local is asked when it is read."""
    return "://" in place or Path(place).exists()


def check_encoders(config: StudyConfig, benchmarks: list[Loaded], weights: Weights) -> None:
    """Raises BadInput for weights that are not there, and for a pretraining that cannot work."""
    points = points_of(config, benchmarks, {})
    for point in {point.name: point for own in points.values() for point in own}.values():
        if point.entry.recipe:
            _check_pretraining(config, benchmarks, point)
        elif (source := weights.source_of(point)).partition(":")[0] not in (RANDOM, RANDOM_BN):
            weights_id(source, seed=point.seed)
    check_heads(config, benchmarks, weights)
    if config.leave_out.grid and any(entry.leave_out for entry in config.encoders):
        check_selection(config, benchmarks)


def check_selection(config: StudyConfig, benchmarks: list[Loaded]) -> None:
    """Raises BadInput where no combination of the grid could be chosen in the end: no such protocol, no other task to rank by."""
    if config.leave_out.protocol not in TRANSFERS:
        raise BadInput(f"leave_out.protocol={config.leave_out.protocol}: expected one of {', '.join(TRANSFERS)}")
    sets = left_out_sets(config, benchmarks)
    for one in benchmarks:
        left = {other.name for other in benchmarks} - {one.name} - (set(sets[one.name]) if one.is_nested else set())
        if not left:
            raise BadInput(
                f"{one.name}: a combination of the grid is chosen by its ranks on other tasks, and none is left without"
                f" {', '.join(sets[one.name])}: list another benchmark, or leave_out without a grid"
            )


def check_heads(config: StudyConfig, benchmarks: list[Loaded], weights: Weights) -> None:
    """Raises BadInput where an encoder is to be scored by its own head of a benchmark and has none."""
    points = points_of(config, benchmarks, {})
    for one in benchmarks:
        names = [name for name, transfer in one.transfers.items() if isinstance(transfer.protocol, HeadSettings)]
        for point, name in product(points[one.name], names):
            own = point.entry.protocols
            if point.entry.source not in WITHOUT_WEIGHTS and (not own or name in own):
                _check_head(config, one, point, weights)


def _check_head(config: StudyConfig, one: Loaded, point: Point, weights: Weights) -> None:
    entry, where = point.entry, f"{point.entry.name} by its own head on {one.name}"
    if not one.task or one.is_nested:
        raise BadInput(
            f"{where}: a head was trained on one train split of a task: set the benchmark's pool=PLACE, and evaluation=given"
        )
    if entry.source:
        own_head(weights.source_of(point), one.task, one.benchmark.classes)
        return
    last = None if entry.leave_out else stages_of(config, point, [one])[-1]
    tasks = [task.name for task in parse_pool(last.pool)] if last and last.objective.kind == "multitask" else []
    if one.task not in tasks:
        found = ", ".join(tasks) or "none"
        raise BadInput(f"{where}: {one.task} is no task that it is trained on ({found}); set its protocols=")


def _check_pretraining(config: StudyConfig, benchmarks: list[Loaded], point: Point) -> None:
    combinations = grid_of(config) if point.entry.leave_out else [()]
    for combination in combinations:
        stages = stages_of(config, replace(point.trainings[0], combination=combination), benchmarks)
        has_data(stages[0])
        for stage in stages:
            check_settings(stage)
            check_monitor(stage.monitor)
