"""What one worker of a pretraining does, and which rows it gets.

One decision: a worker group may start at any time, with any number of workers, and finds its place by itself: the newest
checkpoint that is valid on storage gives weights and position, the plan gives the rest. So a killed worker, a killed driver and
a resumed run are one and the same case.

Errors that would only repeat (a diverged loss, too many bad tiles, a stop on request) are written into the run's folder and end
the run; anything else is Ray Train's to try again.
"""

from collections.abc import Iterator
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import ray
import ray.train
import ray.train.torch
import torch

from raypath import __version__
from raypath.config import config_hash, from_dict, to_dict
from raypath.data.batches import OutOfOrder, batch_digest, rank_batches, same_slide_share
from raypath.data.joined_index import AnyIndex, open_index
from raypath.data.quarantine import TileQuarantine, load_known_faults
from raypath.data.stream import StreamSpec, blocks_of, rank_dataset
from raypath.data.views_torch import make_views
from raypath.errors import Diverged, Preempted, TooManyQuarantined
from raypath.metric_spool import MetricSpool
from raypath.models import build_encoder, synchronise_batch_norm
from raypath.objectives import build_objective
from raypath.run_folder import RunFolder
from raypath.training.checkpoint import load_checkpoint, newest_valid, prune, read_step, save_checkpoint
from raypath.training.loop import TrainState, fit
from raypath.training.optim import build_optimizer
from raypath.training.settings import PretrainConfig, make_plan

_NOTICE_EVERY_S = (
    0.5  # between looks at Ray's preemption notice, each a barrier of some ms; longer steps look every time
)
_FINAL = (Diverged, Preempted)  # raised on every rank at the same step; trying again would not help


class PlanDataConfig(ray.train.DataConfig):
    """Gives each rank its own dataset; Ray asks again whenever a worker group starts."""

    def __init__(self, job: dict[str, Any]):
        super().__init__()
        self.job = job

    def configure(self, datasets, world_size: int, *_args, **_kwargs) -> list[dict[str, Any]]:
        """The iterator of every rank, from the newest valid checkpoint on."""
        config, run, index = unpack(self.job)
        spec = stream_spec(config, run, index, world_size)
        return [{"train": rank_dataset(spec, rank).iterator()} for rank in range(world_size)]


def unpack(job: dict[str, Any]) -> tuple[PretrainConfig, RunFolder, AnyIndex]:
    """Config, run and index of a job, which travels as plain values."""
    config = from_dict(PretrainConfig, job["config"])
    return config, RunFolder(Path(job["run"])), open_index(config.index, job["index_hash"])


def stream_spec(config: PretrainConfig, run: RunFolder, index: AnyIndex, world_size: int) -> StreamSpec:
    """What remains to be read: from the newest valid checkpoint to the last step."""
    checkpoint = newest_valid(run.checkpoints)
    batch = config.loop.global_batch
    return StreamSpec(
        index_folders=config.index,
        index_hash=index.hash,
        plan=make_plan(config, index),
        views=config.views,
        stream=config.stream,
        seed=config.seed,
        world_size=world_size,
        start=batch * (read_step(checkpoint) if checkpoint else 0),
        stop=batch * config.loop.num_steps,
        known_faults=load_known_faults(run.quarantine),
    )


def train_worker(job: dict[str, Any]) -> None:
    """The function Ray Train runs on every worker."""
    config, run, index = unpack(job)
    if run.read("outcome.json"):
        return  # another rank ended the run for good
    context = ray.train.get_context()
    rank, world_size = context.get_world_rank(), context.get_world_size()
    torch.set_num_threads(config.workers.torch_threads)
    device = ray.train.torch.get_device()
    state = restored_state(config, run, index, device, rank)
    spec = stream_spec(config, run, index, world_size)
    assert spec.start == state.step * config.loop.global_batch, "stream and weights start at different steps"

    quarantine = TileQuarantine(run.quarantine, index, config.workers.max_bad_tiles)
    rows = RankRows(spec, rank, config.loop.global_batch, quarantine, device)
    spool = MetricSpool(run.metrics) if rank == 0 else None

    def report(step: int, metrics: dict[str, float]) -> None:
        if spool:
            spool.append(metrics, step)

    try:
        fit(
            state,
            rows,
            loop=config.loop,
            optim=config.optim,
            seed=config.seed,
            device=device,
            digest_of=batch_digest,
            observe=lambda: rows.shares,
            report=report,
            save=Saver(config, run, index, rank, state),
            should_stop=Watch(run, rank).should_stop,
        )
    except TooManyQuarantined as error:
        run.end_with(error)
        raise  # the other ranks wait in a collective: Ray has to end the group; its next one sees the outcome and returns
    except _FINAL as error:
        run.end_with(error)
    finally:
        if spool:
            spool.close()


