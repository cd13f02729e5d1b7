"""The config of a pretraining: one value that decides the run, and the plan that follows from it.

One decision: what changes the numbers is part of the identity (and so of the config hash), what only says how the work is
carried out is not, and may differ when a run is resumed.
"""

from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from raypath.config import setting
from raypath.data.joined_index import AnyIndex
from raypath.data.plan import Plan, PlanSettings
from raypath.data.stream import StreamSettings
from raypath.data.task_plan import TaskSettings
from raypath.data.views import ViewSettings
from raypath.errors import BadInput
from raypath.models import EncoderSettings, check_architecture, fix_positions
from raypath.objectives import ObjectiveSettings, SimCLRSettings
from raypath.training.gradients import check_accumulation
from raypath.training.health import HealthSettings
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
class MonitorSettings:
    """Which labelled set is watched, and how often; none of it changes what is learned."""

    path: str = setting("", identity=False)
    """Class folders or a manifest, as for `benchmark.path`; empty: no monitor."""
    every: int = setting(100, identity=False)
    """Steps between looks, the first before anything is trained."""
    k: int = setting(20, identity=False)
    """How many neighbours vote; capped by the training samples."""
    drop_classes: tuple[str, ...] = setting((), identity=False)
    ignore_split: bool = setting(False, identity=False)
    """Make a split although the set has one (for one that divides patients)."""

    def __post_init__(self):
        for name in ("every", "k"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: expected 1 or more")


@dataclass(frozen=True, kw_only=True)
class PretrainConfig:
    """Everything that decides a pretraining."""

    name: str = setting("pretrain", identity=False)
    reproduces: str = setting("", identity=False)
    """The paper whose row a recipe stands for: its numbers are compared with the paper's, beside the known deviations."""
    index: str = setting("", identity=False)
    """Folder of the index, or several with a comma (tiles of several scales); what they hold enters the lineage by a hash."""
    pool: str = setting("", identity=False)
    """Labelled image sets instead of an index: places with a comma, see `data.pool_spec`."""
    splits: tuple[str, ...] = ("train",)
    """Slides or images to train on; one without a split always counts."""
    seed: int = 0
    init: str = setting("random", identity=False)
    """Weights to start from: random, imagenet, runs/ID, or a file of weights; their sha256 is part of the lineage."""
    adapt_batch_norm: int = 0
    """Batches by which batch norm is adapted to the data before the first step, outputs unchanged (second paper: 20)."""
    fidelity: Literal["repaired", "paper"] = "repaired"
    """paper: with those defects of the papers' code that change numbers, see `training.fidelity`."""
    encoder: EncoderSettings = field(default_factory=EncoderSettings)
    objective: ObjectiveSettings = field(default_factory=SimCLRSettings)
    views: ViewSettings = field(default_factory=ViewSettings)
    plan: PlanSettings = field(default_factory=PlanSettings)
    tasks: TaskSettings = field(default_factory=TaskSettings)
    pool_px: int = 0
    """Extent to which images of a pool are read before views are made; 0: that of the views."""
    health: HealthSettings = field(default_factory=HealthSettings, metadata={"identity": False})
    monitor: MonitorSettings = field(default_factory=MonitorSettings)
    validate_every: int = setting(0, identity=False)
    """Steps between looks at the val rows of every task of a pool (accuracy); 0: never."""
    loop: LoopSettings = field(default_factory=LoopSettings)
    optim: OptimSettings = field(default_factory=OptimSettings)
    stream: StreamSettings = field(default_factory=StreamSettings)
    workers: WorkerSettings = field(default_factory=WorkerSettings)

    @property
    def read_px(self) -> int:
        """The extent of an image of a pool as it is read."""
        return self.pool_px or self.views.extent_px


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


def check_settings(config: PretrainConfig) -> None:
    """Raise BadInput, before anything is read, for settings that do not go together."""
    needs, kind = config.objective.needs, config.objective.kind
    for name in ("num_views", "num_local_views"):
        given, wanted = getattr(config.views, name), getattr(needs, name)
        if given != wanted:
            raise BadInput(f"views.{name}={given}: {kind} wants {wanted}; set views.{name}={wanted}")
    if config.views.extent_px != config.encoder.input_px:
        raise BadInput(
            f"views.extent_px={config.views.extent_px} and encoder.input_px={config.encoder.input_px}: expected the same number"
        )
    if config.init != "random" and getattr(config.objective, "init_target", "copy") != "copy":
        raise BadInput(
            f"objective.init_target={config.objective.init_target} with init={config.init}: the momentum copy would start from"
            " random weights; set objective.init_target=copy"
        )
    check_accumulation(needs, config.loop.accumulate)
    rows = config.loop.global_batch // config.workers.num_workers
    if rows % config.loop.accumulate:
        raise BadInput(
            f"loop.accumulate={config.loop.accumulate}: a worker's {rows} tiles of a batch cannot be cut into that many equal parts"
        )
    encoder = check_architecture(config.encoder, needs_tokens=needs.is_vit_only)
    if needs.has_fixed_positions and config.init == "random":
        fix_positions(encoder)  # raises BadInput
    if hasattr(config.objective, "check_batch"):  # MoCo: a queue of whole batches, groups of batch norm
        config.objective.check_batch(
            config.loop.global_batch,
            config.workers.num_workers,
            has_batch_norm=encoder.has_batch_norm,
            num_micro=config.loop.accumulate,
        )
