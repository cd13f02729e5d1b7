"""Batch norm over all ranks, on GPU and on CPU alike.

One decision: torch's SyncBatchNorm refuses CPU modules, so on CPU a small differentiable one stands in its place: sums and
counts are added over the ranks before mean and variance are taken. Two ranks of B tiles then equal one rank of 2B, which is what
a contrastive loss over the global batch assumes, and what lets a laptop test what a cluster runs.

Costs one all-reduce of 2C + 1 numbers per layer and direction.
"""

import torch
import torch.distributed as dist
from timm.layers import convert_sync_batchnorm
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


def synchronise_batch_norm(module: nn.Module, device: torch.device) -> nn.Module:
    """Replace every batch norm of `module` by a synchronised one that shares its parameters; a no-op for one rank."""
    if not (dist.is_initialized() and dist.get_world_size() > 1):
        return module
    if device.type == "cuda":
        if any(isinstance(layer, nn.SyncBatchNorm) for layer in module.modules()):
            return module  # a second conversion would drop the activations that timm fuses with its norms
        return convert_sync_batchnorm(module)  # timm's: torch's own drops them at the first
    for layer in module.modules():
        if isinstance(layer, _BatchNorm) and not isinstance(layer, CPUSyncBatchNorm | _SyncedForward):
            CPUSyncBatchNorm.convert(layer)
    return module


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
        normalised = normalised * norm.weight.view(channels) + norm.bias.view(channels)
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