def restored_state(
    config: PretrainConfig, run: RunFolder, index: AnyIndex, device: torch.device, rank: int
) -> TrainState:
    """Objective and optimiser, built from the config and filled from the newest valid checkpoint."""
    mpp, mpp_max = index.mpp_range
    settings = replace(config.encoder, mpp=mpp, mpp_max=mpp_max)
    encoder = build_encoder(settings, seed=config.seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        objective = build_objective(config.objective, encoder)
    objective = synchronise_batch_norm(objective.to(device), device)
    optimizer = build_optimizer(objective, objective.param_groups(config.optim), config.optim)
    state = TrainState(objective, optimizer)
    checkpoint = newest_valid(run.checkpoints)
    if checkpoint:
        load_checkpoint(checkpoint, state, rank=rank)
    return state


class RankRows:
    """The batches of one rank; keeps what the last one looked like, for the log."""

    def __init__(
        self, spec: StreamSpec, rank: int, global_batch: int, quarantine: TileQuarantine, device: torch.device
    ):
        self.spec, self.device = spec, device
        blocks = blocks_of(ray.train.get_dataset_shard("train"), spec)
        batch = global_batch // spec.world_size
        self.batches = rank_batches(blocks, start=spec.start, rank=rank, world_size=spec.world_size, batch=batch)
        self.quarantine = quarantine
        self.shares: dict[str, float] = {}

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        return self

    def __next__(self) -> dict[str, torch.Tensor]:
        batch = next(self.batches)
        self.quarantine.note(batch)
        slides = self.spec.plan.slide_numbers[batch["slide"].numpy()]
        self.shares = {
            "same_slide_share": same_slide_share(slides),
            "tiles_per_slide": len(slides) / len(set(slides.tolist())),
            "substituted_share": float((batch["fault"] > 0).float().mean()),
        }
        if self.spec.views.where == "gpu":
            tiles = batch.pop("image").to(self.device, non_blocking=True)
            batch["views"] = make_views(tiles, batch["position"], self.spec.views, self.spec.seed)
        return batch


class Saver:
    """Rank 0 proves that no tile was lost or seen twice, and writes the checkpoint; all ranks tell Ray Train of it."""

    def __init__(self, config: PretrainConfig, run: RunFolder, index: AnyIndex, rank: int, state: TrainState):
        self.config, self.run, self.rank = config, run, rank
        self.plan = make_plan(config, index)
        self.step, self.digest = state.step, state.digest
        self.about = {
            "config": to_dict(config),
            "config_hash": config_hash(config),
            "index_hash": index.hash,
            "versions": {
                "raypath": __version__,
                "torch": torch.__version__,
                "timm": version("timm"),
                "ray": ray.__version__,
            },
        }

    def __call__(self, state: TrainState) -> None:
        """Save `state`; called on every rank."""
        metrics = {"step": state.step}
        if self.rank == 0:
            self._check_digest(state)
            metrics["checkpoint"] = str(save_checkpoint(self.run.checkpoints, state, self.about))
            prune(self.run.checkpoints, self.config.workers.keep_checkpoints)
        # Only the path: Ray would upload a copy, and resuming takes what is valid in the run's folder anyway.
        ray.train.report(metrics)

    def _check_digest(self, state: TrainState) -> None:
        batch = self.config.loop.global_batch
        expected = (self.digest + self.plan.digest(self.step * batch, state.step * batch)) % 2**64
        if state.digest != expected:
            raise OutOfOrder(
                f"{self.run.path}: the rows of steps {self.step} to {state.step} have the digest {state.digest:016x}, the plan's"
                f" is {expected:016x}: tiles were lost or seen twice, nothing was saved; resume={self.run.path} goes on from"
                " the last checkpoint"
            )
        self.step, self.digest = state.step, state.digest


class Watch:
    """Asks whether the run should stop: a person or a scheduler (the file `stop`), or a node about to go away."""

    def __init__(self, run: RunFolder, rank: int):
        self.run, self.rank, self.since_look_s = run, rank, 0.0

    def should_stop(self, step_s: float) -> bool:
        """True on at least one rank once the run is to stop; every rank asks after every step.

        `step_s` is how long the last step took, the same number on every rank: so they look at the notice together.
        """
        self.since_look_s += step_s
        if self.since_look_s >= _NOTICE_EVERY_S:
            self.since_look_s = 0.0
            if ray.train.get_preemption_info() is not None:
                return True
        return self.rank == 0 and self.run.stop.exists()
