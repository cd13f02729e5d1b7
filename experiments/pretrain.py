"""Pretrain an encoder on the tiles of an index, or on a pool of labelled images.

    python experiments/pretrain.py [RECIPE] [key=value ...]     without a recipe: the demo, which makes its own slides
    python experiments/pretrain.py simclr_tiles index=DIR loop.num_steps=500
    python experiments/pretrain.py simclr_then_supervised_small index=DIR 2.optim.lr=0.0001     for the second stage alone
    python experiments/pretrain.py resume=runs/ID [key=value ...]
    python experiments/pretrain.py --list

`--key value` is key=value.

As a Ray job: ray job submit --working-dir . -- python experiments/pretrain.py
"""

import os
from dataclasses import replace
from pathlib import Path

import launch
from afterwards import record_outcome
from command_line import pick, split_arguments
from launch import say
from phantom_data import demo_slides, phantom_index
from recipes import PRETRAINING, kawai2023
from stages import follow_up, later_stages, note_next, place_of, stages_from_recipe, write_stages

from raypath.config import config_hash, differences, override, to_dict
from raypath.data.joined_index import split_folders
from raypath.data.pool_spec import absolute_pool
from raypath.data.preview import contact_sheet
from raypath.data.view_sheet import view_sheet
from raypath.errors import BadInput, Preempted
from raypath.metric_spool import MetricSpool
from raypath.protocols.encoders import monitors_of
from raypath.protocols.monitor import check_monitor, open_monitor
from raypath.run_folder import RunFolder, runs_root
from raypath.study.figures import loss_figure
from raypath.tracking import SystemSampler, Tracker
from raypath.training.fidelity import deviations, faithful_optim
from raypath.training.optim import peak_lr, warmup_note
from raypath.training.pretrain import finished_encoder, pretrain
from raypath.training.progress import ProgressLines
from raypath.training.settings import PretrainConfig, check_settings
from raypath.training.source import Source, TileSource, check_config, data_hash, open_source
from raypath.training.start import resolve_start, resolve_steps, start_hash
from raypath.training.starvation import nodes_of_cluster, refuse_starvation


def main(arguments: list[str]) -> None:
    """Start or resume a run, as the arguments say, and the stages that follow it."""
    if "--list" in arguments:
        launch.list_recipes(PRETRAINING)
        return
    if "--help" in arguments or "-h" in arguments:
        say(__doc__)
        return
    recipe, assignments = split_arguments(arguments, default="demo")
    resume, assignments = pick(assignments, "resume")
    if resume:
        run, later = resumed_run(resume, assignments)
    else:
        first, *later = stages_from_recipe(PRETRAINING, recipe, assignments)
        for stage in (first, *later):
            check_settings(stage)
            has_data(stage)
            check_monitor(stage.monitor)
        for stage in later:  # before the first one takes its hours
            check_config(stage, open_source(with_data(stage)))
        run = new_run(first, later)
    while run:
        say_stage(run)
        encoder = pretrain_run(run.config(PretrainConfig), run, launch.start_tracking())
        say(f"encoder: {encoder}")
        if not later:
            say_next(run)
        run, later = next_run(run, later)


def say_stage(run: RunFolder) -> None:
    """Which stage of how many this run is; nothing for a run that is the only one."""
    stage, num_stages = place_of(run)
    if num_stages > 1:
        say(f"stage {stage} of {num_stages}: {run.id}")


def say_next(run: RunFolder) -> None:
    """What a person may do with a finished run, as lines to copy."""
    place = os.path.relpath(run.path)
    place = str(run.path) if place.startswith("..") else place
    say(f"next: python experiments/sweep.py my-images --encoder {place},random,colour")
    say(f"      raypath export {place} --to my-encoder")


def resumed_run(resume: str, assignments: list[str]) -> tuple[RunFolder, list[PretrainConfig]]:
    """The run to go on with, its config with the overrides it allows, and the stages after it."""
    run = RunFolder.open(resume)
    config = resumed_config(run, assignments)
    following, later = later_stages(run)
    if finished_encoder(run, config):
        say(f"{run.path} is at step {config.loop.num_steps} of {config.loop.num_steps}: nothing to train")
        if following:
            return resumed_run(str(following.path), assignments)
    if later or not finished_encoder(run, config):
        launch.start_ray()
    run.write("config.json", to_dict(config))
    return run, later


def next_run(run: RunFolder, later: list[PretrainConfig]) -> tuple[RunFolder | None, list[PretrainConfig]]:
    """The run of the next stage, made now; None after the last."""
    if not later:
        return None, []
    following = new_run(follow_up(later[0], run), later[1:], stage=place_of(run)[0] + 1)
    note_next(run, following)
    return following, later[1:]


def new_run(config: PretrainConfig, later: list[PretrainConfig], *, stage: int = 1) -> RunFolder:
    """A folder for a run that can work: everything about it is decided and checked while there is none yet, and nearly all of it
    before Ray is started.
    """
    config, note = resolve_start(with_absolute_monitor(with_data(config)))
    say(f"starting from {note}")
    check_settings(config)
    source = open_source(config)
    config = resolve_steps(config, source)
    check_config(config, source)
    launch.start_ray()
    refuse_starvation(config.workers, config.stream.read_cpus, nodes_of_cluster())
    run = RunFolder.create(runs_root(), config.name, config)
    run.write("run.json", {"index_hash": source.rows.hash})
    write_stages(run, later, stage=stage)
    return run


def has_data(config: PretrainConfig) -> None:
    """Raise BadInput for a run that does not say what it is trained on; the demo makes its own slides."""
    if not config.index and not config.pool and config.name != "demo":
        raise BadInput(
            f"{config.name}: which data? set index=DIR, made with: raypath index MANIFEST --out DIR, or pool=DIR,DIR"
        )


