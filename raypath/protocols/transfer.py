"""One transfer, as a config: an encoder, a benchmark, a protocol, and how its settings are searched.

One decision: everything a trial needs is in this value plus the samples, so a trial is a pure function and a sweep is this config
with other numbers in it.
"""

from dataclasses import dataclass, field
from typing import Any, Literal, Union

import numpy as np
import pyarrow as pa
import torch
from torch import nn

from raypath.benchmarks import Benchmark, BenchmarkSettings, ImagesSettings, label_budget
from raypath.config import setting
from raypath.errors import BadInput
from raypath.models.batch_norm_adaptation import ADAPTATION_BATCHES, adapt_batch_norm, recalibrate_batch_norm
from raypath.protocols.encoders import COLOUR, input_px, open_encoder
from raypath.protocols.finetune import FinetuneSettings
from raypath.protocols.masked_samples import MaskedSamples
from raypath.protocols.pixel_colour import PixelColourSettings
from raypath.protocols.probe import ProbeSettings
from raypath.protocols.samples import Samples
from raypath.protocols.segment import SegmentSettings

ProtocolSettings = Union[FinetuneSettings, ProbeSettings, SegmentSettings, PixelColourSettings]  # noqa: UP007
OF_PIXELS = (SegmentSettings, PixelColourSettings)
_BATCH = 64  # images per batch for batch norm's statistics; the second paper's batch
_DEFAULT_EXTENT_PX = 96  # for an encoder that takes any


@dataclass(frozen=True, kw_only=True)
class SweepSettings:
    """How the settings of a protocol are searched; the same for every encoder that is compared."""

    search: Literal["optuna", "random", "grid"] = "optuna"
    num_trials: int = 8
    """Trials; a grid has as many as it has cells."""
    space: dict[str, Any] = field(
        default_factory=lambda: {"protocol.lr": {"log": [1e-4, 1e-2]}, "protocol.weight_decay": {"log": [1e-5, 1e-1]}}
    )
    """`protocol.` key -> a list of choices, or {"log": [low, high]} or {"uniform": [low, high]}."""
    asha: bool = True
    """Stop the worse half of the trials early (never with grid: its cells are all wanted)."""
    grace_epochs: int = 5
    cpus_per_trial: float = setting(1.0, identity=False)
    gpus_per_trial: float = setting(0.0, identity=False)


@dataclass(frozen=True, kw_only=True)
class TransferConfig:
    """Everything that decides how an encoder is scored on a benchmark."""

    name: str = setting("transfer", identity=False)
    encoder: str = setting("", identity=False)
    """runs/ID, a .safetensors file, colour, or random:runs/ID; what it holds enters the lineage by its sha256."""
    benchmark: BenchmarkSettings = field(default_factory=ImagesSettings)
    protocol: ProtocolSettings = field(default_factory=FinetuneSettings)
    extent_px: int = 0
    """Extent at which images are fed; 0: what the encoder was trained on."""
    per_class_train: int = 0
    """About so many labelled training samples per class; 0: all."""
    seed: int = 0
    batch_norm: Literal["keep", "adapt", "recalibrate"] = "keep"
    """Before the transfer, by the training images: adapt leaves what the encoder computes as it is (second paper), recalibrate
    replaces the running statistics, which makes random weights a fairer baseline. A trunk without batch norm stays as it is."""
    sweep: SweepSettings = field(default_factory=SweepSettings)

    def __post_init__(self):
        for name in ("extent_px", "per_class_train"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}={getattr(self, name)}: expected 0 or more")


def check_protocol(config: TransferConfig, benchmark: Benchmark) -> None:
    """Raise BadInput, before anything is read, for a protocol that is none for the benchmark or for the encoder."""
    kind, is_dense = config.protocol.kind, benchmark.kind == "segmentation"
    if isinstance(config.protocol, OF_PIXELS) != is_dense:
        fitting = "segment, or pixel_colour" if is_dense else "finetune, or probe"
        raise BadInput(f"protocol.kind={kind}: {benchmark.name} is a {benchmark.kind}; set protocol.kind={fitting}")
    if isinstance(config.protocol, PixelColourSettings) and config.encoder != COLOUR:
        raise BadInput(
            "protocol.kind=pixel_colour looks at colours alone: set encoder=colour, or protocol.kind=segment"
        )
    if isinstance(config.protocol, SegmentSettings) and config.encoder == COLOUR:
        raise BadInput("encoder=colour has no maps: set protocol.kind=pixel_colour")
    if is_dense and (config.extent_px or config.batch_norm != "keep"):
        raise BadInput(
            f"extent_px={config.extent_px}, batch_norm={config.batch_norm} with protocol.kind={kind}: expected 0 and keep; images"
            " are taken as they are, in crops of protocol.crop_px"
        )


def samples_of(config: TransferConfig, benchmark: Benchmark, rows: pa.Table) -> Samples | MaskedSamples:
    """The samples of some rows: squares at the extent of the encoder, or whole images with their masks."""
    if benchmark.kind == "segmentation":
        return MaskedSamples.of(rows, benchmark.classes, benchmark.mask_rule)
    return Samples.of(rows, benchmark.classes, extent_of(config))


def training_samples(
    config: TransferConfig, benchmark: Benchmark
) -> tuple[Samples, Samples] | tuple[MaskedSamples, MaskedSamples]:
    """Train (within the label budget) and val, as `samples_of` reads them."""
    train = benchmark.rows("train")
    if config.per_class_train:
        train = label_budget(train, config.per_class_train, seed=config.seed)
    return tuple(samples_of(config, benchmark, rows) for rows in (train, benchmark.rows("val")))


def transfer_encoder(config: TransferConfig, train: Samples | MaskedSamples) -> nn.Module:
    """The encoder that a transfer starts from, on CPU, its batch norm as the config has it."""
    encoder = open_encoder(config.encoder, seed=config.seed)
    if config.batch_norm != "keep" and getattr(encoder, "has_batch_norm", False):
        change = adapt_batch_norm if config.batch_norm == "adapt" else recalibrate_batch_norm
        order = np.random.default_rng(config.seed).permutation(len(train))
        batches = np.array_split(order, max(1, len(order) // _BATCH))[:ADAPTATION_BATCHES]
        change(encoder, [torch.from_numpy(train.images[np.sort(rows)]) for rows in batches])
    return encoder


def extent_of(config: TransferConfig) -> int:
    """The extent in pixels at which this transfer's images are fed."""
    return config.extent_px or input_px(open_encoder(config.encoder, seed=config.seed)) or _DEFAULT_EXTENT_PX
