"""Leave one task out: which tasks a pretraining must not see, and which combination is chosen for each.

The second paper's protocol (Mormont et al. 2020, arXiv 2005.02561; RECIPES 2.4). A multi-task encoder that is scored on a task has
not been trained on it, nor on its relatives: tasks are left out in sets (`left_out_sets`), and each training serves every task
of its set. Every combination of hyper-parameters gets a transfer score on every left-out task, measured on its val; scores of
different tasks cannot be averaged, so their ranks are (`transfer_ranks`).

One decision: for a task k the combination is chosen without k (`select`), else the choice would know what it is judged by. The
paper does so in place of a second, inner loop, at a tenth of the trainings. Ranks are taken among the combinations of one
network, because the choice is one for each network [inferred: the paper's settings and results are]; ranked together, the other
network would have a say. Ties, of which the paper says nothing: equal scores share their average rank, and of equal average ranks
the higher mean score wins, then the name that is first in the alphabet.

A NaN is an error by name: a rank among those that happen to be there is a rank of something else. What it costs: a table in
memory.

Legend: K combinations, T tasks.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import fsum
from typing import NamedTuple

import numpy as np
from scipy.stats import rankdata

from raypath.errors import BadInput
from raypath.study.tables import Table

PAPER_TOGETHER = (("Breast1", "Breast2"), ("CellInclusion", "ProliferativePattern"))
"""Tasks cut from the same slides: waliens/phd-thesis@116c04ba, chapter 5, on leave-one-task-out."""
PAPER_EVALUATED = (
    "BoneMarrow",
    "MouseLba",
    "HumanLba",
    "Lung",
    "Necrosis",
    "ProliferativePattern",
    "CellInclusion",
    "Glomeruli",
    "Breast2",
    "Breast1",
)
"""The ten tasks that the paper left out, in the order of its tables (its table of evaluation tasks)."""
_MAX_LISTED = 10


def left_out_sets(
    tasks: Sequence[str], together: Sequence[Sequence[str]] = (), *, evaluated: Sequence[str] | None = None
) -> tuple[tuple[str, ...], ...]:
    """The sets of tasks to leave out of a pool, in the order of the pool; tasks of one group of `together` are left out as one.

    `evaluated` keeps the sets that hold one of these tasks (None: all sets); a relative that is not evaluated is left out with
    it all the same. Raises BadInput for a task named twice, in two groups or not in the pool, and for a set that is the whole
    pool, which leaves nothing to train on.
    """
    _check_once(tasks, "the pool")
    grouped = [task for group in together for task in group]
    _check_once(grouped, "the groups kept together")
    wanted = set(tasks if evaluated is None else evaluated)
    unknown = sorted({*grouped, *wanted} - set(tasks))
    if unknown:
        raise BadInput(f"{', '.join(unknown)}: no task of the pool; expected some of {', '.join(tasks)}")
    group_of = {task: set(group) for group in together for task in group}
    sets = dict.fromkeys(tuple(t for t in tasks if t in group_of.get(task, {task})) for task in tasks)
    kept = tuple(one for one in sets if wanted & set(one))
    for one in kept:
        if len(one) == len(tasks):
            raise BadInput(
                f"{', '.join(one)}: leaving these out leaves no task to train on; the pool needs another task"
            )
    return kept


class Training(NamedTuple):
    """One pretraining of a plan."""

    left_out: tuple[str, ...]
    combination: str
    seed: int


@dataclass(frozen=True, kw_only=True)
class LeaveOutPlan:
    """Every pretraining that leave-one-task-out asks for: left-out sets x combinations x seeds."""

    tasks: tuple[str, ...]
    """All of the pool."""
    left_out: tuple[tuple[str, ...], ...]
    """Of `left_out_sets`."""
    combinations: tuple[str, ...]
    """Names of hyper-parameters, networks among them."""
    num_seeds: int

    @property
    def num_trainings(self) -> int:
        """Left-out sets x combinations x seeds."""
        return len(self.left_out) * len(self.combinations) * self.num_seeds

    def trainings(self) -> Iterator[Training]:
        """All of them, set by set; seeds from 0."""
        for one in self.left_out:
            for combination in self.combinations:
                yield from (Training(one, combination, seed) for seed in range(self.num_seeds))

    def set_of(self, task: str) -> tuple[str, ...]:
        """The left-out set of an evaluated task; raises BadInput for a task that is never left out."""
        found = [one for one in self.left_out if task in one]
        if not found:
            there = ", ".join(name for one in self.left_out for name in one)
            raise BadInput(f"{task}: never left out, so no encoder may be scored on it; left out are {there}")
        return found[0]

    def pool_of(self, left_out: Sequence[str]) -> tuple[str, ...]:
        """The tasks that are trained on while these are left out."""
        return tuple(task for task in self.tasks if task not in left_out)

    def table(self) -> Table:
        """A line for each left-out set: the tasks in its pool, and how many trainings it takes."""
        each = len(self.combinations) * self.num_seeds
        rows = [(", ".join(one), len(self.pool_of(one)), ", ".join(self.pool_of(one)), each) for one in self.left_out]
        return Table(
            columns=("left out", "num tasks in the pool", "pool", "trainings"),
            rows=(*rows, ("all sets", None, None, self.num_trainings)),
            missing="differs by set",
            footnotes=(
                f"{len(self.left_out)} sets x {len(self.combinations)} combinations x {self.num_seeds} seeds"
                f" = {self.num_trainings:,} trainings",
            ),
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class TransferScores:
    """The transfer score of every combination on every left-out task, as the mean over seeds; more is better.

    Raises ValueError for a shape that does not fit, and BadInput that names them where scores are missing (NaN) or infinite.
    """

    combinations: tuple[str, ...]
    networks: tuple[str, ...]
    """Of each combination."""
    tasks: tuple[str, ...]
    values: np.ndarray
    """float [K, T]; any unit, the same within a task."""

    def __post_init__(self):
        shape = (len(self.combinations), len(self.tasks))
        if self.values.shape != shape or len(self.networks) != shape[0]:
            raise ValueError(f"values {self.values.shape} and {len(self.networks)} networks do not fit {shape}")
        absent = np.argwhere(~np.isfinite(self.values))
        if len(absent):
            listed = "; ".join(f"{self.combinations[k]} on {self.tasks[t]}" for k, t in absent[:_MAX_LISTED])
            more = f" and {len(absent) - _MAX_LISTED} more" if len(absent) > _MAX_LISTED else ""
            raise BadInput(f"no transfer score of {listed}{more}; ranks need every combination on every task: run them")

    def of_network(self, network: str) -> "TransferScores":
        """The rows of one network; raises BadInput for a network without any."""
        rows = [number for number, own in enumerate(self.networks) if own == network]
        if not rows:
            raise BadInput(
                f"{network}: no combination has this network; expected one of {', '.join(sorted(set(self.networks)))}"
            )
        return TransferScores(
            combinations=tuple(self.combinations[row] for row in rows),
            networks=(network,) * len(rows),
            tasks=self.tasks,
            values=self.values[rows],
        )


def transfer_ranks(values: np.ndarray) -> np.ndarray:
    """Ranks float64 [K, T] within each task: 1 is the best, equal scores share the average of their ranks."""
    return rankdata(-np.asarray(values, dtype=np.float64), method="average", axis=0)


def average_ranks(scores: TransferScores, *, excluding: Sequence[str] = ()) -> np.ndarray:
    """The mean rank float64 [K] over all tasks but these; raises BadInput for an unknown task and where no task is left."""
    return transfer_ranks(scores.values)[:, _places(scores, excluding)].mean(axis=1)


def select(scores: TransferScores, *, reported_task: str, network: str, also_excluding: Sequence[str] = ()) -> str:
    """The combination of `network` with the best average rank over all tasks but `reported_task` (see above for ties).

    `also_excluding`: relatives of the reported task. The paper excludes the task alone, so that the val images of a relative,
    which may be the same slides, have a say in the choice (never those of test).
    """
    own = scores.of_network(network)
    excluding = (reported_task, *also_excluding)
    ranks, places = average_ranks(own, excluding=excluding), _places(own, excluding)
    totals = [fsum(row) for row in own.values[:, places]]
    order = sorted(range(len(ranks)), key=lambda k: (ranks[k], -totals[k], own.combinations[k]))
    return own.combinations[order[0]]


def _places(scores: TransferScores, excluding: Sequence[str]) -> list[int]:
    """The columns of all tasks but these."""
    unknown = sorted(set(excluding) - set(scores.tasks))
    if unknown:
        raise BadInput(f"{', '.join(unknown)}: has no transfer scores; expected one of {', '.join(scores.tasks)}")
    places = [place for place, task in enumerate(scores.tasks) if task not in excluding]
    if not places:
        raise BadInput(
            f"no task is left without {', '.join(excluding)}: a choice needs transfer scores on another task"
        )
    return places


def _check_once(names: Sequence[str], where: str) -> None:
    twice = sorted({name for name in names if list(names).count(name) > 1})
    if twice:
        raise BadInput(f"{', '.join(twice)}: named twice in {where}; expected each task once")
