"""The config of a pretraining: one value that decides the run, and the plan that follows from it.

One decision: what changes the numbers is part of the identity (and so of the config hash), what only says how the work is
carried out is not, and may differ when a run is resumed.
"""

import hashlib
from dataclasses import dataclass, field

import numpy as np

from raypath.config import setting
from raypath.data.joined_index import AnyIndex
from raypath.data.plan import Plan, PlanSettings
from raypath.data.stream import StreamSettings
from raypath.data.views import ViewSettings
from raypath.errors import BadInput
from raypath.models import EncoderSettings, check_architecture
from raypath.objectives import ObjectiveSettings, SimCLRSettings
from raypath.training.loop import LoopSettings
from raypath.training.optim import OptimSettings


@dataclass(frozen=True, kw_only=True)
class WorkerSettings:
    """How the training is spread; none of it changes which tiles are seen in which batch."""

    num_workers: int = setting(2, identity=False)
    cpus_per_worker: float = setting(0.5, identity=False)
    use_gpu: bool = setting(False, identity=False)
    torch_threads: int = setting(1, identity=False)
    """Threads of torch in each worker; fixed, because the number changes the last bits of a sum."""
    max_failures: int = setting(3, identity=False)
    """Lost workers or nodes that a run survives."""
    keep_checkpoints: int = setting(2, identity=False)
    max_bad_tiles: float = setting(0.01, identity=False)
    """Largest share of tiles that may be unreadable before the run stops (exit 3)."""

    def __post_init__(self):
        for name in ("num_workers", "torch_threads", "keep_checkpoints"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: expected 1 or more")
        for name in ("cpus_per_worker", "max_failures", "max_bad_tiles"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name}={getattr(self, name)}: expected 0 or more")


@dataclass(frozen=True, kw_only=True)
class PretrainConfig:
    """Everything that decides a pretraining."""

    name: str = setting("pretrain", identity=False)
    index: str = setting("", identity=False)
    """Folder of the index, or several with a comma (tiles of several scales); what they hold enters the lineage by a hash."""
    splits: tuple[str, ...] = ("train",)
    """Slides to train on; a slide without a split always counts."""
    seed: int = 0
    encoder: EncoderSettings = field(default_factory=EncoderSettings)
    objective: ObjectiveSettings = field(default_factory=SimCLRSettings)
    views: ViewSettings = field(default_factory=ViewSettings)
    plan: PlanSettings = field(default_factory=PlanSettings)
    loop: LoopSettings = field(default_factory=LoopSettings)
    optim: OptimSettings = field(default_factory=OptimSettings)
    stream: StreamSettings = field(default_factory=StreamSettings)
    workers: WorkerSettings = field(default_factory=WorkerSettings)


def make_plan(config: PretrainConfig, index: AnyIndex) -> Plan:
    """The plan over the slides that the config trains on; raises BadInput if they have no tiles."""
    splits = index.column("split").tolist()
    counts = index.num_tiles * np.array([split is None or split in config.splits for split in splits])
    if counts.sum() == 0:
        there = sorted({str(split) for split in splits})
        raise BadInput(
            f"{index.folder}: no tiles in the splits {', '.join(config.splits)}; its slides are in {', '.join(there)}"
        )
    column = config.plan.balance_by
    values = None if column == "tile" else [value or "(none)" for value in index.column(column).tolist()]
    return Plan(counts, config.plan, seed=config.seed, values=values, slide_numbers=index.slide_numbers)


def data_hash(config: PretrainConfig, index: AnyIndex) -> str:
    """sha256 of what is trained on: the tiles of the index, and which of them the splits, quotas and weights take."""
    return hashlib.sha256(f"{index.hash} {make_plan(config, index).hash}".encode()).hexdigest()


def check_config(config: PretrainConfig, index: AnyIndex) -> None:
    """Raise BadInput, before anything is started, for numbers that do not go together."""
    if config.views.num_views != config.objective.num_views:
        raise BadInput(
            f"views.num_views={config.views.num_views}: {config.objective.kind} wants {config.objective.num_views} views of a tile"
        )
    if config.views.extent_px != config.encoder.input_px:
        raise BadInput(
            f"views.extent_px={config.views.extent_px} and encoder.input_px={config.encoder.input_px}: expected the same number"
        )
    given, found = (config.encoder.mpp, config.encoder.mpp_max), index.mpp_range
    if any(one is not None and abs(one / other - 1) > 1e-6 for one, other in zip(given, found)):
        raise BadInput(
            f"encoder.mpp={given[0]}, encoder.mpp_max={given[1]}, but the tiles of {index.folder} have {found[0]:g} to"
            f" {found[1]:g} um per px: leave both out (they are taken from the index) or use an index made at that mpp"
        )
    check_architecture(config.encoder)
    make_plan(config, index).check_world(config.workers.num_workers, config.loop.global_batch)
