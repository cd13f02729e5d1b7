"""A protocol's training on several ranks, to the same end as on one.

One decision: an update is the same update for any number of ranks. Each takes every W-th of its positions, the loss is a sum over
the rank's samples divided by the whole batch, batch norm is synchronised, gradients are added up; so shares need not be equal, and
what W ranks learn differs from what one learns by rounding (and by the draws of drop-out, of which each rank has its own). Looks
at val are shared out as well, and joined by the samples' names.

With one rank nothing here does anything.
"""

from typing import TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from raypath.benchmarks import PixelPredictions, Predictions, gathered
from raypath.errors import BadInput
from raypath.models.normalization import synchronise_batch_norm
from raypath.objectives.gather import num_ranks, rank

P = TypeVar("P", Predictions, PixelPredictions)


def own_share(numbers: np.ndarray) -> np.ndarray:
    """The part of one rank, of what all ranks have to do."""
    return numbers[rank() :: num_ranks()]


def replicated(model: nn.Module, device: torch.device) -> nn.Module:
    """What to call for a forward pass of `model` whose gradients are averaged over ranks; its batch norm is synchronised in place.

    Call it before the optimiser is made: on a GPU, layers of batch norm are replaced.
    """
    if num_ranks() == 1:
        return model
    synchronise_batch_norm(model, device)
    return DistributedDataParallel(
        model,
        device_ids=[device] if device.type == "cuda" else None,
        find_unused_parameters=True,
        broadcast_buffers=False,
    )


def check_batch(batch: int) -> None:
    """Raise BadInput for a batch of which a rank would get nothing."""
    if batch < num_ranks():
        raise BadInput(
            f"a batch of {batch} for {num_ranks()} workers: lower sweep.workers_per_trial, or raise protocol.batch"
        )


def seed_drop_out(seed: int) -> None:
    """Other draws on each rank, after weights were drawn alike."""
    if num_ranks() > 1:
        torch.manual_seed((seed * 1_000_003 + rank()) % 2**63)


def joined(own: P | None, samples: tuple[str, ...]) -> P:
    """The predictions of all ranks, in the order of `samples`; None: a rank that had none of them."""
    if num_ranks() == 1:
        return own
    parts: list[P | None] = [None] * num_ranks()
    dist.all_gather_object(parts, own)
    return gathered([part for part in parts if part is not None], samples)
