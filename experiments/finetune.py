"""Score an encoder on a labelled set, without a search: fine-tune all its weights, or keep it frozen.

    python experiments/finetune.py BENCHMARK [PROTOCOL] --encoder runs/ID [key=value ...]

    python experiments/finetune.py ../data/my_set --encoder runs/ID                 fine-tuning
    python experiments/finetune.py ../data/my_set probe --encoder runs/ID           frozen; or knn
    python experiments/finetune.py ../data/my_set probe --encoder colour            the colour baseline
    python experiments/finetune.py ../data/my_set mormont_svm --encoder runs/ID     a paper's protocol; --list prints all
    python experiments/finetune.py pcam --encoder runs/ID benchmark.path=DIR        a kind of benchmark by its name

BENCHMARK is a folder or a manifest (what it is, is recognised as by `raypath audit`), or a kind of benchmark; `--key value` is
key=value. A set whose pixels have classes is segmented:

    python experiments/finetune.py ../data/glas --encoder runs/ID
    python experiments/finetune.py ../data/glas --encoder colour --protocol.kind pixel_colour

Prints the score on val. `--test` opens the test, once per encoder and benchmark, and writes that down (reopen=true to do it
again: counted). A small set (below 200 patients or 1,000 test images) is scored by nested folds then: the protocol is fitted in
each of num_folds x num_repeats outer folds, and every sample is tested once in each repeat (evaluation=given for the test of the
given split).
"""

from dataclasses import replace

import launch
import numpy as np
from command_line import pick_flag
from copies import look_for_copies
from launch import say
from nested import check_folds, outer_folds, place_of, score_folds, text_of_folds, write_folds
from recipes.transfers import TRANSFERS
from scoring import (
    TOP_K,
    device_here,
    features_root,
    open_and_score,
    patient_scores_of,
    refuse_monitored,
    scores_of,
    status_of,
    transfer_tags,
)
from transfer_words import DEFAULT, SEGMENTATION_DEFAULT, Asked, asked_for

from raypath.benchmarks import Benchmark, Predictions
from raypath.benchmarks.metrics.pixels import PixelPredictions
from raypath.config import to_dict
from raypath.errors import BadInput
from raypath.protocols import Fitted, fit
from raypath.protocols.encoders import encoder_id, short_name
from raypath.protocols.looks import Look
from raypath.protocols.transfer import TransferConfig, check_encoder, check_protocol, evaluated, feeding
from raypath.run_folder import RunFolder, runs_root
from raypath.study.figures import segmentation_figure
from raypath.study.statistics import score_interval

NUM_PICTURES = 4


def main(arguments: list[str]) -> None:
    """Train on train, choose on val, and open the test if asked to."""
    if not arguments or "-h" in arguments or "--help" in arguments:
        say(__doc__)
        return
    if "--list" in arguments:
        launch.list_recipes(TRANSFERS)
        return
    opens_test, assignments = pick_flag(arguments, "test")
    reopen, assignments = pick_flag(assignments, "reopen")
    asked = asked_for(assignments)
    config = asked.config(DEFAULT, SEGMENTATION_DEFAULT)  # the benchmark will say which
    if not config.encoder:
        raise BadInput("encoder: which one? e.g. --encoder runs/ID, --encoder colour, --encoder random:runs/ID")
    check_encoder(config)
    run_transfer(config, opens_test=opens_test, reopen=reopen, asked=asked)


def run_transfer(config: TransferConfig, *, opens_test: bool, reopen: bool = False, asked: Asked | None = None) -> None:
    """One transfer as one MLflow run; `asked`: what it was asked for, where the protocol may follow from the benchmark.

    Raises BadInput before anything is trained if the test is wanted and used up.
    """
    encoder_id(config.encoder, seed=config.seed)  # is there such an encoder? before anything is made
    benchmark, tags, folds = config.benchmark.load(config.seed), {}, []
    config = asked.suited(config, benchmark) if asked else config
    check_protocol(config, benchmark)
    refuse_monitored(config.encoder, benchmark)
    config = decided(config, benchmark, opens_test=opens_test)
    say(f"fed with {feeding(config, benchmark)}")
    if opens_test:
        looked = look_for_copies(config, benchmark)
        benchmark, tags = looked.benchmark, looked.tags
        folds = outer_folds(config, benchmark, looked.together) if config.evaluation == "nested" else []
        if not reopen:
            check_folds(config, folds or [benchmark], None, ledger=runs_root())
    launch.start_ray()
    run = RunFolder.create(runs_root(), f"{config.protocol.kind}-{benchmark.name}", config)
    benchmark.write_split(run.path)
    write_folds(folds, run)
    tracker = launch.start_tracking()
    name = f"{short_name(config.encoder)} on {benchmark.name}, {config.protocol.kind}"
    run_id = tracker.start_run(name, tags=transfer_tags(config, benchmark) | tags, params=to_dict(config))
    say(f"{benchmark.name}: {folds[0].split_note if folds else benchmark.split_note}")
    status = "FAILED"
    try:
        if folds:
            score_by_folds(config, benchmark, folds, tracker, run_id, run, reopen=reopen)
        else:
            score_as_given(config, benchmark, tracker, run_id, run, opens_test=opens_test, reopen=reopen)
        status = "FINISHED"
    except BaseException as error:
        status = status_of(error)
        raise
    finally:
        tracker.end_run(run_id, status)
    say(f"run {run.path}")


def decided(config: TransferConfig, benchmark: Benchmark, *, opens_test: bool) -> TransferConfig:
    """The config with its evaluation decided; where no test is opened, there is only the val of the given split."""
    wanted = evaluated(config, benchmark)
    if opens_test or wanted.evaluation == "given":
        return wanted
    say(f"val of the given split; test=true scores {benchmark.name} by {wanted.num_folds} x {wanted.num_repeats} folds")
    return evaluated(replace(config, evaluation="given"), benchmark)


