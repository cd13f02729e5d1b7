"""One transfer, carried out: from a config and a benchmark to something that predicts rows.

One decision: whatever the protocol, what comes out predicts rows of the benchmark's table, so that whoever opens the test hands the
opened rows over and nothing else.
"""

import hashlib
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import torch
from torch import nn

from raypath.benchmarks import Benchmark, Predictions
from raypath.benchmarks.metrics.pixels import PixelPredictions
from raypath.benchmarks.splits.folds import undivided_groups
from raypath.config import canonical_json
from raypath.data.images import read_pixels
from raypath.hashing import file_sha256
from raypath.protocols.encoders import COLOUR, FILE, RANDOM, RANDOM_BN, encoder_file, open_encoder
from raypath.protocols.frozen import Embedder, fit_frozen
from raypath.protocols.looks import Report, report_nothing
from raypath.protocols.masked_samples import MaskedSamples
from raypath.protocols.own_head import HeadSettings, own_head
from raypath.protocols.pixel_colour import PixelColourSettings, pixel_colour
from raypath.protocols.scale import Feeding
from raypath.protocols.segment import SegmentSettings
from raypath.protocols.svm import SvmSettings
from raypath.protocols.trained import TRAINED, read_samples, train_weights, training_samples
from raypath.protocols.transfer import (
    TransferConfig,
    batch_norm_rule,
    check_protocol,
    feeding,
    train_rows,
    transfer_encoder,
)

Picture = tuple[str, np.ndarray, np.ndarray, np.ndarray]
"""Name, image uint8 [H, W, 3], true classes [H, W], predicted ones [H, W]."""


class Predict(Protocol):
    """What a fitted protocol says of rows of its benchmark."""

    def __call__(self, rows: pa.Table, alteration: str = "") -> Predictions | PixelPredictions:
        """Of the rows as they are, or altered (`grey`, `hed=0.05`: see `raypath.data.alterations`).

        Nothing is fitted anew. Raises BadInput for a text that is no alteration, and for one that moves pixels where those have
        classes.
        """


@dataclass(frozen=True, eq=False)
class Fitted:
    """A fitted protocol."""

    val: Predictions | PixelPredictions
    how: str
    """How it was reached, for people."""
    predict: Predict
    """What it says of rows of the benchmark, as they are or altered."""
    feeding: Feeding
    looks: Callable[[int], list[Picture]] | None = None
    """The first few images of val with what was said of each pixel, where classes belong to pixels."""


