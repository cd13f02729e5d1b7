"""Sweeps: Ray Tune searches the settings of one protocol for one encoder on one benchmark.

One decision: a trial is a plain function of a config and of samples that lie once in the object store, so eight trials on two
cores cost eight trainings and nothing else. Selection sees val only: the winner is the best epoch of the best trial by the
benchmark's primary metric (least loss among equals), and its weights are kept, so that the test can be opened for it once, by
the caller. A trial that failed does not win, however good it was before.

A sweep lives in its folder and goes on from there after a crash (`resume=True`): finished trials are not run again.
"""

import contextlib
import gc
import json
import math
import os
import tempfile
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import ray
import torch
from ray import tune
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler
from ray.tune.search import ConcurrencyLimiter
from ray.tune.search.basic_variant import BasicVariantGenerator
from ray.tune.search.optuna import OptunaSearch
from safetensors.torch import load_file, save_file

from raypath.benchmarks import Predictions
from raypath.config import from_dict, override, to_dict
from raypath.errors import BadInput, Preempted, RaypathError
from raypath.protocols import FinetuneSettings, Samples, finetune, open_encoder
from raypath.protocols.finetune import Classifier, probability_of
from raypath.protocols.transfer import SweepSettings, TransferConfig, transfer_encoder

os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")  # Tune's banners: trials are shown by whoever waits for them
optuna.logging.set_verbosity(optuna.logging.WARNING)

SELECTION = "selection"  # what Tune maximises: the metric on val, the loss deciding among equals
WORST = -1.0  # below every score: what Tune is told of a trial that failed
FAILURE = "failure"  # why it failed
_WEIGHTS, _TRIAL, _VAL = "classifier.safetensors", "trial.json", "val.parquet"


@dataclass(frozen=True, eq=False)
class Winner:
    """The best epoch of the best trial; `params` are what was searched."""

    trial_id: str
    params: dict[str, Any]
    epoch: int
    val: Predictions
    folder: Path
    num_trials: int
    num_failed: int

    def predict(self, config: TransferConfig, samples: Samples, device: torch.device) -> Predictions:
        """Class probabilities of samples with the winner's weights."""
        own = override(config, self.params)
        classifier = Classifier(open_encoder(own.encoder, seed=own.seed), len(samples.classes), own.protocol.dropout)
        classifier.load_state_dict(load_file(self.folder / _WEIGHTS))
        return samples.predictions(probability_of(classifier, samples.images, device))


