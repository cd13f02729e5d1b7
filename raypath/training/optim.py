"""Optimisers and the learning rate at every step.

One decision: the schedule is a pure function of the step, so there is no scheduler state to save or to lose. What is decayed
is decided by the kind of a parameter (the weight of a linear or convolutional layer), never by its name.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from raypath.training.lars import LARS


@dataclass(frozen=True, kw_only=True)
class OptimSettings:
    """Optimiser, learning rate and its course."""

    name: Literal["adamw", "sgd", "lars"] = "adamw"
    lr: float = 1e-3
    """Peak learning rate for a batch of `lr_base_batch`; scaled by batch / lr_base_batch, in floats."""
    lr_base_batch: int = 0
    """Batch that `lr` is meant for (256 or 512 in the papers); 0: `lr` as it stands."""
    weight_decay: float = 1e-4
    momentum: float = 0.9
    warmup_steps: int = 0
    """Steps of linear warm-up from 0."""
    final_lr_share: float = 0.0
    """Share of the peak at the end of the cosine."""
    clip_norm: float = 0.0
    """Largest norm of the gradient; 0: not clipped."""

    def __post_init__(self):
        if not self.lr > 0:
            raise ValueError(f"lr={self.lr}: expected above 0")
        for name in ("lr_base_batch", "weight_decay", "momentum", "warmup_steps", "final_lr_share", "clip_norm"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name}={getattr(self, name)}: expected 0 or more")


def peak_lr(settings: OptimSettings, global_batch: int) -> float:
    """The learning rate at the top, scaled to the batch. (Whole-number division here trained the first paper's code at 0.)"""
    return settings.lr * (global_batch / settings.lr_base_batch if settings.lr_base_batch else 1.0)


def lr_at(step: int, num_steps: int, peak: float, settings: OptimSettings) -> float:
    """Linear warm-up, then half a cosine; `step` counts from 0. Never 0 at the first step."""
    if step < settings.warmup_steps:
        return peak * (step + 1) / settings.warmup_steps
    done = (step - settings.warmup_steps) / max(1, num_steps - settings.warmup_steps)
    low = peak * settings.final_lr_share
    return low + (peak - low) * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


def build_optimizer(module: nn.Module, groups: list[dict], settings: OptimSettings) -> torch.optim.Optimizer:
    """The optimiser over `groups` (each with `params`, optionally `lr_scale`), split into decayed and not decayed."""
    split = [part for group in groups for part in _split_by_kind(module, group, settings)]
    match settings.name:
        case "adamw":
            return torch.optim.AdamW(split, lr=settings.lr)
        case "sgd":
            return torch.optim.SGD(split, lr=settings.lr, momentum=settings.momentum)
        case "lars":
            return LARS(split, lr=settings.lr, momentum=settings.momentum)
    raise ValueError(f"optim.name={settings.name!r}: expected adamw, sgd or lars")


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set the rate of every group, keeping their scales."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_scale"]


def _split_by_kind(module: nn.Module, group: dict, settings: OptimSettings) -> list[dict]:
    layers = [m for m in module.modules() if isinstance(m, nn.Linear | nn.modules.conv._ConvNd)]
    decayed = {id(layer.weight) for layer in layers}
    scale = group.get("lr_scale", 1.0)
    weights = [p for p in group["params"] if id(p) in decayed]
    others = [p for p in group["params"] if id(p) not in decayed]
    parts = [
        {"params": weights, "weight_decay": settings.weight_decay, "lr_scale": scale, "adapt": True},
        {"params": others, "weight_decay": 0.0, "lr_scale": scale, "adapt": False},
    ]
    return [part for part in parts if part["params"]]
