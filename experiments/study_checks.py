"""Everything about a study's pretrainings that can be wrong, found before one of them takes its hours.

One decision: what a pretraining itself checks when it starts is asked here of every combination of a grid and of every stage;
of the folds of a benchmark the first stands for all.
"""

from dataclasses import replace

from pretrain import has_data
from study_benchmarks import Loaded
from study_plan import Point, grid_of, points_of, stages_of
from study_weights import Weights

from raypath.protocols.encoders import RANDOM, RANDOM_BN, weights_id
from raypath.protocols.monitor import check_monitor
from raypath.study.settings import StudyConfig
from raypath.training.settings import check_settings


def check_encoders(config: StudyConfig, benchmarks: list[Loaded], weights: Weights) -> None:
    """Raises BadInput for weights that are not there, and for a pretraining that cannot work."""
    points = points_of(config, benchmarks, {})
    for point in {point.name: point for own in points.values() for point in own}.values():
        if point.entry.recipe:
            _check_pretraining(config, benchmarks, point)
        elif (source := weights.source_of(point)).partition(":")[0] not in (RANDOM, RANDOM_BN):
            weights_id(source, seed=point.seed)


def _check_pretraining(config: StudyConfig, benchmarks: list[Loaded], point: Point) -> None:
    combinations = grid_of(config) if point.entry.leave_out else [()]
    for combination in combinations:
        stages = stages_of(config, replace(point.trainings[0], combination=combination), benchmarks)
        has_data(stages[0])
        for stage in stages:
            check_settings(stage)
            check_monitor(stage.monitor)
