"""Colour as an encoder: the baseline that every pretraining has to beat.

One decision: 30 numbers, no learning: mean and spread of each RGB channel and a histogram of 8 bins each. With logistic
regression they tie an ImageNet probe on most small H&E sets, so "better" has to mean better than this too.
"""

import torch
from torch import Tensor, nn

NUM_BINS = 8


class ColourEncoder(nn.Module):
    """uint8 tiles [B, H, W, 3] -> [B, 30]; values in [0, 1]."""

    width = 6 + 3 * NUM_BINS

    def forward(self, images: Tensor) -> Tensor:
        """Mean [3], standard deviation [3] and 8-bin histogram [24] of R, G and B."""
        pixels = images.flatten(1, 2)  # [B, H*W, 3]
        values = pixels.float() / 255
        bins = torch.nn.functional.one_hot((pixels // (256 // NUM_BINS)).long(), NUM_BINS)  # [B, H*W, 3, 8]
        histogram = bins.sum(1).flatten(1).float() / pixels.shape[1]
        return torch.cat([values.mean(1), values.std(1, correction=0), histogram], dim=1)

    def card(self) -> dict:
        """What it is, as plain values."""
        return {"architecture": "colour", "width": self.width, "mpp": None}
