"""Encoders compared on one benchmark: tuned alike, the test opened once for each.

One decision: nothing is compared that was not tuned alike. Fine-tuning gets a sweep with the same trials on the same samples for
each encoder, and the test of the given split is opened after all selection on val is over; `colour` has nothing to fine-tune and is
probed. Frozen protocols have no trials: each encoder is fitted as it is. Where a set is small, all of that happens in each of some
nested folds, the same for all: the trials of a fold choose on its val and know nothing of its test.
"""

from dataclasses import replace
from pathlib import Path

import launch
import numpy as np
import pyarrow as pa
from copies import look_for_copies
from entrants import Entrant, check_entrants, entrants_of
from launch import say
from nested import check_folds, outer_folds, score_folds, write_folds
from results import Scored
from scoring import (
    LEDGER,
    device_here,
    features_root,
    open_and_score,
    patient_scores_of,
    refuse_monitored,
    scores_of,
    status_of,
)

from raypath.benchmarks import Benchmark, check_unopened
from raypath.config import to_dict
from raypath.data.images import Frame
from raypath.errors import BadInput
from raypath.protocols import Fitted, fit
from raypath.protocols.encoders import short_name
from raypath.protocols.trained import TRAINED, Parts, Said, read_samples, training_samples
from raypath.protocols.transfer import TransferConfig, evaluated, feeding
from raypath.run_folder import RunFolder
from raypath.study.figures import confusion_figure
from raypath.study.statistics import Interval, score_interval
from raypath.sweep import TrialLog, Winner, check_sweep, num_trials, sweep, trial_name
from raypath.tracking import Tracker


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

    By nested folds each fold's test is opened once for each encoder. Raises BadInput before anything
    is trained if an encoder is given twice, its test is used up, or the set has near-duplicates across its split.
    """
    config = decided(config, benchmark)
    for source in sources:
        refuse_monitored(source, benchmark)
    entrants = entrants_of(config, sources, labels or [short_name(source) for source in sources], benchmark, study)
    check_entrants(entrants)
    check_fed(entrants)
    looked = look_for_copies(config, benchmark)
    entrants = [replace(own, benchmark=looked.benchmark, found=looked.tags) for own in entrants]
    folds = outer_folds(config, looked.benchmark, looked.together) if config.evaluation == "nested" else []
    for own in () if reopen else entrants:
        if folds:
            check_folds(own.config, folds, run.path / own.stem, ledger=ledger, unless=winner_of(run))
        elif not kept_test(own, run).exists():
            check_unopened(benchmark, own.identity, ledger=ledger / LEDGER, unless=winner_of(run))
    benchmark.write_split(run.path)
    write_folds(folds, run)
    say(f"{benchmark.name}: {folds[0].split_note if folds else benchmark.split_note}")
    results: list[Scored] = []
    try:
        if folds:
            for own in entrants:
                run_id = begin_one(own, run, tracker, parent)
                scored = score_nested(own, folds, run, tracker, run_id, ledger=ledger, reopen=reopen, resume=resume)
                results.append(scored)
            return results
        samples, tuned = SharedSamples(looked.benchmark), []
        for own in entrants:
            run_id = begin_one(own, run, tracker, parent)
            tuned.append((run_id, fit_one(own, samples, run.path / own.stem, tracker, run_id, resume=resume)))
        for own, (run_id, fitted) in zip(entrants, tuned):
            results.append(finish_one(own, fitted, run, tracker, run_id, ledger=ledger, reopen=reopen))
    except BaseException as error:
        finished = {result.mlflow_run_id for result in results}
        for run_id in set(run.read("mlflow_runs.json").values()) - finished:
            tracker.end_run(run_id, status_of(error))
        raise
    return results


def decided(config: TransferConfig, benchmark: Benchmark) -> TransferConfig:
    """The config with its evaluation decided; what nested folds cost is told to whoever did not ask for them.

    Raises BadInput for a sweep that is none.
    """
    is_tuned = isinstance(config.protocol, TRAINED)
    if is_tuned:
        check_sweep(config)
    wanted = evaluated(config, benchmark)
    if is_tuned and config.evaluation == "auto" and wanted.evaluation == "nested":
        num_folds = wanted.num_folds * wanted.num_repeats
        say(
            f"{benchmark.name}: small, and scored by nested folds: {num_trials(config.sweep)} trials in each of {num_folds}, for"
            " each encoder; evaluation=given has the test of the given split alone"
        )
    return wanted


def check_fed(entrants: list[Entrant]) -> None:
    """Raise BadInput, naming the encoder, for one that cannot be fed as all are to be: before hours are spent on the others."""
    for own in entrants:
        try:
            feeding(own.config, own.benchmark)
        except BadInput as error:
            raise BadInput(f"{own.label}: {error}") from None


class SharedSamples:
    """Train and val in memory, read once for all encoders that are fed alike."""

    def __init__(self, benchmark: Benchmark):
        self.benchmark = benchmark
        self.read: dict[tuple[Frame, float | None], tuple[Parts, Parts]] = {}

    def of(self, entrant: Entrant) -> tuple[Parts, Parts] | None:
        """None for what is not trained: a frozen protocol has its own way to its features."""
        if not isinstance(entrant.config.protocol, TRAINED):
            return None
        fed = feeding(entrant.config, self.benchmark)
        say(f"{entrant.label}: {fed}")
        key = (fed.frame, fed.mpp)
        if key not in self.read:
            self.read[key] = training_samples(entrant.config, self.benchmark, fed)
        return self.read[key]


def begin_one(entrant: Entrant, run: RunFolder, tracker: Tracker, parent: str | None) -> str:
    """The MLflow run of an encoder, the same one where a comparison is resumed."""
    config, benchmark = entrant.config, entrant.benchmark
    (run.path / entrant.stem).mkdir(exist_ok=True)
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
    return run_id


def fit_one(
    entrant: Entrant, samples: SharedSamples, folder: Path, tracker: Tracker, run_id: str, *, resume: bool
) -> Fitted:
    """One encoder, tuned in `folder` or fitted as it is, on train and val of the entrant's benchmark."""
    config, parts = entrant.config, samples.of(entrant)
    if parts is not None:
        return tune_trials(entrant, *parts, folder, tracker, run_id, resume=resume)
    say(f"{entrant.label}: frozen, {config.protocol.kind}")
    progress = launch.counter("samples embedded")
    fitted = fit(config, entrant.benchmark, features_root=features_root(), device=device_here(), progress=progress)
    tracker.set_tags(run_id, fitted.feeding.tags)
    return fitted


