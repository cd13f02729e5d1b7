"""One trial: the protocol trained with drawn settings, every look at val reported, the best weights kept.

One decision: a trial keeps its own best look in a folder, and tells Tune numbers alone. So it is the same trial whether it runs in
Tune's own worker or on several workers of Ray Train, which have no Tune checkpoints; and a killed driver loses nothing.

    FOLDER/kept/TRIAL/look-0007/   trial.json, val.parquet, model.safetensors; the only look, or that of a trial cut off meanwhile

What it costs: on several workers some 15 s to start them and a copy of the samples in the object store, for every trial.
"""

import json
import shutil
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from ray import tune
from ray.tune.integration.ray_train import TuneReportCallback
from safetensors.torch import save_file

from raypath.config import from_dict, override
from raypath.protocols.looks import Look
from raypath.protocols.trained import Parts, train_weights
from raypath.protocols.transfer import TransferConfig
from raypath.protocols.workers import Worker, train_on_workers
from raypath.sweep.freed_workers import PLACEMENT_GROUP

SELECTION = "selection"  # what Tune maximises: the metric on val, the loss deciding among equals
WORST = -1.0  # below every score: what Tune is told of a trial that failed
FAILURE = "failure"  # why it failed
KEPT, WEIGHTS, TRIAL, VAL = "kept", "model.safetensors", "trial.json", "val.parquet"


@dataclass(frozen=True, eq=False)
class Task:
    """What all trials of a sweep share."""

    config: dict[str, Any]
    train: Parts
    val: Parts
    metric: str
    folder: Path
    """Of the sweep; on storage that every node sees."""


def run_trial(params: dict[str, Any], *, task: Task) -> None:
    """Train with `params` and report; runs in a worker of Tune.

    What it raises it would raise again, so that is reported and not tried again. A lost worker of Tune is Tune's to replace; one of
    several that share a trial fails it.
    """
    settings, trial = from_dict(TransferConfig, task.config).sweep, tune.get_context().get_trial_id()
    try:
        if settings.workers_per_trial == 1:
            device = torch.device("cuda" if settings.gpus_per_trial else "cpu")
            alone = Worker(device, max(1, int(settings.cpus_per_trial)), is_first=True, report=tune.report)
            _train((params, task, trial), alone)
            return
        train_on_workers(
            _train,
            (params, task, trial),
            num_workers=settings.workers_per_trial,
            num_cpus=settings.cpus_per_trial,
            has_gpus=settings.gpus_per_trial > 0,
            name=trial,
            folder=task.folder / "train",
            callbacks=[TuneReportCallback()],
        )
    except Exception as error:
        reason = f"{type(error).__name__}: {error}" if settings.workers_per_trial == 1 else _reason(error)
        tune.report({"look": 0, SELECTION: WORST, FAILURE: reason, "traceback": traceback.format_exc()})


def _train(own: tuple[dict[str, Any], Task, str], worker: Worker) -> None:
    params, task, trial = own
    config = override(from_dict(TransferConfig, task.config), params)
    torch.set_num_threads(worker.num_threads)
    protocol = config.protocol

    def report(look: Look) -> None:
        score = selection(look.metrics[f"val_{task.metric}"], look.metrics["val_loss"])
        is_kept = look.is_best if protocol.keep == "best" else look.number == protocol.num_looks
        if is_kept and worker.is_first:
            place = protocol.place_of(look.number)
            keep(task.folder / KEPT / trial, {"trial": trial, "params": params, "place": place, SELECTION: score}, look)
        group = {PLACEMENT_GROUP: worker.placement_group} if worker.placement_group else {}
        worker.report({**look.metrics, "look": look.number, SELECTION: score, **group})

    train_weights(config, task.train, task.val, metric=task.metric, device=worker.device, report=report)


def selection(score: float, loss: float) -> float:
    """The score, and below its sixth digit the loss (smaller is better), so that equal scores are no coin toss."""
    return round(score, 6) - 1e-7 * min(loss, 5.0)


def keep(folder: Path, about: dict[str, Any], look: Look) -> None:
    """Put a look down whole before the one of before is taken away."""
    place = folder / f"look-{look.number:04}"
    draft = folder / "draft"
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    save_file({name: t.detach().cpu().contiguous() for name, t in look.model.state_dict().items()}, draft / WEIGHTS)
    look.val.save(draft / VAL)
    (draft / TRIAL).write_text(json.dumps(about))
    shutil.rmtree(place, ignore_errors=True)  # of a trial that began again
    draft.rename(place)
    for older in folder.glob("look-*"):
        if older != place:
            shutil.rmtree(older)


def kept(folder: Path) -> list[tuple[dict[str, Any], Path]]:
    """(about, place) of what a trial has kept: nothing, or a look."""
    places = sorted(folder.glob("look-*"))[-1:]
    return [(json.loads((place / TRIAL).read_text()), place) for place in places]


def _reason(error: Exception) -> str:
    """What the first worker that failed said, in a line."""
    failures = getattr(error, "worker_failures", None) or {}
    first = failures[min(failures)] if failures else error
    lines = str(first).strip().splitlines()
    return lines[-1] if lines else type(first).__name__
