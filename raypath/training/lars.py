"""LARS: SGD with momentum whose step is scaled, layer by layer, to the size of the weights (You et al. 2017, arXiv 1708.03888).

One decision: only parameters in a group with `adapt=True` are scaled; norms and biases are plain SGD, as the papers' sources do
(RECIPES 1.3: "bn+bias excluded").
"""

import torch
from torch.optim import Optimizer


class LARS(Optimizer):
    """Groups take `lr`, `momentum`, `weight_decay` and `adapt`."""

    def __init__(self, params, lr: float, momentum: float = 0.9, weight_decay: float = 0.0, trust: float = 1e-3):
        # trust: 1e-3 in both sources of RECIPES 1.3
        super().__init__(
            params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "trust": trust, "adapt": True}
        )

    @torch.no_grad()
    def step(self, closure=None) -> None:
        """Step by lr * rate * (g + decay * w) with momentum; rate = trust |w| / (|g| + decay |w|), eq. 6 of the paper."""
        for group in self.param_groups:
            for weights in group["params"]:
                if weights.grad is None:
                    continue
                update = weights.grad.add(weights, alpha=group["weight_decay"])
                if group["adapt"]:
                    update = update * self._rate(weights, group)
                buffer = self.state[weights].setdefault("momentum_buffer", torch.zeros_like(weights))
                buffer.mul_(group["momentum"]).add_(update)
                weights.add_(buffer, alpha=-group["lr"])

    @staticmethod
    def _rate(weights: torch.Tensor, group: dict) -> torch.Tensor:
        size, slope = weights.norm(), weights.grad.norm()
        rate = group["trust"] * size / (slope + group["weight_decay"] * size)
        return torch.where((size > 0) & (slope > 0), rate, torch.ones_like(rate))
