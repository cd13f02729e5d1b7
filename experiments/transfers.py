"""Encoders compared on one benchmark: a sweep for each with the same budget, the test opened once for each winner.

One decision: nothing is compared that was not tuned alike: every encoder gets the same trials on the same samples, and the test is
opened after all selection on val is over. `colour` has nothing to fine-tune and is probed.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import launch
import pyarrow as pa
import torch
from launch import console, say
from rich.table import Table

from raypath.benchmarks import Benchmark, Predictions, check_unopened, open_test, score
from raypath.benchmarks.pixel_metrics import PixelPredictions, score_pixels
from raypath.config import config_hash, to_dict
from raypath.data.images import Frame
from raypath.errors import BadInput, Preempted
from raypath.protocols import FinetuneSettings, ProbeSettings, Samples, fit, open_encoder
from raypath.protocols.encoders import (
    IMAGENET,
    RANDOM,
    RANDOM_BN,
    WITHOUT_WEIGHTS,
    encoder_id,
    input_px,
    monitors_of,
    short_name,
)
from raypath.protocols.monitor import check_not_monitored
from raypath.protocols.transfer import TransferConfig, check_protocol, feeding, training_samples
from raypath.run_folder import RunFolder, runs_root
from raypath.study.figures import confusion_figure
from raypath.study.statistics import Difference, Interval, paired_difference, score_interval
from raypath.sweep import TrialLog, Winner, check_sweep, num_trials, sweep, trial_name
from raypath.tracking import Tracker

LEDGER = "test_openings.jsonl"


@dataclass(frozen=True)
class Entrant:
    """An encoder that takes part: how people call it, and its transfer."""

    label: str
    config: TransferConfig
    benchmark: Benchmark
    study: str | None = None

    @property
    def stem(self) -> str:
        """A file name for what is made of it, different for different weights."""
        return self.identity.replace(" ", "-")

    @property
    def identity(self) -> str:
        """The name with the hash of the weights: what a test is opened for."""
        return encoder_id(self.config.encoder, seed=self.config.seed)

    @property
    def tags(self) -> dict[str, Any]:
        """The lineage tags of its runs."""
        return transfer_tags(self.config, self.benchmark) | {"study": self.study}


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
    """`runs/ID,random,colour` as sources; a bare `random` or `random_bn` is like the first one."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names or names[0] in (*WITHOUT_WEIGHTS, RANDOM, RANDOM_BN):
        raise BadInput(
            f"encoder={text!r}: begin with runs/ID or a .safetensors file, e.g. encoder=runs/ID,random,colour"
        )
    return [_absolute(f"{name}:{names[0]}" if name in (RANDOM, RANDOM_BN) else name) for name in names]


def _absolute(source: str) -> str:
    """A source that means the same in a trial, which runs in a folder of its own, and when a sweep is resumed from elsewhere."""
    kind, colon, rest = source.partition(":")
    if kind in (RANDOM, RANDOM_BN):
        return f"{kind}{colon}{_absolute(rest)}"
    architecture, at, file = source.partition("@")
    if at and not Path(source).exists():
        return f"{architecture}{at}{Path(file).absolute()}"
    is_path = kind != IMAGENET and ("/" in source or source.endswith(".safetensors") or Path(source).exists())
    return str(Path(source).absolute()) if is_path else source


def compare(
    config: TransferConfig,
    sources: list[str],
    benchmark: Benchmark,
    run: RunFolder,
    tracker: Tracker,
    *,
    labels: list[str] | None = None,
    study: str | None = None,
    parent: str | None = None,
    ledger: Path,
    reopen: bool = False,
    resume: bool = False,
) -> list[Scored]:
    """Tune every encoder on train and val, then open the test once for each; `labels` are what people call them.

    Raises BadInput before anything is trained if an encoder is given twice or its test is used up.
    """
    check_sweep(config)
    for source in sources:
        refuse_monitored(source, benchmark)
    entrants = entrants_of(config, sources, labels or [short_name(source) for source in sources], benchmark, study)
    for entrant in entrants:
        check_protocol(entrant.config, benchmark)
    ids = [entrant.identity for entrant in entrants]
    twice = next((source for source, own in zip(sources, ids) if ids.count(own) > 1), None)
    if twice:
        raise BadInput(f"encoder={twice}: the same weights are given twice; a test is opened once for each encoder")
    if not reopen:
        for entrant in entrants:
            if not kept_test(entrant, run).exists():
                check_unopened(benchmark, entrant.identity, ledger=ledger / LEDGER, unless=winner_of(run))
    benchmark.write_split(run.path)
    say(f"{benchmark.name}: {benchmark.split_note}")
    samples = SharedSamples(benchmark)
    results: list[Scored] = []
    try:
        tuned = [tune_one(own, samples.of(own), run, tracker, parent=parent, resume=resume) for own in entrants]
        for own, parts in zip(entrants, tuned):
            results.append(finish_one(own, run, tracker, *parts, ledger=ledger, reopen=reopen))
    except BaseException as error:
        finished = {result.mlflow_run_id for result in results}
        for run_id in set(run.read("mlflow_runs.json").values()) - finished:
            tracker.end_run(run_id, status_of(error))
        raise
    return results


