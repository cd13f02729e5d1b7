"""Encoders of four families: what goes in, what comes out, and what is refused by name."""

from dataclasses import replace

import pytest
import torch

from raypath.models import EncoderSettings, build_encoder

SMALL_RESNET = EncoderSettings(architecture="resnet10t", options={"channels": [8, 16, 24, 32]}, input_px=64)
SMALL_VIT = EncoderSettings(architecture="vit_tiny_patch16_224", options={"depth": 2}, input_px=64)
FAMILIES = {
    "resnet": (SMALL_RESNET, 32),
    "vit": (SMALL_VIT, 192),
    "efficientnet": (EncoderSettings(architecture="tf_efficientnet_lite0", input_px=64), 1280),
    "densenet": (EncoderSettings(architecture="densenet121", input_px=64), 1024),
    "mobilenet": (
        EncoderSettings(architecture="mobilenetv3_small_050", input_px=64),
        1024,
    ),  # maps of 288, one layer more
}


@pytest.fixture(scope="module")
def encoders():
    return {name: build_encoder(settings, seed=0).eval() for name, (settings, _) in FAMILIES.items()}


@pytest.fixture(scope="module")
def tiles():
    return torch.randint(0, 256, (2, 64, 64, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("family", list(FAMILIES))
def test_uint8_tiles_in_features_of_the_declared_width_out(encoders, tiles, family):
    encoder, width = encoders[family], FAMILIES[family][1]
    features = encoder(tiles)
    assert encoder.width == width
    assert features.shape == (2, width)
    assert features.dtype == torch.float32
    assert encoder.card()["width"] == width
    assert not torch.equal(features[0], features[1])


def test_it_normalises_by_the_mean_and_spread_it_carries(encoders, tiles):
    settings = replace(SMALL_RESNET, mean=(0.7, 0.5, 0.6), std=(0.2, 0.1, 0.3))
    normalised = build_encoder(settings, seed=0).normalise(tiles)
    assert normalised.shape == (2, 3, 64, 64)
    expected = (tiles[1, 5, 9].double() / 255 - torch.tensor(settings.mean)) / torch.tensor(settings.std)
    torch.testing.assert_close(normalised[1, :, 5, 9].double(), expected, rtol=1e-5, atol=1e-5)
    encoder = encoders["resnet"]
    assert torch.equal(encoder(encoder.normalise(tiles)), encoder(tiles))  # floats are taken as normalised


def test_the_seed_alone_decides_the_weights():
    torch.manual_seed(123)
    first = build_encoder(SMALL_RESNET, seed=5).state_dict()
    drawn = torch.rand(3)
    torch.manual_seed(123)
    assert torch.equal(torch.rand(3), drawn)  # and building one draws nothing from the caller's numbers
    torch.rand(1000)
    second = build_encoder(SMALL_RESNET, seed=5).state_dict()
    other = build_encoder(SMALL_RESNET, seed=6).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


@pytest.mark.parametrize("family", ["resnet", "efficientnet", "densenet", "mobilenet"])
def test_a_pyramid_has_the_strides_4_8_16_32(encoders, tiles, family):
    maps = encoders[family].pyramid(tiles)
    assert [tuple(m.shape[2:]) for m in maps] == [(16, 16), (8, 8), (4, 4), (2, 2)]
    assert len({m.shape[0] for m in maps}) == 1


def test_tokens_are_the_class_and_the_patches(encoders, tiles):
    cls, patches = encoders["vit"].tokens(tiles)
    assert cls.shape == (2, 192)
    assert patches.shape == (2, 16, 192)  # 64 px by patches of 16 px
    torch.testing.assert_close(encoders["vit"](tiles), cls)  # the class token is what the trunk pools


def test_what_an_architecture_lacks_is_refused_by_name(encoders, tiles):
    with pytest.raises(TypeError, match="vit_tiny_patch16_224 has no feature pyramid"):
        encoders["vit"].pyramid(tiles)
    for family in ("resnet", "efficientnet", "densenet"):
        with pytest.raises(TypeError, match=f"{FAMILIES[family][0].architecture} has no tokens"):
            encoders[family].tokens(tiles)


def test_an_unknown_architecture_is_answered_with_near_ones():
    with pytest.raises(
        ValueError, match=r"architecture=resnet_nonsense: timm has no such architecture; the closest names are resnet"
    ):
        build_encoder(EncoderSettings(architecture="resnet_nonsense"), seed=0)
