"""Frozen protocols: one table of features, and what is fitted on it.

One decision: an encoder is opened, fed and embedded in one place, so k-NN, probe and SVM see the same numbers; a fitted protocol
predicts rows of the benchmark and never learns which split they are of.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import ray
import torch
from torch import nn

from raypath.benchmarks import Benchmark, Predictions
from raypath.config import canonical_json
from raypath.data import alterations
from raypath.data.embedding import embed_rows
from raypath.errors import BadInput
from raypath.models import FileEncoder, file_numbers
from raypath.protocols.feature_cache import FeatureCache
from raypath.protocols.features import Features
from raypath.protocols.knn import KnnSettings, knn
from raypath.protocols.probe import ProbeSettings, fit_probe
from raypath.protocols.scale import Feeding, sizes_of
from raypath.protocols.svm import SvmSettings, fit_svm

FrozenSettings = KnnSettings | ProbeSettings | SvmSettings


@dataclass(frozen=True, eq=False)
class Embedder:
    """An encoder, how it is fed, and where its features are kept."""

    encoder: nn.Module
    identity: str
    """All that decides a feature on the encoder's side: weights, batch norm."""
    feeding: Feeding
    root: Path | None
    """The folder of all cached features; None: nothing is kept."""
    progress: Callable[[int, int], None] = lambda done, total: None

    def features_of_parts(self, benchmark: Benchmark, parts: Sequence[pa.Table]) -> list[Features]:
        """`features` of several parts of the rows, in one pass over what has to be computed."""
        whole = self.features(benchmark, pa.concat_tables(parts))
        ends = np.cumsum([len(part) for part in parts])
        return [whole.part(end - len(part), end) for part, end in zip(parts, ends.tolist())]

    def features(self, benchmark: Benchmark, rows: pa.Table) -> Features:
        """The features of rows of `benchmark`, from the cache where they are known.

        Raises BadInput if they are not finite, and where the file is asked of what no file holds: altered pixels.
        """
        frame = self.feeding.frame
        if frame.alteration and isinstance(self.encoder, FileEncoder):
            raise BadInput(
                f"alteration={frame.alteration} with encoder=file: it looks at files, not at pixels; leave it out"
            )
        values = self._computed(rows) if self.root is None else self._cached(rows)
        broken = np.flatnonzero(~np.isfinite(values).all(axis=1))
        if len(broken):
            raise BadInput(
                f"features of {len(broken)} of {len(rows)} samples are not finite, first {rows['sample'][broken[0]]}: the encoder"
                " has diverged; take an earlier checkpoint of it"
            )
        return Features(
            values,
            rows["label"].to_numpy(),
            tuple(rows["sample"].to_pylist()),
            tuple(rows["patient"].to_pylist()),
            benchmark.classes,
        )

    def _cached(self, rows: pa.Table) -> np.ndarray:
        """From the cache; what an alteration draws belongs to a sample's id, so that altered features are known by it too."""
        frame = self.feeding.frame
        fed = [self.identity, frame.extent_px, frame.side_px, frame.mpp]
        if not frame.alteration:
            return FeatureCache(self.root, canonical_json(fed)).features(rows, self._computed)[0]
        key = canonical_json([*fed, alterations.VERSION, frame.alteration])
        return FeatureCache(self.root, key).features(_known_by_sample(rows), self._computed)[0]

    def _computed(self, rows: pa.Table) -> np.ndarray:
        if isinstance(self.encoder, FileEncoder):
            return _of_files(rows)
        num_gpus = int(ray.cluster_resources().get("GPU", 0)) if ray.is_initialized() else torch.cuda.device_count()
        return embed_rows(self.encoder, rows, self.feeding.frame, num_gpus=num_gpus, progress=self.progress)


@dataclass(frozen=True, eq=False)
class Frozen:
    """A fitted protocol: what it says of val, how it came about, and of other samples."""

    val: Predictions
    how: str
    predict: Callable[[Features], Predictions]


def fit_frozen(settings: FrozenSettings, train: Features, val: Features, *, metric: str, seed: int) -> Frozen:
    """Fit on train, choose on val (SVM: inside train). Raises what the protocols raise."""
    if isinstance(settings, KnnSettings):
        return _fit_knn(settings, train, val)
    if isinstance(settings, SvmSettings):
        return _fit_svm(settings, train, val, seed)
    fitted = fit_probe(train, val, settings, metric=metric)
    edge = ", still on the edge of the grid: raise protocol.max_extensions" if fitted.is_on_edge else ""
    return Frozen(fitted.val, f"probe, C={fitted.c:g}{edge}", lambda f: f.predictions(fitted.probability(f.values)))


def _fit_knn(settings: KnnSettings, train: Features, val: Features) -> Frozen:
    def predict(asked: Features) -> Predictions:
        return asked.predictions(knn(train.values, train.labels, asked.values, settings.k, len(train.classes)))

    return Frozen(predict(val), f"k-NN, k={min(settings.k, len(train))}", predict)


def _fit_svm(settings: SvmSettings, train: Features, val: Features, seed: int) -> Frozen:
    first = fit_svm(train, settings, seed=seed)
    final = fit_svm(train.joined(val), settings, seed=seed) if settings.is_refitted else first
    how = f"SVM, C={first.c:g} (cross-validated {first.cv_score:.3f})"
    how += f"; for the test C={final.c:g}, fitted on train and val" if settings.is_refitted else ""
    val_predictions = val.predictions(first.probability(val.values))
    return Frozen(val_predictions, how, lambda asked: asked.predictions(final.probability(asked.values)))


def _known_by_sample(rows: pa.Table) -> pa.Table:
    """The rows with a content that tells copies of one image apart by their ids; an unknown one stays unknown."""
    pairs = zip(rows["content"].to_pylist(), rows["sample"].to_pylist(), strict=True)
    contents = [content and hashlib.sha256(f"{content} {sample}".encode()).hexdigest() for content, sample in pairs]
    place = rows.schema.get_field_index("content")
    return rows.set_column(place, rows.schema.field("content"), pa.array(contents, pa.string()))


def _of_files(rows: pa.Table) -> np.ndarray:
    """float32 [N, 4] of the files of images; a sample that is no file of its own has only its size."""
    if "path" not in rows.schema.names:
        extents = rows["extent_l0"].to_pylist()
        return np.stack([file_numbers(extent, extent, 0) for extent in extents])
    numbers = []
    for (width, height), row in zip(sizes_of(rows), rows.to_pylist()):
        is_whole = row["item"] is None and row["box"] is None
        numbers.append(file_numbers(width, height, Path(row["path"]).stat().st_size if is_whole else 0))
    return np.stack(numbers)
