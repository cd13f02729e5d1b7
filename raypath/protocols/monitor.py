"""The monitor: k-NN on a labelled set while an encoder is pretrained, beside what colour alone scores there.

One decision: a monitor is declared and is no benchmark. Whoever watches a set while training, and keeps the checkpoint that does
best on it, has selected on it; a study that scores on the same images refuses the run, by the images' contents, whatever they are
called and however they are split. Train rows are the neighbours and val rows are scored; the test rows are not even read as pixels.

Costs one forward pass over the set's train and val images each time, on one rank. The pixels are read once, in the driver.
"""

import math
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import nn

from raypath.benchmarks import Benchmark, load_images, score
from raypath.errors import BadInput
from raypath.hashing import file_sha256
from raypath.models import ColourEncoder
from raypath.protocols.features import features_of
from raypath.protocols.knn import knn
from raypath.protocols.samples import Samples
from raypath.training.health import evaluating
from raypath.training.settings import MonitorSettings

_NUM_HASH_THREADS = 4
_SHORT = 16  # hex digits of a file's sha256 that are kept: any two of a million files agree with a probability of 3e-8


@dataclass(frozen=True, eq=False)
class KnnMonitor:
    """A labelled set in memory that scores encoders; numpy arrays and plain values, so it travels to workers as it is."""

    train: Samples
    val: Samples
    k: int
    colour: float
    """What the 30 colour numbers score."""
    declared: dict[str, Any]
    """For the run's record: `name`, `data_hash`, `path`, and `files`, the short hashes of all images, test included."""

    @classmethod
    def open(cls, settings: MonitorSettings, extent_px: int) -> "KnnMonitor":
        """Read the set at `extent_px`, the encoder's input, by Ray Data. Raises BadInput for what is wrong with it.

        A split that has to be made is the same for every run, so that their curves can be compared.
        """
        found = _load(settings)
        train, val = (Samples.of(found.rows(split), found.classes, extent_px) for split in ("train", "val"))
        declared = {"name": found.name, "data_hash": found.data_hash, "path": settings.path}
        declared["files"] = sorted(set(_short_hashes(found.table)))
        colour = _score(ColourEncoder(), train, val, settings.k, torch.device("cpu"))
        return cls(train, val, settings.k, colour, declared)

    def __call__(self, encoder: nn.Module, device: torch.device) -> dict[str, float]:
        """Balanced accuracy on the val rows: `monitor/knn` of `encoder` (left as it was) and `monitor/colour`."""
        with evaluating(encoder):
            found = _score(encoder, self.train, self.val, self.k, device)
        return {"monitor/knn": found, "monitor/colour": self.colour}


def open_monitor(settings: MonitorSettings, extent_px: int) -> KnnMonitor | None:
    """The monitor that the settings name; None if they name none."""
    return KnnMonitor.open(settings, extent_px) if settings.path else None


def check_monitor(settings: MonitorSettings) -> None:
    """Raise BadInput, naming the setting, for a set that cannot be watched; nothing is asked of settings that name none.

    Reads the list of the set and every byte of its files, for its hash, but decodes no pixel.
    """
    try:
        if settings.path:
            _load(settings)
    except BadInput as error:
        raise BadInput(f"monitor.path={settings.path}: {error}") from None


def _load(settings: MonitorSettings) -> Benchmark:
    return load_images(settings.path, seed=0, drop_classes=settings.drop_classes, ignore_split=settings.ignore_split)


def check_not_monitored(declared: Mapping[str, Any], benchmark: Benchmark) -> None:
    """Raise BadInput if an encoder whose monitor is `declared` (see KnnMonitor) is to be scored on the monitor's images.

    One image in common is enough, in any split and under any name. Reads the files of the benchmark, if it is made of files.
    """
    has_files = "path" in benchmark.table.schema.names
    shared = sorted(set(declared["files"]) & set(_short_hashes(benchmark.table))) if has_files else []
    if shared or declared["data_hash"] == benchmark.data_hash:
        extent = f"{len(shared)} of its {len(declared['files'])} images are in it" if shared else "it is the same data"
        raise BadInput(
            f"{benchmark.name}: this set was watched while the encoder was pretrained (monitor {declared['name']},"
            f" {declared['path']}; {extent}), so a score on it would be selected on it: leave it out of the study, or pretrain"
            " with another monitor.path"
        )


def _score(encoder: nn.Module, train: Samples, val: Samples, k: int, device: torch.device) -> float:
    x_train, x_val = (features_of(encoder, samples.images, device) for samples in (train, val))
    if not (np.isfinite(x_train).all() and np.isfinite(x_val).all()):
        return math.nan  # the alarms say it; a look must not end the run
    probability = knn(x_train, train.labels, x_val, k, len(train.classes))
    return score(val.predictions(probability))["balanced_accuracy"]


def _short_hashes(table: pa.Table) -> list[str]:
    with ThreadPoolExecutor(_NUM_HASH_THREADS) as pool:
        return [digest[:_SHORT] for digest in pool.map(file_sha256, table["path"].to_pylist())]
