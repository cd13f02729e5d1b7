"""The rows that tables and figures are made of, whoever measured them.

One decision: a row is neutral. A published number and a run of ours are the same `Result`, so one function draws both, and what is
not there has no row: it is looked up, not found, and shown as missing. Scores are in percent. What it costs: nothing.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from raypath.data.csv_files import csv_table
from raypath.errors import BadInput

METHODS = {
    "scratch": "from scratch",
    "fe_imagenet": "FE, ImageNet",
    "fe_multitask": "FE, multi-task",
    "ft_imagenet": "FT, ImageNet",
    "ft_multitask": "FT, multi-task",
    "joint": "joint",
}
"""The methods of the second paper: FE features of the frozen network with an SVM, FT fine-tuning of all of it."""
NETWORKS = {"densenet121": "DenseNet-121", "resnet50": "ResNet-50", "decaf": "DeCAF", "vgg-vd": "VGG-VD"}
METRICS = {"acc": "accuracy", "auc": "area under the ROC curve"}


@dataclass(frozen=True, kw_only=True)
class Result:
    """The score of a method with a network on a task."""

    task: str
    network: str
    method: str
    """One of METHODS, or another name."""
    mean: float
    """Percent, over the repeats."""
    sigma: float | None
    """Standard deviation over the repeats, in points; None: not known, or a single run."""
    num_repeats: int
    """Seeds, or folds where the split is repeated (BreakHis)."""
    metric: str = ""
    """acc, auc, or "" where nobody says."""
    num_images: int | None = None
    """That the method could learn from: train and val."""

    def __post_init__(self):
        if not np.isfinite(self.mean) or (self.sigma is not None and not self.sigma >= 0):
            where = f"{self.task}, {self.network}, {self.method}"
            raise BadInput(f"{where}: mean={self.mean}, sigma={self.sigma}; expected numbers, or no row where unknown")


@dataclass(frozen=True, kw_only=True)
class Trial:
    """The transfer score of one pretraining of the grid on a left-out task (of its val, RECIPES 2.4)."""

    network: str
    task: str
    rate: str
    """Learning rate, as written."""
    tau: str
    """How many times that the heads learn, as written."""
    is_warm: bool
    seed: int
    score: float
    """Percent."""


Place = tuple[str, str, str]
"""Task, network, method."""


def by_place(results: Iterable[Result]) -> dict[Place, Result]:
    """Results by task, network and method; raises BadInput for two of one place."""
    found: dict[Place, Result] = {}
    for result in results:
        place = (result.task, result.network, result.method)
        if found.setdefault(place, result) is not result:
            raise BadInput(f"{', '.join(place)}: two results; expected one")
    return found


def summarised(scores: Sequence[float], **place) -> Result:
    """The result of repeated scores (percent); sigma is the sample standard deviation, n - 1 below (the paper does not say)."""
    values = np.asarray(scores, dtype=np.float64)
    if not len(values):
        raise BadInput(f"{', '.join(map(str, place.values()))}: no scores; where nothing was run there is no result")
    sigma = float(values.std(ddof=1)) if len(values) > 1 else None
    return Result(mean=float(values.mean()), sigma=sigma, num_repeats=len(values), **place)


def tasks_of(results: Iterable[Result]) -> tuple[str, ...]:
    """The tasks in the order in which they first come."""
    return tuple(dict.fromkeys(result.task for result in results))


def read_results(path: Path) -> list[Result]:
    """Results from a CSV with the columns task, network, method, metric, num_images, mean, sigma, num_repeats.

    A line without a mean is a method that was not run: it gives no result. Raises BadInput with file and line.
    """
    columns = ("task", "network", "method", "metric", "num_images", "mean", "sigma", "num_repeats")
    return [
        Result(
            **{name: cells[name] for name in ("task", "network", "method", "metric")},
            num_images=number(path, line, cells, "num_images", int),
            mean=number(path, line, cells, "mean", float),
            sigma=number(path, line, cells, "sigma", float),
            num_repeats=number(path, line, cells, "num_repeats", int, is_needed=True),
        )
        for line, cells in csv_table(path, columns)
        if cells["mean"]
    ]


def read_trials(path: Path) -> list[Trial]:
    """Trials from a CSV with the columns network, task, rate, tau, is_warm (true, false), seed, score.

    A line without a score is a training that was not run. Raises BadInput with file and line.
    """
    trials = []
    for line, cells in csv_table(path, ("network", "task", "rate", "tau", "is_warm", "seed", "score")):
        if not cells["score"]:
            continue
        if cells["is_warm"].lower() not in ("true", "false"):
            raise BadInput(f"{path}: line {line}: is_warm={cells['is_warm']!r}; expected true or false")
        texts = {name: cells[name] for name in ("network", "task", "rate", "tau")}
        seed = number(path, line, cells, "seed", int, is_needed=True)
        score = number(path, line, cells, "score", float)
        trials.append(Trial(**texts, is_warm=cells["is_warm"].lower() == "true", seed=seed, score=score))
    return trials


def number(path: Path, line: int, cells: Mapping[str, str], name: str, kind: type, *, is_needed: bool = False):
    """A cell as int or float, None for an empty one that is not needed; raises BadInput with file, line and column."""
    text = cells[name]
    if not text and not is_needed:
        return None
    try:
        value = kind(text)
    except ValueError:
        value = np.nan
    if not np.isfinite(value):
        raise BadInput(f"{path}: line {line}: {name}={text!r}; expected a number")
    return value
