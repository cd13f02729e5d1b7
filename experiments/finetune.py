"""Score an encoder on a labelled set, without a search: fine-tune all its weights, or probe it frozen.

    python experiments/finetune.py encoder=runs/ID benchmark.path=DIR                       fine-tuning
    python experiments/finetune.py encoder=runs/ID benchmark.path=DIR protocol.kind=probe   frozen, linear
    python experiments/finetune.py encoder=colour  benchmark.path=DIR protocol.kind=probe   the colour baseline

A set whose pixels have classes is segmented:

    python experiments/finetune.py encoder=runs/ID benchmark.kind=glas benchmark.path=DIR protocol.kind=segment
    python experiments/finetune.py encoder=colour  benchmark.kind=glas benchmark.path=DIR protocol.kind=pixel_colour

Prints the score on val. `test=true` opens the test, once per encoder and benchmark, and writes that down (reopen=true to do it
again: counted).
"""

import launch
from launch import say
from transfers import LEDGER, device_here, open_and_score, refuse_monitored, status_of, transfer_tags

from raypath.benchmarks import Predictions, check_unopened, score
from raypath.benchmarks.pixel_metrics import PixelPredictions, score_pixels
from raypath.config import override, to_dict
from raypath.errors import BadInput
from raypath.protocols import FinetuneSettings, ProbeSettings, finetune, probe
from raypath.protocols.encoders import encoder_id, short_name
from raypath.protocols.masked_samples import MaskedSamples
from raypath.protocols.pixel_colour import PixelColourSettings, pixel_colour
from raypath.protocols.segment import SegmentSettings, segment
from raypath.protocols.transfer import TransferConfig, check_protocol, training_samples, transfer_encoder
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
    if config.encoder == "colour" and isinstance(config.protocol, FinetuneSettings):
        raise BadInput("encoder=colour has nothing to fine-tune: set protocol.kind=probe")
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
        train, val = training_samples(config, benchmark)
        fitted = fit(
            config, train, val, benchmark.primary, lambda epoch, metrics: tracker.log_metrics(run_id, metrics, epoch)
        )
        show(tracker, run_id, run, "val", fitted.val, benchmark.primary)
        if isinstance(val, MaskedSamples):
            picture(tracker, run_id, run, fitted, val)
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


def fit(config: TransferConfig, train, val, metric: str, log):
    """The fitted protocol: something with `val` predictions and `predict(samples, device)`."""
    device, seed, protocol = device_here(), config.seed, config.protocol
    if isinstance(protocol, PixelColourSettings):
        return pixel_colour(train, val, protocol, seed=seed)
    encoder = transfer_encoder(config, train)
    if isinstance(protocol, ProbeSettings):
        fitted = probe(encoder, train, val, protocol, metric=metric, device=device)
        edge = ", on the edge of the grid: widen protocol.lowest_c or protocol.highest_c" if fitted.is_on_edge else ""
        say(f"probe: C={fitted.c:g}{edge}")
        return fitted
    train_it, unit, num = (
        (segment, "update", protocol.num_steps)
        if isinstance(protocol, SegmentSettings)
        else (finetune, "epoch", protocol.epochs)
    )

    def report(number: int, metrics: dict[str, float], model, is_best: bool) -> None:
        log(number, metrics)
        say(f"{unit} {number}/{num}  " + "  ".join(f"{k} {v:.3f}" for k, v in metrics.items()))

    return train_it(encoder, train, val, protocol, metric=metric, seed=seed, device=device, report=report)


def show(tracker, run_id: str, run: RunFolder, split: str, predictions: Predictions | PixelPredictions, metric: str):
    """Print, save and log the scores of one split."""
    scores = score_pixels(predictions) if isinstance(predictions, PixelPredictions) else score(predictions)
    predictions.save(run.path / f"{split}.parquet")
    numbers = {f"{split}_{name}": value for name, value in scores.items() if isinstance(value, float)}
    tracker.log_metrics(run_id, numbers)
    say(f"{split}: {metric} {scores[metric]:.3f}  ({len(predictions.sample)} samples)")


def picture(tracker, run_id: str, run: RunFolder, fitted, val: MaskedSamples) -> None:
    """Four images of val with their truth and what was said."""
    rows = [
        (name, image, mask, fitted.classes_of(image, device_here()))
        for name, (image, mask) in list(zip(val.names, val.masked))[:NUM_PICTURES]
    ]
    figure = segmentation_figure(rows, val.classes)
    figure.savefig(run.path / "val.png", dpi=120)
    tracker.log_picture(run_id, run.path / "val.png", "val.png")


if __name__ == "__main__":
    launch.run(main)