def with_data(config: PretrainConfig) -> PretrainConfig:
    """The config with paths that mean the same in every process; the demo makes its slides."""
    if config.pool:
        return replace(config, pool=absolute_pool(config.pool))
    if not config.index:
        launch.start_ray()  # to index them
        return replace(config, index=str(phantom_index(demo_slides(config.seed))))
    return replace(config, index=",".join(str(Path(folder).absolute()) for folder in split_folders(config.index)))


def with_absolute_monitor(config: PretrainConfig) -> PretrainConfig:
    """The monitor's set by an absolute path."""
    path = config.monitor.path
    return replace(config, monitor=replace(config.monitor, path=str(Path(path).absolute()))) if path else config


def resumed_config(run: RunFolder, assignments: list[str]) -> PretrainConfig:
    """The config of a run with overrides that change nothing of what it computes."""
    before = run.config(PretrainConfig)
    after = with_absolute_monitor(with_data(override(before, assignments)))
    changed = differences(before, after)
    if changed:
        raise BadInput(
            f"{run.path}: a resumed run must stay the same run; changed: {'; '.join(changed)}. Start a new run for that"
        )
    return after


def pretrain_run(
    config: PretrainConfig, run: RunFolder, tracker: Tracker, *, parent: str | None = None, study: str | None = None
) -> Path:
    """Train, with progress on the screen and metrics in MLflow; returns the path of the encoder's weights."""
    known = run.read("run.json")
    source = open_source(config, known.get("index_hash"))
    tags = {
        "study": study,
        "encoder": run.id,
        "protocol": "pretrain",
        "seed": config.seed,
        "config_hash": config_hash(config),
        "data_hash": data_hash(source),
        "raypath.folder": str(run.path),
        "raypath.init": config.init,
        "raypath.start_hash": start_hash(config) if "mlflow_run_id" not in known else known.get("start_hash"),
        "raypath.deviations": ", ".join(deviation.name for deviation in deviations(config)) or "none known",
    }
    run_id = tracker.start_run(
        run.id, parent=parent, tags=tags, params=to_dict(config), resume=known.get("mlflow_run_id")
    )
    run.write("run.json", known | {"mlflow_run_id": run_id, "mlflow_uri": tracker.place})
    say(f"run {run.path}  (MLflow: {tracker.place})")
    announce(config)

    status = "FAILED"
    senders = [tracker.send_spool(run_id, path) for path in (run.metrics, run.path / "system.jsonl")]
    sampler = SystemSampler(MetricSpool(run.path / "system.jsonl"))
    run.forget_outcome()  # before the handler: a signal from now on must not be forgotten
    try:
        with launch.stopping_on_signals(run):
            if "mlflow_run_id" not in known:
                record_data(config, run, source, tracker, run_id)
            monitor = None
            if not finished_encoder(run, config):
                monitor = open_monitor(config.monitor, config.encoder.input_px)
                watched = [*monitors_of(config.init), *([monitor.declared] if monitor else [])]
                run.write("run.json", run.read("run.json") | {"monitors": watched})
            with ProgressLines(run, config.loop.num_steps, say):
                encoder = pretrain(config, run, monitor)
        tracker.log_artifact(run_id, encoder, "encoder")
        tracker.log_picture(run_id, loss_figure(run.metrics), "loss.png")
        record_outcome(config, run, source, encoder, tracker, run_id)
        status = "FINISHED"
    except (Preempted, KeyboardInterrupt):
        status = "KILLED"
        raise
    finally:
        sampler.close()
        for sender in senders:
            sender.close(timeout_s=20)
        tracker.end_run(run_id, status)
    return encoder


def announce(config: PretrainConfig) -> None:
    """Say what a person should know of a run before it takes its time."""
    if config.loop.accumulate > 1:
        say(
            f"gradients of {config.loop.accumulate} micro-batches are put together; batch-norm statistics are those of a"
            " micro-batch (over all ranks where they are synchronised)"
        )
    if note := warmup_words(config):
        say(note)
    for (recipe, what), number in kawai2023.PUBLISHED.items():
        if recipe == config.name:
            say(f"the paper's number: {what} {number if number is not None else 'not known'}")
    for deviation in deviations(config):
        say(f"not as in {deviation.paper}: {deviation.name}: there {deviation.defect}; here {deviation.repair}")


def warmup_words(config: PretrainConfig) -> str | None:
    """What to say where a run is over before its warm-up is."""
    optim = faithful_optim(config)
    return warmup_note(config.loop.num_steps, peak_lr(optim, config.loop.global_batch), optim)


def record_data(config: PretrainConfig, run: RunFolder, source: Source, tracker: Tracker, run_id: str) -> None:
    """What the run is trained on, for MLflow: manifests, config, and pictures of tiles and views."""
    if isinstance(source, TileSource):
        for number, part in enumerate(source.rows.parts):
            name, manifest = f"{part.folder.parent.name}/{part.folder.name}", part.folder / "manifest.csv"
            tracker.log_dataset(run_id, manifest, name=name, digest=part.hash, context="train")
            sheet = contact_sheet(part, num_tiles=48, seed=config.seed)
            tracker.log_picture(run_id, sheet, f"tiles-{number}.png" if number else "tiles.png")
    else:
        for note in source.rows.notes:
            say(f"pool: {note}")
    tracker.log_artifact(run_id, run.path / "config.json")
    views = view_sheet(source.reader(), config.views, seed=config.seed)
    tracker.log_picture(run_id, views, "views.png")


if __name__ == "__main__":
    launch.run(main)
