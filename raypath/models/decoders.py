"""Decoders: from an encoder's maps to a map of features for every pixel, or every few of them.

    fcn             torchvision's FCNHead on the last map (the first paper)
    unet            U-Net (arXiv 1505.04597)
    deeplabv3plus   DeepLabv3+ (arXiv 1802.02611)
    upernet         UPerNet (arXiv 1807.10221)

The last three are segmentation-models-pytorch's, with its defaults, on the maps of our encoder at strides 4, 8, 16 and 32.

One decision: an encoder is taken as it was pretrained. No stride becomes a dilation, for that would be another function of the same
weights, and one that not every architecture has. So FCN's and DeepLabv3+'s maps are coarser than in their papers: DeepLabv3+'s
atrous branches read the last map resampled to stride 16. The pyramid has no map of stride 2: where a U-Net would join one, it joins
nothing. A ViT has one map only, from which ViTDet's simple feature pyramid makes four: the same ratios, so with patches of 14 px
the strides are 3.5 to 28.

Costs, beside the trunk, for a ResNet-50 and 6 classes: fcn 9.4 M weights, unet 9.0 M, deeplabv3plus 3.2 M, upernet 13.8 M.
"""

from typing import Literal

from segmentation_models_pytorch.base.initialization import initialize_decoder
from segmentation_models_pytorch.decoders.deeplabv3.decoder import DeepLabV3PlusDecoder
from segmentation_models_pytorch.decoders.unet.decoder import UnetDecoder
from segmentation_models_pytorch.decoders.upernet.decoder import UPerNetDecoder
from timm.layers import LayerNorm2d
from torch import Tensor, nn
from torchvision.models.segmentation.fcn import FCNHead

from raypath.models.encoder import PYRAMID_STRIDES, Encoder

Decoder = Literal["fcn", "unet", "deeplabv3plus", "upernet"]
_UNET_CHANNELS = (256, 128, 64, 32, 16)  # smp 0.6.0, Unet
_ASPP = {"atrous_rates": (12, 24, 36), "output_stride": 16, "aspp_separable": True, "aspp_dropout": 0.5}  # smp 0.6.0
_DEPTH = 5  # halvings from the image to the last map
_WIDTH = 256  # smp 0.6.0, DeepLabV3Plus and UPerNet; ViTDet's pyramid


class LastMapDecoder(nn.Module):
    """The first paper's FCN: 3x3 convolution to a quarter of the channels, batch norm, ReLU, drop-out, 1x1 to the classes."""

    def __init__(self, encoder: Encoder, num_classes: int, dropout: float):
        super().__init__()
        self.head = FCNHead(encoder.trunk.num_features, num_classes)
        next(layer for layer in self.head if isinstance(layer, nn.Dropout)).p = dropout
        self.multiple_px = _patch_px(encoder) or PYRAMID_STRIDES[-1]

    def maps(self, encoder: Encoder, images: Tensor) -> list[Tensor]:
        """The encoder's last map."""
        return [encoder.last_map(images)]

    def forward(self, maps: list[Tensor], images: Tensor) -> Tensor:
        """Logits [B, K, h, w] at the stride of the map."""
        return self.head(maps[0])


