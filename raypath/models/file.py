"""The file as an encoder: what a set gives away without its pixels.

One decision: 4 numbers that no tissue is in: width and height of the image, bytes of the file and bytes per pixel. Where classes
were scanned, cropped or compressed differently these numbers tell them apart, and then a score says nothing about pathology.
"""

import numpy as np
from torch import Tensor, nn


class FileEncoder(nn.Module):
    """Stands for the numbers of a file; it has none of its own to compute from pixels."""

    width = 4

    def forward(self, images: Tensor) -> Tensor:
        """Raises TypeError: pixels do not say what their file was like."""
        raise TypeError("the file's numbers come from the file, not from pixels")

    def card(self) -> dict:
        """What it is, as plain values."""
        return {"architecture": "file", "width": self.width, "mpp": None}


def file_numbers(width: int, height: int, num_bytes: int) -> np.ndarray:
    """float32 [4] of an image of `width` x `height` px in a file of `num_bytes`."""
    return np.array([width, height, num_bytes, num_bytes / max(width * height, 1)], np.float32)
