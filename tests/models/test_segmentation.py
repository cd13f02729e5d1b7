"""Segmenters of four families: the paper's FCN by its numbers, shapes of all decoders, a frozen encoder that stays as it is."""

import pytest
import torch
from torch import nn

from raypath.models import EncoderSettings, build_encoder
from raypath.models.decoders import SimplePyramid
from raypath.models.encoder import Encoder
from raypath.models.segmentation import Segmenter

RESNET = EncoderSettings(architecture="resnet10t", options={"channels": [8, 8, 16, 16]}, input_px=64)
VIT = EncoderSettings(architecture="vit_tiny_patch16_224", options={"depth": 1}, input_px=64)
VIT14 = EncoderSettings(architecture="vit_tiny_patch16_224", options={"depth": 1, "patch_size": 14}, input_px=56)
LITE = EncoderSettings(architecture="tf_efficientnet_lite0", input_px=64)
SWIN = EncoderSettings(
    architecture="swin_tiny_patch4_window7_224", options={"depths": [1, 1, 1, 1], "embed_dim": 24}, input_px=64
)
DECODERS = ("fcn", "unet", "deeplabv3plus", "upernet")


def images_of(height, width, num=2):
    return torch.randint(0, 256, (num, height, width, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def on_meta(decoder):
    with torch.device("meta"):
        return Segmenter(Encoder(EncoderSettings(architecture="resnet50")), 6, decoder=decoder)


def test_the_first_papers_fcn_has_as_many_weights_as_published():
    """RECIPES 1.4: ResNet-50, 2048 -> 512 -> 6, no auxiliary head: 32.95 M."""
    model = on_meta("fcn")
    assert sum(p.numel() for p in model.parameters()) == 32_949_318
    head = model.decoder.head
    assert [type(layer) for layer in head] == [nn.Conv2d, nn.BatchNorm2d, nn.ReLU, nn.Dropout, nn.Conv2d]
    assert (head[0].in_channels, head[0].out_channels, head[0].kernel_size) == (2048, 512, (3, 3))
    assert (head[3].p, head[4].out_channels, head[4].kernel_size) == (0.1, 6, (1, 1))
    assert model.encoder.last_map(torch.empty(1, 3, 512, 512, device="meta")).shape == (1, 2048, 16, 16)


def test_what_decoders_cost_is_what_their_docstring_says():
    millions = [round(sum(p.numel() for p in on_meta(d).decoder.parameters()) / 1e6, 1) for d in DECODERS]
    assert millions == [9.4, 9.0, 3.2, 13.8]


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("settings", [RESNET, LITE, VIT, VIT14, SWIN], ids=["resnet", "lite0", "vit", "vit14", "swin"])
def test_every_pixel_has_logits_whatever_the_decoder(settings, decoder):
    model = Segmenter(build_encoder(settings, seed=0), 3, decoder=decoder)
    logits = model(images_of(64, 64))
    assert logits.shape == (2, 3, 64, 64)
    assert torch.isfinite(logits).all()
    logits.mean().backward()
    assert all(p.grad is not None for p in model.decoder.parameters())
    assert sum(p.grad is not None and bool(p.grad.any()) for p in model.encoder.parameters()) > 5


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize(
    ("settings", "size"), [(RESNET, (96, 64)), (RESNET, (50, 75)), (VIT, (64, 128)), (VIT, (40, 70))]
)
def test_images_of_any_extent_keep_it(settings, size, decoder):
    model = Segmenter(build_encoder(settings, seed=0), 2, decoder=decoder).eval()
    assert model(images_of(*size)).shape == (2, 2, *size)


def test_padding_is_the_same_as_an_image_that_goes_on_in_mean_colour():
    settings = EncoderSettings(architecture="resnet10t", options=RESNET.options, mean=(0.4, 0.6, 0.8), input_px=64)
    model = Segmenter(build_encoder(settings, seed=0), 2, decoder="unet").eval()
    small = images_of(40, 50)
    large = torch.tensor([102, 153, 204], dtype=torch.uint8).expand(2, 64, 64, 3).clone()  # 255 times the mean
    large[:, :40, :50] = small
    torch.testing.assert_close(model(small), model(large)[..., :40, :50], rtol=1e-4, atol=1e-5)


def test_the_last_map_is_what_the_trunk_pools_and_tokens_lie_in_their_rows():
    for settings in (RESNET, LITE, SWIN):
        encoder, images = build_encoder(settings, seed=0).eval(), images_of(64, 64)
        torch.testing.assert_close(encoder.last_map(images).mean((2, 3)), encoder(images), rtol=1e-4, atol=1e-5)
    encoder, images = build_encoder(VIT, seed=0).eval(), images_of(32, 64)
    found, tokens = encoder.last_map(images), encoder.tokens(images)[1]
    assert found.shape == (2, 192, 2, 4)
    assert torch.equal(found[:, :, 1, 2], tokens[:, 1 * 4 + 2])


def test_the_simple_pyramid_has_vitdets_scales():
    maps = SimplePyramid(192, (4, 2, 1, 0.5))(torch.zeros(1, 192, 4, 6))
    assert [tuple(m.shape) for m in maps] == [(1, 256, h, w) for h, w in ((16, 24), (8, 12), (4, 6), (2, 3))]


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("settings", [RESNET, VIT], ids=["resnet", "vit"])
def test_a_frozen_encoder_stays_bit_for_bit_and_the_decoder_learns(settings, decoder):
    model = Segmenter(build_encoder(settings, seed=0), 2, decoder=decoder, is_frozen=True).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.1, weight_decay=0.1)
    for _ in range(2):
        nn.functional.cross_entropy(model(images_of(64, 64)), torch.ones(2, 64, 64, dtype=torch.long)).backward()
        optimizer.step()
    after = model.state_dict()
    assert all(torch.equal(after[n], t) for n, t in before.items() if n.startswith("encoder."))
    learnt = [
        n for n, _ in model.decoder.named_parameters() if not torch.equal(after[f"decoder.{n}"], before[f"decoder.{n}"])
    ]
    assert len(learnt) == len(list(model.decoder.named_parameters()))
    assert not model.encoder.training
    assert model.decoder.training


def test_an_encoder_without_maps_is_refused_by_name():
    encoder = build_encoder(EncoderSettings(architecture="mixer_s32_224"), seed=0)
    with pytest.raises(TypeError, match="mixer_s32_224 has no feature pyramid"):
        Segmenter(encoder, 2, decoder="unet")
