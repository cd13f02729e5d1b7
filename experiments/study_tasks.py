"""The pieces of a study as tasks of the cluster: a pretraining, a transfer score, an encoder on a benchmark.

One decision: a task holds no processor of its own, because what it starts (workers, trials, reading) asks for its own, and a task
that held one while its parts wait would stop a small machine. What it says goes to a file of the study, and an error comes back as
one line.
"""

import os
import traceback
from dataclasses import asdict
from pathlib import Path
from typing import Any

import launch
import ray
from study_mlflow import log_cells
from study_pair import Pair, score_pair
from study_pretraining import checkpoints_of, cost_of, pretrained

from raypath.errors import BadInput
from raypath.training.settings import PretrainConfig


def submit(work, arguments: tuple, log: Path, root: Path) -> ray.ObjectRef:
    """Start work somewhere in the cluster."""
    task = ray.remote(num_cpus=0, max_retries=0, scheduling_strategy="SPREAD")(_in_task)
    return task.remote(work, arguments, log, str(root))


def _in_task(work, arguments: tuple, log: Path, root: str) -> Any:
    os.environ["RAYPATH_RUNS"] = root
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a", encoding="utf-8") as file:
        launch.console.file = file
        try:
            return work(*arguments)
        except Exception as error:
            file.write(traceback.format_exc())
            return (
                f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else 'no message'}"
            )


def pretrain_task(stages: list[PretrainConfig], points: int, study: str, parent: str) -> dict[str, Any]:
    """The folder of the finished run, and what it took."""
    run = pretrained(stages, points=points, study=study, parent=parent)
    return {"run": str(run.path), "cost": asdict(cost_of(run, checkpoints_of(run, 0)[-1]))}


def score_task(pair: Pair, reference: list[ray.ObjectRef]) -> dict[str, Any]:
    """Why cells failed, if any did, and what was found of contamination."""
    found = score_pair(pair, ray.get(reference[0]))
    try:
        log_cells(pair.tracked, pair.cells)
    except BadInput as error:  # MLflow does not answer: what is scored is scored
        launch.say(str(error))
    return found
