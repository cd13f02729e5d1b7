"""Encoders compared on one benchmark: a sweep for each with the same budget, the test opened once for each winner.

One decision: nothing is compared that was not tuned alike: every encoder gets the same trials on the same samples, and the test is
opened after all selection on val is over. `colour` has nothing to fine-tune and is probed.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import launch
import torch
from launch import say
from rich.table import Table

from raypath.benchmarks import Benchmark, Predictions, check_unopened, open_test, score
from raypath.config import config_hash, to_dict
from raypath.errors import BadInput, Preempted
from raypath.protocols import ProbeSettings, Samples, open_encoder, probe
from raypath.protocols.encoders import COLOUR, RANDOM, encoder_id, short_name
from raypath.protocols.transfer import TransferConfig, extent_of, training_samples
from raypath.run_folder import RunFolder
from raypath.study.figures import confusion_figure
from raypath.study.statistics import Difference, Interval, paired_difference, score_interval
from raypath.sweep import TrialLog, Winner, check_sweep, sweep, trial_name
from raypath.tracking import Tracker

LEDGER = "test_openings.jsonl"


@dataclass(frozen=True, eq=False)
class Scored:
    """One encoder's result: predictions of val and test, the test score with its interval, and how it was reached."""

    encoder: str
    val: Predictions
    test: Predictions
    interval: Interval
    how: str
    mlflow_run_id: str