def score_nested(
    entrant: Entrant,
    folds: list[Benchmark],
    run: RunFolder,
    tracker: Tracker,
    run_id: str,
    *,
    ledger: Path,
    reopen: bool,
    resume: bool,
) -> Scored:
    """An encoder tuned or fitted, and tested, in every fold; what this run has opened is not opened again."""
    config, benchmark, place = entrant.config, entrant.benchmark, run.path / entrant.stem
    say(f"{entrant.label}: {config.protocol.kind}, {len(folds)} outer folds")

    def fit_fold(number: int, fold: Benchmark) -> Fitted:
        own = replace(entrant, benchmark=fold, found=entrant.found | {"raypath.fold": str(number)})
        folder = place / f"tuned-{number:02}"
        folder.mkdir(exist_ok=True)
        return fit_one(own, SharedSamples(fold), folder, tracker, run_id, resume=resume)

    scores = score_folds(
        config,
        benchmark,
        folds,
        fit_fold,
        place,
        reason=winner_of(run),
        ledger=ledger,
        reopen=reopen,
        is_resumable=True,
        log=lambda metrics, fold: tracker.log_metrics(run_id, metrics, fold),
    )
    for number, predictions in enumerate(scores.pooled):
        predictions.save(run.path / f"{entrant.stem}.repeat-{number}.parquet")
    val_score = float(np.mean(scores.val_scores))
    tracker.log_metrics(
        run_id,
        {f"val_{benchmark.primary}": val_score, f"test_{benchmark.primary}_mean": float(np.mean(scores.repeats))},
    )
    interval = conclude(entrant, tracker, scores.pooled[0], scores.how, run_id)
    return Scored(entrant.label, None, scores.pooled[0], interval, scores.how, run_id, val_score, scores.repeats)


def tune_trials(
    entrant: Entrant, train: Parts, val: Parts, folder: Path, tracker: Tracker, run_id: str, *, resume: bool
) -> Fitted:
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
    how = f"best of {winner.num_trials} trials{failed}: {params}, {winner.place}"
    fed = feeding(config, entrant.benchmark)
    tracker.set_tags(run_id, fed.tags)

    def predict(rows: pa.Table, alteration: str = "") -> Said:
        samples = read_samples(config, entrant.benchmark, rows, fed.altered(alteration))
        return winner.predict(config, samples, device_here())

    return Fitted(winner.val, how, predict, fed)


def finish_one(
    entrant: Entrant,
    fitted: Fitted,
    run: RunFolder,
    tracker: Tracker,
    run_id: str,
    *,
    ledger: Path,
    reopen: bool,
) -> Scored:
    """Open the test for the winner, score it, write everything down; what this run has opened is not opened again."""
    config, benchmark, val = entrant.config, entrant.benchmark, fitted.val
    kept, reason = kept_test(entrant, run), winner_of(run)
    if kept.exists():
        test = type(val).load(kept)
    else:
        own = {"reason": reason, "ledger": ledger, "reopen": reopen, "unless": reason}
        test = open_and_score(config, benchmark, fitted.predict, **own)
    for split, predictions in (("val", val), ("test", test)):
        predictions.save(run.path / f"{entrant.stem}.{split}.parquet")
    of_val = scores_of("val", val)
    tracker.log_metrics(run_id, of_val)
    interval = conclude(entrant, tracker, test, fitted.how, run_id)
    return Scored(entrant.label, val, test, interval, fitted.how, run_id, of_val[f"val_{benchmark.primary}"])


def conclude(entrant: Entrant, tracker: Tracker, test: Said, how: str, run_id: str) -> Interval:
    """Log what was said of test, and end the encoder's run; the score with its interval."""
    benchmark, metric = entrant.benchmark, entrant.benchmark.primary
    tracker.log_metrics(run_id, scores_of("test", test) | patient_scores_of("test", test, entrant.config))
    interval = score_interval(test, metric)
    tracker.log_metrics(run_id, {f"test_{metric}_low": interval.low, f"test_{metric}_high": interval.high})
    tracker.log_picture(run_id, confusion_figure(test, f"{entrant.label} on {benchmark.name}, test"), "confusion.png")
    tracker.set_tags(run_id, {"raypath.how": how})
    tracker.end_run(run_id, "FINISHED")
    return interval


def kept_test(entrant: Entrant, run: RunFolder) -> Path:
    """Where a run keeps what an encoder said on test."""
    return run.path / f"{entrant.stem}.test.parquet"


def winner_of(run: RunFolder) -> str:
    """The reason for which a comparison opens a test; a crash between opening and scoring does not use it up."""
    return f"winner of {run.id}"
