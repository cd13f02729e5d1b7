"""The encoder: what pretraining makes and a benchmark receives.

One decision: input size, normalisation and mpp travel with the encoder. It takes uint8 tiles as they come from a slide and
normalises them itself, on its device, so that no protocol can feed it with another mean, and bytes stay bytes until the GPU.

Shapes: B tiles, H and W pixels, D width.
"""

from dataclasses import asdict, dataclass, field
from typing import Any

import timm
import torch
from torch import Tensor, nn

from raypath.errors import BadInput

PYRAMID_STRIDES = (4, 8, 16, 32)


@dataclass(frozen=True, kw_only=True)
class EncoderSettings:
    """Which architecture of timm, and what it is fed with."""

    architecture: str = "resnet18"
    """A model name of timm."""
    options: dict[str, Any] = field(default_factory=dict)
    """Further arguments of timm's constructor, e.g. {"channels": [32, 64, 128, 256]}."""
    input_px: int = 224
    """Extent of the tiles it is trained on."""
    mpp: float | None = None
    """um per px of those tiles, the finest where they have several; None: not known."""
    mpp_max: float | None = None
    """The coarsest um per px of those tiles."""
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)  # ImageNet, as timm.data.IMAGENET_DEFAULT_MEAN
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)  # ImageNet, as timm.data.IMAGENET_DEFAULT_STD


class Encoder(nn.Module):
    """A timm trunk with global pooling; `width` is D."""

    def __init__(self, settings: EncoderSettings):
        super().__init__()
        self.settings = settings
        self.trunk = _build_trunk(settings)
        # timm's num_features is the width of the maps; a trunk with a hidden layer behind its pooling (MobileNetV3) is wider
        self.width: int = getattr(self.trunk, "head_hidden_size", None) or self.trunk.num_features
        self.register_buffer("mean", 255 * torch.tensor(settings.mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", 255 * torch.tensor(settings.std).view(1, 3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Pooled features [B, D] of uint8 tiles [B, H, W, 3] (or of normalised floats [B, 3, H, W])."""
        return self.trunk(self.normalise(images))

    def pyramid(self, images: Tensor) -> list[Tensor]:
        """Feature maps [B, C_i, H / s, W / s] at the strides s = 4, 8, 16, 32 that the architecture has.

        Raises TypeError, by name, for an architecture without a pyramid (a plain ViT, say).
        """
        strides = [info.get("reduction") for info in getattr(self.trunk, "feature_info", [])]
        wanted = [strides.index(s) for s in PYRAMID_STRIDES if s in strides]
        if len(wanted) < 2 or not hasattr(self.trunk, "forward_intermediates"):
            raise TypeError(f"{self.settings.architecture} has no feature pyramid: its maps have the strides {strides}")
        return self.trunk.forward_intermediates(self.normalise(images), indices=wanted, intermediates_only=True)

    def tokens(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The class token [B, D] and the patch tokens [B, patches, D] of a ViT.

        Raises TypeError, by name, for an architecture without tokens.
        """
        num_prefix = getattr(self.trunk, "num_prefix_tokens", 0)
        if not num_prefix:
            raise TypeError(f"{self.settings.architecture} has no tokens: expected a ViT with a class token")
        tokens = self.trunk.forward_features(self.normalise(images))
        return tokens[:, 0], tokens[:, num_prefix:]

    def normalise(self, images: Tensor) -> Tensor:
        """uint8 [B, H, W, 3] to normalised float32 [B, 3, H, W]; floats are taken as normalised already."""
        if images.dtype != torch.uint8:
            return images
        return (images.permute(0, 3, 1, 2).float() - self.mean) / self.std

    def card(self) -> dict[str, Any]:
        """What must travel with the weights, as plain values."""
        return {**asdict(self.settings), "width": self.width}


def build_encoder(settings: EncoderSettings, *, seed: int) -> Encoder:
    """A randomly initialised encoder; the same seed gives the same weights, whatever was drawn before."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Encoder(settings)


def check_architecture(settings: EncoderSettings) -> None:
    """Raise BadInput, at no cost, unless timm can build the encoder (it is built without memory)."""
    try:
        with torch.device("meta"):
            Encoder(settings)
    except (ValueError, TypeError, RuntimeError) as error:
        raise BadInput(f"encoder: {error}") from None


def _build_trunk(settings: EncoderSettings) -> nn.Module:
    options = dict(settings.options)
    if settings.architecture.startswith(("vit_", "deit", "eva", "swin")):
        options.setdefault("img_size", settings.input_px)  # position embeddings have a size; convolutions do not
    try:
        return timm.create_model(settings.architecture, pretrained=False, num_classes=0, **options)
    except RuntimeError as error:
        near = ", ".join(timm.list_models(f"*{settings.architecture.split('_')[0]}*")[:8])
        raise ValueError(f"encoder.architecture={settings.architecture!r}: {error}; timm has e.g. {near}") from None
