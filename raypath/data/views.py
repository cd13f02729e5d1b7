"""Views: random crops, flips, colour jitter and blur of uint8 tiles, on the CPU.

One decision: a view is a function of (seed, position, view number), never of a worker's state, so any worker makes the same
view and a resumed run sees the same pixels. albumentations runs on uint8 (an order faster than float32 or PIL) and is imported
nowhere else: 2.0.8 is its last MIT release. All its transforms share one generator here, because its own seeding gives every
transform the same stream, and then all coins of a view fall alike (a horizontal flip would always come with a vertical one).

Costs 0.2 ms per view of 64 px, 0.9 ms of 224 px.
"""

import os
import random
from dataclasses import dataclass
from typing import Literal

import numpy as np

from raypath.data.permutation import derive_key

os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"  # else it asks the package registry for news at every import

_VIEWS = 101  # keeps these keys apart from those of the plan


@dataclass(frozen=True, kw_only=True)
class ViewSettings:
    """The SimCLR family of augmentations; defaults as in RECIPES 1.3 (MoCo v2), plus vertical flips: tissue has no up."""

    extent_px: int = 224
    num_views: int = 2
    min_scale: float = 0.2
    """Least share of the tile's area that a crop keeps."""
    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.4
    hue: float = 0.1
    jitter_p: float = 0.8
    gray_p: float = 0.2
    blur_p: float = 0.5
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    where: Literal["cpu", "gpu"] = "cpu"
    """gpu: tiles travel whole and `views_torch` makes the views on the device (other random numbers, the same family)."""

    def __post_init__(self):
        if self.extent_px < 1 or self.num_views < 1:
            raise ValueError(f"extent_px={self.extent_px}, num_views={self.num_views}: expected 1 or more")
        if not 0 < self.min_scale <= 1:
            raise ValueError(f"min_scale={self.min_scale}: expected above 0 and at most 1")
        for name in ("brightness", "contrast", "saturation", "hue", "jitter_p", "gray_p", "blur_p"):
            high = 0.5 if name == "hue" else 1
            if not 0 <= getattr(self, name) <= high:
                raise ValueError(f"{name}={getattr(self, name)}: expected 0 to {high}")
        if not 0 <= self.blur_sigma[0] <= self.blur_sigma[1]:
            raise ValueError(f"blur_sigma={list(self.blur_sigma)}: expected [lowest, highest], 0 or more")


class Views:
    """Makes the views of a block of tiles."""

    def __init__(self, settings: ViewSettings, seed: int):
        self.settings = settings
        self.seed = seed
        self.transform = _build(settings)

    def __call__(self, images: np.ndarray, positions: np.ndarray) -> np.ndarray:
        """uint8 [N, H, W, 3] at positions [N] -> uint8 [N, V, extent_px, extent_px, 3]."""
        extent_px, num_views = self.settings.extent_px, self.settings.num_views
        views = np.empty((len(images), num_views, extent_px, extent_px, 3), np.uint8)
        keys = derive_key(self.seed, _VIEWS, positions[:, None], np.arange(num_views)[None, :])
        for image, own, row in zip(images, views, keys.tolist()):
            for number, key in enumerate(row):
                own[number] = self._one(image, key)
        return views

    def _one(self, image: np.ndarray, key: int) -> np.ndarray:
        self.transform.set_random_state(np.random.Generator(np.random.SFC64(key)), random.Random(key))
        return self.transform(image=image)["image"]


def _build(settings: ViewSettings):
    import albumentations as A

    lowest, highest = settings.blur_sigma
    size = (settings.extent_px, settings.extent_px)
    steps = [
        A.RandomResizedCrop(size=size, scale=(settings.min_scale, 1.0), area_for_downscale="image"),
        A.HorizontalFlip(p=0.5),
        A.VerticalFlip(p=0.5),
        A.ColorJitter(
            brightness=settings.brightness,
            contrast=settings.contrast,
            saturation=settings.saturation,
            hue=settings.hue,
            p=settings.jitter_p,
        ),
        A.ToGray(p=settings.gray_p),
        A.GaussianBlur(sigma_limit=(lowest, highest), p=settings.blur_p),
    ]
    return A.Compose(steps)
