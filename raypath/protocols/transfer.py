"""One transfer, as a config: an encoder, a benchmark, a protocol, and how its settings are searched.

One decision: everything a trial needs is in this value plus the samples, so a trial is a pure function and a sweep is this config
with other numbers in it.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Union

import numpy as np
import pyarrow as pa
import torch
from torch import nn

from raypath.benchmarks import Benchmark, BenchmarkSettings, ImagesSettings, label_budget, label_fraction
from raypath.benchmarks.splits.folds import NUM_FOLDS, NUM_REPEATS, default_protocol
from raypath.config import setting
from raypath.errors import BadInput
from raypath.models.batch_norm_adaptation import ADAPTATION_BATCHES, adapt_batch_norm, recalibrate_batch_norm
from raypath.protocols.encoders import COLOUR, RANDOM_BN, WITHOUT_WEIGHTS, open_encoder
from raypath.protocols.finetune import FinetuneSettings
from raypath.protocols.knn import KnnSettings
from raypath.protocols.own_head import HeadSettings
from raypath.protocols.pixel_colour import PixelColourSettings
from raypath.protocols.probe import ProbeSettings
from raypath.protocols.scale import Feeding, Scale, crops_fed, feeding_of
from raypath.protocols.segment import SegmentSettings
from raypath.protocols.svm import SvmSettings

OF_PIXELS = (SegmentSettings, PixelColourSettings)
ProtocolSettings = Union[FinetuneSettings, ProbeSettings, KnnSettings, SvmSettings, HeadSettings, *OF_PIXELS]
_BATCH = 64  # images per batch for batch norm's statistics; the second paper's batch


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
    grace_looks: int = 5
    """Looks at val (epochs, where those are counted) before a trial may be stopped."""
    cpus_per_trial: float = setting(1.0, identity=False)
    gpus_per_trial: float = setting(0.0, identity=False)
    workers_per_trial: int = setting(1, identity=False)
    """Workers of Ray Train that share a trial's CPUs and GPUs, and its batches: 4 with gpus_per_trial=4 for a large encoder."""


@dataclass(frozen=True, kw_only=True)
class TransferConfig:
    """Everything that decides how an encoder is scored on a benchmark."""

    name: str = setting("transfer", identity=False)
    encoder: str = setting("", identity=False)
    """runs/ID, a .safetensors file, colour, or random:runs/ID (see `protocols.encoders`); what it holds enters the lineage by its
    sha256."""
    benchmark: BenchmarkSettings = field(default_factory=ImagesSettings)
    protocol: ProtocolSettings = field(default_factory=FinetuneSettings)
    extent_px: int = 0
    """Extent at which images are fed; 0: what the encoder was trained on."""
    scale: Scale = "resize"
    """resize: all of each image; native: its px as they are; match_mpp: at the encoder's um per px (see `protocols.scale`). A
    segmentation takes crops, for which resize and native are the same: images as they are."""
    per_class_train: int = 0
    """About so many labelled training samples per class; 0: all."""
    fraction_train: float = 1.0
    """Share of the labelled training samples of every class; smaller shares are parts of larger ones."""
    seed: int = 0
    batch_norm: Literal["keep", "adapt", "recalibrate"] = "keep"
    """Before the transfer, by the training images: adapt leaves what the encoder computes as it is (second paper), recalibrate
    replaces the running statistics, which makes random weights a fairer baseline. A trunk without batch norm stays as it is."""
    evaluation: Literal["auto", "given", "nested"] = "auto"
    """given: the split's own test is scored; nested: every sample, by outer folds (see `benchmarks.folds`); auto: nested below 200
    patients or 1,000 test images."""
    num_folds: int = NUM_FOLDS
    """Outer folds of a nested evaluation."""
    num_repeats: int | None = None
    """Draws of the outer folds; null: 3 for frozen encoders, whose features are computed once, and 1 where weights are trained."""
    max_near_duplicate_samples: int = 20_000
    """Up to so many samples a set is searched for near-duplicates before its test is opened; 0: never."""
    sweep: SweepSettings = field(default_factory=SweepSettings)

    def __post_init__(self):
        least = {
            "extent_px": 0,
            "per_class_train": 0,
            "max_near_duplicate_samples": 0,
            "num_folds": 2,
            "num_repeats": 1,
        }
        for name, low in least.items():
            value = getattr(self, name)
            if value is not None and value < low:
                raise ValueError(f"{name}={value}: expected {low} or more")
        if not 0 < self.fraction_train <= 1:
            raise ValueError(f"fraction_train={self.fraction_train}: expected more than 0 and at most 1")


def evaluated(config: TransferConfig, benchmark: Benchmark, *, num_repeats: int = NUM_REPEATS) -> TransferConfig:
    """The config with its evaluation decided: "given", or "nested" with a number of repeats.

    `num_repeats`: of frozen encoders, where the config leaves it open.
    """
    evaluation = default_protocol(benchmark) if config.evaluation == "auto" else config.evaluation
    is_trained = isinstance(config.protocol, FinetuneSettings | SegmentSettings)
    num = config.num_repeats or (1 if is_trained else num_repeats)
    return replace(config, evaluation=evaluation, num_repeats=num if evaluation == "nested" else None)


