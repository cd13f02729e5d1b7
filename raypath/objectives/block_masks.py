"""Which patches of a view are masked: blocks, as in BEiT and DINOv2.

One decision: a mask is a function of a tile's position in the plan, so it depends neither on the batch nor on the rank.

Shapes: B tiles, side * side patches of a view. D2 is facebookresearch/dinov2@fc49f49d.
"""

import math

import torch
from torch import Tensor

from raypath.objectives.draws import uniform_at

_NUM_BLOCKS = 20  # attempts at placing a block; of 14 x 14 patches 1 masked one in 1700 is then left to place alone


@torch.no_grad()
def masks_of_views(positions: Tensor, side: int, *, share: float, ratios: tuple[float, float]) -> Tensor:
    """Masks bool [2B, side * side] of all first views, then all second ones, of the tiles at `positions` int64 [B].

    A `share` of the views has one; at a half, one view of each tile. NOTE: D2 data/collate.py draws half of the batch's views,
    whosever they are, and spaces their ratios evenly; here both depend on the tile alone.
    """
    chance = uniform_at(positions, 1, key=0)  # [B, 1]
    both = [block_masks(positions, side, ratios, key=1 + v) & ((chance + v / 2) % 1 < share) for v in range(2)]
    return torch.cat(both)


def block_masks(positions: Tensor, side: int, ratios: tuple[float, float], *, key: int) -> Tensor:
    """Masks bool [B, side * side] made of blocks (BEiT, arXiv 2106.08254, algorithm 1); `ratios` bound the share, drawn evenly.

    Blocks of 4 patches up to all that are missing, and of aspects 0.3 to 1 / 0.3, are put down where they fit (D2 data/masking.py).
    NOTE: single patches make up what no block fits into, so that the number is the one drawn; D2 leaves it short.
    """
    draws = uniform_at(positions, 1 + 4 * _NUM_BLOCKS + side * side, key=key)
    ratio, blocks, singles = draws.split([1, 4 * _NUM_BLOCKS, side * side], dim=1)
    wanted = ((ratios[0] + (ratios[1] - ratios[0]) * ratio[:, 0]) * side * side).long().clamp(min=1)  # [B]

    masks = torch.zeros(len(positions), side, side, dtype=torch.bool, device=positions.device)
    for draw in blocks.split(4, dim=1):
        missing = wanted - masks.sum((1, 2))
        block = _blocks(draw, missing, side)
        num_new = (block & ~masks).sum((1, 2))
        masks |= block & ((num_new > 0) & (num_new <= missing))[:, None, None]

    masks = masks.flatten(1)
    order = (singles + masks).argsort(1).argsort(1)  # unmasked patches first, by chance
    return masks | (order < (wanted - masks.sum(1))[:, None])


def _blocks(draw: Tensor, most: Tensor, side: int) -> Tensor:
    """A rectangle of each row of uniform numbers [B, 4], bool [B, side, side]; none where it is as high or as wide as the view."""
    area = 4 + (most - 4) * draw[:, 0]
    aspect = torch.exp((2 * draw[:, 1] - 1) * math.log(0.3))
    extents = torch.stack([area * aspect, area / aspect], 1).sqrt().round()  # [B, 2]: height, width
    corners = (draw[:, 2:] * (side - extents + 1)).floor()  # [B, 2]: top, left
    places = torch.arange(side, device=draw.device)
    is_inside = (places >= corners[..., None]) & (places < (corners + extents)[..., None])  # [B, 2, side]
    is_inside &= (extents < side).all(1)[:, None, None]
    return is_inside[:, 0, :, None] & is_inside[:, 1, None, :]
