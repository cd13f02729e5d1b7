"""A model of crops on images of any extent: overlapping windows, blended.

One decision: probabilities are averaged with a Hann window, because what a network says near the edge of a crop it says without
seeing what lies beyond. The last window of an axis lies flush with the edge of the image, so every pixel is covered and none is
invented; along an axis that one window covers, nothing is weighted, so an image of one crop gives what the model gives.

An image that was resampled for the encoder is answered for at its own extent (`at_extent`): probabilities are brought there, as
classes have no mean.

Costs (1 / (1 - overlap))^2 forward passes per pixel: 1.8 at the overlap of 1/4, and 4 K bytes per pixel of one image.
"""

from collections.abc import Iterator

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from raypath.training.health import evaluating


@torch.no_grad()
def probability_map(
    model: nn.Module, image: np.ndarray, *, extent_px: int, overlap: float, batch: int, device: torch.device
) -> np.ndarray:
    """Class probabilities float32 [K, H, W] of an image uint8 [H, W, 3].

    `model` gives logits [B, K, h, w] of windows uint8 [B, h, w, 3] of at most `extent_px`; of that, neighbours share `overlap` or
    more.
    """
    size = tuple(min(extent_px, length) for length in image.shape[:2])
    tops, lefts = (starts(length, extent_px, overlap) for length in image.shape[:2])
    corners = [(top, left) for top in tops for left in lefts]
    weight = torch.outer(*(_weights(window, length) for window, length in zip(size, image.shape))).to(device)
    total, weights = None, torch.zeros(image.shape[:2], device=device)
    with evaluating(model.to(device)):
        for (top, left), own in _windows(model, image, size, corners, batch, device):
            place = np.s_[top : top + size[0], left : left + size[1]]
            if total is None:
                total = torch.zeros((len(own), *image.shape[:2]), device=device)
            total[:, *place] += own * weight
            weights[place] += weight
    return (total / weights).cpu().numpy()


def at_extent(probability: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Probabilities float32 [K, h, w] of an image that was resampled, at its own `size` (H, W): bilinear, pixel centres aligned.

    Where `size` is the smaller one, each pixel is a mean of all that fall on it (antialiased). An equal size: the same array.
    """
    if probability.shape[1:] == tuple(size):
        return probability
    # Pillow, not torch: its antialiased bilinear takes all rows for the first where the new width is 1
    height, width = size
    return np.stack([Image.fromarray(c).resize((width, height), Image.Resampling.BILINEAR) for c in probability])


def starts(length: int, extent_px: int, overlap: float) -> list[int]:
    """Where windows begin along an axis: evenly, the first at 0, the last flush with the end."""
    room = max(0, length - extent_px)
    num = 1 + int(np.ceil(room / max(1, int(extent_px * (1 - overlap)))))
    return np.linspace(0, room, num).round().astype(int).tolist()


def _weights(window: int, length: int) -> Tensor:
    """A Hann window without its zeros, float32; ones where a window is all there is."""
    if window == length:
        return torch.ones(window)
    return torch.sin(torch.pi * (torch.arange(window) + 0.5) / window).square()


def _windows(model, image: np.ndarray, size, corners: list, batch: int, device) -> Iterator[tuple[tuple, Tensor]]:
    """(Top and left, probabilities [K, h, w]) of each window."""
    for first in range(0, len(corners), batch):
        some = corners[first : first + batch]
        cut = np.stack([image[top : top + size[0], left : left + size[1]] for top, left in some])
        yield from zip(some, model(torch.from_numpy(cut).to(device)).float().softmax(1))