def check_encoder(config: TransferConfig) -> None:
    """Raise BadInput, before the benchmark is read, for a protocol that the encoder has nothing for."""
    if isinstance(config.protocol, PixelColourSettings) and config.encoder != COLOUR:
        raise BadInput(
            "protocol.kind=pixel_colour looks at colours alone: set encoder=colour, or protocol.kind=segment"
        )
    if isinstance(config.protocol, SegmentSettings) and config.encoder in WITHOUT_WEIGHTS:
        raise BadInput(f"encoder={config.encoder} has no maps: set protocol.kind=pixel_colour and encoder=colour")
    if isinstance(config.protocol, HeadSettings) and config.encoder in WITHOUT_WEIGHTS:
        raise BadInput(f"encoder={config.encoder} has no head of its own: set protocol.kind=probe")
    if isinstance(config.protocol, FinetuneSettings) and config.encoder in WITHOUT_WEIGHTS:
        remedy = "set protocol.kind=probe (pixel_colour for a segmentation)"
        raise BadInput(f"encoder={config.encoder} has nothing to fine-tune: {remedy}")


def check_protocol(config: TransferConfig, benchmark: Benchmark) -> None:
    """Raise BadInput, before any pixel is read, for a protocol that is none for the benchmark or for the encoder."""
    check_encoder(config)
    kind, is_dense = config.protocol.kind, benchmark.kind == "segmentation"
    if isinstance(config.protocol, OF_PIXELS) != is_dense:
        fitting = "segment, or pixel_colour" if is_dense else "finetune, probe, svm, knn or head"
        raise BadInput(f"protocol.kind={kind}: {benchmark.name} is a {benchmark.kind}; set protocol.kind={fitting}")
    if isinstance(config.protocol, SvmSettings) and config.protocol.is_refitted and has_budget(config):
        raise BadInput(
            f"per_class_train={config.per_class_train}, fraction_train={config.fraction_train:g} with protocol.kind=svm: the"
            " machine for the test would be fitted on all labels of val as well; set protocol.is_refitted=false"
        )
    if isinstance(config.protocol, HeadSettings) and (
        has_budget(config) or config.batch_norm != "keep" or config.evaluation == "nested"
    ):
        raise BadInput(
            f"per_class_train={config.per_class_train}, fraction_train={config.fraction_train:g}, batch_norm={config.batch_norm},"
            f" evaluation={config.evaluation} with protocol.kind=head: the head was trained on all labels of the given train, and"
            " folds would test it on them; set evaluation=given and leave the others out"
        )
    if is_dense and (config.extent_px or config.batch_norm != "keep"):
        raise BadInput(
            f"extent_px={config.extent_px}, batch_norm={config.batch_norm} with protocol.kind={kind}: images are taken whole, in"
            " crops of protocol.crop_px; leave these settings out"
        )


def has_budget(config: TransferConfig) -> bool:
    """Whether fewer labels are trained on than there are."""
    return bool(config.per_class_train) or config.fraction_train < 1


def train_rows(config: TransferConfig, benchmark: Benchmark) -> pa.Table:
    """The training rows within the label budget."""
    rows = benchmark.rows("train")
    if config.per_class_train:
        rows = label_budget(rows, config.per_class_train, seed=config.seed)
    return rows if config.fraction_train == 1 else label_fraction(rows, config.fraction_train, seed=config.seed)


def feeding(config: TransferConfig, benchmark: Benchmark, encoder: nn.Module | None = None) -> Feeding:
    """How this transfer's encoder (opened, where it is not handed over) is fed with the benchmark."""
    encoder = open_encoder(config.encoder, seed=config.seed) if encoder is None else encoder
    if isinstance(config.protocol, OF_PIXELS):
        return crops_fed(encoder, benchmark, config.scale, getattr(config.protocol, "crop_px", 1))
    return feeding_of(encoder, benchmark, config.scale, config.extent_px)


def transfer_encoder(
    config: TransferConfig,
    num_train: int,
    images_at: Callable[[np.ndarray], np.ndarray],
    encoder: nn.Module | None = None,
) -> nn.Module:
    """The encoder that a transfer starts from, on CPU, its batch norm as the config has it.

    `images_at(numbers)` gives uint8 [N, H, W, 3] of training samples by their numbers; it is asked only where batch norm changes.
    An `encoder` that was opened already is the one that is changed.
    """
    encoder = open_encoder(config.encoder, seed=config.seed) if encoder is None else encoder
    rule = batch_norm_rule(config)
    if rule != "keep" and getattr(encoder, "has_batch_norm", False):
        change = adapt_batch_norm if rule == "adapt" else recalibrate_batch_norm
        order = np.random.default_rng(config.seed).permutation(num_train)
        batches = np.array_split(order, max(1, num_train // _BATCH))[:ADAPTATION_BATCHES]
        change(encoder, [torch.from_numpy(images_at(np.sort(numbers))) for numbers in batches])
    return encoder


def batch_norm_rule(config: TransferConfig) -> str:
    """What happens to batch norm before the transfer; `random_bn:` is random weights with recalibrated statistics."""
    return "recalibrate" if config.encoder.partition(":")[0] == RANDOM_BN else config.batch_norm