def expand_encoders(text: str) -> list[str]:
    """`runs/ID,random,colour` as sources; a bare `random` is like the first one."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names or names[0] in (COLOUR, RANDOM):
        raise BadInput(
            f"encoder={text!r}: begin with runs/ID or a .safetensors file, e.g. encoder=runs/ID,random,colour"
        )
    return [_absolute(f"{RANDOM}:{names[0]}" if name == RANDOM else name) for name in names]


def _absolute(source: str) -> str:
    """A source that means the same in a trial, which runs in a folder of its own, and when a sweep is resumed from elsewhere."""
    kind, colon, like = source.partition(":")
    if kind == RANDOM:
        return f"{RANDOM}{colon}{Path(like).absolute()}"
    return source if source == COLOUR else str(Path(source).absolute())


def compare(
    config: TransferConfig,
    sources: list[str],
    benchmark: Benchmark,
    run: RunFolder,
    tracker: Tracker,
    *,
    parent: str | None = None,
    ledger: Path,
    reopen: bool = False,
    resume: bool = False,
) -> list[Scored]:
    """Tune every encoder on train and val, then open the test once for each.

    Raises BadInput before anything is trained if an encoder is given twice or its test is used up.
    """
    check_sweep(config)
    configs = [
        replace(config, encoder=source, extent_px=extent_of(replace(config, encoder=sources[0]))) for source in sources
    ]
    ids = [encoder_id(own.encoder, seed=own.seed) for own in configs]
    twice = next((source for source, own in zip(sources, ids) if ids.count(own) > 1), None)
    if twice:
        raise BadInput(f"encoder={twice}: the same weights are given twice; a test is opened once for each encoder")
    if not reopen and not resume:
        for own in ids:
            check_unopened(benchmark, own, ledger=ledger / LEDGER)
    benchmark.write_split(run.path)
    say(f"{benchmark.name}: {benchmark.split_note}")
    train, val = training_samples(configs[0], benchmark)
    results: list[Scored] = []
    try:
        tuned = [tune_one(own, benchmark, train, val, run, tracker, parent=parent, resume=resume) for own in configs]
        for own, parts in zip(configs, tuned):
            results.append(finish_one(own, benchmark, run, tracker, *parts, ledger=ledger, reopen=reopen or resume))
    except BaseException as error:
        finished = {result.mlflow_run_id for result in results}
        for run_id in set(run.read("mlflow_runs.json").values()) - finished:
            tracker.end_run(run_id, status_of(error))
        raise
    return results


def status_of(error: BaseException) -> str:
    """How MLflow calls a run that ended with `error`."""
    return "KILLED" if isinstance(error, Preempted | KeyboardInterrupt | SystemExit) else "FAILED"


def stem_of(config: TransferConfig) -> str:
    """A file name for what is made of an encoder, different for different weights."""
    return encoder_id(config.encoder, seed=config.seed).replace(" ", "-")


def tune_one(
    config, benchmark, train: Samples, val: Samples, run: RunFolder, tracker: Tracker, *, parent, resume: bool
):
    """(fitted, how it was reached, MLflow run id) of one encoder."""
    name = short_name(config.encoder)
    folder = run.path / stem_of(config)
    folder.mkdir(exist_ok=True)
    known = run.read("mlflow_runs.json")
    run_id = tracker.start_run(
        f"{name} on {benchmark.name}",
        parent=parent,
        tags=transfer_tags(config, benchmark),
        params=to_dict(config),
        resume=known.get(config.encoder),
    )
    run.write("mlflow_runs.json", known | {config.encoder: run_id})
    metric = benchmark.primary
    if config.encoder == COLOUR:
        say(f"{name}: logistic regression on 30 numbers of colour")
        fitted = probe(
            open_encoder(COLOUR, seed=0), train, val, ProbeSettings(), metric=metric, device=torch.device("cpu")
        )
        edge = ", on the edge of the grid" if fitted.is_on_edge else ""
        return fitted.predict, fitted.val, f"probe, C={fitted.c:g}{edge}", run_id
    say(f"{name}: {config.sweep.num_trials} trials ({config.sweep.search}), selected on val by {metric}")
    log = TrialLog(
        config,
        uri=tracker.uri,
        experiment=launch.PROJECT,
        parent=run_id,
        folder=folder,
        tags=transfer_tags(config, benchmark),
    )
    try:
        winner: Winner = sweep(config, train, val, metric=metric, folder=folder, callbacks=[log], resume=resume)
    finally:
        log.end_open_runs()
    params = trial_name(winner.params).replace(" ", ", ")
    failed = f", {winner.num_failed} failed" if winner.num_failed else ""
    how = f"best of {winner.num_trials} trials{failed}: {params}, epoch {winner.epoch}"
    return lambda samples, device: winner.predict(config, samples, device), winner.val, how, run_id


def finish_one(
    config, benchmark, run, tracker, predict, val: Predictions, how: str, run_id: str, *, ledger, reopen
) -> Scored:
    """Open the test for the winner, score it, write everything down; what this run has opened is not opened again."""
    name, stem = short_name(config.encoder), stem_of(config)
    kept = run.path / f"{stem}.test.parquet"
    if kept.exists():
        test = Predictions.load(kept)
    else:
        test = open_and_score(config, benchmark, predict, reason=f"winner of {run.id}", ledger=ledger, reopen=reopen)
    for split, predictions in (("val", val), ("test", test)):
        predictions.save(run.path / f"{stem}.{split}.parquet")
        scores = score(predictions)
        tracker.log_metrics(
            run_id, {f"{split}_{m}": scores[m] for m in ("accuracy", "balanced_accuracy", "macro_f1", "auroc")}
        )
    interval = score_interval(test, benchmark.primary)
    tracker.log_metrics(run_id, {"test_low": interval.low, "test_high": interval.high})
    tracker.log_picture(run_id, confusion_figure(test, f"{name} on {benchmark.name}, test"), "confusion.png")
    tracker.set_tags(run_id, {"raypath.how": how})
    tracker.end_run(run_id, "FINISHED")
    return Scored(name, val, test, interval, how, run_id)


def open_and_score(
    config: TransferConfig,
    benchmark: Benchmark,
    predict: Callable[[Samples, torch.device], Predictions],
    *,
    reason: str,
    ledger: Path,
    reopen: bool = False,
) -> Predictions:
    """The predictions on test, after the opening was written into the ledger."""
    who = encoder_id(config.encoder, seed=config.seed)
    rows = open_test(benchmark, who, reason, ledger=ledger / LEDGER, reopen=reopen)
    return predict(Samples.of(rows, benchmark.classes, extent_of(config)), torch.device("cpu"))


def transfer_tags(config: TransferConfig, benchmark: Benchmark) -> dict[str, Any]:
    """The lineage tags of a transfer."""
    return {
        "encoder": short_name(config.encoder),
        "benchmark": benchmark.name,
        "protocol": config.protocol.kind,
        "fraction": f"{config.per_class_train} per class" if config.per_class_train else "all",
        "seed": config.seed,
        "config_hash": config_hash(config),
        "data_hash": benchmark.data_hash,
        "raypath.encoder_id": encoder_id(config.encoder, seed=config.seed),
    }


def table_of(results: list[Scored], benchmark: Benchmark) -> Table:
    """Scores and paired differences to the first encoder, for people."""
    first = results[0]
    unit = f"{first.interval.num_patients} {'patients' if first.interval.level == 'patient' else 'images'}"
    table = Table(title=f"{benchmark.name}: {benchmark.primary}, test of {first.interval.num_samples} samples, {unit}")
    for column in ("encoder", "val", "test [95 %]", f"{first.encoder} minus it [95 %]", "how"):
        table.add_column(column, justify="left" if column in ("encoder", "how") else "right")
    for result in results:
        difference = "" if result is first else text_of(difference_of(first, result, benchmark), signed=True)
        val = score(result.val)[benchmark.primary]
        table.add_row(result.encoder, f"{val:.3f}", text_of(result.interval), difference, result.how)
    return table


def difference_of(first: Scored, second: Scored, benchmark: Benchmark) -> Difference:
    """The paired difference on test."""
    return paired_difference(first.test, second.test, benchmark.primary)


def text_of(interval: Interval, *, signed: bool = False) -> str:
    """0.812 [0.75, 0.86]"""
    sign = "+" if signed else ""
    return f"{interval.estimate:{sign}.3f} [{interval.low:{sign}.2f}, {interval.high:{sign}.2f}]"
