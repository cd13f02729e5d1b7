"""DINOv2 against lightly, against slow loops, and against itself on two ranks and in two micro-batches."""

import math
import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from torch.nn.functional import normalize
from torch.nn.parallel import DistributedDataParallel

from raypath.errors import BadInput
from raypath.models import Encoder, EncoderSettings, build_encoder
from raypath.objectives.block_masks import block_masks, masks_of_views
from raypath.objectives.dinov2 import DINOv2, DINOv2Settings, check_size
from raypath.objectives.dinov2_losses import ibot_loss, kde, koleo, sinkhorn
from tests.training.gloo_ranks import run_ranks

VIT = EncoderSettings(
    architecture="vit_tiny_patch16_224",
    options={"embed_dim": 48, "depth": 2, "num_heads": 3, "patch_size": 8},
    input_px=32,
)
SETTINGS = DINOv2Settings(
    num_local_views=2, hidden_width=32, bottleneck_width=16, out_width=24, koleo_scope="global", kde_weight=0.05
)
SINKHORN = replace(SETTINGS, centring="sinkhorn", has_separate_heads=True)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def value_and_gradient(loss_of, values):
    leaf = values.clone().requires_grad_()
    loss = loss_of(leaf)
    return loss.detach(), torch.autograd.grad(loss, leaf)[0]


# Losses


@pytest.mark.parametrize(("num", "width"), [(2, 4), (7, 3), (33, 16)])
def test_koleo_is_lightlys(num, width):
    from lightly.loss import KoLeoLoss  # slow to import, and the ranks below import this module

    values = normal(num, width).float()
    found, expected = value_and_gradient(lambda x: koleo(x, "rank"), values), value_and_gradient(KoLeoLoss(), values)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


def slow_koleo(features):
    directions = [f / f.norm() for f in features]
    total = 0
    for i, one in enumerate(directions):
        total = total - torch.log(min((one - other).norm() for k, other in enumerate(directions) if k != i))
    return total / len(features)


def slow_kde(features, concentration):
    directions = [f / f.norm() for f in features]
    total = 0
    for one in directions:
        total = total + torch.log(sum(torch.exp(concentration * (one @ other)) for other in directions) / len(features))
    return total / len(features)


@pytest.mark.parametrize(("num", "width"), [(2, 4), (7, 3), (12, 5)])
def test_koleo_and_kde_are_the_formulas(num, width):
    values = normal(num, width)
    for fast, slow in (
        (lambda x: koleo(x, "rank"), slow_koleo),
        (lambda x: kde(x, "rank", 5.0), lambda x: slow_kde(x, 5.0)),
    ):
        found, expected = value_and_gradient(fast, values), value_and_gradient(slow, values)
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-7)


def test_twins_make_koleo_explode_but_not_kde():
    values = normal(6, 4)
    values[1] = values[0] + 1e-7
    assert value_and_gradient(lambda x: koleo(x, "rank"), values)[1].abs().max() > 1e4
    assert value_and_gradient(lambda x: kde(x, "rank", 5.0), values)[1].abs().max() < 1


def test_both_spread_points_over_the_sphere():
    for loss_of in (lambda x: koleo(x, "rank"), lambda x: kde(x, "rank", 5.0)):
        points = (normal(8, 2) * 0.1 + 1).requires_grad_()  # all in one corner
        optimizer = torch.optim.Adam([points], lr=0.1)
        for _ in range(300):
            loss = loss_of(points)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        assert normalize(points.detach(), dim=1).mean(0).norm() < 0.3


@pytest.mark.parametrize(("num_views", "side", "width"), [(4, 3, 5), (6, 7, 16)])
def test_ibot_is_lightlys(num_views, side, width):
    from lightly.loss import IBOTPatchLoss

    masks = normal(num_views, side, side, seed=5) > 0.4
    masks[0] = False
    num = int(masks.sum())
    copies, students = normal(num, width).float(), normal(num, width, seed=1).float()
    theirs = IBOTPatchLoss(width, teacher_temp=0.05, student_temp=0.2)
    targets = torch.softmax(copies / 0.05, 1)
    found = value_and_gradient(lambda x: ibot_loss(x, targets, masks.flatten(1), 0.2), students)
    expected = value_and_gradient(lambda x: theirs(copies, x, masks), students)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


