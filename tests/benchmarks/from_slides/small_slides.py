"""Small slides with tissue where it is said to be, written as TIFFs that OpenSlide opens."""

from pathlib import Path

import numpy as np
import tifffile

WHITE, PINK = (245, 245, 245), (200, 90, 160)


def write_slide(path: Path, tissue: tuple[int, int, int, int], *, size=(512, 512), mpp=0.5, seed=0) -> Path:
    """A tiled RGB TIFF with its mpp; `tissue` is left, top, right, bottom in px, `seed` makes its bytes its own."""
    noise = np.random.default_rng(seed).integers(-8, 9, (size[1], size[0], 1))
    pixels = np.full((size[1], size[0], 3), WHITE) + noise
    left, top, right, bottom = tissue
    pixels[top:bottom, left:right] = PINK + noise[top:bottom, left:right]
    path.parent.mkdir(parents=True, exist_ok=True)
    per_cm = 10_000 / mpp
    tifffile.imwrite(
        path,
        pixels.astype(np.uint8),
        tile=(128, 128),
        photometric="rgb",
        compression="deflate",
        resolution=(per_cm, per_cm),
        resolutionunit="CENTIMETER",
        metadata=None,
    )
    return path
