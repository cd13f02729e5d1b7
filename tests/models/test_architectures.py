"""The architectures of the two papers: they build, give features of their width, and have maps or tokens, or say no by name."""

import pytest
import torch

from raypath.errors import BadInput
from raypath.models import EncoderSettings, build_encoder, check_architecture
from raypath.models.encoder import Encoder

# architecture -> (its paper's input px, the px used here, width, has maps at 4, 8, 16, 32, has tokens)
ARCHITECTURES = {
    "resnet18": (224, 64, 512, True, False),
    "resnet50": (224, 64, 2048, True, False),
    "densenet121": (224, 64, 1024, True, False),
    "inception_v3": (299, 96, 2048, True, False),
    "efficientnet_b0": (224, 64, 1280, True, False),
    "efficientnet_b3": (300, 64, 1536, True, False),
    "tf_efficientnet_lite0": (224, 64, 1280, True, False),
    "resnetv2_50x1_bit": (224, 64, 2048, True, False),
    "vit_small_patch16_224": (224, 32, 384, False, True),
    "vit_base_patch32_224": (224, 64, 768, False, True),
}
LARGE = {
    "vit_large_patch16_224": (224, 1024),  # MAE of the first paper's README
    "vit_large_patch14_dinov2": (224, 1024),
    "vit_base_patch32_clip_224": (224, 768),
}


def tiles_of(px, num=2):
    return torch.randint(0, 256, (num, px, px, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module", params=list(ARCHITECTURES))
def built(request):
    """One architecture at its small size."""
    _, px, *expected = ARCHITECTURES[request.param]
    encoder = build_encoder(EncoderSettings(architecture=request.param, input_px=px), seed=0).eval()
    return encoder, tiles_of(px), expected


def test_it_has_features_of_its_width_and_maps_or_tokens(built):
    encoder, tiles, (width, has_maps, has_tokens) = built
    name, px = encoder.settings.architecture, encoder.settings.input_px
    with torch.inference_mode():
        features = encoder(tiles)
        assert encoder.width == width
        assert features.shape == (2, width)
        assert features.isfinite().all()
        assert encoder.card()["width"] == width

        if has_maps:
            maps = encoder.pyramid(tiles)
            extents = [m.shape[2] for m in maps]
            # Inception does not pad: its maps are a little smaller than px / stride
            slack = 4 if name == "inception_v3" else 0
            assert all(m.shape[2] == m.shape[3] for m in maps)
            assert len(maps) == 4
            assert all(0 <= px // s - e <= slack for s, e in zip((4, 8, 16, 32), extents)), extents
        else:
            with pytest.raises(TypeError, match=f"{name} has no feature pyramid"):
                encoder.pyramid(tiles)

        if has_tokens:
            cls, patches = encoder.tokens(tiles)
            assert cls.shape == (2, width)
            assert patches.shape == (2, encoder.num_patches(px), width)
        else:
            with pytest.raises(TypeError, match=f"{name} has no tokens"):
                encoder.tokens(tiles)


@pytest.mark.parametrize("name", list(ARCHITECTURES))
def test_it_builds_at_the_size_of_its_row(name):
    px, _, width, *_ = ARCHITECTURES[name]
    settings = EncoderSettings(architecture=name, input_px=px)
    check_architecture(settings)
    with torch.device("meta"):
        encoder = Encoder(settings).eval()
        features = encoder(torch.zeros(2, 3, px, px))
    assert features.shape == (2, width) == (2, encoder.width)


@pytest.mark.parametrize("name", list(LARGE))
def test_the_large_ones_have_their_shapes_without_memory(name):
    px, width = LARGE[name]
    with torch.device("meta"):
        encoder = Encoder(EncoderSettings(architecture=name, input_px=px)).eval()
        images = torch.zeros(2, 3, px, px)
        assert encoder(images).shape == (2, width) == (2, encoder.width)
        cls, patches = encoder.tokens(images)
    assert cls.shape == (2, width)
    assert patches.shape == (2, encoder.num_patches(px), width)


def test_inception_needs_75_px():
    encoder = build_encoder(EncoderSettings(architecture="inception_v3", input_px=75), seed=0).eval()
    with torch.inference_mode():
        assert encoder(tiles_of(75)).shape == (2, 2048)
        with pytest.raises(RuntimeError):
            encoder(tiles_of(74))


def test_an_architecture_that_timm_lacks_is_answered_with_near_ones():
    with pytest.raises(BadInput, match=r"encoder.architecture=densenet12: timm has no such .*densenet121"):
        check_architecture(EncoderSettings(architecture="densenet12"))


def test_options_of_another_architecture_are_named_with_the_remedy():
    options = {"embed_dim": 128, "depth": 6}
    settings = EncoderSettings(architecture="resnet18", options=options)
    said = r'encoder.options=\{"embed_dim": 128, "depth": 6\} are of the recipe.s architecture.*set .encoder.options=\{\}.$'
    with pytest.raises(BadInput, match=said):
        check_architecture(settings)
    with pytest.raises(BadInput, match="encoder.architecture=resnet18: this objective needs a plain ViT"):
        check_architecture(settings, needs_tokens=True)
    with pytest.raises(
        BadInput, match="encoder.options=.*of the recipe's architecture"
    ):  # a ViT, with options of a ResNet
        check_architecture(
            EncoderSettings(architecture="vit_tiny_patch16_224", options={"channels": [8]}), needs_tokens=True
        )
    check_architecture(EncoderSettings(architecture="resnet18"))