def slow_ibot(predictions, targets, masks, temperature):
    total, rows = 0, iter(zip(predictions, targets))
    for mask in masks:
        own = [next(rows) for _ in range(int(mask.sum()))]
        for z, p in own:
            exps = torch.exp(z / temperature)
            total = total - (p * torch.log(exps / exps.sum())).sum() / len(own)
    return total / len(masks)


def test_ibot_is_the_formula():
    masks = normal(5, 9, seed=5) > 0.4
    num = int(masks.sum())
    predictions, targets = normal(num, 7), torch.softmax(normal(num, 7, seed=1), 1)
    found = value_and_gradient(lambda x: ibot_loss(x, targets, masks, 0.3), predictions)
    expected = value_and_gradient(lambda x: slow_ibot(x, targets, masks, 0.3), predictions)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def slow_sinkhorn(logits, temperature, num_iterations):
    """Algorithm of SwaV's appendix, with its constants."""
    table = torch.exp(logits / temperature).T  # [K, N]
    num_places, num_rows = table.shape
    table = table / table.sum()
    for _ in range(num_iterations):
        table = table / table.sum(1, keepdim=True) / num_places
        table = table / table.sum(0, keepdim=True) / num_rows
    return (table * num_rows).T


@pytest.mark.parametrize(("num", "width", "temperature"), [(4, 3, 0.5), (16, 40, 0.1), (50, 7, 0.07)])
def test_sinkhorn_is_the_formula_and_lightlys(num, width, temperature):
    from lightly.loss.swav_loss import sinkhorn as lightlys

    logits = normal(num, width).clamp(-1, 1)
    expected = slow_sinkhorn(logits, temperature, 3)
    torch.testing.assert_close(sinkhorn(logits, temperature), expected, rtol=1e-10, atol=1e-14)
    torch.testing.assert_close(lightlys(logits, 3, temperature), expected, rtol=1e-10, atol=1e-14)
    torch.testing.assert_close(sinkhorn(logits.float(), temperature), expected.float(), rtol=1e-4, atol=1e-6)
    balanced = sinkhorn(logits, temperature, 200)
    torch.testing.assert_close(balanced.sum(1), torch.ones(num, dtype=torch.float64))
    torch.testing.assert_close(
        balanced.sum(0), torch.full((width,), num / width, dtype=torch.float64), rtol=1e-3, atol=0
    )


def test_sinkhorn_does_not_overflow():
    targets = sinkhorn(1000 * normal(8, 5).float(), 0.04)
    assert torch.isfinite(targets).all()
    torch.testing.assert_close(targets.sum(1), torch.ones(8))


def test_half_precision_around_them_does_not_touch_the_losses():
    features, masks = normal(8, 16).float(), torch.ones(4, 2, dtype=torch.bool)
    targets = torch.softmax(features, 1)

    def losses():
        return [koleo(features, "rank"), kde(features, "rank", 5.0), ibot_loss(features, targets, masks, 0.1)]

    with torch.autocast("cpu", torch.bfloat16):
        inside = losses()
    assert inside == losses()


# Masks


def slow_block_mask(side, num, generator):
    """One mask as the original draws it: up to ten attempts a block, short of `num` if all of them fail."""
    mask = np.zeros((side, side), bool)
    while mask.sum() < num:
        missing, is_placed = num - mask.sum(), False
        for _ in range(10):
            area = generator.uniform(4, missing)
            aspect = math.exp(generator.uniform(math.log(0.3), -math.log(0.3)))
            height, width = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            if height >= side or width >= side:
                continue
            top, left = generator.randint(0, side - height), generator.randint(0, side - width)
            block = np.zeros_like(mask)
            block[top : top + height, left : left + width] = True
            if 0 < (block & ~mask).sum() <= missing:
                mask |= block
                is_placed = True
                break
        if not is_placed:
            break
    return mask


def edge_length(masks):
    return (masks[:, 1:] != masks[:, :-1]).sum((1, 2)).mean() + (masks[:, :, 1:] != masks[:, :, :-1]).sum((1, 2)).mean()


@pytest.mark.parametrize("side", [7, 14])
def test_blocks_are_the_originals_in_number_place_and_shape(side):
    generator, num = random.Random(0), 1500
    wanted = [int(side * side * generator.uniform(0.1, 0.5)) for _ in range(num)]
    slow = np.stack([slow_block_mask(side, one, generator) for one in wanted])
    fast = block_masks(torch.arange(num), side, (0.1, 0.5), key=1).view(num, side, side).numpy()
    assert fast.mean() == pytest.approx(slow.mean(), rel=0.03)
    assert edge_length(fast) == pytest.approx(edge_length(slow), rel=0.03)
    assert np.abs(fast.mean(0) - slow.mean(0)).max() < 5 * math.sqrt(2 * 0.25 / num)  # each place, 5 standard errors
    single = np.random.default_rng(0).permuted(fast.reshape(num, -1), axis=1).reshape(fast.shape)
    assert edge_length(fast) < 0.6 * edge_length(single)


