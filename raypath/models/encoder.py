"""The encoder: what pretraining makes and a benchmark receives.

One decision: input size, normalisation and mpp travel with the encoder. It takes uint8 tiles as they come from a slide and
normalises them itself, on its device, so that no protocol can feed it with another mean, and bytes stay bytes until the GPU.

Shapes: B tiles, H and W pixels, D width.
"""

import difflib
import json
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import timm
import torch
from timm.models import VisionTransformer, group_parameters
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

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
    """Extent of the views it is trained on."""
    mpp: float | None = None
    """um per px at its input, the finest where it saw several; None: not known. A pretraining on an index sets it, and counts that
    a view is a crop of a tile (`data.views.mpp_of_views`): the smallest crop has the finest um per px."""
    mpp_max: float | None = None
    """The coarsest um per px at its input: that of the largest crop."""
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
        wanted = [index for index, _ in self._pyramid_levels()]
        return self.trunk.forward_intermediates(self.normalise(images), indices=wanted, intermediates_only=True)

    @property
    def pyramid_channels(self) -> list[int]:
        """The C_i of `pyramid`; raises TypeError as it does."""
        return [num_channels for _, num_channels in self._pyramid_levels()]

    def _pyramid_levels(self) -> list[tuple[int, int]]:
        """(Index in timm's list of maps, channels) of each map of the pyramid."""
        found = [(info.get("reduction"), info.get("num_chs")) for info in getattr(self.trunk, "feature_info", [])]
        strides = [stride for stride, _ in found]
        wanted = [strides.index(s) for s in PYRAMID_STRIDES if s in strides]
        if len(wanted) < 2 or not hasattr(self.trunk, "forward_intermediates"):
            raise TypeError(f"{self.settings.architecture} has no feature pyramid: its maps have the strides {strides}")
        return [(index, found[index][1]) for index in wanted]

    def last_map(self, images: Tensor) -> Tensor:
        """What the trunk pools, as a map [B, C, H / s, W / s]; C is timm's `trunk.num_features`.

        s is 32, or the patch of a ViT, whose tokens after the last norm lie in their grid again.
        """
        images = self.normalise(images)
        if hasattr(self.trunk, "num_prefix_tokens"):
            patch = self.trunk.patch_embed.patch_size
            grid = images.shape[2] // patch[0], images.shape[3] // patch[1]
            return self.tokens(images)[1].transpose(1, 2).unflatten(2, grid)
        features = self.trunk.forward_features(images)
        is_last = getattr(self.trunk, "output_fmt", "NCHW") == "NHWC"  # Swin
        return features.permute(0, 3, 1, 2) if is_last else features

    def tokens(
        self, images: Tensor, mask: Tensor | None = None, mask_token: Tensor | None = None, keep: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """The class token [B, D] and the patch tokens [B, P, D] of a ViT, after its last norm.

        `mask` bool [B, P] puts `mask_token` [D] in the place of the embeddings of some patches (BEiT, iBOT); `keep` int64 [B, K]
        lets only those patches into the trunk, P is K then (MAE). Other sizes than `input_px` get resampled position embeddings.
        Raises TypeError, by name, for an architecture without tokens, or without masks if one is given.
        """
        num_prefix = getattr(self.trunk, "num_prefix_tokens", 0)
        if not num_prefix:
            raise TypeError(f"{self.settings.architecture} has no tokens: expected a ViT with a class token")
        if mask is None and keep is None:
            tokens = self.trunk.forward_features(self.normalise(images))
        elif isinstance(self.trunk, VisionTransformer):
            tokens = self._masked_tokens(self.normalise(images), mask, mask_token, keep)
        else:
            raise TypeError(f"{self.settings.architecture} has no masks: expected a plain ViT of timm (vit_...)")
        return tokens[:, 0], tokens[:, num_prefix:]

    def _masked_tokens(self, images: Tensor, mask: Tensor | None, mask_token: Tensor | None, keep: Tensor | None):
        patches = self.trunk.patch_embed(images)  # [B, h, w, D]
        if mask is not None:
            is_masked = mask.view(*patches.shape[:3], 1)
            patches = torch.where(is_masked, mask_token.to(patches.dtype), patches)
        tokens = self.trunk._pos_embed(patches)  # [B, prefix + P, D]
        if keep is not None:
            prefix, patches = tokens.split(
                [self.trunk.num_prefix_tokens, tokens.shape[1] - self.trunk.num_prefix_tokens], 1
            )
            tokens = torch.cat([prefix, patches.gather(1, keep[..., None].expand(-1, -1, patches.shape[2]))], 1)
        return self.trunk.norm(self.trunk.blocks(self.trunk.norm_pre(tokens)))

    def num_patches(self, extent_px: int) -> int:
        """How many patch tokens a square tile of `extent_px` has; raises TypeError for an architecture without patches."""
        if not hasattr(self.trunk, "patch_embed") or not hasattr(self.trunk.patch_embed, "patch_size"):
            raise TypeError(f"{self.settings.architecture} has no patches: expected a ViT")
        return (extent_px // self.trunk.patch_embed.patch_size[0]) ** 2

    def layer_scales(self, decay: float) -> list[tuple[list[nn.Parameter], float]]:
        """The trunk's parameters by depth, each layer with decay ** (layers above it): 1 for the last (BEiT, arXiv 2106.08254)."""
        named = dict(self.trunk.named_parameters())
        layers = group_parameters(self.trunk, self.trunk.group_matcher(coarse=False))
        last = max(layers)
        return [([named[name] for name in names], decay ** (last - depth)) for depth, names in layers.items()]

    @property
    def has_batch_norm(self) -> bool:
        """Whether a tile's features depend on the rest of its batch while training."""
        return any(isinstance(module, _BatchNorm) for module in self.trunk.modules())

    def compile(self) -> None:
        """Compile the trunk in place (names of weights stay): the blocks of a ViT, which `tokens` shares, else all of it."""
        for part in getattr(self.trunk, "blocks", None) or [self.trunk]:
            part.compile()

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


def check_architecture(settings: EncoderSettings, *, needs_tokens: bool = False) -> Encoder:
    """The encoder without memory for its weights; raises BadInput if timm cannot build it, or if it is no ViT but has to be."""
    try:
        encoder = _without_memory(settings)
    except (ValueError, TypeError, RuntimeError) as error:
        if needs_tokens:
            _refuse_other_than_vit(settings)  # the options of a ViT are not what is wrong then
        if isinstance(error, TypeError) and settings.options and "unexpected keyword" in str(error):
            raise BadInput(
                f"encoder.options={json.dumps(settings.options)} are of the recipe's architecture, encoder.architecture="
                f"{settings.architecture} does not take them ({error}): set 'encoder.options={{}}'"
            ) from None
        raise BadInput(f"encoder: {error}") from None
    if needs_tokens:
        _refuse_other_than_vit(settings, encoder)
    return encoder


def _without_memory(settings: EncoderSettings) -> Encoder:
    with torch.device("meta"):
        return Encoder(settings)


def _refuse_other_than_vit(settings: EncoderSettings, encoder: Encoder | None = None) -> None:
    """Raise BadInput for what is no plain ViT; an architecture that cannot be built even without options is not judged."""
    try:
        encoder = encoder or _without_memory(replace(settings, options={}))
    except (ValueError, TypeError, RuntimeError):
        return
    if not isinstance(encoder.trunk, VisionTransformer):
        raise BadInput(
            f"encoder.architecture={settings.architecture}: this objective needs a plain ViT of timm (vit_...)"
        )


def _build_trunk(settings: EncoderSettings) -> nn.Module:
    architecture, options = settings.architecture, {"pretrained": False, "num_classes": 0, **settings.options}
    if architecture.startswith(("vit_", "deit", "eva", "swin")):
        options.setdefault("img_size", settings.input_px)  # position embeddings have a size; convolutions do not
    try:
        if architecture.startswith(("vit_", "deit")):
            try:  # views of another size than the tile: the position embeddings are resampled
                return timm.create_model(architecture, **{"dynamic_img_size": True} | options)
            except TypeError:
                pass  # some of that name know nothing of it
        return timm.create_model(architecture, **options)
    except RuntimeError as error:
        raise ValueError(
            no_such_architecture(architecture) or f"encoder.architecture={architecture}: {error}"
        ) from None


def no_such_architecture(architecture: str) -> str | None:
    """That timm does not know the name, and the closest that it knows; None for a name that it knows."""
    if timm.is_model(architecture):
        return None
    near = difflib.get_close_matches(architecture, timm.list_models(), n=5)
    nearest = f"; the closest names are {', '.join(near)}" if near else ""
    return f"encoder.architecture={architecture}: timm has no such architecture{nearest}"