def fit(
    config: TransferConfig,
    benchmark: Benchmark,
    *,
    features_root: Path | None,
    device: torch.device,
    report: Report = report_nothing,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Fitted:
    """Fit the protocol of `config` on train, choosing on val.

    `features_root`: where features are kept (None: nowhere). `report` is told of each look at val, `progress(done, total)` of
    samples embedded. Ray must be initialised. Raises BadInput for a protocol that is none for the benchmark or the encoder.
    """
    check_protocol(config, benchmark)
    encoder = open_encoder(config.encoder, seed=config.seed)
    fed = feeding(config, benchmark, encoder)
    if isinstance(config.protocol, TRAINED):
        return _trained(config, benchmark, fed, device, report)
    if isinstance(config.protocol, PixelColourSettings):
        return _coloured(config, benchmark, fed)
    embedder = embedder_of(config, benchmark, fed, features_root, progress, encoder)
    if isinstance(config.protocol, HeadSettings):
        return _of_own_head(config, benchmark, embedder)
    parts = [train_rows(config, benchmark), benchmark.rows("val")]
    train, val = embedder.features_of_parts(benchmark, parts)
    if isinstance(config.protocol, SvmSettings):  # the others divide nothing, and copies are known by reading files
        train, val = (
            replace(features, undivided=tuple(undivided_groups(rows)))
            for features, rows in zip((train, val), parts, strict=True)
        )
    fitted = fit_frozen(config.protocol, train, val, metric=benchmark.primary, seed=config.seed)

    def predict(rows: pa.Table, alteration: str = "") -> Predictions:
        return fitted.predict(replace(embedder, feeding=fed.altered(alteration)).features(benchmark, rows))

    return Fitted(fitted.val, fitted.how, predict, fed)


def _of_own_head(config: TransferConfig, benchmark: Benchmark, embedder: Embedder) -> Fitted:
    """The head that the encoder was trained with: nothing is fitted."""
    head = own_head(config.encoder, config.protocol.task, benchmark.classes)

    def predict(rows: pa.Table, alteration: str = "") -> Predictions:
        asked = replace(embedder, feeding=embedder.feeding.altered(alteration)).features(benchmark, rows)
        return asked.predictions(head.probability(asked.values))

    how = f"its own head of {config.protocol.task}"
    return Fitted(predict(benchmark.rows("val")), how, predict, embedder.feeding)


def _trained(config: TransferConfig, benchmark: Benchmark, fed: Feeding, device: torch.device, report) -> Fitted:
    """All that is trained by gradients: fine-tuned, or segmented."""
    protocol = config.protocol
    train, val = training_samples(config, benchmark, fed)
    fitted = train_weights(config, train, val, metric=benchmark.primary, device=device, report=report)
    what = protocol.head if isinstance(protocol, SegmentSettings) else "fine-tuned"

    def predict(rows: pa.Table, alteration: str = "") -> Predictions | PixelPredictions:
        return fitted.predict(read_samples(config, benchmark, rows, fed.altered(alteration)), device)

    looks = _looks(val, lambda image: fitted.classes_of(image, device)) if benchmark.kind == "segmentation" else None
    return Fitted(fitted.val, f"{what}, {protocol.place_of(fitted.look)}", predict, fed, looks)


def _coloured(config: TransferConfig, benchmark: Benchmark, fed: Feeding) -> Fitted:
    """The colour baseline of a segmentation."""
    train, val = training_samples(config, benchmark, fed)
    fitted = pixel_colour(train, val, config.protocol, seed=config.seed)

    def predict(rows: pa.Table, alteration: str = "") -> PixelPredictions:
        return fitted.predict(read_samples(config, benchmark, rows, fed.altered(alteration)))

    how = f"logistic regression on {config.protocol.num_pixels:,} pixels"
    return Fitted(fitted.val, how, predict, fed, _looks(val, fitted.classes_of))


def _looks(val: MaskedSamples, classes_of: Callable[[np.ndarray], np.ndarray]) -> Callable[[int], list[Picture]]:
    """The first few images of val with their truth and what is said of them."""

    def looks(num: int) -> list[Picture]:
        return [
            (name, image, mask, classes_of(image)) for name, (image, mask) in list(zip(val.names, val.masked))[:num]
        ]

    return looks


def embedder_of(
    config: TransferConfig,
    benchmark: Benchmark,
    fed: Feeding,
    features_root: Path | None,
    progress: Callable[[int, int], None] = lambda done, total: None,
    encoder: nn.Module | None = None,
) -> Embedder:
    """The encoder of a frozen transfer (opened, where it is not handed over), its batch norm set, with all that its features depend
    on.
    """
    rows = train_rows(config, benchmark)
    asked: list[str] = []

    def images_at(numbers: np.ndarray) -> np.ndarray:
        chosen = rows.take(numbers)
        asked.extend(map(str, chosen["content"].to_pylist()))
        return read_pixels(chosen, fed.frame)

    encoder = transfer_encoder(config, len(rows), images_at, encoder)
    statistics = [batch_norm_rule(config), hashlib.sha256(" ".join(asked).encode()).hexdigest()] if asked else ["keep"]
    return Embedder(encoder, canonical_json([_weights(config, encoder), *statistics]), fed, features_root, progress)


def _weights(config: TransferConfig, encoder: nn.Module) -> list[Any]:
    """What a feature depends on of the encoder as it lies on disk: its bytes, and what it is fed with."""
    if config.encoder in (COLOUR, FILE):
        return [config.encoder]
    settings = asdict(encoder.settings)
    if config.encoder.partition(":")[0] in (RANDOM, RANDOM_BN):
        return ["random", settings, config.seed]
    return [file_sha256(encoder_file(config.encoder)), settings]