def test_ratios_are_spread_evenly():
    counts = block_masks(torch.arange(4000), 16, (32 / 256, 128 / 256), key=1).sum(1).numpy()
    found = np.histogram(counts, bins=np.arange(32, 129, 12))[0]
    assert found.sum() == 4000
    assert ((found - 500) ** 2 / 500).sum() < 30  # chi-square of 7 degrees of freedom: p = 1e-4


@hypothesis_settings(max_examples=40, deadline=None)
@given(
    positions=st.lists(st.integers(0, 2**62), min_size=1, max_size=6, unique=True),
    side=st.integers(2, 16),
    low=st.floats(0.01, 0.9),
    span=st.floats(0, 0.09),
)
def test_a_mask_depends_on_its_position_alone_and_has_its_number(positions, side, low, span):
    everything = block_masks(torch.tensor(positions), side, (low, low + span), key=3)
    for position, mask in zip(positions, everything):
        assert torch.equal(block_masks(torch.tensor([position]), side, (low, low + span), key=3)[0], mask)
        num = int(mask.sum())
        assert max(1, math.floor(low * side * side - 0.01)) <= num <= max(1, (low + span) * side * side + 0.01)


@pytest.mark.parametrize("share", [0.25, 0.5, 0.8, 1.0])
def test_the_share_of_views_is_masked(share):
    num = 4000
    masks = masks_of_views(torch.arange(num) * 3 + 1, 4, share=share, ratios=(0.1, 0.5))
    has_mask = masks.any(1).view(2, num)
    assert has_mask.float().mean() == pytest.approx(share, abs=0.02)
    assert has_mask.float().mean(1).tolist() == pytest.approx([share] * 2, abs=0.03)
    if share == 0.5:
        assert (has_mask[0] != has_mask[1]).all()
    both = has_mask.all(0)
    assert not torch.equal(masks[:num][both], masks[num:][both]) or not both.any()


# The objective


def batch_of(num):
    generator = np.random.default_rng(3)
    colours = generator.integers(30, 226, (num, 1, 1, 1, 3))
    views, local = (generator.normal(colours, 20, (num, n, px, px, 3)).clip(0, 255) for n, px in ((2, 32), (2, 16)))
    return {
        "views": torch.from_numpy(views.astype(np.uint8)),
        "local_views": torch.from_numpy(local.astype(np.uint8)),
        "position": torch.arange(num) + 1000,
    }


def objective_of(settings):
    torch.manual_seed(7)
    objective = DINOv2(settings, build_encoder(VIT, seed=1))
    with torch.no_grad():  # away from the start, where copy and student agree and the centres are 0
        for parameter in objective.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape))
        objective.centres.normal_(0, 0.1)
    return objective


@pytest.mark.parametrize("settings", [SETTINGS, SINKHORN], ids=["centre, shared head", "sinkhorn, separate heads"])
def test_the_loss_is_that_of_its_parts(settings):
    objective, batch = objective_of(settings), batch_of(4)
    found = objective(batch)
    total = found["dino_loss"] + found["ibot_loss"] + 0.1 * found["koleo_loss"] + 0.05 * found["kde_loss"]
    torch.testing.assert_close(found["loss"].detach(), total)

    def targets_of(logits, centre):
        is_sinkhorn = settings.centring == "sinkhorn"
        return slow_sinkhorn(logits, 0.04, 3) if is_sinkhorn else torch.softmax((logits - centre) / 0.04, 1)

    views, local = (batch[name].transpose(0, 1).flatten(0, 1) for name in ("views", "local_views"))
    masks = masks_of_views(batch["position"], 4, share=0.5, ratios=(0.1, 0.5))
    whole, whole_patches = objective.encoder.tokens(views)  # the copy sees all patches
    seen, patches = objective.student.tokens(views, mask=masks, mask_token=objective.mask_token)
    heads, student_heads = objective.heads, objective.student_heads

    targets = targets_of(heads[0](whole), objective.centres[0]).unflatten(0, (2, 4))
    predictions = student_heads[0](torch.cat([seen, objective.student.tokens(local)[0]])).unflatten(0, (4, 4))
    torch.testing.assert_close(found["dino_loss"], slow_dino(predictions, targets, 0.1), rtol=1e-4, atol=1e-5)
    targets = targets_of(heads[-1](whole_patches[masks]), objective.centres[1])
    expected = slow_ibot(student_heads[-1](patches[masks]), targets, masks, 0.1)
    torch.testing.assert_close(found["ibot_loss"], expected.detach(), rtol=1e-4, atol=1e-5)
    by_view = [slow_koleo(view) for view in seen.detach().chunk(2)]
    torch.testing.assert_close(found["koleo_loss"], sum(by_view), rtol=1e-4, atol=1e-5)


