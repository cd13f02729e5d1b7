"""Score an encoder on a labelled set, without a search: fine-tune all its weights, or keep it frozen.

    python experiments/finetune.py encoder=runs/ID benchmark.path=DIR                       fine-tuning
    python experiments/finetune.py encoder=runs/ID benchmark.path=DIR protocol.kind=probe   frozen; or knn, or svm
    python experiments/finetune.py encoder=colour  benchmark.path=DIR protocol.kind=probe   the colour baseline
    python experiments/finetune.py encoder=runs/ID benchmark.kind=pcam benchmark.path=DIR   a set as it is published

A set whose pixels have classes is segmented:

    python experiments/finetune.py encoder=runs/ID benchmark.kind=glas benchmark.path=DIR protocol.kind=segment
    python experiments/finetune.py encoder=colour  benchmark.kind=glas benchmark.path=DIR protocol.kind=pixel_colour

Prints the score on val. `test=true` opens the test, once per encoder and benchmark, and writes that down (reopen=true to do it
again: counted).
"""

import launch
from launch import say
from transfers import (
    LEDGER,
    device_here,
    features_root,
    open_and_score,
    refuse_monitored,
    scores_of,
    status_of,
    transfer_tags,
)

from raypath.benchmarks import Benchmark, Predictions, check_unopened, score
from raypath.benchmarks.pixel_metrics import PixelPredictions, score_pixels
from raypath.config import override, to_dict
from raypath.errors import BadInput
from raypath.protocols import Fitted, fit
from raypath.protocols.encoders import encoder_id, short_name
from raypath.protocols.segment import SegmentSettings
from raypath.protocols.transfer import TransferConfig, check_protocol
from raypath.run_folder import RunFolder, runs_root
from raypath.study.figures import segmentation_figure

NUM_PICTURES = 4


def main(arguments: list[str]) -> None:
    """Train on train, choose on val, and open the test if asked to."""
    if not arguments or "-h" in arguments or "--help" in arguments:
        say(__doc__)
        return
    opens_test, assignments = launch.pick_flag(arguments, "test")
    reopen, assignments = launch.pick_flag(assignments, "reopen")
    config = override(TransferConfig(name="finetune"), assignments)
    if not config.encoder:
        raise BadInput("encoder: which one? e.g. encoder=runs/ID, encoder=colour, encoder=random:runs/ID")
    run_transfer(config, opens_test=opens_test, reopen=reopen)


def run_transfer(config: TransferConfig, *, opens_test: bool, reopen: bool = False) -> None:
    """One transfer as one MLflow run; raises BadInput before anything is trained if the test is wanted and used up."""
    who = encoder_id(config.encoder, seed=config.seed)  # is there such an encoder? before anything is made
    benchmark = config.benchmark.load(config.seed)
    check_protocol(config, benchmark)
    refuse_monitored(config.encoder, benchmark)
    if opens_test and not reopen:
        check_unopened(benchmark, who, ledger=runs_root() / LEDGER)
    launch.start_ray()
    run = RunFolder.create(runs_root(), f"{config.protocol.kind}-{benchmark.name}", config)
    benchmark.write_split(run.path)
    tracker = launch.start_tracking()
    name = f"{short_name(config.encoder)} on {benchmark.name}, {config.protocol.kind}"
    run_id = tracker.start_run(name, tags=transfer_tags(config, benchmark), params=to_dict(config))
    say(f"{benchmark.name}: {benchmark.split_note}")
    status = "FAILED"
    try:
        fitted = fit_with_progress(config, benchmark, tracker, run_id)
        show(tracker, run_id, run, "val", fitted.val, benchmark.primary)
        if fitted.looks:
            picture(tracker, run_id, run, fitted, benchmark)
        if opens_test:
            predictions = open_and_score(
                config, benchmark, fitted.predict, reason=f"run {run.id}", ledger=runs_root(), reopen=reopen
            )
            show(tracker, run_id, run, "test", predictions, benchmark.primary)
        status = "FINISHED"
    except BaseException as error:
        status = status_of(error)
        raise
    finally:
        tracker.end_run(run_id, status)
    say(f"run {run.path}")


def fit_with_progress(config: TransferConfig, benchmark: Benchmark, tracker, run_id: str) -> Fitted:
    """The fitted protocol, with a line for everything that takes its time."""
    protocol = config.protocol
    is_counted_in_steps = isinstance(protocol, SegmentSettings)
    unit, num = ("update", protocol.num_steps) if is_counted_in_steps else ("epoch", getattr(protocol, "epochs", 0))

    def report(number: int, metrics: dict[str, float]) -> None:
        tracker.log_metrics(run_id, metrics, number)
        say(f"{unit} {number}/{num}  " + "  ".join(f"{k} {v:.3f}" for k, v in metrics.items()))

    fitted = fit(
        config,
        benchmark,
        features_root=features_root(),
        device=device_here(),
        report=report,
        progress=launch.counter("samples embedded"),
    )
    tracker.set_tags(run_id, fitted.feeding.tags)
    say(f"fed with {fitted.feeding}\n{fitted.how}")
    return fitted


def show(tracker, run_id: str, run: RunFolder, split: str, predictions: Predictions | PixelPredictions, metric: str):
    """Print, save and log the scores of one split."""
    scores = score_pixels(predictions) if isinstance(predictions, PixelPredictions) else score(predictions)
    predictions.save(run.path / f"{split}.parquet")
    tracker.log_metrics(run_id, scores_of(split, predictions))
    say(f"{split}: {metric} {scores[metric]:.3f}  ({len(predictions.sample)} samples)")


def picture(tracker, run_id: str, run: RunFolder, fitted: Fitted, benchmark: Benchmark) -> None:
    """Four images of val with their truth and what was said."""
    figure = segmentation_figure(fitted.looks(NUM_PICTURES), benchmark.classes)
    figure.savefig(run.path / "val.png", dpi=120)
    tracker.log_picture(run_id, run.path / "val.png", "val.png")


if __name__ == "__main__":
    launch.run(main)