def score_as_given(
    config: TransferConfig,
    benchmark: Benchmark,
    tracker,
    run_id: str,
    run: RunFolder,
    *,
    opens_test: bool,
    reopen: bool,
) -> None:
    """Train on train, choose on val, and open the test of the given split if asked to."""
    fitted = fit_with_progress(config, benchmark, tracker, run_id)
    show(tracker, run_id, run, "val", fitted.val, config, benchmark.primary)
    if fitted.looks:
        picture(tracker, run_id, run, fitted, benchmark)
    if opens_test:
        ledger = runs_root()
        test = open_and_score(config, benchmark, fitted.predict, reason=f"run {run.id}", ledger=ledger, reopen=reopen)
        show(tracker, run_id, run, "test", test, config, benchmark.primary)


def score_by_folds(
    config: TransferConfig,
    benchmark: Benchmark,
    folds: list[Benchmark],
    tracker,
    run_id: str,
    run: RunFolder,
    *,
    reopen: bool,
) -> None:
    """Fit and test in every outer fold; the predictions on all tests together are the result."""

    def fit_fold(number: int, fold: Benchmark) -> Fitted:
        return fit_with_progress(config, fold, tracker, run_id, number)

    scores = score_folds(
        config,
        benchmark,
        folds,
        fit_fold,
        run.path / "folds",
        reason=f"run {run.id}",
        ledger=runs_root(),
        reopen=reopen,
        log=lambda metrics, fold: tracker.log_metrics(run_id, metrics, fold),
    )
    metric, first = benchmark.primary, scores.pooled[0]
    for number, predictions in enumerate(scores.pooled):
        predictions.save(run.path / f"test.repeat-{number}.parquet")
    interval = score_interval(first, metric)
    by_patient = patient_scores_of("test", first, config)
    of_all = {
        f"val_{metric}": float(np.mean(scores.val_scores)),
        f"test_{metric}_low": interval.low,
        f"test_{metric}_high": interval.high,
        f"test_{metric}_mean": float(np.mean(scores.repeats)),
    }
    scores_of_test = scores_of("test", first)
    tracker.log_metrics(run_id, scores_of_test | by_patient | of_all)
    tracker.set_tags(run_id, {"raypath.how": scores.how})
    say(f"nested: {text_of_folds(scores, interval, metric)}\n{scores.how}")
    tell_objects("test", scores_of_test)
    tell_patients("test", by_patient, metric)


def fit_with_progress(
    config: TransferConfig, benchmark: Benchmark, tracker, run_id: str, fold: int | None = None
) -> Fitted:
    """The fitted protocol, with a line for everything that takes its time; `fold`: its number, where there are folds."""
    place, prefix = ("", "") if fold is None else (f"{place_of(config, fold)}: ", f"fold_{fold}/")

    def report(look: Look) -> None:
        tracker.log_metrics(run_id, {f"{prefix}{name}": value for name, value in look.metrics.items()}, look.number)
        numbers = "  ".join(f"{name} {value:.3f}" for name, value in look.metrics.items())
        say(f"{place}{config.protocol.place_of(look.number)}  {numbers}")

    fitted = fit(
        config,
        benchmark,
        features_root=features_root(),
        device=device_here(),
        report=report,
        progress=launch.counter("samples embedded"),
    )
    tracker.set_tags(run_id, fitted.feeding.tags)
    if fold is None:
        say(fitted.how)
    return fitted


def show(
    tracker,
    run_id: str,
    run: RunFolder,
    split: str,
    predictions: Predictions | PixelPredictions,
    config: TransferConfig,
    metric: str,
) -> None:
    """Print, save and log the scores of one split."""
    scores, by_patient = scores_of(split, predictions), patient_scores_of(split, predictions, config)
    predictions.save(run.path / f"{split}.parquet")
    tracker.log_metrics(run_id, scores | by_patient)
    say(f"{split}: {metric} {scores[f'{split}_{metric}']:.3f}  ({len(predictions.sample)} samples)")
    tell_objects(split, scores)
    tell_patients(split, by_patient, metric)


def tell_objects(split: str, scores: dict[str, float]) -> None:
    """A line for the scores of objects, where masks number them."""
    if f"{split}_object_f1" in scores:
        f1, dice = (scores[f"{split}_object_{name}"] for name in ("f1", "dice"))
        say(f"{split}: object F1 {f1:.3f}, object Dice {dice:.3f}")


def tell_patients(split: str, scores: dict[str, float], metric: str) -> None:
    """A line for the scores of patients, where there are any."""
    told = {
        f"{split}_patient_{metric}": f"{metric}, one answer per patient",
        f"{split}_patient_top{TOP_K}_{metric}": f"of its top {TOP_K}",
    }
    told |= {name: name.removeprefix(f"{split}_").replace("_", " ") for name in scores if "recognition_rate" in name}
    lines = [f"{text} {scores[name]:.3f}" for name, text in told.items() if name in scores]
    if lines:
        say(f"{split}: {', '.join(lines)}")


def picture(tracker, run_id: str, run: RunFolder, fitted: Fitted, benchmark: Benchmark) -> None:
    """Four images of val with their truth and what was said."""
    figure = segmentation_figure(fitted.looks(NUM_PICTURES), benchmark.classes)
    figure.savefig(run.path / "val.png", dpi=120)
    tracker.log_picture(run_id, run.path / "val.png", "val.png")


if __name__ == "__main__":
    launch.run(main)
