"""Batch norm over all ranks, and batch norm in groups, on GPU and on CPU alike.

One decision: torch's SyncBatchNorm refuses CPU modules, so on CPU a small differentiable one stands in its place: sums and
counts are added over the ranks before mean and variance are taken. Two ranks of B tiles then equal one rank of 2B, which is what
a contrastive loss over the global batch assumes, and what lets a laptop test what a cluster runs.

Costs one all-reduce of 2C + 1 numbers per layer and direction.

Grouped batch norm is the opposite: MoCo (arXiv 1911.05722, 3.3) needs statistics of a part of the batch only. The groups are parts
of the global batch, whole ones on each rank, so that the mathematics does not depend on the number of ranks. The rows of a group
lie apart by the number of groups: then it is torch's own batch norm on another view of the same memory, [B / G, G C, ...].
"""

import torch
import torch.distributed as dist
from timm.layers import convert_sync_batchnorm
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from raypath.errors import BadInput


def synchronise_batch_norm(module: nn.Module, device: torch.device) -> nn.Module:
    """Replace every batch norm of `module` by a synchronised one that shares its parameters; a no-op for one rank.

    Grouped ones stay as they are.
    """
    if not (dist.is_initialized() and dist.get_world_size() > 1):
        return module
    if device.type == "cuda":
        return _synchronise_on_gpu(module)
    for layer in module.modules():
        if isinstance(layer, _BatchNorm) and not isinstance(layer, CPUSyncBatchNorm | _SyncedForward | _GroupedForward):
            CPUSyncBatchNorm.convert(layer)
    return module


def _synchronise_on_gpu(module: nn.Module) -> nn.Module:
    # A second conversion of a synchronised one would drop the activations that timm fuses with its norms.
    if isinstance(module, nn.SyncBatchNorm | _GroupedForward):
        return module
    if isinstance(module, _BatchNorm):
        return convert_sync_batchnorm(module)  # timm's: torch's own drops them at the first
    for name, child in module.named_children():
        module.add_module(name, _synchronise_on_gpu(child))
    return module


def group_batch_norm(module: nn.Module, num_groups: int) -> bool:
    """Let every batch norm of `module` train, in place, with statistics of `num_groups` groups of the global batch.

    Row i of a rank's batch belongs to the rank's group i mod (num_groups / W); each of the W ranks holds whole groups. Call
    `average_running_statistics` after each step. In evaluation they are ordinary. False if `module` has no batch norm.
    """
    norms = [layer for layer in module.modules() if isinstance(layer, _BatchNorm)]
    for norm in norms:
        if not isinstance(norm, _GroupedForward):
            norm.__class__ = type(f"Grouped{type(norm).__name__}", (_GroupedForward, type(norm)), {})
        norm.num_groups = num_groups
    return bool(norms)


