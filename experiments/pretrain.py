"""Pretrain an encoder on the tiles of an index.

    python experiments/pretrain.py [RECIPE] [key=value ...]     without a recipe: the demo, which makes its own slides
    python experiments/pretrain.py simclr_tiles index=DIR loop.num_steps=500
    python experiments/pretrain.py resume=runs/ID [key=value ...]
    python experiments/pretrain.py --list

As a Ray job: ray job submit --working-dir . -- python experiments/pretrain.py
"""

from dataclasses import replace
from pathlib import Path

import launch
from launch import say
from phantom_data import demo_slides, phantom_index
from recipes import PRETRAINING

from raypath.config import config_hash, differences, override, to_dict
from raypath.data.joined_index import AnyIndex, load_index, split_folders
from raypath.data.preview import contact_sheet
from raypath.data.view_sheet import view_sheet
from raypath.errors import BadInput, Preempted
from raypath.metric_spool import MetricSpool
from raypath.run_folder import RunFolder, runs_root
from raypath.study.figures import loss_figure
from raypath.tracking import SystemSampler, Tracker
from raypath.training.pretrain import finished_encoder, pretrain
from raypath.training.progress import ProgressLines
from raypath.training.settings import PretrainConfig, check_config, data_hash, make_plan
from raypath.training.starvation import nodes_of_cluster, refuse_starvation


def main(arguments: list[str]) -> None:
    """Start or resume a run, as the arguments say."""
    if "--list" in arguments:
        launch.list_recipes(PRETRAINING)
        return
    if "--help" in arguments or "-h" in arguments:
        say(__doc__)
        return
    recipe, assignments = launch.split_arguments(arguments, default="demo")
    resume, assignments = launch.pick(assignments, "resume")
    if resume:
        run = RunFolder.open(resume)
        config = resumed_config(run, assignments)
        if finished_encoder(run, config):
            say(f"{run.path} is at step {config.loop.num_steps} of {config.loop.num_steps}: nothing to train")
        else:
            launch.start_ray()
    else:
        config = launch.from_recipe(PRETRAINING, recipe, assignments)
        launch.start_ray()
        config = with_index(config)
        check_before(config)
        run = RunFolder.create(runs_root(), config.name, config)
    encoder = pretrain_run(config, run, launch.start_tracking())
    say(f"encoder: {encoder}")


def with_index(config: PretrainConfig) -> PretrainConfig:
    """The config with its index; the demo makes one from phantoms."""
    if config.index:
        return with_absolute_index(config)
    if config.name != "demo":
        raise BadInput(f"{config.name}: which tiles? set index=DIR, made with: raypath index MANIFEST --out DIR")
    return replace(config, index=str(phantom_index(demo_slides(config.seed))))


def with_absolute_index(config: PretrainConfig) -> PretrainConfig:
    """The index by paths that mean the same in every process."""
    return replace(config, index=",".join(str(Path(folder).absolute()) for folder in split_folders(config.index)))


def check_before(config: PretrainConfig) -> None:
    """Raise what cannot work while there is no run yet."""
    check_config(config, load_index(config.index))
    refuse_starvation(config.workers, config.stream.read_cpus, nodes_of_cluster())


def resumed_config(run: RunFolder, assignments: list[str]) -> PretrainConfig:
    """The config of a run with overrides that change nothing of what it computes."""
    before = run.config(PretrainConfig)
    after = with_absolute_index(override(before, assignments))
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
    index = load_index(config.index)
    known = run.read("run.json")
    tags = {
        "study": study,
        "encoder": run.id,
        "protocol": "pretrain",
        "seed": config.seed,
        "config_hash": config_hash(config),
        "data_hash": data_hash(config, index),
        "raypath.folder": str(run.path),
    }
    run_id = tracker.start_run(
        run.id, parent=parent, tags=tags, params=to_dict(config), resume=known.get("mlflow_run_id")
    )
    run.write("run.json", known | {"mlflow_run_id": run_id, "mlflow_uri": tracker.place})
    say(f"run {run.path}  (MLflow: {tracker.place})")

    status = "FAILED"
    senders = [tracker.send_spool(run_id, path) for path in (run.metrics, run.path / "system.jsonl")]
    sampler = SystemSampler(MetricSpool(run.path / "system.jsonl"))
    run.forget_outcome()  # before the handler: a signal from now on must not be forgotten
    try:
        with launch.stopping_on_signals(run):
            if "mlflow_run_id" not in known:
                record_data(config, run, index, tracker, run_id)
            with ProgressLines(run, config.loop.num_steps, say):
                encoder = pretrain(config, run)
        tracker.log_artifact(run_id, encoder, "encoder")
        tracker.log_picture(run_id, loss_figure(run.metrics), "loss.png")
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


def record_data(config: PretrainConfig, run: RunFolder, index: AnyIndex, tracker: Tracker, run_id: str) -> None:
    """What the run is trained on, for MLflow: manifests, config, and pictures of tiles and views."""
    for number, part in enumerate(index.parts):
        name, manifest = f"{part.folder.parent.name}/{part.folder.name}", part.folder / "manifest.csv"
        tracker.log_dataset(run_id, manifest, name=name, digest=part.hash, context="train")
        sheet = contact_sheet(part, num_tiles=48, seed=config.seed)
        tracker.log_picture(run_id, sheet, f"tiles-{number}.png" if number else "tiles.png")
    tracker.log_artifact(run_id, run.path / "config.json")
    views = view_sheet(index, make_plan(config, index), config.views, seed=config.seed)
    tracker.log_picture(run_id, views, "views.png")


if __name__ == "__main__":
    launch.run(main)
