"""One transfer, carried out: from a config and a benchmark to something that predicts rows.

One decision: whatever the protocol, what comes out predicts rows of the benchmark's table, so that whoever opens the test hands the
opened rows over and nothing else.
"""

import hashlib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import nn

from raypath.benchmarks import Benchmark, Predictions
from raypath.config import canonical_json
from raypath.data.images import read_pixels
from raypath.hashing import file_sha256
from raypath.protocols.encoders import COLOUR, FILE, RANDOM, RANDOM_BN, encoder_file
from raypath.protocols.finetune import Finetuned, FinetuneSettings, finetune
from raypath.protocols.frozen import Embedder, fit_frozen
from raypath.protocols.samples import Samples
from raypath.protocols.scale import Feeding
from raypath.protocols.transfer import (
    TransferConfig,
    batch_norm_rule,
    feeding,
    train_rows,
    training_samples,
    transfer_encoder,
)


@dataclass(frozen=True, eq=False)
class Fitted:
    """A fitted protocol."""

    val: Predictions
    how: str
    """How it was reached, for people."""
    predict: Callable[[pa.Table], Predictions]
    """What it says of rows of the benchmark."""
    feeding: Feeding


def fit(
    config: TransferConfig,
    benchmark: Benchmark,
    *,
    features_root: Path | None,
    device: torch.device,
    report: Callable[[int, dict[str, float]], None] = lambda epoch, metrics: None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Fitted:
    """Fit the protocol of `config` on train, choosing on val.

    `features_root`: where features are kept (None: nowhere). `report(epoch, metrics)` tells of fine-tuning, `progress(done, total)`
    of samples embedded. Ray must be initialised.
    """
    fed = feeding(config, benchmark)
    if isinstance(config.protocol, FinetuneSettings):
        return _finetuned(config, benchmark, fed, device, report)
    embedder = embedder_of(config, benchmark, fed, features_root, progress)
    train, val = (embedder.features(benchmark, rows) for rows in (train_rows(config, benchmark), benchmark.rows("val")))
    fitted = fit_frozen(config.protocol, train, val, metric=benchmark.primary, seed=config.seed)

    def predict(rows: pa.Table) -> Predictions:
        return fitted.predict(embedder.features(benchmark, rows))

    return Fitted(fitted.val, fitted.how, predict, fed)


def _finetuned(config: TransferConfig, benchmark: Benchmark, fed: Feeding, device: torch.device, report) -> Fitted:
    train, val = training_samples(config, benchmark, fed.frame)
    encoder = transfer_encoder(config, len(train), lambda numbers: train.images[numbers])
    fitted: Finetuned = finetune(
        encoder,
        train,
        val,
        config.protocol,
        metric=benchmark.primary,
        seed=config.seed,
        device=device,
        report=lambda epoch, metrics, classifier, is_best: report(epoch, metrics),
    )

    def predict(rows: pa.Table) -> Predictions:
        return fitted.predict(Samples.of(rows, benchmark.classes, fed.frame), device)

    return Fitted(fitted.val, f"fine-tuned, epoch {fitted.epoch}", predict, fed)


def embedder_of(
    config: TransferConfig,
    benchmark: Benchmark,
    fed: Feeding,
    features_root: Path | None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Embedder:
    """The encoder of a frozen transfer, its batch norm set, with all that its features depend on."""
    rows = train_rows(config, benchmark)
    asked: list[str] = []

    def images_at(numbers: np.ndarray) -> np.ndarray:
        chosen = rows.take(numbers)
        asked.extend(map(str, chosen["content"].to_pylist()))
        return read_pixels(chosen, fed.frame)

    encoder = transfer_encoder(config, len(rows), images_at)
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
