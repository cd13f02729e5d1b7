"""DINOv2: DINO on class tokens, iBOT on masked patches, and class tokens spread apart (Oquab et al. 2023, arXiv 2304.07193).

One decision: what is masked is a function of a tile's position in the plan, and targets are balanced (centre or Sinkhorn) over all
ranks; so a step does not depend on how many ranks share the batch. The exception is the original's: KoLeo looks for neighbours
among the tiles of a rank, unless `koleo_scope="global"`.

Every rank holds all weights (DDP): encoders larger than a ViT-L are refused. Public weights come by the run's `init`, and the
momentum copy starts as what was loaded. Drop-path (0.3) is an option of the encoder; layer-wise decay of the learning rate (0.9)
and the growing weight decay (0.04 to 0.4) are settings of the optimiser.

Costs: as DINO, and float32 logits of about 0.3 P patches per tile, for the student and for the copy: 1 GB each for B = 64, P = 196.

Shapes: B tiles per rank, P patches of a large view, M masked patches of a rank, L local views, D width of the encoder, K width of
the predictions. Sources: D2 is facebookresearch/dinov2@fc49f49d; defaults are those of its configs/ssl_default_config.yaml.
"""

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from raypath.errors import BadInput
from raypath.models import Encoder, cosine_momentum, follow, momentum_copy
from raypath.objectives.block_masks import masks_of_views
from raypath.objectives.dino import DINOHead, dino_loss, flat_views, move_centre, spread_of, sum_and_count, warmed_up
from raypath.objectives.dinov2_losses import ibot_loss, kde, koleo, sinkhorn
from raypath.objectives.objective import Needs

_MOST_PARAMETERS = 320_000_000  # a ViT-L has 304 million, the next size (SO400M) 428