def slow_dino(predictions, targets, temperature):
    pairs = [(target, view) for i, target in enumerate(targets) for v, view in enumerate(predictions) if v != i]
    losses = [-(target * torch.log_softmax(view / temperature, 1)).sum(1).mean() for target, view in pairs]
    return (sum(losses) / len(pairs)).detach()


def test_knowing_nothing_costs_what_it_says():
    objective = objective_of(replace(SETTINGS, koleo_weight=0.0, kde_weight=0.0))
    torch.nn.init.zeros_(objective.student_heads[0].last.gain)
    found = objective(batch_of(4))
    assert found["loss"].item() == pytest.approx(1.5 * math.log(24), rel=1e-5)
    assert found["uninformed_loss"].item() == pytest.approx(1.5 * math.log(24))


@pytest.mark.parametrize("settings", [SETTINGS, SINKHORN], ids=["centre", "sinkhorn"])
def test_in_bfloat16_it_is_nearly_the_same(settings):
    objective, batch = objective_of(settings), batch_of(4)
    expected = objective(batch)
    with torch.autocast("cpu", torch.bfloat16):
        found = objective(batch)
    found["loss"].backward()
    assert all(value.dtype == torch.float32 for value in found.values())
    assert {n: v.item() for n, v in found.items()} == pytest.approx(
        {n: v.item() for n, v in expected.items()}, rel=0.05
    )
    assert objective.mask_token.grad.isfinite().all()


def test_the_student_does_not_see_what_is_masked():
    objective, batch = objective_of(SETTINGS), batch_of(4)
    views = batch["views"].transpose(0, 1).flatten(0, 1)
    masks = masks_of_views(batch["position"], 4, share=1.0, ratios=(0.3, 0.5))
    pixels = masks.view(-1, 4, 1, 4, 1, 1).expand(-1, -1, 8, -1, 8, 3).reshape(views.shape)
    painted = torch.where(pixels, 255 - views, views)
    one, other = (objective.student.tokens(v, masks, objective.mask_token) for v in (views, painted))
    torch.testing.assert_close(one, other)


def run_steps(rank, world_size, settings, num):
    """Two steps on this rank's share of `num` tiles: losses of both, gradients of the first, then all weights and buffers."""
    objective = objective_of(settings)
    model = objective
    if world_size > 1:
        model = DistributedDataParallel(objective, broadcast_buffers=False, find_unused_parameters=True)
    optimizer = torch.optim.SGD([p for group in objective.param_groups(None) for p in group["params"]], lr=0.02)
    batch = {name: values[rank::world_size] for name, values in batch_of(num).items()}
    losses, gradients = [], {}
    for progress in (0.0, 0.5):
        objective.start_step(progress)
        found = model(batch)
        found["loss"].backward()
        objective.before_step(progress)
        gradients = gradients or {
            n: p.grad.numpy().copy() for n, p in objective.named_parameters() if p.grad is not None
        }
        optimizer.step()
        optimizer.zero_grad()
        objective.after_step(progress)
        losses.append({name: value.item() for name, value in found.items()})
    return losses, gradients, {name: value.numpy() for name, value in objective.state_dict().items()}


def run_steps_of_two(rank, settings, num):
    return run_steps(rank, 2, settings, num)


