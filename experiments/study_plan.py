"""From a study's config to its work: what is pretrained, and what is scored where.

One decision: everything that can be wrong is found here, before anything is trained: a benchmark that cannot be read, a protocol
that is none for it, a recipe that does not go with its data. What an encoder is on a benchmark is a *point*: an entry, a seed, and
the tasks that were left out of its pool; two benchmarks of one left-out set share a point, and so a pretraining.
"""

import json
from collections.abc import Collection
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

from entrants import absolute_source
from launch import say
from pretrain import with_absolute_monitor, with_data
from recipes import PRETRAINING
from stages import PREVIOUS, stages_from_recipe
from study_benchmarks import Loaded
from study_slides import is_touched, without_test_slides

from raypath.errors import BadInput
from raypath.models import EncoderSettings
from raypath.protocols import open_encoder
from raypath.protocols.encoders import IMAGENET, RANDOM, RANDOM_BN, WITHOUT_WEIGHTS
from raypath.run_folder import runs_root
from raypath.study.settings import EncoderEntry, StudyConfig
from raypath.training.settings import PretrainConfig

Combination = tuple[tuple[str, object], ...]
"""Settings of a grid with their values."""
Chosen = dict[tuple[str, str], Combination]
"""What was selected for an encoder on a benchmark, by their names."""


@dataclass(frozen=True)
class Point:
    """Weights of a study before they are there."""

    entry: EncoderEntry
    seed: int
    left_out: tuple[str, ...] = ()
    combination: Combination = ()
    """Settings of the grid that this pretraining has."""
    held_back: str = ""
    """The benchmark whose val and test slides it does not see, where its index holds some."""
    num_folds: int = 0
    """Outer folds for each of which it is pretrained anew; 0: once."""
    fold: int = -1
    """The outer fold whose slides are held back; -1: those of the given split."""

    @property
    def name(self) -> str:
        """A name of its own for the graph, and for people."""
        parts = [f"{self.entry.name}, seed {self.seed}"]
        parts += [f"without {' and '.join(self.left_out)}"] if self.left_out else []
        fold = "" if self.fold < 0 else f", fold {self.fold + 1}"
        parts += [f"without the test slides of {self.held_back}{fold}"] if self.held_back else []
        parts += [" ".join(f"{key}={value}" for key, value in self.combination)] if self.combination else []
        return ", ".join(parts)

    @property
    def trainings(self) -> list["Point"]:
        """What is pretrained for it: itself, or one for each fold."""
        return [replace(self, num_folds=0, fold=fold) for fold in range(self.num_folds)] or [self]


def left_out_sets(config: StudyConfig, benchmarks: list[Loaded]) -> dict[str, tuple[str, ...]]:
    """The tasks that leave the pool with each benchmark. Raises BadInput for a name that is no benchmark."""
    names = [one.name for one in benchmarks]
    together = {name: tuple(group) for group in config.leave_out.together for name in group}
    unknown = sorted(together.keys() - set(names))
    if unknown:
        raise BadInput(f"leave_out.together: {', '.join(unknown)}: expected names of benchmarks: {', '.join(names)}")
    return {name: together.get(name, (name,)) for name in names}


def points_of(
    config: StudyConfig, benchmarks: list[Loaded], chosen: Chosen, lost: Collection[str] = ()
) -> dict[str, list[Point]]:
    """The points that are scored on each benchmark, with what was selected for it; `lost`: encoders that are left out."""
    sets = left_out_sets(config, benchmarks)
    return {
        one.name: [
            Point(
                entry,
                config.seed + number,
                sets[one.name] if entry.leave_out else (),
                chosen.get((entry.name, one.name), ()),
                *_held_back(config, entry, one),
            )
            for entry in config.encoders
            for number in range(entry.num_seeds)
            if entry.name not in lost
        ]
        for one in benchmarks
    }


def _held_back(config: StudyConfig, entry: EncoderEntry, one: Loaded) -> tuple[str, int]:
    """The benchmark's name, where slides that it tests are in the index of the entry, and its number of outer folds (0: none)."""
    if not entry.recipe or entry.transductive or entry.leave_out:
        return "", 0
    index = stages_from_recipe(PRETRAINING, entry.recipe, [*config.pretraining, *entry.settings])[0].index
    if not index or not any(is_touched(index, fold) for fold in one.folds):
        return "", 0
    return one.name, one.folds_per_draw * one.num_draws_by_fold if one.is_nested else 0