def sweep(
    config: TransferConfig,
    train: Samples,
    val: Samples,
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
    settings = config.sweep
    check_sweep(config)
    space, is_grid = param_space(config), settings.search == "grid"
    trial = tune.with_parameters(_trial, config=to_dict(config), train=train, val=val, metric=metric)
    trial = tune.with_resources(trial, {"cpu": settings.cpus_per_trial, "gpu": settings.gpus_per_trial})
    home = str(folder / "tune")
    if resume and tune.Tuner.can_restore(home):
        tuner = tune.Tuner.restore(home, trainable=trial, resume_errored=True, param_space=space)
    else:
        tuner = tune.Tuner(
            trial,
            param_space=space,
            tune_config=tune.TuneConfig(
                metric=SELECTION,
                mode="max",
                num_samples=1 if is_grid else settings.num_trials,
                search_alg=_search(config, concurrency(settings, ray.cluster_resources())),
                scheduler=_scheduler(config),
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(
                name="tune",
                storage_path=str(folder),
                callbacks=callbacks,
                checkpoint_config=tune.CheckpointConfig(num_to_keep=1, checkpoint_score_attribute=SELECTION),
                failure_config=tune.FailureConfig(max_failures=1),
                verbose=0,
            ),
        )
    os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"  # else Ctrl-C gives the trials so far, as if the sweep were over
    results = None
    with contextlib.suppress(KeyboardInterrupt):
        results = tuner.fit()
    if results is None:
        gc.collect()  # the actors of cut-off trials end with the last reference to them, and give back their CPUs
        raise Preempted(f"{folder}: interrupted; what is finished is kept: go on with resume=runs/ID")
    num_wanted = num_trials(settings)
    if len(results) < num_wanted:  # never choose among fewer than were asked for
        raise RaypathError(
            f"{folder}: Tune ended after {len(results)} of {num_wanted} trials; go on with resume=runs/ID"
        )
    return _winner(results, folder)


def num_trials(settings: SweepSettings) -> int:
    """How many trials a sweep has: a grid has one for each of its cells, since all trials share a seed."""
    return math.prod(map(len, settings.space.values())) if settings.search == "grid" else settings.num_trials


def check_sweep(config: TransferConfig) -> None:
    """Raise BadInput for numbers that no sweep can work with, before anything is started."""
    settings = config.sweep
    if not isinstance(config.protocol, FinetuneSettings):
        raise BadInput(
            f"protocol.kind={config.protocol.kind}: a sweep tunes fine-tuning (a probe tries its own penalties): use"
            " experiments/finetune.py for it"
        )
    for name, low in (("num_trials", 1), ("grace_epochs", 1), ("gpus_per_trial", 0)):
        if getattr(settings, name) < low:
            raise BadInput(f"sweep.{name}={getattr(settings, name)}: expected {low} or more")
    if settings.cpus_per_trial <= 0:
        raise BadInput(f"sweep.cpus_per_trial={settings.cpus_per_trial:g}: expected more than 0")


def param_space(config: TransferConfig) -> dict[str, Any]:
    """The search space as Tune wants it; raises BadInput for a key that is no setting or a range that is none."""
    space = {}
    for key, spec in config.sweep.space.items():
        if not key.startswith("protocol.") or key == "protocol.kind":
            raise BadInput(
                f"sweep.space: {key}: only settings of the protocol are searched, e.g. protocol.lr (data, encoder and seed are the"
                " same in all trials of a comparison)"
            )
        choices, domain = _domain(key, spec, is_grid=config.sweep.search == "grid")
        for value in choices:
            try:
                override(config, {key: value})  # an unknown key or a wrong type is an error now, not in a trial
            except BadInput as error:
                remedy = " (whole numbers: give a list of choices)" if isinstance(spec, dict) else ""
                raise BadInput(f"sweep.space: {error}{remedy}") from None
        space[key] = domain
    return space


def concurrency(settings: SweepSettings, cluster: Mapping[str, float]) -> int:
    """How many trials fit the cluster at once; raises BadInput if not even one does."""
    fits = [math.floor(cluster.get("CPU", 0) / settings.cpus_per_trial)]
    if settings.gpus_per_trial:
        fits.append(math.floor(cluster.get("GPU", 0) / settings.gpus_per_trial))
    if min(fits) < 1:
        raise BadInput(
            f"a trial wants {settings.cpus_per_trial:g} CPUs and {settings.gpus_per_trial:g} GPUs, the cluster has"
            f" {cluster.get('CPU', 0):g} and {cluster.get('GPU', 0):g}: lower sweep.cpus_per_trial or sweep.gpus_per_trial"
        )
    return min(fits)


def _domain(key: str, spec: Any, *, is_grid: bool) -> tuple[list[Any], Any]:
    """(values to check, Tune's domain) of one entry of the space."""
    match spec:
        case [_, *_]:
            return list(spec), tune.grid_search(list(spec)) if is_grid else tune.choice(list(spec))
        case {"log": [int() | float() as low, int() | float() as high]} if 0 < low < high and not is_grid:
            return [float(low), (low * high) ** 0.5], tune.loguniform(low, high)
        case {"uniform": [int() | float() as low, int() | float() as high]} if low < high and not is_grid:
            return [float(low), (low + high) / 2], tune.uniform(low, high)
    expected = "a list of values" if is_grid else 'a list of values, {"log": [low, high]} or {"uniform": [low, high]}'
    raise BadInput(f"sweep.space: {key}: {spec!r}: expected {expected}")


def _search(config: TransferConfig, num_at_once: int):
    """Tune's search; its draws follow from the config's seed."""
    if config.sweep.search == "optuna":
        return ConcurrencyLimiter(OptunaSearch(seed=config.seed), max_concurrent=num_at_once)
    return BasicVariantGenerator(max_concurrent=num_at_once, random_state=config.seed)


def _scheduler(config: TransferConfig):
    settings = config.sweep
    if not settings.asha or settings.search == "grid":
        return FIFOScheduler()
    searched = settings.space.get("protocol.epochs")
    epochs = max(searched) if isinstance(searched, list) else config.protocol.epochs
    # By epoch and not by Tune's own count, which goes on where a lost worker stood while the trial begins again.
    grace_epochs = min(settings.grace_epochs, epochs)
    return ASHAScheduler(time_attr="epoch", max_t=epochs, grace_period=grace_epochs, reduction_factor=2)


def _trial(params: dict[str, Any], *, config: dict, train: Samples, val: Samples, metric: str) -> None:
    """One trial: fine-tune with `params`, report every epoch, keep the weights of the best.

    What it raises it would raise again, so that is reported and not tried again; a lost worker is Tune's to replace.
    """
    try:
        _train(params, config, train, val, metric)
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        tune.report({"epoch": 0, SELECTION: WORST, FAILURE: reason, "traceback": traceback.format_exc()})


def _train(params: dict[str, Any], config: dict, train: Samples, val: Samples, metric: str) -> None:
    own = override(from_dict(TransferConfig, config), params)
    torch.set_num_threads(max(1, int(own.sweep.cpus_per_trial)))
    device = torch.device("cuda" if own.sweep.gpus_per_trial else "cpu")

    def report(epoch: int, metrics: dict[str, float], classifier: Classifier, is_best: bool) -> None:
        metrics = {**metrics, "epoch": epoch, SELECTION: selection(metrics[f"val_{metric}"], metrics["val_loss"])}
        if not is_best:
            tune.report(metrics)
            return
        with tempfile.TemporaryDirectory() as draft:
            _keep(Path(draft), classifier, params, epoch, val, device)
            tune.report(metrics, checkpoint=tune.Checkpoint.from_directory(draft))

    encoder = transfer_encoder(own, len(train), lambda numbers: train.images[numbers])
    finetune(encoder, train, val, own.protocol, metric=metric, seed=own.seed, device=device, report=report)


def selection(score: float, loss: float) -> float:
    """The score, and below its sixth digit the loss (smaller is better), so that equal scores are no coin toss."""
    return round(score, 6) - 1e-7 * min(loss, 5.0)


def _keep(folder: Path, classifier: Classifier, params: dict[str, Any], epoch: int, val: Samples, device) -> None:
    save_file({name: t.detach().cpu().contiguous() for name, t in classifier.state_dict().items()}, folder / _WEIGHTS)
    val.predictions(probability_of(classifier, val.images, device)).save(folder / _VAL)
    (folder / _TRIAL).write_text(
        json.dumps({"trial": tune.get_context().get_trial_id(), "params": params, "epoch": epoch})
    )


def _winner(results: tune.ResultGrid, folder: Path) -> Winner:
    failed = [reason for reason in map(_failure, results) if reason]
    kept = [pair for result in results if not _failure(result) for pair in (result.best_checkpoints or [])]
    if not kept:
        errors = "; ".join(sorted(set(failed))) or "no result"
        raise RaypathError(f"{folder}: none of {len(results)} trials came to an end ({errors})")
    checkpoint, _ = max(kept, key=lambda pair: pair[1][SELECTION])
    path = Path(checkpoint.path)
    about = json.loads((path / _TRIAL).read_text())
    return Winner(
        trial_id=about["trial"],
        params=about["params"],
        epoch=about["epoch"],
        val=Predictions.load(path / _VAL),
        folder=path,
        num_trials=len(results),
        num_failed=len(failed),
    )


def _failure(result: tune.Result) -> str | None:
    """Why a trial failed; None if it did not."""
    if result.error is not None:
        return str(result.error).strip().splitlines()[-1]
    return (result.metrics or {}).get(FAILURE)
