"""A training on several workers of Ray Train, whatever it trains.

One decision: it does not begin again. A lost worker ends the training with an error, and whoever asked for it decides; what is
worth keeping is written by the first worker, so Ray Train has no checkpoints of its own.

What it costs: some 15 s until the workers talk to each other.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
import ray.train
import torch
from ray.train.torch import TorchTrainer, get_device


@dataclass(frozen=True)
class Worker:
    """What one worker is given."""

    device: torch.device
    num_threads: int
    is_first: bool
    report: Callable[[dict[str, Any]], None]
    """Called by all workers equally often; what the first one says reaches the callbacks."""
    placement_group: str = ""
    """Hexadecimal id of the resources that the workers hold together; empty: none of their own."""


def train_on_workers(
    train: Callable[[Any, Worker], None],
    task: Any,
    *,
    num_workers: int,
    num_cpus: float,
    has_gpus: bool,
    name: str,
    folder: Path,
    callbacks: Sequence[ray.train.UserCallback] = (),
) -> None:
    """Call `train(task, worker)` on each of `num_workers`, which share `num_cpus` and have a GPU each if `has_gpus`; wait for them.

    `task` goes through the object store once. Raises ray.train.TrainingFailedError where a worker raises or is lost.
    """
    cpus = num_cpus / num_workers
    resources = {"CPU": cpus} | ({"GPU": 1} if has_gpus else {})
    TorchTrainer(
        _work,
        train_loop_config={"train": train, "task": ray.put(task), "num_threads": max(1, int(cpus))},
        scaling_config=ray.train.ScalingConfig(
            num_workers=num_workers, use_gpu=has_gpus, resources_per_worker=resources
        ),
        run_config=ray.train.RunConfig(
            name=name,
            storage_path=str(folder),
            failure_config=ray.train.FailureConfig(max_failures=0),
            callbacks=list(callbacks),
        ),
    ).fit()


def _work(own: dict[str, Any]) -> None:
    own["train"](
        ray.get(own["task"]),
        Worker(
            device=get_device(),
            num_threads=own["num_threads"],
            is_first=ray.train.get_context().get_world_rank() == 0,
            report=ray.train.report,
            placement_group=ray.util.get_current_placement_group().id.hex(),
        ),
    )
