"""The pretrainings of a study: each is done once, and found again by what it is made of.

    runs/pretrainings/KEY.json     the run that a config on certain data from certain weights has become

One decision: the key is the config's hash, the data's and the starting weights', so two studies, or a study and a person who
trained by hand, share a run; one that was cut off is resumed from its last checkpoint. A stage that follows another has that one's
encoder for its start.
"""

import fcntl
import hashlib
import json
import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from statistics import median

from launch import say, start_tracking
from pretrain import has_data, new_run, pretrain_run, with_absolute_monitor, with_data
from stages import follow_up

from raypath.config import config_hash
from raypath.errors import BadInput
from raypath.run_folder import RunFolder, runs_root
from raypath.study.cells import Cost, write_json
from raypath.training.checkpoint import newest_valid, read_step
from raypath.training.pretrain import finished_encoder
from raypath.training.settings import PretrainConfig, check_settings
from raypath.training.source import check_config, data_hash, open_source
from raypath.training.start import resolve_start, resolve_steps, start_hash

_PAUSE_MS = 60_000


def pretrained(stages: list[PretrainConfig], *, points: int, study: str, parent: str | None = None) -> RunFolder:
    """The finished run of the last stage: found, resumed, or made now, with checkpoints for so many points on the way.

    Whoever asks for the same at the same time waits, and finds it. Raises what a pretraining raises.
    """
    run = None
    for number, stage in enumerate(stages, start=1):
        config = resolved(follow_up(stage, run) if run else stage)
        config = with_points(config, points) if number == len(stages) else config
        place = runs_root() / "pretrainings" / f"{key_of(config)}.json"
        place.parent.mkdir(parents=True, exist_ok=True)
        with place.with_suffix(".lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            run = known_run(place) or adopted_run(config) or new_run(config, [])
            write_json(place, {"run": str(run.path)})
            if finished_encoder(run, run.config(PretrainConfig)):
                say(f"{run.path}: is there already, {config.loop.num_steps} steps")
                continue
            pretrain_run(run.config(PretrainConfig), run, start_tracking(), parent=parent, study=study)
    return run


def resolved(config: PretrainConfig) -> PretrainConfig:
    """The config as its run will hold it. Raises BadInput for one that cannot work."""
    has_data(config)
    config, _ = resolve_start(with_absolute_monitor(with_data(config)))
    check_settings(config)
    source = open_source(config)
    config = resolve_steps(config, source)
    check_config(config, source)
    return config


def key_of(config: PretrainConfig) -> str:
    """What a pretraining is made of; `config` is resolved."""
    return hashlib.sha256(" ".join(_made_of(config)).encode()).hexdigest()[:24]


def _made_of(config: PretrainConfig) -> tuple[str, str, str]:
    return config_hash(config), data_hash(open_source(config)), start_hash(config)


def known_run(place: Path) -> RunFolder | None:
    """The run that is written down for a key, finished or cut off, if its folder is still there."""
    path = json.loads(place.read_text())["run"] if place.exists() else ""
    return RunFolder(Path(path)) if path and (Path(path) / "config.json").is_file() else None


def adopted_run(config: PretrainConfig) -> RunFolder | None:
    """A finished run of the same config on the same data from the same weights that somebody made by hand."""
    wanted, *made_of = _made_of(config)
    for place in sorted(runs_root().glob("*/checkpoints")):
        run = RunFolder(place.parent)
        known = run.read("run.json")
        if [known.get("data_hash"), known.get("start_hash")] != made_of:
            continue
        try:
            own = run.config(PretrainConfig)
        except BadInput:
            continue  # of another version
        if config_hash(own) == wanted and finished_encoder(run, own):
            return run
    return None


def pretrainings_at_once(trainings: list[list[PretrainConfig]], resources: dict[str, float]) -> int:
    """How many pretrainings fit the cluster, each with its workers and the tasks that read for it; one always."""
    fit = []
    for stage in (stage for stages in trainings for stage in stages):
        workers = stage.workers
        fit.append(resources.get("CPU", 1) / max(cpus_of(stage), 0.1))
        if workers.use_gpu:
            fit.append(resources.get("GPU", 0) / workers.num_workers)
    return max(1, int(min(fit, default=1)))


def cpus_of(config: PretrainConfig) -> float:
    """CPUs that a pretraining reserves: of each worker, and of the task that reads for it."""
    return config.workers.num_workers * (config.workers.cpus_per_worker + config.stream.read_cpus)


def checkpoints_of(run: RunFolder, points: int) -> list[Path]:
    """The checkpoints that are scored, oldest first, the last one always; `points`: how many before it at most."""
    newest = newest_valid(run.checkpoints)
    before = [path for path in sorted(run.checkpoints.glob("step-*")) if newest and path.name < newest.name]
    return [*before[len(before) - min(points, len(before)) :], newest] if newest else []


def cost_of(run: RunFolder, checkpoint: Path) -> Cost:
    """What the weights of a checkpoint took, from the times of the steps up to it, with all stages before."""
    config, step = run.config(PretrainConfig), read_step(checkpoint)
    times_ms = sorted(line["time"] for line in run.read_lines("metrics.jsonl") if line["step"] <= step)
    hours, workers = hours_at_work(times_ms), config.workers
    own = Cost(
        tiles_seen=step * config.loop.global_batch,
        cpu_hours=hours * cpus_of(config),
        gpu_hours=hours * workers.num_workers * workers.use_gpu,
    )
    start = Path(config.init)  # runs/ID/checkpoints/step-N/encoder.safetensors, where another run came before
    is_run = start.is_file() and start.parent.parent.name == "checkpoints"
    return own + cost_of(RunFolder(start.parents[2]), start.parent) if is_run else own


def hours_at_work(times_ms: list[int]) -> float:
    """The time between steps, without the pauses of a run that was stopped and resumed (20 times the usual, a minute at least)."""
    gaps = [after - before for before, after in pairwise(times_ms)]
    longest = max(_PAUSE_MS, 20 * median(gaps)) if gaps else 0
    return sum(gap for gap in gaps if gap <= longest) / 3.6e6


def with_points(config: PretrainConfig, points: int) -> PretrainConfig:
    """The config with as many checkpoints kept on the way as are to be scored."""
    if not points:
        return config
    every = max(1, math.ceil(config.loop.num_steps / (points + 1)))
    workers = replace(config.workers, keep_checkpoints=points + 1)
    return replace(config, loop=replace(config.loop, checkpoint_every=every), workers=workers)