class SharedSamples:
    """Train and val in memory, read once for all encoders that are fed alike."""

    def __init__(self, benchmark: Benchmark):
        self.benchmark = benchmark
        self.read: dict[Frame, tuple[Samples, Samples]] = {}

    def of(self, entrant: Entrant) -> tuple[Samples, Samples] | None:
        """None for a frozen protocol: it has its own way to its features."""
        if not isinstance(entrant.config.protocol, FinetuneSettings):
            return None
        fed = feeding(entrant.config, self.benchmark)
        say(f"{entrant.label}: {fed}")
        if fed.frame not in self.read:
            self.read[fed.frame] = training_samples(entrant.config, self.benchmark, fed.frame)
        return self.read[fed.frame]


def refuse_monitored(source: str, benchmark: Benchmark) -> None:
    """Raise BadInput if the benchmark is the set that was watched while the encoder was pretrained."""
    for declared in monitors_of(source):
        check_not_monitored(declared, benchmark)


def status_of(error: BaseException) -> str:
    """How MLflow calls a run that ended with `error`."""
    return "KILLED" if isinstance(error, Preempted | KeyboardInterrupt | SystemExit) else "FAILED"


def entrants_of(
    config: TransferConfig, sources: list[str], labels: list[str], benchmark: Benchmark, study: str | None
) -> list[Entrant]:
    """The same transfer for every source, at the extent of the first; what has nothing to fine-tune is probed."""
    extent_px = config.extent_px or input_px(open_encoder(sources[0], seed=config.seed)) or 0
    is_finetuned = isinstance(config.protocol, FinetuneSettings)
    entrants = []
    for source, label in zip(sources, labels):
        protocol = ProbeSettings() if is_finetuned and source in WITHOUT_WEIGHTS else config.protocol
        own = replace(config, encoder=source, extent_px=extent_px, protocol=protocol)
        entrants.append(Entrant(label, own, benchmark, study))
    return entrants


def tune_one(entrant: Entrant, samples: tuple[Samples, Samples], run: RunFolder, tracker: Tracker, *, parent, resume):
    """(predict, val predictions, how it was reached, MLflow run id) of one encoder; `samples` are train and val."""
    config, benchmark = entrant.config, entrant.benchmark
    folder = run.path / entrant.stem
    folder.mkdir(exist_ok=True)
    known = run.read("mlflow_runs.json")
    run_id = tracker.start_run(
        f"{entrant.label} on {benchmark.name}",
        parent=parent,
        tags=entrant.tags,
        params=to_dict(config),
        resume=known.get(config.encoder),
    )
    run.write("mlflow_runs.json", known | {config.encoder: run_id})
    split = run.path / "split.csv"
    tracker.log_dataset(run_id, split, name=benchmark.name, digest=benchmark.data_hash, context="train")
    if not isinstance(config.protocol, FinetuneSettings):
        say(f"{entrant.label}: frozen, {config.protocol.kind}")
        progress = launch.counter("samples embedded")
        fitted = fit(config, benchmark, features_root=features_root(), device=device_here(), progress=progress)
        tracker.set_tags(run_id, fitted.feeding.tags)
        return fitted.predict, fitted.val, fitted.how, run_id
    return tune_trials(entrant, *samples, folder, tracker, run_id, resume=resume)


def tune_trials(
    entrant: Entrant, train: Samples, val: Samples, folder: Path, tracker: Tracker, run_id: str, *, resume: bool
):
    """A sweep, with every trial as a child run and a line for the person who waits."""
    config, metric = entrant.config, entrant.benchmark.primary
    say(f"{entrant.label}: {num_trials(config.sweep)} trials ({config.sweep.search}), selected on val by {metric}")
    log = TrialLog(
        config, uri=tracker.uri, experiment=launch.PROJECT, parent=run_id, folder=folder, tags=entrant.tags, show=say
    )
    try:
        winner: Winner = sweep(config, train, val, metric=metric, folder=folder, callbacks=[log], resume=resume)
    finally:
        log.end_open_runs()
    log.mark_winner(winner.trial_id)
    failed = f", {winner.num_failed} failed" if winner.num_failed else ""
    params = trial_name(winner.params).replace(" ", ", ")
    how = f"best of {winner.num_trials} trials{failed}: {params}, epoch {winner.epoch}"
    frame = feeding(config, entrant.benchmark).frame

    def predict(rows: pa.Table) -> Predictions:
        return winner.predict(config, Samples.of(rows, train.classes, frame), device_here())

    return predict, winner.val, how, run_id


