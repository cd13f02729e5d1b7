"""A model that says the class of every pixel: an encoder and a decoder.

One decision: images of any extent. What is no multiple of the encoder's stride is padded at the right and at the bottom with the
encoder's mean colour, inside the network as its convolutions pad too, and the answer is cut off again; no padded pixel is ever
scored. A frozen encoder stays in evaluation mode, so that its running statistics stay as well.
"""

import torch
from torch import Tensor, nn

from raypath.models.decoders import Decoder, build_decoder
from raypath.models.encoder import Encoder


class Segmenter(nn.Module):
    """Encoder and decoder; `encoder` is used as it is and not copied."""

    def __init__(
        self,
        encoder: Encoder,
        num_classes: int,
        *,
        decoder: Decoder = "fcn",
        dropout: float = 0.1,
        is_frozen: bool = False,
    ):
        """`dropout` is that before the last convolution (torchvision's FCNHead: 0.1).

        Raises TypeError, by name, for an encoder whose maps the decoder cannot take.
        """
        super().__init__()
        self.encoder = encoder.requires_grad_(False) if is_frozen else encoder
        self.decoder = build_decoder(encoder, decoder, num_classes, dropout)
        self.is_frozen = is_frozen

    def forward(self, images: Tensor) -> Tensor:
        """Logits [B, K, H, W] of uint8 images [B, H, W, 3]."""
        images = self.encoder.normalise(images)
        height, width = images.shape[2:]
        multiple_px = self.decoder.multiple_px
        padded = nn.functional.pad(images, (0, -width % multiple_px, 0, -height % multiple_px))
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.is_frozen):
            maps = self.decoder.maps(self.encoder, padded)
        logits = nn.functional.interpolate(
            self.decoder(maps, padded), padded.shape[2:], mode="bilinear", align_corners=False
        )
        return logits[..., :height, :width]

    def train(self, mode: bool = True) -> "Segmenter":
        """Training or evaluation mode; a frozen encoder stays in evaluation mode."""
        super().train(mode)
        if self.is_frozen:
            self.encoder.eval()
        return self
