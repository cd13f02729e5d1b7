"""MoCo v3: MoCo without a queue, made for vision transformers (Chen, Xie, He 2021, arXiv 2104.02057).

One decision: it is the source's released form (facebookresearch/moco-v3), and the defaults are those for a ViT. Each view passes
the network by itself; the keys of all ranks are the negatives, without gradient; batch norm (in the heads of a ViT) is
synchronised, as there. For a ResNet the source has 2 projector layers, no norm behind the predictor, and temperature 1.

A ViT that starts from random weights has fixed sine-cosine positions, as there. Its other first weights are timm's option
weight_init="moco", but for those of the patch projection.

Shapes: B tiles per rank, W ranks, N = W B, D width of the encoder, P width of the projection.
"""

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import torch
from torch import Tensor, nn

from raypath.models import Encoder, cosine_momentum, follow, momentum_copy
from raypath.objectives.gather import gather, num_ranks, rank
from raypath.objectives.objective import Needs


@dataclass(frozen=True, kw_only=True)
class MoCoV3Settings:
    """Heads, temperature, momentum; defaults are those for a ViT (arXiv 2104.02057, 4.1; moco-v3 CONFIG.md)."""

    kind: Literal["moco_v3"] = "moco_v3"
    num_projector_layers: int = 3  # arXiv 2104.02057, 4.1 (MLP heads); moco-v3@337f3c96 builder.py: 2 for a ResNet
    has_predictor_norm: bool = True  # moco-v3@337f3c96 builder.py: MoCo_ViT True, MoCo_ResNet False
    hidden_width: int = 4096  # moco-v3@7074f47f main_moco.py: --moco-mlp-dim
    out_width: int = 256  # the same: --moco-dim
    temperature: float = 0.2  # moco-v3@38aae447 CONFIG.md: --moco-t=.2 for ViT; the ResNets have main_moco.py's 1.0
    momentum: float = 0.99  # the same: --moco-m-cos from --moco-m=.99; ResNet-50 for 1,000 epochs from .996
    """Of the momentum copy at the start; it rises to 1 along a cosine."""
    is_patch_projection_frozen: bool = True  # arXiv 2104.02057, 4.3, against instability; CONFIG.md: --stop-grad-conv1
    """Leave the projection of a ViT's patches as it is (random, or that of the weights one starts from); nothing else has any."""

    def __post_init__(self):
        for name in ("num_projector_layers", "hidden_width", "out_width"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: expected 1 or more")
        if not 0 <= self.momentum <= 1:
            raise ValueError(f"momentum={self.momentum}: expected 0 to 1")
        if not self.temperature > 0:
            raise ValueError(f"temperature={self.temperature}: expected above 0")

    @property
    def needs(self) -> Needs:
        """Two views of a tile; the loss couples all tiles of the batch."""
        return Needs(num_views=2, accumulation="cached", has_fixed_positions=True)


class MoCoV3(nn.Module):
    """Encoder, projector and predictor; momentum copies of the first two. `batch["views"]` is uint8 [B, 2, H, W, 3]."""

    exported_copy = "query"

    def __init__(self, settings: MoCoV3Settings, encoder: Encoder):
        super().__init__()
        self.settings = settings
        patch_projection = getattr(getattr(encoder.trunk, "patch_embed", None), "proj", None)
        if settings.is_patch_projection_frozen and isinstance(patch_projection, nn.Conv2d):
            patch_projection.requires_grad_(False)
        hidden, out = settings.hidden_width, settings.out_width
        self.encoder = encoder
        self.projector = mlp([encoder.width, *[hidden] * (settings.num_projector_layers - 1), out])
        self.predictor = mlp([out, hidden, out], has_last_norm=settings.has_predictor_norm)
        self.momentum_encoder, self.momentum_projector = momentum_copy(encoder), momentum_copy(self.projector)

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """`loss` (a scalar with gradient) and the share of queries whose nearest key is that of their other view."""
        return self.loss_of(self.embed(batch), batch)

    def embed(self, batch: dict[str, Tensor]) -> Tensor:
        """Of length 1, [B, 4, P]: the queries of both views, and their keys, which have no gradient."""
        views = batch["views"].unbind(1)  # [B, H, W, 3] each
        queries = [self.predictor(self.projector(self.encoder(view))) for view in views]
        with torch.no_grad():
            keys = [self.momentum_projector(self.momentum_encoder(view)) for view in views]
        embeddings = torch.stack(queries + keys, 1)
        exact = embeddings.to(torch.promote_types(embeddings.dtype, torch.float32))  # bfloat16 has 3 significant digits
        return nn.functional.normalize(exact, dim=2)

    def loss_of(self, embeddings: Tensor, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """The loss of embeddings [B, 4, P]: each view's queries against the other view's keys of all ranks."""
        queries, keys = embeddings[:, :2], embeddings[:, 2:].detach()
        temperature = self.settings.temperature
        first, first_top1 = contrast(queries[:, 0], keys[:, 1], temperature)
        second, second_top1 = contrast(queries[:, 1], keys[:, 0], temperature)
        uninformed = torch.tensor(4 * temperature * math.log(len(embeddings) * num_ranks()))
        top1 = (first_top1 + second_top1) / 2
        return {"loss": first + second, "contrastive_top1": top1, "uninformed_loss": uninformed}

    def param_groups(self, settings: Any) -> list[dict]:
        """All trained parameters alike; what is decayed is for the optimiser to say by kind."""
        return [{"params": [p for p in self.parameters() if p.requires_grad]}]

    def start_step(self, progress: float) -> None:
        """Nothing to do."""

    def before_step(self, progress: float) -> None:
        """Nothing to do."""

    def after_step(self, progress: float) -> None:
        """The momentum copy follows; the source does so before the next keys, which is the same with its next momentum."""
        momentum = cosine_momentum(self.settings.momentum, progress)
        follow(self.momentum_encoder, self.encoder, momentum)
        follow(self.momentum_projector, self.projector, momentum)


def mlp(widths: list[int], *, has_last_norm: bool = True) -> nn.Sequential:
    """Linear layers without bias, each with a batch norm, ReLU between them; the last norm has no gain and no shift.

    Source: moco-v3@337f3c96 builder.py (`_build_mlp`).
    """
    layers: list[nn.Module] = []
    for width, next_width in pairwise(widths[:-1]):
        layers += [nn.Linear(width, next_width, bias=False), nn.BatchNorm1d(next_width), nn.ReLU(inplace=True)]
    layers.append(nn.Linear(widths[-2], widths[-1], bias=False))
    if has_last_norm:
        layers.append(nn.BatchNorm1d(widths[-1], affine=False))
    return nn.Sequential(*layers)


def contrast(queries: Tensor, keys: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """2 T times InfoNCE of this rank's queries against the keys of all ranks: (mean loss, detached top-1).

    `queries` and `keys` [B, P] have length 1; query i belongs to key i. Algorithm 1 of arXiv 2104.02057 (`ctr`).
    """
    everywhere = gather(keys)  # [N, P]
    own = rank() * len(queries) + torch.arange(len(queries), device=queries.device)
    with torch.autocast(queries.device.type, enabled=False):  # bfloat16 would round s / T to 3 significant digits
        logits = queries @ everywhere.T / temperature  # [B, N]
    top1 = (logits.detach().argmax(1) == own).float().mean()
    return 2 * temperature * nn.functional.cross_entropy(logits, own), top1