def finish_one(
    entrant: Entrant,
    run: RunFolder,
    tracker: Tracker,
    predict,
    val: Predictions,
    how: str,
    run_id: str,
    *,
    ledger,
    reopen,
) -> Scored:
    """Open the test for the winner, score it, write everything down; what this run has opened is not opened again."""
    config, benchmark, metric = entrant.config, entrant.benchmark, entrant.benchmark.primary
    kept = kept_test(entrant, run)
    if kept.exists():
        test = Predictions.load(kept)
    else:
        reason = winner_of(run)
        test = open_and_score(config, benchmark, predict, reason=reason, ledger=ledger, reopen=reopen, unless=reason)
    for split, predictions in (("val", val), ("test", test)):
        predictions.save(run.path / f"{entrant.stem}.{split}.parquet")
        tracker.log_metrics(run_id, scores_of(split, predictions))
    interval = score_interval(test, metric)
    tracker.log_metrics(run_id, {f"test_{metric}_low": interval.low, f"test_{metric}_high": interval.high})
    tracker.log_picture(run_id, confusion_figure(test, f"{entrant.label} on {benchmark.name}, test"), "confusion.png")
    tracker.set_tags(run_id, {"raypath.how": how})
    tracker.end_run(run_id, "FINISHED")
    return Scored(entrant.label, val, test, interval, how, run_id)


def kept_test(entrant: Entrant, run: RunFolder) -> Path:
    """Where a run keeps what an encoder said on test."""
    return run.path / f"{entrant.stem}.test.parquet"


def winner_of(run: RunFolder) -> str:
    """The reason for which a comparison opens a test; a crash between opening and scoring does not use it up."""
    return f"winner of {run.id}"


def scores_of(split: str, predictions: Predictions | PixelPredictions) -> dict[str, float]:
    """The scores of a split that are one number each, named for MLflow."""
    scores = score_pixels(predictions) if isinstance(predictions, PixelPredictions) else score(predictions)
    return {f"{split}_{name}": value for name, value in scores.items() if isinstance(value, float)}


def open_and_score(
    config: TransferConfig,
    benchmark: Benchmark,
    predict: Callable[[pa.Table], Predictions],
    *,
    reason: str,
    ledger: Path,
    reopen: bool = False,
    unless: str | None = None,
) -> Predictions:
    """The predictions on test, after the opening was written into the ledger."""
    who = encoder_id(config.encoder, seed=config.seed)
    rows = open_test(benchmark, who, reason, ledger=ledger / LEDGER, reopen=reopen, unless=unless)
    return predict(rows)


def features_root() -> Path:
    """Where features are kept, for all runs."""
    return runs_root() / "features"


def device_here() -> torch.device:
    """The GPU of this machine, if it has one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def transfer_tags(config: TransferConfig, benchmark: Benchmark) -> dict[str, Any]:
    """The lineage tags of a transfer."""
    return {
        "encoder": short_name(config.encoder),
        "benchmark": benchmark.name,
        "protocol": config.protocol.kind,
        "fraction": f"{config.per_class_train} per class" if config.per_class_train else f"{config.fraction_train:.0%}",
        "seed": config.seed,
        "config_hash": config_hash(config),
        "data_hash": benchmark.data_hash,
        "raypath.encoder_id": encoder_id(config.encoder, seed=config.seed),
        **benchmark.tags,
    }


def table_of(results: list[Scored], benchmark: Benchmark) -> Table:
    """Scores and paired differences to the first encoder, for people."""
    first = results[0]
    unit = f"{first.interval.num_patients} {'patients' if first.interval.level == 'patient' else 'images'}"
    table = Table(title=f"{benchmark.name}: {benchmark.primary}, test of {first.interval.num_samples} samples, {unit}")
    for column in ("encoder", "val", "test [95 %]", "first minus it [95 %]"):
        table.add_column(column, justify="left" if column == "encoder" else "right", no_wrap=column != "encoder")
    for result in results:
        difference = "" if result is first else text_of(difference_of(first, result, benchmark), signed=True)
        val = score(result.val)[benchmark.primary]
        table.add_row(result.encoder, f"{val:.3f}", text_of(result.interval), difference)
    return table


def show_table(results: list[Scored], benchmark: Benchmark) -> None:
    """The table, and under it how each score was reached."""
    console.print(table_of(results, benchmark))
    for result in results:
        say(f"  {result.encoder}: {result.how}")


def difference_of(first: Scored, second: Scored, benchmark: Benchmark) -> Difference:
    """The paired difference on test."""
    return paired_difference(first.test, second.test, benchmark.primary)


def text_of(interval: Interval, *, signed: bool = False) -> str:
    """0.812 [0.75, 0.86]"""
    sign = "+" if signed else ""
    return f"{interval.estimate:{sign}.3f} [{interval.low:{sign}.2f}, {interval.high:{sign}.2f}]"
