"""The training loop, in pure torch: batches in, steps out.

One decision: everything the loop needs is handed to it (batches, a reporter, a way to save, a way to ask whether to stop), so
that it runs the same under Ray Train, on a bare GPU box and in a test with two processes. Randomness is keyed by (seed, step,
rank) and schedules are functions of the step, so the only state is weights, optimiser, step and digest: a resumed run repeats
the uninterrupted one bit for bit on CPU.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from raypath.errors import Diverged, Preempted
from raypath.training.optim import OptimSettings, lr_at, peak_lr, set_lr


@dataclass(frozen=True, kw_only=True)
class LoopSettings:
    """How long, on how much, and how precisely."""

    num_steps: int = 100
    global_batch: int = 256
    """Tiles per step over all workers."""
    checkpoint_every: int = 100
    """Steps between checkpoints; the last step always writes one."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """bfloat16: autocast on GPU (weights stay float32); on CPU always float32."""

    def __post_init__(self):
        for name in ("num_steps", "global_batch", "checkpoint_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: expected 1 or more")


@dataclass
class TrainState:
    """All that changes while training; `step` steps have been applied."""

    objective: nn.Module
    optimizer: torch.optim.Optimizer
    step: int = 0
    digest: int = 0
    """Sum (mod 2**64) over the rows consumed; on rank 0 of all ranks' rows up to the last checkpoint."""


def fit(
    state: TrainState,
    batches: Iterator[dict[str, Tensor]],
    *,
    loop: LoopSettings,
    optim: OptimSettings,
    seed: int,
    device: torch.device,
    digest_of: Callable[[dict[str, Tensor]], int],
    report: Callable[[int, dict[str, float]], None],
    save: Callable[[TrainState], None],
    observe: Callable[[], dict[str, float]] = dict,
    should_stop: Callable[[float], bool] = lambda step_s: False,
) -> TrainState:
    """Train from `state.step` to `loop.num_steps`, in place.

    `batches` yields this rank's share of each global batch; `observe()` gives this rank's numbers of the step beside the losses;
    `report(step, metrics)` is called on every rank after every step, with the means over ranks;
    `save(state)` on every rank at checkpoints, with the digest of all ranks added up; `should_stop(step_s)` on every rank after
    every step, with the duration of the one before, the same on all ranks. Raises Diverged when loss or gradient is not finite
    (the step is not applied, nothing is saved), Preempted after the checkpoint that a stop asked for.
    """
    model = _distributed(state.objective, device)
    model.train()
    peak = peak_lr(optim, loop.global_batch)
    step_s = 0.0
    while state.step < loop.num_steps:
        started = time.perf_counter()

        # Fetch: what the step waited for data is the first thing to know about a slow run.
        batch = next(batches)
        waited_s = time.perf_counter() - started
        rows = digest_of(batch)
        batch = {name: values.to(device, non_blocking=True) for name, values in batch.items()}

        # Forward and backward: DDP averages the gradients over ranks.
        torch.manual_seed(_step_seed(seed, state.step, _rank()))
        lr = lr_at(state.step, loop.num_steps, peak, optim)
        set_lr(state.optimizer, lr)
        with torch.autocast(
            device.type, torch.bfloat16, enabled=loop.precision == "bfloat16" and device.type == "cuda"
        ):
            losses = model(batch)
        # A loss that is not finite need not have such a gradient; the factor (1, or NaN) gives it one, on every rank.
        losses["loss"].backward(1 + 0 * losses["loss"].detach())

        # Step: the gradient's norm is the same on every rank, so all of them stop or none does.
        progress = state.step / loop.num_steps
        state.objective.before_step(progress)
        grad_norm = nn.utils.clip_grad_norm_(state.objective.parameters(), optim.clip_norm or float("inf")).item()
        if not torch.isfinite(torch.tensor(grad_norm)):
            raise Diverged(
                f"step {state.step}: the gradient is {grad_norm} (loss {losses['loss'].item()}): the step was not applied;"
                f" lower optim.lr (now {lr:.3g}) or set optim.clip_norm, and resume from the last checkpoint"
            )
        state.optimizer.step()
        state.optimizer.zero_grad(set_to_none=True)
        state.objective.after_step(progress)
        state.step += 1
        state.digest = (state.digest + rows) % 2**64

        # Report: means over ranks, in one message with the question whether any of them wants to stop.
        own = {name: value.item() for name, value in losses.items()} | observe()
        own |= {"waited_s": waited_s, "stop": float(should_stop(step_s)), "step_s": time.perf_counter() - started}
        metrics = _mean_over_ranks(own, device)
        stopping, step_s = metrics.pop("stop") > 0, metrics["step_s"]
        metrics |= {"lr": lr, "grad_norm": grad_norm}
        metrics |= {"waiting_share": metrics.pop("waited_s") / step_s, "tiles_per_s": loop.global_batch / step_s}
        report(state.step, metrics)

        # Checkpoint
        if stopping or state.step % loop.checkpoint_every == 0 or state.step == loop.num_steps:
            state.digest = _sum_on_first_rank(state.digest)
            save(state)
        if stopping and state.step < loop.num_steps:
            raise Preempted(f"stopped at step {state.step} of {loop.num_steps}; a checkpoint is written")
    return state


def _distributed(objective: nn.Module, device: torch.device) -> nn.Module:
    if not (dist.is_initialized() and dist.get_world_size() > 1):
        return objective
    # find_unused_parameters keeps DDP from rebuilding its buckets after the first step, which changes the order of summation
    # and makes a resumed run differ in the last bits from 3 ranks on. Buffers are equal on all ranks (synchronised batch norm).
    return DistributedDataParallel(
        objective,
        device_ids=[device.index] if device.type == "cuda" else None,
        find_unused_parameters=True,
        broadcast_buffers=False,
    )


def _rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def _step_seed(seed: int, step: int, rank: int) -> int:
    return ((seed * 1_000_003 + step) * 65_537 + rank) % 2**63  # torch takes 64 bits


def _mean_over_ranks(values: dict[str, float], device: torch.device) -> dict[str, float]:
    """The means over ranks, the same on every rank; all name the same values."""
    if not (dist.is_initialized() and dist.get_world_size() > 1):
        return values
    means = torch.tensor(list(values.values()), dtype=torch.float64, device=device)
    dist.all_reduce(means)
    return dict(zip(values, (means / dist.get_world_size()).tolist()))


def _sum_on_first_rank(digest: int) -> int:
    """The digests of all ranks added up (mod 2**64) on rank 0; 0 elsewhere, so that the next sum counts nothing twice."""
    if not (dist.is_initialized() and dist.get_world_size() > 1):
        return digest
    gathered: list[int] = [0] * dist.get_world_size()
    dist.all_gather_object(gathered, digest)
    return sum(gathered) % 2**64 if dist.get_rank() == 0 else 0
