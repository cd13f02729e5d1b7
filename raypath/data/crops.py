"""Random crops of images and their masks, cut and turned together.

One decision: a crop is a function of (seed, position), as a view is: which image, where, and how it is turned. The plan's order
says which image, so that each comes once per epoch; a large image has no more crops than a small one. Turns are those of a square
onto itself, under which no pixel is resampled and no class invented. Colours change on the image alone.

Costs a copy per crop and what the jitter of colours costs: together 0.8 ms for 256 px.
"""

from collections.abc import Sequence

import numpy as np

from raypath.data.masked_images import Masked
from raypath.data.permutation import derive_key
from raypath.data.plan import Plan, PlanSettings
from raypath.data.views import Colours, ViewSettings, uniform
from raypath.errors import BadInput

_CROPS = 107  # keeps these keys apart from those of the plan and of the views
_STEP_PX = 32  # a crop has at least one px on the last map
_LEFT, _TOP, _TURNS, _FLIP = range(4)


class Crops:
    """Square crops of `extent_px` from images with masks, of which none may be smaller than that."""

    def __init__(
        self,
        samples: Sequence[Masked],
        extent_px: int,
        *,
        seed: int,
        colours: ViewSettings | None = None,
        has_turns: bool = True,
    ):
        """`colours`: how the image's colours change (None: not); `has_turns`: by 90 degrees too, else only flips.

        Raises BadInput if an image is smaller than a crop.
        """
        self.samples, self.extent_px, self.seed = samples, extent_px, seed
        self.colours = Colours(colours, seed) if colours else None
        self.has_turns = has_turns
        self.plan = Plan([len(samples)], PlanSettings(chunk_tiles=1, num_shards=1, chunks_per_shard=1), seed=seed)
        least = min(min(mask.shape) for _, mask in samples)
        if least < extent_px:
            smaller = f"set protocol.crop_px={least // _STEP_PX * _STEP_PX} or less"
            larger = "leave the small ones out, or where scale=match_mpp made them small set scale=native"
            raise BadInput(
                f"crops of {extent_px} px from images of which the smallest is {least} px wide or high as it is fed: nothing is"
                f" padded; {smaller if least >= _STEP_PX else larger}"
            )

    def at(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Images uint8 [N, extent_px, extent_px, 3] and classes uint8 [N, extent_px, extent_px] at positions [N]."""
        _, numbers = self.plan.samples(positions)
        draws = uniform(derive_key(self.seed, _CROPS, positions[:, None], np.arange(4)))
        cut = [self._one(*self.samples[number], draw) for number, draw in zip(numbers, draws)]
        images, masks = (np.stack(parts) for parts in zip(*cut))
        return (self.colours(images, positions) if self.colours else images), masks

    def _one(self, image: np.ndarray, mask: np.ndarray, draw: np.ndarray) -> Masked:
        top, left = (int(draw[k] * (room - self.extent_px + 1)) for k, room in zip((_TOP, _LEFT), mask.shape))
        part = np.s_[top : top + self.extent_px, left : left + self.extent_px]
        turns = int(4 * draw[_TURNS]) if self.has_turns else 2 * int(2 * draw[_TURNS])  # a half turn is both flips
        return tuple(_turned(array[part], turns, draw[_FLIP] < 0.5) for array in (image, mask))


def _turned(array: np.ndarray, turns: int, is_flipped: bool) -> np.ndarray:
    turned = np.rot90(array, turns)
    return turned[:, ::-1] if is_flipped else turned