@dataclass(frozen=True, kw_only=True)
class DINOv2Settings:
    """Heads, losses, masks and schedules; defaults are D2's, with shares of its run of 100 epochs."""

    kind: Literal["dinov2"] = "dinov2"
    num_local_views: int = 8  # D2 crops.local_crops_number
    """Small views per tile, for the student only; 0: the two large ones alone."""
    hidden_width: int = 2048  # D2 dino.head_hidden_dim
    bottleneck_width: int = 256  # D2 dino.head_bottleneck_dim; vitl14.yaml: 384
    out_width: int = 65536  # D2 dino.head_n_prototypes; vitl14.yaml: 131072
    has_separate_heads: bool = False  # D2 ibot.separate_head; vitl14.yaml: true
    """Patch tokens get a head of their own, of the same widths."""
    centring: Literal["centre", "sinkhorn"] = "centre"  # D2 train.centering; vitl14.yaml: sinkhorn_knopp
    """What keeps the copy's predictions from becoming all alike: a running centre, or 3 Sinkhorn iterations over the batch
    (then `momentum_entropy` is near 1 whatever happens)."""
    student_temperature: float = 0.1  # D2 loss/dino_clstoken_loss.py and loss/ibot_patch_loss.py: student_temp
    temperature: float = 0.07  # D2 teacher.teacher_temp
    """Of the momentum copy, after the warm-up."""
    start_temperature: float = 0.04  # D2 teacher.warmup_teacher_temp
    temperature_warmup: float = 0.3  # D2 teacher.warmup_teacher_temp_epochs: 30 of 100
    """Share of the run in which the temperature goes straight from `start_temperature` to `temperature`."""
    centre_momentum: float = 0.9  # D2 loss/dino_clstoken_loss.py: center_momentum
    momentum: float = 0.992  # D2 teacher.momentum_teacher; vitl14.yaml: 0.994
    """Of the copy at the start; half a cosine takes it to 1."""
    freeze_last_layer: float = 0.01  # D2 optim.freeze_last_layer_epochs: 1 of 100
    """Share of the run in which the last layers of the heads are not trained."""
    ibot_weight: float = 1.0  # D2 ibot.loss_weight
    mask_share: float = 0.5  # D2 ibot.mask_sample_probability
    """Share of the large views that are masked; at a half, one of each tile."""
    mask_ratios: tuple[float, float] = (0.1, 0.5)  # D2 ibot.mask_ratio_min_max
    """Least and largest share of patches that is masked in such a view."""
    koleo_weight: float = 0.1  # D2 dino.koleo_loss_weight
    """How much class tokens keep away from their nearest neighbour; 0: not at all."""
    koleo_scope: Literal["rank", "global"] = "rank"  # D2 loss/koleo_loss.py: rank
    """Whose tiles are neighbours, for the KDE too: those of a rank, or those of all ranks, as if there were one."""
    kde_weight: float = (
        0.0  # Virchow2 (arXiv 2408.00738) has it instead of KoLeo; MedARC-AI/OpenMidnight@21cb5740: 0.05
    )
    """How much class tokens keep away from where there are many; 0: not at all."""
    kde_concentration: float = 5.0  # MedARC-AI/OpenMidnight, KDELoss: kappa
    patch_embed_lr_scale: float = 0.2  # D2 optim.patch_embed_lr_mult

    def __post_init__(self):
        for name in ("hidden_width", "bottleneck_width", "out_width"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: expected 1 or more")
        for name in ("student_temperature", "temperature", "start_temperature", "mask_share", "patch_embed_lr_scale"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}={getattr(self, name)}: expected above 0")
        for name in ("num_local_views", "ibot_weight", "koleo_weight", "kde_weight", "kde_concentration"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name}={getattr(self, name)}: expected 0 or more")
        for name in ("temperature_warmup", "centre_momentum", "momentum", "freeze_last_layer", "mask_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}={getattr(self, name)}: expected 0 to 1")
        if not 0 < self.mask_ratios[0] <= self.mask_ratios[1] < 1:
            raise ValueError(f"mask_ratios={self.mask_ratios}: expected two numbers between 0 and 1, the smaller first")

    @property
    def needs(self) -> Needs:
        """A ViT, two large views and the small ones. KoLeo, KDE and Sinkhorn couple the tiles of a batch, so it cannot be cut.

        With centring="centre", koleo_weight=0 and kde_weight=0 the loss is a mean over tiles, and it can.
        """
        is_mean = self.centring == "centre" and self.koleo_weight == 0 and self.kde_weight == 0
        accumulation = "mean" if is_mean else "refused"
        return Needs(num_views=2, num_local_views=self.num_local_views, is_vit_only=True, accumulation=accumulation)


class DINOv2(nn.Module):
    """Student, momentum copy, mask token and centres; BadInput for an encoder larger than a ViT-L.

    A batch holds `views` uint8 [B, 2, H, W, 3], `local_views` uint8 [B, L, h, w, 3] and `position` int64 [B].
    """

    exported_copy = "momentum"

    def __init__(self, settings: DINOv2Settings, encoder: Encoder):
        super().__init__()
        check_size(encoder)
        self.settings = settings
        widths = (encoder.width, settings.hidden_width, settings.bottleneck_width, settings.out_width)
        self.student = encoder
        # The first head is for class tokens, the last for patch tokens. NOTE: with gains (D2 layers/dino_head.py), unlike DINO.
        num_heads = 2 if settings.has_separate_heads else 1
        self.student_heads = nn.ModuleList(DINOHead(*widths, has_gain=True) for _ in range(num_heads))
        self.mask_token = nn.Parameter(torch.zeros(encoder.width))  # D2 models/vision_transformer.py: mask_token
        self.encoder = momentum_copy(self.student)
        self.heads = momentum_copy(self.student_heads)
        self.register_buffer("centres", torch.zeros(2, settings.out_width))  # for class tokens, for patch tokens
        self.sums: list[Tensor] = []  # of the copy's logits, one per micro-batch of this step
        self.start_step(0.0)

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """`loss` (a scalar with gradient), its parts, how the copy's predictions are spread, and the loss of knowing nothing."""
        s, num = self.settings, len(batch["views"])
        views = flat_views(batch["views"])  # [2B, H, W, 3]
        side = math.isqrt(self.student.num_patches(views.shape[1]))
        masks = masks_of_views(batch["position"], side, share=s.mask_share, ratios=s.mask_ratios)  # [2B, P]
        class_targets, patch_targets = self._targets(views, masks)  # [2B, K], [M, K]

        class_tokens, patch_tokens = self.student.tokens(views, masks, self.mask_token)  # [2B, D], [2B, P, D]
        all_class_tokens = [class_tokens]
        if s.num_local_views:
            all_class_tokens.append(self.student.tokens(flat_views(batch["local_views"]))[0])  # [L*B, D]
        predictions = self.student_heads[0](torch.cat(all_class_tokens)).float()  # [(2 + L) B, K]
        patch_predictions = self.student_heads[-1](patch_tokens[masks]).float()  # [M, K]

        by_view = predictions.unflatten(0, (-1, num)), class_targets.unflatten(0, (2, num))
        parts = {
            "dino_loss": dino_loss(*by_view, s.student_temperature),
            "ibot_loss": ibot_loss(patch_predictions, patch_targets, masks, s.student_temperature),
            **self._spread_losses(class_tokens.float().chunk(2)),
        }
        weights = {"dino_loss": 1.0, "ibot_loss": s.ibot_weight, "koleo_loss": s.koleo_weight, "kde_loss": s.kde_weight}
        loss = sum(weights[name] * part for name, part in parts.items())
        logged = {name: part.detach() for name, part in parts.items()} | spread_of(class_targets)
        uninformed = torch.tensor((1 + s.ibot_weight * s.mask_share) * math.log(s.out_width))
        return {"loss": loss, **logged, "uninformed_loss": uninformed}

    def param_groups(self, settings: Any) -> list[dict]:
        """Student, heads and mask token; the patch embedding learns more slowly."""
        slow = [p for p in self.student.trunk.patch_embed.parameters() if p.requires_grad]
        is_slow = {id(p) for p in slow}
        others = [p for p in self.parameters() if p.requires_grad and id(p) not in is_slow]
        return [{"params": others}, {"params": slow, "lr_scale": self.settings.patch_embed_lr_scale}]

    def start_step(self, progress: float) -> None:
        """The copy's temperature of this step; forget the logits of an earlier one."""
        s = self.settings
        self.temperature = warmed_up(s.start_temperature, s.temperature, s.temperature_warmup, progress)
        self.sums.clear()

    def before_step(self, progress: float) -> None:
        """The last layers rest at first: without a gradient they are neither moved nor decayed."""
        if progress < self.settings.freeze_last_layer:
            for parameter in (p for head in self.student_heads for p in head.last.parameters()):
                parameter.grad = None

    def after_step(self, progress: float) -> None:
        """The copy follows the student, the centres follow the copy's logits."""
        momentum = cosine_momentum(self.settings.momentum, progress)
        follow(self.encoder, self.student, momentum)
        follow(self.heads, self.student_heads, momentum)
        if self.settings.centring == "centre":
            move_centre(self.centres, self.sums, self.settings.centre_momentum)

    @torch.no_grad()
    def _targets(self, views: Tensor, masks: Tensor) -> list[Tensor]:
        """What the copy makes of the unmasked views: probabilities [2B, K] of class tokens, [M, K] of patches at the masks."""
        class_tokens, patch_tokens = self.encoder.tokens(views)
        logits = [self.heads[0](class_tokens).float(), self.heads[-1](patch_tokens[masks]).float()]
        if self.settings.centring == "sinkhorn":
            return [sinkhorn(values, self.temperature) for values in logits]
        self.sums.append(torch.stack([sum_and_count(values) for values in logits]))
        return [torch.softmax((v - centre) / self.temperature, 1) for v, centre in zip(logits, self.centres)]

    def _spread_losses(self, views: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        """Those asked for, of the class tokens [B, D] of each large view; the views are added up (D2 train/ssl_meta_arch.py)."""
        s, losses = self.settings, {}
        if s.koleo_weight:
            losses["koleo_loss"] = sum(koleo(tokens, s.koleo_scope) for tokens in views)
        if s.kde_weight:
            losses["kde_loss"] = sum(kde(tokens, s.koleo_scope, s.kde_concentration) for tokens in views)
        return losses


def check_size(encoder: Encoder) -> None:
    """Raise BadInput for an encoder of more parameters than a ViT-L."""
    num = sum(p.numel() for p in encoder.parameters())
    if num > _MOST_PARAMETERS:
        raise BadInput(
            f"encoder.architecture={encoder.settings.architecture!r}: {num / 1e6:.0f} million parameters, expected at most"
            f" {_MOST_PARAMETERS / 1e6:.0f} (ViT-L): dinov2 keeps all weights on every rank (DDP); FSDP, which would share them"
            " out, is missing; choose a smaller encoder"
        )