def check_groups(num_groups: int, global_batch: int, num_ranks: int) -> None:
    """Raise BadInput unless a batch falls into equal groups of 2 rows or more, and the groups to the ranks."""
    if num_groups % num_ranks:
        fitting = ", ".join(str(n) for n in range(1, num_groups + 1) if num_groups % n == 0)
        raise BadInput(
            f"bn_groups={num_groups} with {num_ranks} workers: expected a multiple of the workers, which hold whole groups;"
            f" use {fitting} workers or bn_groups={num_ranks * -(-num_groups // num_ranks)}"
        )
    if global_batch % num_groups or global_batch < 2 * num_groups:
        below = num_groups * max(2, global_batch // num_groups)
        raise BadInput(
            f"a global batch of {global_batch} with bn_groups={num_groups}: expected a multiple of the groups, with 2 rows or more"
            f" in each; the nearest valid batches are {below} and {below + num_groups}"
        )


@torch.no_grad()
def average_running_statistics(module: nn.Module) -> None:
    """Take the mean over ranks of all running statistics of grouped batch norms, in one message; a no-op for one rank.

    The running statistics are linear in those of the groups, so this is the same as averaging in every layer.
    """
    if not (dist.is_initialized() and dist.get_world_size() > 1):
        return
    grouped = [layer for layer in module.modules() if isinstance(layer, _GroupedForward) and layer.track_running_stats]
    buffers = [buffer for layer in grouped for buffer in (layer.running_mean, layer.running_var)]
    if not buffers:
        return
    means = torch.cat(buffers)
    dist.all_reduce(means)
    torch._foreach_copy_(buffers, list((means / dist.get_world_size()).split([len(buffer) for buffer in buffers])))


class _GroupedForward:
    """Mixed into a batch norm: statistics per group while training, then the drop and act of timm's fused layers."""

    num_groups: int

    def forward(self, inputs: Tensor) -> Tensor:
        if not self.training:
            return super().forward(inputs)
        outputs = _normalise_groups(self, inputs)
        return self.act(self.drop(outputs)) if hasattr(self, "act") else outputs


def _normalise_groups(norm: _BatchNorm, inputs: Tensor) -> Tensor:
    num_ranks = dist.get_world_size() if dist.is_initialized() else 1
    num = norm.num_groups // num_ranks  # of this rank
    check_groups(norm.num_groups, len(inputs) * num_ranks, num_ranks)
    parts = [None if part is None else part.repeat(num) for part in (norm.weight, norm.bias)]
    running = [None, None]
    momentum = norm.momentum or 0.0
    if norm.track_running_stats:
        norm.num_batches_tracked += 1
        momentum = norm.momentum if norm.momentum is not None else 1.0 / float(norm.num_batches_tracked)
        running = [norm.running_mean.repeat(num), norm.running_var.repeat(num)]

    folded = inputs.reshape(len(inputs) // num, num * inputs.shape[1], *inputs.shape[2:])
    outputs = nn.functional.batch_norm(folded, *running, *parts, training=True, momentum=momentum, eps=norm.eps)
    outputs = outputs.reshape(inputs.shape)

    if norm.track_running_stats:
        norm.running_mean.copy_(running[0].view(num, -1).mean(0))
        norm.running_var.copy_(running[1].view(num, -1).mean(0))
    if inputs.dim() == 4 and inputs.is_contiguous(memory_format=torch.channels_last):
        outputs = outputs.contiguous(
            memory_format=torch.channels_last
        )  # several groups cannot be folded without a copy there
    return outputs


class CPUSyncBatchNorm(_BatchNorm):
    """Batch norm whose training statistics are those of the global batch (any rank of gloo)."""

    @classmethod
    def convert(cls, norm: _BatchNorm) -> None:
        """Synchronise `norm` in place; a subclass with a forward of its own (timm's BatchNormAct2d) keeps what it adds."""
        if type(norm) in (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d):
            norm.__class__ = cls
        else:  # timm fuses norm and activation: swap only how the statistics are taken, not what follows
            norm.__class__ = type(f"Sync{type(norm).__name__}", (_SyncedForward, type(norm)), {})

    def forward(self, inputs: Tensor) -> Tensor:
        """Normalise [B, C, ...] with the statistics of all ranks in training, with the running ones in evaluation."""
        return _normalise(self, inputs)

    def _check_input_dim(self, inputs: Tensor) -> None:
        """Any number of dimensions from two on."""


class _SyncedForward:
    """Mixed into a fused norm-and-activation layer of timm: statistics over all ranks, then its own drop and act."""

    def forward(self, inputs: Tensor) -> Tensor:
        return self.act(self.drop(_normalise(self, inputs)))


def _normalise(norm: _BatchNorm, inputs: Tensor) -> Tensor:
    if not norm.training:
        return nn.functional.batch_norm(
            inputs, norm.running_mean, norm.running_var, norm.weight, norm.bias, training=False, eps=norm.eps
        )
    channels = [1, -1] + [1] * (inputs.dim() - 2)
    others = [d for d in range(inputs.dim()) if d != 1]
    values = inputs if inputs.dtype == torch.float64 else inputs.float()
    count = torch.full((1,), values.numel() / values.shape[1], device=values.device)
    # Two passes: the variance about the global mean, because E[x^2] - E[x]^2 loses digits in float32.
    sums = _AllReduce.apply(torch.cat([values.sum(others), count]))
    mean = (sums[:-1] / sums[-1]).view(channels)
    squares = _AllReduce.apply((values - mean).square().sum(others))
    variance = (squares / sums[-1]).view(channels)
    _update_running(norm, mean.detach().flatten(), variance.detach().flatten(), sums[-1].detach())
    normalised = (values - mean) * torch.rsqrt(variance + norm.eps)
    if norm.affine:
        # Times 1: else, with one value per channel, the gradient of the bias is the very memory that a shortcut's bias gets too,
        # and what scales gradients in place scales both twice.
        normalised = normalised * norm.weight.view(channels) + (norm.bias * 1.0).view(channels)
    return normalised.to(inputs.dtype)


def _update_running(norm: _BatchNorm, mean: Tensor, variance: Tensor, count: Tensor) -> None:
    if not norm.track_running_stats:
        return
    norm.num_batches_tracked += 1
    momentum = norm.momentum if norm.momentum is not None else 1.0 / float(norm.num_batches_tracked)
    norm.running_mean.lerp_(mean, momentum)
    norm.running_var.lerp_(variance * count / (count - 1), momentum)  # unbiased, as torch keeps it


class _AllReduce(torch.autograd.Function):
    """Sum over ranks; the gradient of a sum over ranks is the sum of the gradients."""

    @staticmethod
    def forward(ctx, tensor: Tensor) -> Tensor:
        total = tensor.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        total = gradient.clone()
        dist.all_reduce(total)
        return total
