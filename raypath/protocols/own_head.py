"""An encoder's own head: what a multi-task training says of a task that it was trained on.

One decision: nothing is fitted. The head is read from the checkpoint that the encoder lies in, the task is found by its name in the
pool of that run, and its classes are matched by name, so that neither order nor a renumbered class can mix them up. This is the
second paper's "joint" (RECIPES 2.4): the model of all tasks, asked about the test of one of them. Weights that were exported, or
kept as a run's best, have left their heads behind.

What it costs: the sha256 of the checkpoint's files and the rows of the pool (no image).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from safetensors import safe_open
from scipy.special import softmax

from raypath.data.pool import Task, open_pool
from raypath.errors import BadInput
from raypath.protocols.encoders import encoder_file
from raypath.training.checkpoint import ENCODER, MANIFEST, STATE, verify


@dataclass(frozen=True, kw_only=True)
class HeadSettings:
    """Which head."""

    kind: Literal["head"] = "head"
    task: str = ""
    """The task's name in the pool of the run; a study knows it from the benchmark's `pool`."""


@dataclass(frozen=True, eq=False)
class OwnHead:
    """The linear layer of a task, its classes in the order of the benchmark: `weight` float32 [K, D], `bias` [K]."""

    weight: np.ndarray
    bias: np.ndarray

    def probability(self, values: np.ndarray) -> np.ndarray:
        """float32 [N, K] of features [N, D]."""
        return softmax(values @ self.weight.T + self.bias, axis=1).astype(np.float32)


def own_head(source: str, task: str, classes: tuple[str, ...]) -> OwnHead:
    """The head of a task beside the encoder that `source` names (see `encoders`).

    Raises BadInput for weights without heads, for a run without such a task, and for a task of other classes; CheckpointInvalid
    for a broken file.
    """
    checkpoint = _checkpoint_of(source)
    number, own = _task_of(source, verify(checkpoint), task)
    if set(own.classes) != set(classes):
        raise BadInput(
            f"encoder={source}: its task {task} has the classes {', '.join(own.classes)}, the benchmark {', '.join(classes)};"
            " expected the same"
        )
    order = [own.classes.index(name) for name in classes]
    with safe_open(checkpoint / STATE, "np") as state:
        weight, bias = (state.get_tensor(f"objective.heads.{number}.{part}") for part in ("weight", "bias"))
    return OwnHead(weight[order], bias[order])


def _checkpoint_of(source: str) -> Path:
    path = encoder_file(source)
    if path.name != ENCODER or not (path.parent / MANIFEST).is_file():
        raise BadInput(
            f"encoder={source}: there is no checkpoint about it, so no head of its own; expected runs/ID of a multi-task training"
        )
    return path.parent


def _task_of(source: str, about: dict[str, Any], name: str) -> tuple[int, Task]:
    """(number, task) of a name among those that a checkpoint was trained on."""
    config = about["config"]
    if config["objective"]["kind"] != "multitask":
        raise BadInput(f"encoder={source}: trained by {config['objective']['kind']}; heads of tasks are multitask's")
    tasks = open_pool(config["pool"], tuple(config["splits"]), about["index_hash"]).tasks
    names = [task.name for task in tasks]
    if name not in names:
        raise BadInput(f"encoder={source}: no task {name!r}; set protocol.task to one of {', '.join(names)}")
    return names.index(name), tasks[names.index(name)]
