"""MAE against lightly's patches, a slow loop over pixels in float64, and against itself on two ranks."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.parallel import DistributedDataParallel

from raypath.models import EncoderSettings, build_encoder, grid_embedding
from raypath.objectives.mae import MAE, MAESettings, draw_masks, masked_loss, patchify
from tests.training.gloo_ranks import run_ranks

ENCODER = EncoderSettings(
    architecture="vit_tiny_patch16_224",
    options={"embed_dim": 48, "depth": 2, "num_heads": 3, "patch_size": 8},
    input_px=32,
)
SETTINGS = MAESettings(decoder_width=32, decoder_depth=1, decoder_heads=2)


def mae(encoder=ENCODER, **changes):
    torch.manual_seed(5)
    return MAE(replace(SETTINGS, **changes), build_encoder(encoder, seed=0))


def batch_of(num, extent_px=32):
    rng = np.random.default_rng(2)
    low = (
        rng.integers(0, 150, (num, 1, 4, 4, 3)).repeat(extent_px // 4, 2).repeat(extent_px // 4, 3)
    )  # something to see
    views = low + rng.integers(0, 60, (num, 1, extent_px, extent_px, 3))
    return {"views": torch.from_numpy(views.astype(np.uint8)), "position": torch.arange(70, 70 + num)}


def slow_loss(painted, image, masked, patch_px, norm_pix_loss):
    """Of one tile [3, H, W]: pixel by pixel, the targets by their place in the picture; float64."""
    per_row = image.shape[2] // patch_px
    total = 0
    for patch in masked.tolist():
        top, left = patch // per_row * patch_px, patch % per_row * patch_px
        values = [image[c, top + y, left + x] for y in range(patch_px) for x in range(patch_px) for c in range(3)]
        if norm_pix_loss:
            mean = sum(values) / len(values)
            variance = sum((value - mean) ** 2 for value in values) / (len(values) - 1)
            values = [(value - mean) / (variance + 1e-6) ** 0.5 for value in values]
        errors = [(painted[patch, i] - value) ** 2 for i, value in enumerate(values)]
        total = total + sum(errors) / len(errors) / len(masked)
    return total


@pytest.mark.parametrize("norm_pix_loss", [True, False])
def test_loss_and_gradient_are_the_formula(norm_pix_loss):
    torch.manual_seed(0)
    images = torch.randn(3, 3, 12, 12, dtype=torch.float64)
    painted = torch.randn(3, 9, 48, dtype=torch.float64, requires_grad=True)
    _, masked = draw_masks(torch.tensor([3, 1, 4]), 9, 0.75)
    loss, _ = masked_loss(painted, patchify(images, 4), masked, norm_pix_loss)
    slow = sum(slow_loss(*tile, 4, norm_pix_loss) for tile in zip(painted, images, masked)) / 3
    torch.testing.assert_close(loss, slow, rtol=1e-12, atol=0)
    ours, theirs = (torch.autograd.grad(value, painted)[0] for value in (loss, slow))
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-14)
    is_masked = torch.zeros(3, 9, dtype=torch.bool).scatter(1, masked, True)
    assert torch.equal(ours.abs().sum(2) > 0, is_masked)  # visible patches are not painted for the loss


def test_patches_and_targets_are_lightlys():
    from lightly.models import utils  # slow to import, and the ranks below import this module

    images = torch.randn(2, 3, 24, 24)
    patches = patchify(images, 8)
    assert torch.equal(patches, utils.patchify(images, 8))
    masked = torch.tensor([[0, 4], [8, 2]])
    targets = utils.normalize_mean_var(patches, dim=-1)
    painted = torch.randn(2, 9, 192)
    theirs = torch.nn.functional.mse_loss(utils.get_at_index(painted, masked), utils.get_at_index(targets, masked))
    torch.testing.assert_close(masked_loss(painted, patches, masked, True)[0], theirs)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**62), st.integers(2, 200), st.floats(0.05, 0.95))
def test_visible_and_masked_patches_are_all_patches_once(position, num_patches, ratio):
    keep, masked = draw_masks(torch.tensor([position, position + 1]), num_patches, ratio)
    assert torch.equal(torch.cat([keep, masked], 1).sort(1).values, torch.arange(num_patches).expand(2, -1))
    assert keep.shape[1] == int(num_patches * (1 - ratio))
    alone, _ = draw_masks(torch.tensor([position + 1]), num_patches, ratio)
    assert torch.equal(alone[0], keep[1])  # by position alone


def test_masks_differ_and_hide_every_patch_equally_often():
    keep, _ = draw_masks(torch.arange(4000), 16, 0.75)
    share = torch.bincount(keep.flatten(), minlength=16) / 4000
    assert (share - 0.25).abs().max() < 0.03  # 4 standard errors
    assert len({tuple(sorted(row)) for row in keep.tolist()}) > 1500  # of the 1820 there are


def test_the_encoder_sees_the_visible_patches_only():
    objective, batch = mae(norm_pix_loss=False), batch_of(2)
    keep, masked = draw_masks(batch["position"], 16, 0.75)
    images = objective.encoder.normalise(batch["views"][:, 0]).requires_grad_()
    cls, visible = objective.encoder.tokens(images, keep=keep)
    objective.decoder(cls, visible, keep, 16).square().sum().backward()
    touched = patchify(images.grad, 8).abs().sum(2) > 0
    assert torch.equal(touched, torch.zeros(2, 16, dtype=torch.bool).scatter(1, keep, True))
    assert masked.shape == (2, 12)


def test_the_decoder_puts_tokens_in_their_places():
    decoder = mae().decoder
    decoder.blocks = torch.nn.Identity()  # every token for itself
    keep = torch.tensor([[5, 0], [3, 15]])
    cls, visible = torch.randn(2, 48), torch.randn(2, 2, 48)
    painted = decoder(cls, visible, keep, 16)
    places = grid_embedding(4, 32)
    for row in range(2):
        for patch in range(16):
            where = (keep[row] == patch).nonzero().flatten().tolist()
            token = decoder.embed(visible[row, where[0]]) if where else decoder.mask_token
            expected = decoder.paint(decoder.norm(token + places[patch]))
            torch.testing.assert_close(painted[row, patch], expected)


def test_knowing_nothing_costs_the_variance_of_the_targets():
    objective, batch = mae(), batch_of(4)
    torch.nn.init.zeros_(objective.decoder.paint.weight)
    seen = objective(batch)
    num = 3 * 8 * 8
    assert seen["loss"].item() == pytest.approx((num - 1) / num, rel=1e-4)
    assert torch.equal(seen["uninformed_loss"], seen["loss"].detach())
    grey = mae(replace(ENCODER, mean=(0.5,) * 3, std=(0.5,) * 3))  # elsewhere the channels of a grey patch still differ
    batch["views"][2:] = 200  # two of four tiles are blank
    assert grey(batch)["uninformed_loss"].item() == pytest.approx((num - 1) / num / 2, rel=1e-4)


def test_other_sizes_than_that_of_the_tile():
    objective = mae()
    for extent_px in (16, 64):
        assert torch.isfinite(objective(batch_of(2, extent_px))["loss"])


def test_half_precision_around_it_does_not_touch_the_loss():
    objective, batch = mae(), batch_of(4)
    exact = objective(batch)["loss"]
    with torch.autocast("cpu", torch.bfloat16):
        near = objective(batch)["loss"]
    assert near.dtype == torch.float32
    assert near.item() == pytest.approx(exact.item(), rel=0.02)


def test_what_does_not_fit_is_refused():
    resnet = EncoderSettings(architecture="resnet10t", options={"channels": [8, 16, 24, 32]}, input_px=32)
    with pytest.raises(TypeError, match="resnet10t has no patches"):
        MAE(SETTINGS, build_encoder(resnet, seed=0))
    with pytest.raises(ValueError, match=r"mask_ratio=0\.99: masks 16 of 16 patches at input_px=32"):
        mae(mask_ratio=0.99)
    with pytest.raises(ValueError, match=r"mask_ratio=1\.0: expected above 0 and below 1"):
        MAESettings(mask_ratio=1.0)
    with pytest.raises(ValueError, match="decoder_width=30: expected a multiple of 4 and of decoder_heads=2"):
        replace(SETTINGS, decoder_width=30)
    assert SETTINGS.needs.is_vit_only


def one_step(rank, world_size):
    objective = mae()
    model = objective if world_size == 1 else DistributedDataParallel(objective, broadcast_buffers=False)
    batch = {name: values[rank::world_size] for name, values in batch_of(8).items()}
    seen = model(batch)
    seen["loss"].backward()
    gradients = {name: p.grad.numpy() for name, p in objective.named_parameters() if p.grad is not None}
    masks = draw_masks(batch["position"], 16, 0.75)[1].numpy()
    return {name: value.item() for name, value in seen.items()}, gradients, masks


def one_step_of_two(rank):
    return one_step(rank, 2)


def test_two_ranks_are_one_rank_with_the_whole_batch():
    (seen0, gradients0, masks0), (seen1, gradients1, masks1) = run_ranks(one_step_of_two, 2)
    seen, gradients, masks = one_step(0, 1)
    np.testing.assert_array_equal(np.stack([masks0, masks1], 1).reshape(masks.shape), masks)
    for name in seen:
        assert (seen0[name] + seen1[name]) / 2 == pytest.approx(seen[name], rel=1e-5)
    assert gradients0.keys() == gradients.keys() == dict(mae().named_parameters()).keys()
    scale = max(np.abs(g).max() for g in gradients.values())
    for name, gradient in gradients.items():
        np.testing.assert_array_equal(gradients0[name], gradients1[name], err_msg=name)
        np.testing.assert_allclose(gradients0[name], gradient, rtol=1e-3, atol=2e-5 * scale, err_msg=name)


def test_it_learns_a_fixed_batch_and_its_weights_travel():
    objective, batch = mae(), batch_of(8)
    optimizer = torch.optim.AdamW(objective.param_groups(None), lr=3e-3)
    first = objective(batch)["loss"].item()
    for _ in range(60):
        optimizer.zero_grad()
        objective.start_step(0.0)
        objective(batch)["loss"].backward()
        objective.before_step(0.0)
        optimizer.step()
        objective.after_step(0.0)
    last = objective(batch)["loss"]
    assert last.item() < 0.9 * first
    assert last < objective(batch)["uninformed_loss"]
    twin = mae()
    twin.load_state_dict(objective.state_dict())
    assert twin(batch)["loss"] == last
