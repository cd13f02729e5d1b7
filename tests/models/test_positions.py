"""Fixed positions are lightly's sines and cosines, stand where the patches are, and do not move."""

from dataclasses import replace

import pytest
import torch

from raypath.errors import BadInput
from raypath.models import EncoderSettings, build_encoder, fix_positions, grid_embedding

VIT = EncoderSettings(
    architecture="vit_tiny_patch16_224",
    options={"embed_dim": 48, "depth": 1, "num_heads": 3, "patch_size": 8},
    input_px=24,
)


@pytest.mark.parametrize(
    "options", [{}, {"class_token": False, "global_pool": "avg"}, {"reg_tokens": 2, "no_embed_class": False}]
)
def test_patches_have_lightlys_positions_and_other_tokens_none(options):
    from lightly.models import utils  # slow to import

    encoder = build_encoder(replace(VIT, options=VIT.options | options), seed=0)
    fix_positions(encoder)
    positions = encoder.trunk.pos_embed[0]
    num_prefix = encoder.trunk.num_prefix_tokens
    theirs = utils.get_2d_sine_cosine_positional_embedding(embed_dim=48, grid_size=3, cls_token=False)
    torch.testing.assert_close(positions[-9:], torch.as_tensor(theirs, dtype=torch.float32).view(9, 48))
    assert not positions[:-9].any()
    assert len(positions) in (9, 9 + num_prefix)
    assert not encoder.trunk.pos_embed.requires_grad
    assert sum(p.requires_grad for p in encoder.parameters()) == len(list(encoder.parameters())) - 1


def test_columns_fill_the_first_half_and_rows_the_second():
    places = grid_embedding(4, 16).view(4, 4, 16)  # [row, column, width]
    assert torch.equal(places[0, :, :8], places[3, :, :8])
    assert torch.equal(places[:, 0, 8:], places[:, 3, 8:])
    assert len(places.flatten(0, 1).unique(dim=0)) == 16


def test_a_convolutional_encoder_has_none_to_fix():
    encoder = build_encoder(EncoderSettings(architecture="resnet10t", input_px=32), seed=0)
    fix_positions(encoder)
    assert all(parameter.requires_grad for parameter in encoder.parameters())


def test_a_width_that_cannot_be_cut_in_four_is_refused():
    odd = build_encoder(replace(VIT, options=VIT.options | {"embed_dim": 42}), seed=0)
    with pytest.raises(BadInput, match="width 42; fixed positions need"):
        fix_positions(odd)
