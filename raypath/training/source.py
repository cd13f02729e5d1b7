"""What a pretraining is fed from: tiles of an index, or labelled images of a pool, with one face for the worker.

One decision: a batch comes from the stream as pixels and numbers of rows; what else an objective may want to know of a row (label,
task, slide, patient, place) is looked up here by those numbers, so that it travels nowhere. Costs some microseconds per batch.
"""

import hashlib
import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from raypath.data.image_reading import ImageReader
from raypath.data.joined_index import AnyIndex, load_index, open_index
from raypath.data.plan import Plan
from raypath.data.pool import Pool, load_pool, open_pool
from raypath.data.reading import WindowReader
from raypath.data.task_plan import TaskPlan
from raypath.data.views import mpp_of_views
from raypath.errors import BadInput
from raypath.models import Encoder
from raypath.objectives import build_objective
from raypath.training.settings import PretrainConfig, make_plan


@dataclass(frozen=True, eq=False)
class TileSource:
    """The tiles of an index, in the order of the config's plan."""

    config: PretrainConfig
    rows: AnyIndex

    @property
    def mpp_range(self) -> tuple[float | None, float | None]:
        """The finest and the coarsest um per px that an encoder sees: of the global views of the tiles."""
        return mpp_of_views(self.config.views, *self.rows.mpp_range, self.rows.extent_px)

    @cached_property
    def plan(self) -> Plan:
        """Which tile stands at which position."""
        return make_plan(self.config, self.rows)

    @cached_property
    def classes(self) -> tuple[tuple[str, ...], ...]:
        """One label set, of the slides that are trained on; none if no slide has a label."""
        labels = self.rows.column("label")[self.plan.slot_counts > 0]
        found = tuple(sorted({label for label in labels.tolist() if label is not None}))
        return (found,) if found else ()

    @property
    def num_unlabelled(self) -> int:
        """Slides that are trained on and have no label."""
        return sum(label is None for label in self.rows.column("label")[self.plan.slot_counts > 0].tolist())

    @property
    def stream_fields(self) -> dict[str, Any]:
        """What a `StreamSpec` has to know of it."""
        return {"index_folders": self.config.index, "index_hash": self.rows.hash}

    def reader(self) -> WindowReader:
        """Reads rows in this process."""
        return WindowReader(self.rows, self.plan, {})

    def columns(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """`slide`, `patient` and `label` (-1: none), int64 [B]: of the slide whose pixels a row shows."""
        rows = batch["shown"].numpy()
        found = {"slide": self.plan.slide_numbers, "patient": self._patients, "label": self._labels}
        return {name: torch.from_numpy(values[rows]) for name, values in found.items()}

    def names(self, rows: np.ndarray, tiles: np.ndarray) -> list[dict[str, Any]]:
        """Which slides and places those are, for a record."""
        corners = (self.rows.corners(row, np.array([tile])) for row, tile in zip(rows.tolist(), tiles.tolist()))
        return [
            {"slide": self.rows.row(row)["slide"], "tile": tile, "x_l0": int(x[0]), "y_l0": int(y[0])}
            for row, tile, (x, y) in zip(rows.tolist(), tiles.tolist(), corners)
        ]

    @cached_property
    def _patients(self) -> np.ndarray:
        return np.unique(self.rows.column("patient").astype(str), return_inverse=True)[1].astype(np.int64)

    @cached_property
    def _labels(self) -> np.ndarray:
        number = {label: n for n, label in enumerate(self.classes[0])} if self.classes else {}
        return np.array([number.get(label, -1) for label in self.rows.column("label").tolist()], dtype=np.int64)


@dataclass(frozen=True, eq=False)
class ImageSource:
    """The images of a pool of labelled sets."""

    config: PretrainConfig
    rows: Pool
    mpp_range = (None, None)
    """Image files do not say it."""
    num_unlabelled = 0

    @cached_property
    def plan(self) -> TaskPlan:
        """Which image stands at which position."""
        return TaskPlan(self.rows.num_images, self.config.tasks, seed=self.config.seed)

    @property
    def classes(self) -> tuple[tuple[str, ...], ...]:
        """The classes of every task."""
        return tuple(task.classes for task in self.rows.tasks)

    @property
    def stream_fields(self) -> dict[str, Any]:
        """What a `StreamSpec` has to know of it."""
        return {
            "pool": self.config.pool,
            "pool_splits": self.config.splits,
            "pool_hash": self.rows.hash,
            "pool_extent_px": self.config.read_px,
        }

    def reader(self) -> ImageReader:
        """Reads rows in this process."""
        return ImageReader(self.rows, self.plan, {}, self.config.read_px)

    def columns(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Nothing: the reader gave `task` and `label`; each task stands for a `slide`, because an image has none."""
        return {}

    def names(self, rows: np.ndarray, tiles: np.ndarray) -> list[dict[str, Any]]:
        """Which images those are, for a record."""
        tasks = [self.rows.tasks[row] for row in rows.tolist()]
        return [{"task": task.name, "path": task.paths[image]} for task, image in zip(tasks, tiles.tolist())]


Source = TileSource | ImageSource


def open_source(config: PretrainConfig, content_hash: str | None = None) -> Source:
    """What the config trains on; with `content_hash` cheaply, once per process, refused if it changed. Raises BadInput."""
    if config.index and config.pool:
        raise BadInput(f"index={config.index} and pool={config.pool}: expected tiles or labelled images, not both")
    if config.pool:
        pool = (
            open_pool(config.pool, config.splits, content_hash)
            if content_hash
            else load_pool(config.pool, config.splits)
        )
        return ImageSource(config, pool)
    return TileSource(config, open_index(config.index, content_hash) if content_hash else load_index(config.index))


def data_hash(source: Source) -> str:
    """sha256 of what is trained on: tiles or images, and which of them the splits, quotas and weights take."""
    return hashlib.sha256(f"{source.rows.hash} {source.plan.hash}".encode()).hexdigest()


def check_config(config: PretrainConfig, source: Source) -> None:
    """Raise BadInput, before anything is started, for a config that does not go with its data."""
    _check_labels(config, source)
    _check_mpp(config, source)
    source.plan.check_world(config.workers.num_workers, config.loop.global_batch)
    objective = _without_memory(config, source)
    if config.validate_every:
        if not config.pool or not hasattr(objective, "logits"):
            raise BadInput(
                f"validate_every={config.validate_every}: only supervised and multitask on a pool have val rows"
            )
        load_pool(config.pool, ("val",))


def _check_mpp(config: PretrainConfig, source: Source) -> None:
    """Who says the um per px says that of the tiles or that of the views; the card has the latter in either case."""
    given = config.encoder.mpp, config.encoder.mpp_max
    if isinstance(source, ImageSource) or given == (None, None):
        return
    tiles, views = source.rows.mpp_range, source.mpp_range
    if not (_agree(given, tiles) or _agree(given, views)):
        raise BadInput(
            f"encoder.mpp={given[0]}, encoder.mpp_max={given[1]}, but the tiles of {source.rows.folder} have {tiles[0]:g} to"
            f" {tiles[1]:g} um per px (their views {views[0]:.3g} to {views[1]:.3g}): leave both out (they are taken from the"
            " index) or use an index made at that mpp"
        )


def _agree(given: tuple[float | None, ...], found: tuple[float, ...]) -> bool:
    return all(one is None or math.isclose(one, other, rel_tol=1e-6) for one, other in zip(given, found))


def _without_memory(config: PretrainConfig, source: Source) -> nn.Module:
    """The objective, and its trunk run once on views of both extents, on the device that computes shapes alone.

    What cannot be built or fed raises BadInput here, and not in a worker.
    """
    num_classes = tuple(len(names) for names in source.classes)
    needs, views = config.objective.needs, config.views
    extents = [views.extent_px, *([views.local_px] if needs.num_local_views else [])]
    try:
        with torch.device("meta"):
            objective = build_objective(config.objective, Encoder(config.encoder), num_classes)
            for extent_px in extents:
                objective.encoder.eval()(torch.empty(2, 3, extent_px, extent_px))
    except (ValueError, RuntimeError, AssertionError, TypeError) as error:
        sizes = " and ".join(f"{extent_px} px" for extent_px in extents)
        raise BadInput(f"{config.objective.kind} with {config.encoder.architecture} at {sizes}: {error}") from None
    if config.adapt_batch_norm and not objective.encoder.has_batch_norm:
        raise BadInput(f"adapt_batch_norm={config.adapt_batch_norm}: {config.encoder.architecture} has no batch norm")
    return objective


def _check_labels(config: PretrainConfig, source: Source) -> None:
    needs, kind, folder = config.objective.needs, config.objective.kind, source.rows.folder
    if needs.has_tasks and isinstance(source, TileSource):
        raise BadInput(f"{kind} trains on several label sets: set pool=DIR,DIR,... instead of index={folder}")
    if not needs.has_labels:
        return
    if not source.classes:
        raise BadInput(f"{folder}: no slide has a label, but {kind} needs them: fill the column label of the manifest")
    if source.num_unlabelled and not needs.allows_unlabelled:
        raise BadInput(
            f"{folder}: {source.num_unlabelled} of the slides to train on have no label, but {kind} needs one for every tile: fill"
            " the column label of the manifest, or take those slides out of the split"
        )
    if len(source.classes) > 1 and not needs.has_tasks:
        names = ", ".join(task.name for task in source.rows.tasks)
        raise BadInput(f"pool={config.pool}: {kind} takes one label set, got {names}; use the objective multitask")
