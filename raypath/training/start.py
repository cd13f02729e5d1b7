"""The weights a pretraining starts from: random, ImageNet's, or another training's ("re-training" in the first paper).

One decision: where weights come from an encoder of raypath, architecture and normalisation come with them, and the config is made
to say so before the run exists; a run's `config.json` never disagrees with its weights. ImageNet weights are looked for among
local files first (RAYPATH_WEIGHTS), because clusters and hospitals are often offline.
"""

import math
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from raypath.data.views import Views
from raypath.errors import BadInput
from raypath.hashing import file_sha256
from raypath.models import (
    Encoder,
    EncoderSettings,
    build_encoder,
    fix_positions,
    import_weights,
    load_encoder,
    published_normalisation,
    stated_input,
)
from raypath.models.batch_norm_adaptation import adapt_batch_norm
from raypath.training.checkpoint import ENCODER, newest_valid
from raypath.training.settings import PretrainConfig
from raypath.training.source import Source

RANDOM, IMAGENET = "random", "imagenet"
_SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".npz", ".tar", ".ckpt")


def resolve_start(config: PretrainConfig) -> tuple[PretrainConfig, str]:
    """The config with `init` as an absolute path and with the encoder settings that belong to those weights; what was taken in.

    Mean and std are those of the weights: of the encoder's card; for foreign ones as given, else of a config.json beside them, of
    the layout's authors, of timm. Raises BadInput if there are no such weights, or if they do not cover the architecture.
    """
    if config.init == RANDOM:
        return config, "random weights"
    path = start_file(config).absolute()
    encoder = config.encoder
    if path.name == ENCODER:
        card = load_encoder(path).settings
        if card.architecture != encoder.architecture:
            raise BadInput(
                f"init={path}: these are weights of {card.architecture}; set encoder.architecture={card.architecture} (now"
                f" {encoder.architecture})"
            )
        encoder = replace(encoder, mean=card.mean, std=card.std, options=card.options | encoder.options)
        note = f"weights of {path}"
    else:
        _, coverage = import_weights(path, encoder)
        stated = stated_input(path)
        known = (stated["mean"], stated["std"]) if stated else coverage.normalisation
        mean, std = known or published_normalisation(encoder.architecture)[0]
        if (encoder.mean, encoder.std) != (EncoderSettings.mean, EncoderSettings.std):
            mean, std = encoder.mean, encoder.std  # somebody said so
        encoder, note = replace(encoder, mean=mean, std=std), f"{coverage}\n  fed with   mean={mean}, std={std}"
    return replace(config, init=str(path), encoder=encoder), note


def resolve_steps(config: PretrainConfig, source: Source) -> PretrainConfig:
    """The config with `loop.num_steps` in the place of `loop.num_epochs`."""
    if not config.loop.num_epochs:
        return config
    num_steps = max(1, math.ceil(config.loop.num_epochs * source.plan.epoch_length / config.loop.global_batch))
    return replace(config, loop=replace(config.loop, num_steps=num_steps, num_epochs=0.0))


def start_hash(config: PretrainConfig) -> str:
    """sha256 of the file the run starts from; the word itself for random weights."""
    return config.init if config.init == RANDOM else file_sha256(Path(config.init))


def start_encoder(config: PretrainConfig, source: Source) -> Encoder:
    """The encoder before the first step, on CPU: equal on every rank. `config` is resolved."""
    mpp, mpp_max = source.mpp_range
    settings = replace(config.encoder, mpp=mpp or config.encoder.mpp, mpp_max=mpp_max or config.encoder.mpp_max)
    if config.init == RANDOM:
        encoder = build_encoder(settings, seed=config.seed)
        if config.objective.needs.has_fixed_positions:
            fix_positions(encoder)
    else:
        encoder, _ = import_weights(Path(config.init), settings)
    if config.adapt_batch_norm:
        adapt_batch_norm(encoder, _first_batches(config, source))
    return encoder


def start_file(config: PretrainConfig) -> Path:
    """The file behind `init`; raises BadInput, with what was looked for, if there is none."""
    if config.init == IMAGENET:
        return imagenet_file(config.encoder.architecture)
    path = Path(config.init)
    if path.is_dir():
        checkpoint = newest_valid(path / "checkpoints")
        if checkpoint is None:
            raise BadInput(f"init={path}: no valid checkpoint in this run; has its pretraining written one yet?")
        return checkpoint / ENCODER
    if not path.is_file():
        raise BadInput(
            f"init={config.init}: there is no such folder or file; expected random, imagenet, runs/ID, or a file of weights"
        )
    return path


def imagenet_file(architecture: str, *, asked: str = "init=imagenet") -> Path:
    """The file of timm's weights in the folder RAYPATH_WEIGHTS; raises BadInput, with the remedy, if it is not there.

    `asked`: the setting that wants it, for the error.
    """
    folder = os.environ.get("RAYPATH_WEIGHTS", "")
    found = sorted(p for p in Path(folder).glob(f"{architecture}*") if p.suffix in _SUFFIXES) if folder else []
    if not found:
        where = f"no file {architecture}* in RAYPATH_WEIGHTS={folder}" if folder else "RAYPATH_WEIGHTS is not set"
        raise BadInput(
            f"{asked}: {where}; put timm's weights there (a file {architecture}.safetensors, from timm's model page), or name"
            " a file of weights instead"
        )
    return found[0]


def _first_batches(config: PretrainConfig, source: Source) -> Iterator[torch.Tensor]:
    """One view of the first rows of the plan, in global batches: the same on every rank."""
    reader, views = source.reader(), Views(config.views, config.seed)
    for number in range(config.adapt_batch_norm):
        positions = np.arange(number * config.loop.global_batch, (number + 1) * config.loop.global_batch)
        yield torch.from_numpy(views(reader.read(positions)["image"], positions)[:, 0])
