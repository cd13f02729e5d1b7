"""Fixed positions of a ViT's patches: sines and cosines of row and column.

One decision: they are values like any other in the encoder's file (timm knows nothing of how they came about), and "fixed" means
only that the training at hand does not move them.
"""

import torch
from torch import nn

from raypath.errors import BadInput
from raypath.models.encoder import Encoder


def fix_positions(encoder: Encoder) -> None:
    """Set the position embeddings of a ViT to those of its grid, and stop training them; nothing else has any to set.

    Prefix tokens (class, registers) have the position 0, as in facebookresearch/mae and facebookresearch/moco-v3. Raises
    BadInput for a width that is no multiple of 4, or a grid that is no square.
    """
    positions = getattr(encoder.trunk, "pos_embed", None)  # [1, prefix + P, D], or [1, P, D]
    if not isinstance(positions, nn.Parameter):
        return
    height, width = encoder.trunk.patch_embed.grid_size
    if height != width or positions.shape[2] % 4:
        raise BadInput(
            f"encoder: {height} x {width} patches of width {positions.shape[2]}; fixed positions need a square of patches, and a"
            " width that is a multiple of 4"
        )
    fixed = torch.zeros_like(positions[0])
    fixed[len(fixed) - height * width :] = grid_embedding(height, positions.shape[2], device=positions.device)
    positions.requires_grad_(False).copy_(fixed[None])


def grid_embedding(grid: int, width: int, device: torch.device | None = None) -> torch.Tensor:
    """Fixed embeddings [grid * grid, width] of places: half of the width for the column, half for the row, sines then cosines.

    The frequencies fall from 1 to 1 / 10000 (Vaswani et al. 2017, arXiv 1706.03762, 3.5), in the order of MAE's source.
    """
    quarter = width // 4
    frequencies = 10_000 ** (-torch.arange(quarter, dtype=torch.float64, device=device) / quarter)
    angles = torch.arange(grid, dtype=torch.float64, device=device)[:, None] * frequencies
    line = torch.cat([angles.sin(), angles.cos()], 1)  # [grid, W / 2]
    columns, rows = line.repeat(grid, 1), line.repeat_interleave(grid, 0)
    return torch.cat([columns, rows], 1).float()
