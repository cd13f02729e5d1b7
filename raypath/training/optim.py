"""Optimisers and the learning rate at every step.

One decision: the schedule is a pure function of the step, so there is no scheduler state to save or to lose. What is decayed
is decided by the kind of a parameter (the weight of a linear or convolutional layer), never by its name.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from raypath.models import Encoder
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
    final_weight_decay: float | None = None
    """Where half a cosine takes the weight decay (DINO: 0.04 to 0.4); None: it stays."""
    layer_decay: float = 1.0
    """Factor on the learning rate of a trunk's layer for each layer above it (BEiT, DINOv2: 0.65 to 0.9)."""
    momentum: float = 0.9
    """Of SGD and LARS."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Of AdamW (MAE: 0.9, 0.95)."""
    cold_steps: int = 0
    """Steps at `start_lr` before the warm-up (the first paper's cold phase)."""
    start_lr: float = 0.0
    """Where the warm-up starts, not scaled to the batch; 0: at the first of `warmup_steps` equal steps."""
    warmup_steps: int = 0
    """Steps of linear warm-up, after the cold ones."""
    warmup_share: float = 0.0
    """The same as a share of all steps; the larger of the two counts."""
    has_cosine: bool = True
    """Half a cosine after the warm-up; without it the rate stays (second paper)."""
    final_lr_share: float = 0.0
    """Share of the peak at the end of the cosine."""
    floor_lr: float = 0.0
    """Added to the cosine (first paper: 1e-6)."""
    clip_norm: float = 0.0
    """Largest norm of the gradient; 0: not clipped."""
    has_integer_scaling: bool = False
    """Defect of the first paper's code, see `fidelity`: batch // lr_base_batch in whole numbers."""
    decays_by_name: bool = False
    """Defect of the first paper's code, see `fidelity`: decay all but what has "bn" in its name."""

    def __post_init__(self):
        if not self.lr > 0:
            raise ValueError(f"lr={self.lr}: expected above 0")
        if not 0 < self.layer_decay <= 1:
            raise ValueError(f"layer_decay={self.layer_decay}: expected above 0 and at most 1")
        names = "lr_base_batch weight_decay momentum cold_steps start_lr warmup_steps warmup_share final_lr_share"
        for name in f"{names} floor_lr clip_norm".split():
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name}={getattr(self, name)}: expected 0 or more")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas={list(self.betas)}: expected two numbers, 0 or more and below 1")
        if self.cold_steps and not self.start_lr:
            raise ValueError(f"cold_steps={self.cold_steps} with start_lr=0: expected the rate of the cold phase")


