"""MAE: a ViT sees a quarter of a tile's patches, a small decoder paints the others (He et al. 2021, arXiv 2111.06377).

One decision: which patches are masked follows from the position of the tile in the plan, so the masks are the same for any number
of ranks and micro-batches. The loss is a mean over the same number of patches per tile, so it may be cut and averaged.

The trunk runs on the visible patches only; most of the cost at small sizes is the decoder, which is thrown away. Positions are
fixed sines and cosines in the decoder, and in a trunk that starts from random weights.

Shapes: B tiles per rank, P patches of a tile, K visible and M masked ones (P = K + M), n numbers of a patch, D width of the
encoder, W of the decoder.
"""

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from raypath.models import Encoder, grid_embedding
from raypath.objectives.draws import uniform_at
from raypath.objectives.objective import Needs

_MASK_KEY = 21  # tells these draws from those of other objectives


@dataclass(frozen=True, kw_only=True)
class MAESettings:
    """Mask and decoder; defaults are those of the paper (section 4 and table 1; ViT-L)."""

    kind: Literal["mae"] = "mae"
    mask_ratio: float = 0.75
    """Share of patches that the encoder does not see."""
    norm_pix_loss: bool = True
    """The target is each patch's pixels, minus their mean and divided by their spread (table 1d)."""
    decoder_width: int = 512
    decoder_depth: int = 8
    decoder_heads: int = 16

    def __post_init__(self):
        if not 0 < self.mask_ratio < 1:
            raise ValueError(f"mask_ratio={self.mask_ratio}: expected above 0 and below 1")
        for name in ("decoder_depth", "decoder_heads"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: expected 1 or more")
        if self.decoder_width < 4 or self.decoder_width % 4 or self.decoder_width % self.decoder_heads:
            raise ValueError(
                f"decoder_width={self.decoder_width}: expected a multiple of 4 and of decoder_heads={self.decoder_heads}"
            )

    @property
    def needs(self) -> Needs:
        """One view of a tile, and an encoder with tokens."""
        return Needs(is_vit_only=True, has_fixed_positions=True)


class MAE(nn.Module):
    """ViT encoder and decoder. `batch["views"]` is uint8 [B, 1, H, W, 3] with H = W a multiple of the patch size."""

    exported_copy = "encoder"

    def __init__(self, settings: MAESettings, encoder: Encoder):
        super().__init__()
        extent_px = encoder.settings.input_px
        num_patches = encoder.num_patches(extent_px)  # TypeError, by name, for an architecture without patches
        num_masked = _num_masked(num_patches, settings.mask_ratio)
        if not 0 < num_masked < num_patches:
            raise ValueError(
                f"mask_ratio={settings.mask_ratio}: masks {num_masked} of {num_patches} patches at input_px={extent_px};"
                " expected some masked and some not"
            )
        self.settings = settings
        self.encoder = encoder
        self.patch_px = extent_px // math.isqrt(num_patches)
        self.decoder = Decoder(encoder.width, 3 * self.patch_px**2, settings)

    def start_step(self, progress: float) -> None:
        """Nothing to do."""

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """`loss` (a scalar with gradient), and the loss of an encoder that knows nothing: of painting 0 everywhere.

        With `norm_pix_loss` the latter is (n - 1) / n, because the spread is that of n - 1 degrees of freedom and the loss a mean
        over n numbers; less where all n are equal. Without, it is the mean square of the normalised pixels.
        """
        images = self.encoder.normalise(batch["views"][:, 0])  # [B, 3, H, W]
        targets = patchify(images, self.patch_px)  # [B, P, n]
        keep, masked = draw_masks(batch["position"], targets.shape[1], self.settings.mask_ratio)  # [B, K], [B, M]
        cls, visible = self.encoder.tokens(images, keep=keep)  # [B, D], [B, K, D]
        painted = self.decoder(cls, visible, keep, targets.shape[1])  # [B, P, n]
        loss, uninformed_loss = masked_loss(painted, targets, masked, self.settings.norm_pix_loss)
        return {"loss": loss, "uninformed_loss": uninformed_loss}

    def param_groups(self, settings: Any) -> list[dict]:
        """All parameters alike; what is decayed is for the optimiser to say by kind."""
        return [{"params": [p for p in self.parameters() if p.requires_grad]}]

    def before_step(self, progress: float) -> None:
        """Nothing to do."""

    def after_step(self, progress: float) -> None:
        """Nothing to do."""


class Decoder(nn.Module):
    """A plain transformer over visible tokens and mask tokens, with fixed position embeddings (section 3 of the paper)."""

    def __init__(self, width: int, num_out: int, settings: MAESettings):
        super().__init__()
        inner = settings.decoder_width
        self.embed = nn.Linear(width, inner)
        self.mask_token = nn.Parameter(0.02 * torch.randn(inner))  # facebookresearch/mae models_mae.py: std .02
        self.blocks = nn.Sequential(
            *(
                nn.TransformerEncoderLayer(
                    inner,
                    settings.decoder_heads,
                    dim_feedforward=4 * inner,
                    dropout=0.0,
                    activation="gelu",
                    batch_first=True,
                    norm_first=True,
                )
                for _ in range(settings.decoder_depth)
            )
        )
        self.norm = nn.LayerNorm(inner)
        self.paint = nn.Linear(inner, num_out)
        for layer in self.modules():
            if isinstance(layer, nn.Linear):  # the attention's first matrix is so by torch's default
                nn.init.xavier_uniform_(layer.weight)  # the paper, A.1
                nn.init.zeros_(layer.bias)

    def forward(self, cls: Tensor, visible: Tensor, keep: Tensor, num_patches: int) -> Tensor:
        """Pixels [B, P, n] from the class token [B, D] and visible ones [B, K, D], which stand at `keep` [B, K]."""
        cls, visible = self.embed(cls[:, None]), self.embed(visible)  # [B, 1, W], [B, K, W]
        tokens = self.mask_token.to(visible.dtype).expand(len(keep), num_patches, -1)
        tokens = tokens.scatter(1, keep[..., None].expand_as(visible), visible)  # [B, P, W]
        places = grid_embedding(math.isqrt(num_patches), tokens.shape[2], device=tokens.device)
        tokens = torch.cat([cls, tokens + places.to(tokens.dtype)], 1)  # the class token has the place 0
        return self.paint(self.norm(self.blocks(tokens)))[:, 1:]


def draw_masks(position: Tensor, num_patches: int, mask_ratio: float) -> tuple[Tensor, Tensor]:
    """Numbers of the visible [B, K] and of the masked patches [B, M], in random order, for positions int64 [B]."""
    order = uniform_at(position, num_patches, key=_MASK_KEY).argsort(dim=1, stable=True)
    num_masked = _num_masked(num_patches, mask_ratio)
    return order[:, num_masked:], order[:, :num_masked]


def patchify(images: Tensor, patch_px: int) -> Tensor:
    """Images [B, C, H, W] to patches [B, P, p * p * C]: row by row, as a ViT counts them; inside by row, column, channel."""
    rows = images.unflatten(3, (-1, patch_px)).unflatten(2, (-1, patch_px))  # [B, C, h, p, w, p]
    return rows.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)


def masked_loss(painted: Tensor, targets: Tensor, masked: Tensor, norm_pix_loss: bool) -> tuple[Tensor, Tensor]:
    """The mean square of the error over the masked patches [B, M], and that of painting 0; `painted`, `targets` [B, P, n]."""
    at = masked[..., None].expand(-1, -1, targets.shape[2])
    painted, targets = painted.gather(1, at), targets.gather(1, at)
    painted = painted.to(torch.promote_types(painted.dtype, targets.dtype))  # the loss is never taken in bfloat16
    if norm_pix_loss:
        variance, mean = torch.var_mean(targets, 2, keepdim=True)  # unbiased
        targets = (targets - mean) / (variance + 1e-6).sqrt()  # 1e-6: facebookresearch/mae models_mae.py forward_loss
    return (painted - targets).square().mean(), targets.square().mean()


def _num_masked(num_patches: int, mask_ratio: float) -> int:
    return num_patches - int(num_patches * (1 - mask_ratio))  # facebookresearch/mae models_mae.py random_masking