def grid_of(config: StudyConfig) -> list[Combination]:
    """The combinations among which is selected; one empty one where there is no grid."""
    keys = sorted(config.leave_out.grid)
    return [tuple(zip(keys, values)) for values in product(*(config.leave_out.grid[key] for key in keys))]


def stages_of(config: StudyConfig, point: Point, benchmarks: list[Loaded]) -> list[PretrainConfig]:
    """The pretraining of a point: its recipe with its settings, its seed, and the pool without what is left out.

    Raises BadInput for a recipe or a setting that is none, and for a benchmark without a place in the pool.
    """
    entry = point.entry
    chosen = [f"{key}={json.dumps(value)}" for key, value in point.combination]
    settings = [*config.pretraining, *entry.settings, *chosen, f"seed={point.seed}"]
    if entry.leave_out:
        settings.append(f"pool={pool_without(config, point.left_out, benchmarks)}")
    stages = stages_from_recipe(PRETRAINING, entry.recipe, settings)
    stages = [with_data(stage) if stage.index or stage.pool else stage for stage in stages]  # tasks run elsewhere
    if point.held_back:
        one = next(one for one in benchmarks if one.name == point.held_back)
        benchmark = one.folds[point.fold] if point.fold >= 0 else one.benchmark
        root = runs_root() / "indexes"
        stages = [replace(stage, index=without_test_slides(stage.index, benchmark, root)) for stage in stages]
    return [with_absolute_starts(stage) for stage in stages]


def with_absolute_starts(stage: PretrainConfig) -> PretrainConfig:
    """Places that mean the same in every process: of the weights to start from, and of the monitor."""
    stage = with_absolute_monitor(stage)
    is_place = stage.init not in (RANDOM, IMAGENET, PREVIOUS) and Path(stage.init).exists()
    return replace(stage, init=str(Path(stage.init).absolute())) if is_place else stage


def pool_without(config: StudyConfig, left_out: tuple[str, ...], benchmarks: list[Loaded]) -> str:
    """The pool of a leave-one-task-out training."""
    homeless = [one.name for one in benchmarks if not one.pool and one.name not in left_out]
    if homeless:
        raise BadInput(
            f"{', '.join(homeless)}: leave_out trains on the other benchmarks, so each needs its pool=PLACE?label=... (see"
            " raypath/data/pool_spec.py), or list it under none"
        )
    sets = [one.pool for one in benchmarks if one.name not in left_out]
    return ",".join([*sets, *config.leave_out.also])


def architecture_of(config: StudyConfig) -> EncoderSettings | None:
    """The architecture of the first encoder that has one: what bare `random` is like, and whose extent all are fed at."""
    for entry in config.encoders:
        if entry.recipe:
            return stages_from_recipe(PRETRAINING, entry.recipe, [*config.pretraining, *entry.settings])[-1].encoder
        if entry.source not in (*WITHOUT_WEIGHTS, RANDOM, RANDOM_BN):
            return getattr(open_encoder(absolute_source(entry.source), seed=config.seed), "settings", None)
    return None


def num_of_grid(config: StudyConfig, benchmarks: list[Loaded]) -> int:
    """Pretrainings that a grid asks for beyond those that are reported."""
    num = len(grid_of(config)) - 1 if config.leave_out.grid else 0
    sets = set(left_out_sets(config, benchmarks).values())
    return sum(num * len(sets) * entry.num_seeds for entry in config.encoders if entry.leave_out)


def say_plan(
    config: StudyConfig, benchmarks: list[Loaded], num_pretrainings: int, num_cells: int, num_by_fold: int
) -> None:
    """What is about to be done, for people."""
    say(
        f"{config.name}: {len(config.encoders)} encoders x {len(benchmarks)} benchmarks x {len(config.protocols)} protocols x"
        f" {len(config.fractions)} shares of labels: {num_pretrainings} pretrainings, {num_cells} cells"
    )
    if num_by_fold:
        say(
            f"  {num_by_fold} of them are of single folds, without the slides that the fold tests; an encoder that is"
            " transductive=true has one for all"
        )
    for one in benchmarks:
        num_patients = len(set(one.benchmark.table["patient"].to_pylist()) - {None})
        unit = f"{num_patients} patients" if num_patients else "no patients: image-level"
        say(f"  {one.name}: {len(one.benchmark.table):,} samples, {unit}, {one.benchmark.primary}")