def peak_lr(settings: OptimSettings, global_batch: int) -> float:
    """The learning rate at the top, scaled to the batch. (Whole-number division here trained the first paper's code at 0.)"""
    if not settings.lr_base_batch:
        return settings.lr
    if settings.has_integer_scaling:
        return settings.lr * (global_batch // settings.lr_base_batch)
    return settings.lr * (global_batch / settings.lr_base_batch)


def lr_at(step: int, num_steps: int, peak: float, settings: OptimSettings) -> float:
    """Cold phase, linear warm-up, then half a cosine; `step` counts from 0. Never 0 at the first step.

    With `start_lr` it is the first paper's schedule (PatchTCGA@ea39a9e5 GradualWarmupWithCosineLR, RECIPES 1.3), per update t:
    start for t < cold; start + (t - cold) / warmup (peak - start); then peak (1 + cos(pi done)) / 2 + floor.
    """
    start, begun = settings.start_lr, step - settings.cold_steps
    warmup_steps = _warmup_steps(num_steps, settings)
    if begun < 0:
        return start
    if begun < warmup_steps:
        done = begun / warmup_steps if start else (begun + 1) / warmup_steps
        return start + (peak - start) * done
    if not settings.has_cosine:
        return peak
    done = (begun - warmup_steps) / max(1, num_steps - settings.cold_steps - warmup_steps)
    return cosine(peak, peak * settings.final_lr_share, done) + settings.floor_lr


def warmup_note(num_steps: int, peak: float, settings: OptimSettings) -> str | None:
    """What to say of a run that is over before its warm-up is; None for one that has its time at the peak."""
    warmup_steps, highest = _warmup_steps(num_steps, settings), lr_at(num_steps - 1, num_steps, peak, settings)
    if settings.cold_steps + warmup_steps < num_steps or settings.start_lr == peak:  # flat: there is nothing to reach
        return None
    cold = f" after {settings.cold_steps} cold ones" if settings.cold_steps else ""
    reached = "never reaches" if highest < peak else "only at the last step reaches"
    return (
        f"{warmup_steps} steps of warm-up{cold}, but loop.num_steps={num_steps}: the rate {reached} optim.lr ({highest:.3g} of"
        f" {peak:.3g}): set optim.warmup_steps"
    )


def _warmup_steps(num_steps: int, settings: OptimSettings) -> int:
    return max(settings.warmup_steps, round(settings.warmup_share * num_steps))


def weight_decay_at(progress: float, settings: OptimSettings) -> float:
    """The weight decay at `progress` from 0 to 1."""
    final = settings.final_weight_decay
    return settings.weight_decay if final is None else cosine(settings.weight_decay, final, progress)


def cosine(first: float, last: float, done: float) -> float:
    """Half a cosine from `first` (done 0) to `last` (done 1)."""
    return last + (first - last) * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


def build_optimizer(module: nn.Module, groups: list[dict], settings: OptimSettings) -> torch.optim.Optimizer:
    """The optimiser over `groups` (`params`, optionally `lr_scale`, `fixed_lr` with `fixed_until`), split into decayed and not."""
    split = [part for group in groups for part in _split_by_kind(module, group, settings)]
    match settings.name:
        case "adamw":
            return torch.optim.AdamW(split, lr=settings.lr, betas=settings.betas)
        case "sgd":
            return torch.optim.SGD(split, lr=settings.lr, momentum=settings.momentum)
        case "lars":
            return LARS(split, lr=settings.lr, momentum=settings.momentum)
    raise ValueError(f"optim.name={settings.name!r}: expected adamw, sgd or lars")


def set_lr(optimizer: torch.optim.Optimizer, lr: float, progress: float = 0.0) -> None:
    """Set the rate of every group, keeping their scales; one with a fixed rate up to some progress has that until then."""
    for group in optimizer.param_groups:
        is_fixed = progress < group.get("fixed_until", 0.0)
        group["lr"] = group["fixed_lr"] if is_fixed else lr * group["lr_scale"]


def set_weight_decay(optimizer: torch.optim.Optimizer, weight_decay: float) -> None:
    """Set the decay of every group that is decayed."""
    for group in optimizer.param_groups:
        group["weight_decay"] = weight_decay if group["is_decayed"] else 0.0


def _split_by_kind(module: nn.Module, group: dict, settings: OptimSettings) -> list[dict]:
    """A group in parts of one kind (weights of linear and convolutional layers, all others) and one depth in the trunk."""
    decayed = _decayed(module, settings)
    depths = _scales_by_depth(module, settings.layer_decay)
    parts: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for parameter in group["params"]:
        parts.setdefault((depths.get(id(parameter), 1.0), id(parameter) not in decayed), []).append(parameter)
    return [
        group
        | {
            "params": parts[scale, is_other],
            "weight_decay": 0.0 if is_other else settings.weight_decay,
            "lr_scale": group.get("lr_scale", 1.0) * scale,
            "is_decayed": not is_other,
            "adapt": not is_other,
        }
        for scale, is_other in sorted(parts)
    ]


def _decayed(module: nn.Module, settings: OptimSettings) -> set[int]:
    """The ids of the parameters that are decayed."""
    if settings.decays_by_name:
        return {id(parameter) for name, parameter in module.named_parameters() if "bn" not in name}
    layers = [m for m in module.modules() if isinstance(m, nn.Linear | nn.modules.conv._ConvNd)]
    joint = [m.in_proj_weight for m in module.modules() if isinstance(m, nn.MultiheadAttention)]  # no layer of its own
    return {id(layer.weight) for layer in layers} | {id(weight) for weight in joint}


def _scales_by_depth(module: nn.Module, layer_decay: float) -> dict[int, float]:
    """The factor of each trunk parameter, by its id; empty where all layers learn alike."""
    if layer_decay == 1:
        return {}
    encoders = [m for m in module.modules() if isinstance(m, Encoder)]
    return {id(p): scale for e in encoders for layer, scale in e.layer_scales(layer_decay) for p in layer}