@pytest.mark.parametrize("settings", [SETTINGS, SINKHORN], ids=["centre, shared head", "sinkhorn, separate heads"])
def test_two_ranks_are_one_rank_with_the_whole_batch(settings):
    (losses0, gradients0, state0), (losses1, gradients1, state1) = run_ranks(run_steps_of_two, 2, settings, 8)
    losses, gradients, state = run_steps(0, 1, settings, 8)
    for step, found in enumerate(losses):
        for name in found:
            assert (losses0[step][name] + losses1[step][name]) / 2 == pytest.approx(found[name], rel=1e-4), name
    assert gradients.keys() == gradients0.keys()
    assert "mask_token" in gradients
    assert not any("last" in name or name.startswith(("encoder", "heads")) for name in gradients)
    scale = max(np.abs(g).max() for g in gradients.values())
    for name, gradient in gradients.items():
        np.testing.assert_array_equal(gradients0[name], gradients1[name], err_msg=name)
        np.testing.assert_allclose(gradients0[name], gradient, rtol=1e-3, atol=2e-5 * scale, err_msg=name)
    for name, value in state.items():
        np.testing.assert_array_equal(state0[name], state1[name], err_msg=name)
        np.testing.assert_allclose(state0[name], value, rtol=1e-3, atol=1e-4, err_msg=name)


def koleo_of_two(rank, scope):
    own = normal(8, 5)[rank::2].requires_grad_()
    loss = koleo(own, scope)
    loss.backward()
    return loss.item(), own.grad.numpy()


def test_koleo_looks_for_neighbours_where_it_is_told():
    everything = normal(8, 5)
    whole, gradient = value_and_gradient(lambda x: koleo(x, "rank"), everything)
    (loss0, gradient0), (loss1, gradient1) = run_ranks(koleo_of_two, 2, "global")
    assert (loss0 + loss1) / 2 == pytest.approx(whole.item())
    np.testing.assert_allclose(np.stack([gradient0, gradient1], 1).reshape(8, 5) / 2, gradient, rtol=1e-9)
    parts = [koleo(everything[rank::2], "rank").item() for rank in range(2)]
    assert [loss for loss, _ in run_ranks(koleo_of_two, 2, "rank")] == pytest.approx(parts)
    assert sum(parts) / 2 != pytest.approx(whole.item(), rel=1e-3)


def test_without_what_couples_tiles_two_micro_batches_are_the_whole_batch():
    settings = replace(SETTINGS, koleo_weight=0.0, kde_weight=0.0)
    whole, cut, batch = objective_of(settings), objective_of(settings), batch_of(6)
    whole(batch)["loss"].backward()
    for half in (slice(0, 3), slice(3, 6)):
        (cut({name: values[half] for name, values in batch.items()})["loss"] / 2).backward()
    for (name, one), (_, other) in zip(whole.named_parameters(), cut.named_parameters()):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-3, atol=1e-6, msg=name)
    whole.after_step(0.0)
    cut.after_step(0.0)
    torch.testing.assert_close(whole.centres, cut.centres)


def test_needs_say_what_cannot_be_cut():
    mean = DINOv2Settings(koleo_weight=0.0)
    assert mean.needs.accumulation == "mean"
    coupled = [DINOv2Settings(), replace(mean, centring="sinkhorn"), replace(mean, kde_weight=0.05)]
    assert {settings.needs.accumulation for settings in coupled} == {"refused"}
    assert mean.needs.is_vit_only
    assert (mean.needs.num_views, mean.needs.num_local_views) == (2, 8)


def test_the_centres_are_those_of_class_and_patch_tokens():
    objective, batch = objective_of(replace(SETTINGS, has_separate_heads=True)), batch_of(4)
    before = objective.centres.clone()
    views = batch["views"].transpose(0, 1).flatten(0, 1)
    masks = masks_of_views(batch["position"], 4, share=0.5, ratios=(0.1, 0.5))
    with torch.no_grad():
        class_tokens, patch_tokens = objective.encoder.tokens(views)
        means = [objective.heads[0](class_tokens).mean(0), objective.heads[1](patch_tokens[masks]).mean(0)]
    objective(batch_of(6))
    objective.start_step(0.5)  # what a dropped step saw is forgotten
    objective(batch)
    objective.after_step(0.5)
    torch.testing.assert_close(objective.centres, 0.9 * before + 0.1 * torch.stack(means), rtol=1e-4, atol=1e-5)


