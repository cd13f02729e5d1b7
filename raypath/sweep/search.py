"""Sweeps: Ray Tune searches the settings of one protocol for one encoder on one benchmark.

One decision: a trial is a plain function of a config and of samples that lie once in the object store, so eight trials on two
cores cost eight trainings and nothing else. Selection sees val only: the winner is the best look of the best trial by the
benchmark's primary metric (least loss among equals), and its weights are kept, so that the test can be opened for it once, by
the caller. A trial that failed does not win, however good it was before.

A sweep lives in its folder and goes on from there after a crash (`resume=True`): finished trials are not run again, but for one
that ended in the last second.
"""

import contextlib
import gc
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import ray
import torch
from ray import tune
from safetensors.torch import load_file

from raypath.benchmarks import PixelPredictions, Predictions
from raypath.config import override, to_dict
from raypath.errors import Preempted, RaypathError
from raypath.protocols import SegmentSettings
from raypath.protocols.trained import Parts, Said, said_of, untrained
from raypath.protocols.transfer import TransferConfig
from raypath.sweep.freed_workers import FreedWorkers
from raypath.sweep.space import check_sweep, concurrency, num_trials, param_space, scheduler_of, search_of
from raypath.sweep.trial import FAILURE, KEPT, SELECTION, VAL, WEIGHTS, Task, kept, run_trial

os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")  # Tune's banners: trials are shown by whoever waits for them
# Seconds between two states of a sweep on disk. Tune's own are 10 or more, and a trial that ended meanwhile would be run again
# after a crash; at 0 they take a sixth of the driver's time (16 trials of 4 s), at 1 hardly any
os.environ.setdefault("TUNE_GLOBAL_CHECKPOINT_S", "1")
# Of a trial that waits for its workers, which have the CPUs: a little of anything else, as Tune takes no trial without resources
_WAITING = {"memory": 2**20}
optuna.logging.set_verbosity(optuna.logging.WARNING)


@dataclass(frozen=True, eq=False)
class Winner:
    """The best look of the best trial; `params` are what was searched."""

    trial_id: str
    params: dict[str, Any]
    place: str
    """Where in its training: "epoch 7 of 20"."""
    val: Said
    folder: Path
    num_trials: int
    num_failed: int
    hours: float
    """Of all trials, added up, as Tune has kept them; those before a crash too."""

    def predict(self, config: TransferConfig, samples: Parts, device: torch.device) -> Said:
        """What the winner's weights say of samples; `config` is the one that was swept."""
        own = override(config, self.params)
        model = untrained(own, len(samples.classes))
        model.load_state_dict(load_file(self.folder / WEIGHTS))
        return said_of(model.to(device), own, samples, device)


def sweep(
    config: TransferConfig,
    train: Parts,
    val: Parts,
    *,
    metric: str,
    folder: Path,
    callbacks: list[tune.Callback] | None = None,
    resume: bool = False,
) -> Winner:
    """Run (or go on with) the sweep of `config` in `folder`; returns the winner on val.

    Ray must be initialised. Raises BadInput for a space that names no setting, Preempted if it was interrupted (Ctrl-C), and
    RaypathError if no trial came to an end.
    """
    check_sweep(config)
    tuner = _tuner(config, Task(to_dict(config), train, val, metric, folder.absolute()), callbacks, resume=resume)
    os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"  # else Ctrl-C gives the trials so far, as if the sweep were over
    results = None
    with contextlib.suppress(KeyboardInterrupt):
        results = tuner.fit()
    if results is None:
        gc.collect()  # the actors of cut-off trials end with the last reference to them, and give back their CPUs
        raise Preempted(f"{folder}: interrupted; what is finished is kept: go on with resume=runs/ID")
    num_wanted = num_trials(config.sweep)
    if len(results) < num_wanted:  # never choose among fewer than were asked for
        raise RaypathError(
            f"{folder}: Tune ended after {len(results)} of {num_wanted} trials; go on with resume=runs/ID"
        )
    return _winner(results, folder, PixelPredictions if isinstance(config.protocol, SegmentSettings) else Predictions)


def _tuner(config: TransferConfig, task: Task, callbacks: list[tune.Callback] | None, *, resume: bool) -> tune.Tuner:
    settings, space = config.sweep, param_space(config)
    is_shared = settings.workers_per_trial > 1
    resources = _WAITING if is_shared else {"cpu": settings.cpus_per_trial, "gpu": settings.gpus_per_trial}
    trial = tune.with_resources(tune.with_parameters(run_trial, task=task), resources)
    home = str(task.folder / "tune")
    if resume and tune.Tuner.can_restore(home):
        return tune.Tuner.restore(home, trainable=trial, resume_errored=True, param_space=space)
    return tune.Tuner(
        trial,
        param_space=space,
        tune_config=tune.TuneConfig(
            metric=SELECTION,
            mode="max",
            num_samples=1 if settings.search == "grid" else settings.num_trials,
            search_alg=search_of(config, concurrency(settings, ray.cluster_resources())),
            scheduler=scheduler_of(config),
            reuse_actors=not is_shared,  # a trial that is stopped ends its workers with itself
        ),
        run_config=tune.RunConfig(
            name="tune",
            storage_path=str(task.folder),
            callbacks=[*(callbacks or ()), FreedWorkers()],
            failure_config=tune.FailureConfig(max_failures=1),
            verbose=0,
        ),
    )


def _winner(results: tune.ResultGrid, folder: Path, kind: type) -> Winner:
    reasons = {result.metrics["trial_id"]: _failure(result) for result in results if result.metrics}
    failed = [reason for reason in map(_failure, results) if reason]
    looks = [look for trial, reason in reasons.items() if not reason for look in kept(folder / KEPT / trial)]
    if not looks:
        errors = "; ".join(sorted(set(failed))) or "no result"
        raise RaypathError(f"{folder}: none of {len(results)} trials came to an end ({errors})")
    about, place = max(looks, key=lambda look: look[0][SELECTION])
    return Winner(
        trial_id=about["trial"],
        params=about["params"],
        place=about["place"],
        val=kind.load(place / VAL),
        folder=place,
        num_trials=len(results),
        num_failed=len(failed),
        hours=sum((result.metrics or {}).get("time_total_s", 0.0) for result in results) / 3600,
    )


def _failure(result: tune.Result) -> str | None:
    """Why a trial failed; None if it did not."""
    if result.error is not None:
        return str(result.error).strip().splitlines()[-1]
    return (result.metrics or {}).get(FAILURE)
