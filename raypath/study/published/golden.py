"""Reading the published numbers of the second paper from their CSV files, which are not part of the project.

The files (RECIPES 2.1, 2.5): `mtask_results.csv`, one line for each network and task; `breakhis.csv`, one line for each transfer,
network and source, with the four magnifications in columns; `mtask_pool.csv`, one line for each of the 22 tasks.

One decision: an empty cell is no result, and a file that is not as expected is refused with its line. Of the number of repeats
the files say nothing: five seeds and five folds are the paper's (RECIPES 2.4).
"""

from pathlib import Path

from raypath.data.csv_files import csv_table
from raypath.errors import BadInput
from raypath.study.published.pool import PoolLine
from raypath.study.published.results import Result, number

NUM_SEEDS = 5
NUM_FOLDS = 5
_METHODS = {  # of ours: the columns of its mean and sigma
    "scratch": ("scratch_mean", "scratch_std"),
    "fe_imagenet": ("fe_imagenet", None),  # the same features each time: one run and no sigma
    "fe_multitask": ("fe_mtask_mean", "fe_mtask_std"),
    "ft_imagenet": ("ft_imagenet_mean", "ft_imagenet_std"),
    "ft_multitask": ("ft_mtask_mean", "ft_mtask_std"),
    "joint": ("joint_mean", "joint_std"),
}
MAGNIFICATIONS = ("40x", "100x", "200x", "400x")


def read_mtask_results(path: Path) -> list[Result]:
    """The two tables of the paper: up to six results for each line."""
    names = [name for pair in _METHODS.values() for name in pair if name]
    results = []
    for line, cells in csv_table(path, ("network", "task", "metric", "train_plus_val", *names)):
        for method, (mean, sigma) in _METHODS.items():
            if not cells[mean]:
                continue
            results.append(
                Result(
                    task=cells["task"],
                    network=cells["network"],
                    method=method,
                    metric=cells["metric"],
                    num_images=number(path, line, cells, "train_plus_val", int),
                    mean=number(path, line, cells, mean, float),
                    sigma=number(path, line, cells, sigma, float) if sigma else None,
                    num_repeats=NUM_SEEDS if sigma else 1,
                )
            )
    return results


def read_breakhis(path: Path) -> list[Result]:
    """The BreakHis table: tasks are magnifications, methods are `fe_SOURCE` and `ft_SOURCE`; accuracy by patient."""
    columns = [(task, f"x{task[:-1]}_mean", f"x{task[:-1]}_std") for task in MAGNIFICATIONS]
    names = [name for _, *pair in columns for name in pair]
    return [
        Result(
            task=task,
            network=cells["network"],
            method=f"{cells['transfer'].lower()}_{cells['source']}",
            metric="acc",
            mean=number(path, line, cells, mean, float),
            sigma=number(path, line, cells, sigma, float),
            num_repeats=NUM_FOLDS,
        )
        for line, cells in csv_table(path, ("transfer", "network", "source", *names))
        for task, mean, sigma in columns
        if cells[mean]
    ]


def read_pool(path: Path) -> list[PoolLine]:
    """The 22 tasks with their images and groups; raises BadInput where a total is not the sum of its splits."""
    splits, kinds = ("train", "val", "test"), ("img", "ps")
    names = [f"{split}_{kind}" for split in (*splits, "total") for kind in kinds]
    lines = []
    for number_of_line, cells in csv_table(path, ("name", "type", "classes", *names, "split_by")):
        counts = {name: number(path, number_of_line, cells, name, int, is_needed=True) for name in names}
        for kind in kinds:
            if sum(counts[f"{split}_{kind}"] for split in splits) != counts[f"total_{kind}"]:
                raise BadInput(f"{path}: line {number_of_line}: total_{kind}={counts[f'total_{kind}']} is not the sum")
        lines.append(
            PoolLine(
                name=cells["name"],
                origin=cells["type"],
                num_classes=number(path, number_of_line, cells, "classes", int, is_needed=True),
                splits={split: (counts[f"{split}_img"], counts[f"{split}_ps"]) for split in splits},
                split_by=cells["split_by"],
            )
        )
    return lines