def test_schedules():
    for progress, temperature, momentum in (
        (0.0, 0.04, 0.992),
        (0.15, 0.055, None),
        (0.3, 0.07, None),
        (1.0, 0.07, 1.0),
    ):
        objective = objective_of(SETTINGS)
        objective.start_step(progress)
        assert objective.temperature == pytest.approx(temperature)
        if momentum:
            before = objective.heads[0].last.weight.clone()
            objective(batch_of(2))
            objective.after_step(progress)
            expected = momentum * before + (1 - momentum) * objective.student_heads[0].last.weight
            torch.testing.assert_close(objective.heads[0].last.weight, expected)
    for progress, rests in ((0.0, True), (0.0099, True), (0.01, False)):
        objective(batch_of(2))["loss"].backward()
        objective.before_step(progress)
        assert (objective.student_heads[0].last.weight.grad is None) == rests
        objective.zero_grad()


def test_the_patch_embedding_learns_more_slowly():
    from raypath.training.optim import OptimSettings, build_optimizer, set_lr

    objective = objective_of(SINKHORN)
    optimizer = build_optimizer(objective, objective.param_groups(None), OptimSettings(weight_decay=0.04))
    set_lr(optimizer, 1.0)
    found = {id(p): (group["lr"], group["weight_decay"]) for group in optimizer.param_groups for p in group["params"]}
    trunk, last = objective.student.trunk, objective.student_heads[1].last
    assert found[id(trunk.patch_embed.proj.weight)] == (0.2, 0.04)
    assert found[id(trunk.blocks[0].mlp.fc1.weight)] == found[id(last.weight)] == (1.0, 0.04)
    assert found[id(objective.mask_token)] == found[id(last.gain)] == (1.0, 0.0)
    trained = {id(p) for p in objective.parameters() if p.requires_grad}
    assert trained == set(found)
    assert not trained & {id(p) for p in [*objective.encoder.parameters(), *objective.heads.parameters()]}


@pytest.mark.parametrize("settings", [SETTINGS, SINKHORN], ids=["centre", "sinkhorn"])
def test_training_lowers_the_loss_without_collapse_and_goes_on_from_saved_weights(settings):
    widths = {"hidden_width": 64, "bottleneck_width": 32, "out_width": 64}
    settings = replace(settings, koleo_scope="rank", temperature=0.04, momentum=0.9, **widths)
    torch.manual_seed(0)
    objective, resumed = (DINOv2(settings, build_encoder(VIT, seed=seed)) for seed in (0, 5))
    optimizer = torch.optim.AdamW([p for group in objective.param_groups(None) for p in group["params"]], lr=3e-4)
    batch, found = batch_of(16), []
    for progress in np.arange(40) / 80:
        objective.start_step(progress)
        losses = objective(batch)
        losses["loss"].backward()
        objective.before_step(progress)
        optimizer.step()
        optimizer.zero_grad()
        objective.after_step(progress)
        found.append({name: value.item() for name, value in losses.items()})
    assert found[-1]["dino_loss"] < 0.7 * found[0]["dino_loss"]
    assert found[-1]["ibot_loss"] < 0.7 * found[0]["ibot_loss"]
    assert found[-1]["momentum_sharpness"] < 0.6 * found[-1]["momentum_entropy"]
    assert found[-1]["momentum_entropy"] > 0.25
    assert all(one.keys() == found[0].keys() for one in found)

    resumed.load_state_dict(objective.state_dict())
    for each in (objective, resumed):
        each.start_step(0.5)
    assert objective(batch) == resumed(batch)


def test_it_starts_from_the_weights_of_the_encoder():
    encoder = build_encoder(VIT, seed=3)
    objective = DINOv2(SETTINGS, encoder)
    expected = build_encoder(VIT, seed=3).state_dict()
    for own in (objective.student, objective.encoder):
        assert all(torch.equal(value, expected[name]) for name, value in own.state_dict().items())


def test_an_encoder_beyond_a_vit_l_is_refused_by_name():
    with torch.device("meta"):
        check_size(Encoder(EncoderSettings(architecture="vit_large_patch16_224")))
        large = Encoder(EncoderSettings(architecture="vit_huge_patch14_224"))
    with pytest.raises(BadInput, match=r"'vit_huge_patch14_224': 631 million .* at most 320 \(ViT-L\).*FSDP"):
        DINOv2(SETTINGS, large)


@pytest.mark.parametrize(
    "wrong",
    [
        {"temperature": 0.0},
        {"momentum": 2.0},
        {"num_local_views": -1},
        {"mask_ratios": (0.5, 0.1)},
        {"mask_share": 0.0},
    ],
)
def test_settings_refuse_by_name(wrong):
    (name,) = wrong
    with pytest.raises(ValueError, match=f"^{name}="):
        DINOv2Settings(**wrong)