class PyramidDecoder(nn.Module):
    """A decoder of segmentation-models-pytorch on four maps, drop-out, and a convolution to the classes.

    Raises TypeError, by name, for an encoder that has not the strides 4, 8, 16, 32 and is no ViT.
    """

    def __init__(self, encoder: Encoder, kind: Decoder, num_classes: int, dropout: float):
        super().__init__()
        self.kind, patch_px = kind, _patch_px(encoder)
        if patch_px:
            scales = (4, 1) if kind == "deeplabv3plus" else (4, 2, 1, 0.5)
            self.pyramid = SimplePyramid(encoder.trunk.num_features, scales)
            channels = [_WIDTH] * len(scales)
        else:
            self.pyramid, channels = None, encoder.pyramid_channels
            if len(channels) != len(PYRAMID_STRIDES):
                raise TypeError(
                    f"{encoder.settings.architecture} has {len(channels)} maps: {kind} needs strides 4 to 32"
                )
        self.multiple_px = 2 * patch_px if patch_px else PYRAMID_STRIDES[-1]
        self.decoder, width = _decoder(kind, [3, 0, *channels])
        initialize_decoder(self.decoder)  # as smp's own models start
        self.classify = nn.Sequential(
            nn.Dropout(dropout), nn.Conv2d(width, num_classes, kernel_size=3 if kind == "unet" else 1, padding="same")
        )

    def maps(self, encoder: Encoder, images: Tensor) -> list[Tensor]:
        """The encoder's maps of strides 4, 8, 16, 32, or the one of a ViT."""
        return [encoder.last_map(images)] if self.pyramid else encoder.pyramid(images)

    def forward(self, maps: list[Tensor], images: Tensor) -> Tensor:
        """Logits [B, K, h, w]: of every pixel for unet, else of every fourth.

        smp wants the input, stride 2, then strides 4, 8, 16, 32; of the first it takes the extent only.
        """
        if self.pyramid:
            maps = self.pyramid(maps[0])
        elif self.kind == "deeplabv3plus":  # reads two maps, of strides 4 and 16
            last = nn.functional.interpolate(maps[-1], maps[-2].shape[2:], mode="bilinear", align_corners=False)
            maps = [maps[0], last]
        height, width = images.shape[2:]
        no_map = images.new_empty(len(images), 0, height // 2, width // 2)
        return self.classify(self.decoder([images, no_map, *maps]))


class SimplePyramid(nn.Module):
    """Maps of 256 channels from the one map of a ViT, at `scales` (4, 2, 1, 0.5) times its resolution.

    Source: ViTDet (arXiv 2203.16527), section 3: transposed convolutions of stride 2, or max pooling, each followed by a 1x1 and a
    3x3 convolution with layer norm.
    """

    def __init__(self, width: int, scales: tuple[float, ...]):
        super().__init__()
        half, quarter = width // 2, width // 4
        ways = {
            4: ([_double(width, half), LayerNorm2d(half), nn.GELU(), _double(half, quarter)], quarter),
            2: ([_double(width, half)], half),
            1: ([], width),
            0.5: ([nn.MaxPool2d(2)], width),
        }
        self.levels = nn.ModuleList(nn.Sequential(*ways[s][0], *_to_width(ways[s][1])) for s in scales)

    def forward(self, tokens: Tensor) -> list[Tensor]:
        """[B, D, h, w] -> a map [B, 256, scale h, scale w] for each scale."""
        return [level(tokens) for level in self.levels]


def build_decoder(encoder: Encoder, kind: Decoder, num_classes: int, dropout: float) -> nn.Module:
    """The decoder of `kind` for an encoder: it has `maps(encoder, images)`, what is the encoder's part, `forward(maps, images)`
    and `multiple_px`, which height and width must be multiples of.
    """
    if kind == "fcn":
        return LastMapDecoder(encoder, num_classes, dropout)
    return PyramidDecoder(encoder, kind, num_classes, dropout)


def _decoder(kind: Decoder, channels: list[int]) -> tuple[nn.Module, int]:
    """Smp's decoder for maps of `channels` (input, stride 2, 4, ...), and the channels that it gives."""
    match kind:
        case "unet":
            return UnetDecoder(channels, _UNET_CHANNELS, n_blocks=len(_UNET_CHANNELS)), _UNET_CHANNELS[-1]
        case "deeplabv3plus":
            return DeepLabV3PlusDecoder(channels, _DEPTH, _WIDTH, **_ASPP), _WIDTH
        case "upernet":
            return UPerNetDecoder(channels, _DEPTH, _WIDTH), _WIDTH
    raise ValueError(f"{kind}: expected fcn, unet, deeplabv3plus or upernet")


def _patch_px(encoder: Encoder) -> int | None:
    """The patch of a ViT; None for what has maps."""
    return encoder.trunk.patch_embed.patch_size[0] if hasattr(encoder.trunk, "num_prefix_tokens") else None


def _double(width: int, out_width: int) -> nn.Module:
    return nn.ConvTranspose2d(width, out_width, kernel_size=2, stride=2)


def _to_width(width: int) -> list[nn.Module]:
    return [
        nn.Conv2d(width, _WIDTH, kernel_size=1, bias=False),
        LayerNorm2d(_WIDTH),
        nn.Conv2d(_WIDTH, _WIDTH, kernel_size=3, padding=1, bias=False),
        LayerNorm2d(_WIDTH),
    ]
