"""The learning rate as a table, who is decayed, and LARS against its formula."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from raypath.models import EncoderSettings, build_encoder
from raypath.objectives import SimCLR, SimCLRSettings
from raypath.training.lars import LARS
from raypath.training.optim import (
    OptimSettings,
    build_optimizer,
    lr_at,
    peak_lr,
    set_lr,
    set_weight_decay,
    warmup_note,
    weight_decay_at,
)


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (0, 0.1 * 1 / 4),  # warm-up starts above 0
        (1, 0.1 * 2 / 4),
        (3, 0.1),  # its last step is the peak
        (4, 0.1),  # and so is the first of the cosine
        (8, 0.055),  # half way from 0.1 to 0.01
        (6, 0.01 + 0.09 * 0.5 * (1 + math.cos(math.pi / 4))),
        (12, 0.01),  # the end
        (500, 0.01),  # and beyond
    ],
)
def test_warm_up_then_half_a_cosine(step, expected):
    settings = OptimSettings(warmup_steps=4, final_lr_share=0.1)
    assert lr_at(step, 12, 0.1, settings) == pytest.approx(expected, rel=1e-12)


def test_without_warm_up_it_starts_at_the_peak_and_ends_above_0():
    rates = [lr_at(step, 100, 0.3, OptimSettings()) for step in range(100)]
    assert rates[0] == 0.3
    assert rates == sorted(rates, reverse=True)
    assert 0 < rates[-1] < 0.3 / 1000


@pytest.mark.parametrize(("batch", "expected"), [(128, 0.00125), (511, 0.005 * 511 / 512), (512, 0.005), (4096, 0.04)])
def test_the_rate_grows_with_the_batch_in_floats(batch, expected):
    """`batch // base` trained the first paper's code at 0 below 512."""
    scaled = OptimSettings(lr=0.005, lr_base_batch=512, warmup_steps=10)
    assert peak_lr(scaled, batch) == pytest.approx(expected)
    assert lr_at(0, 100, peak_lr(scaled, batch), scaled) > 0
    assert peak_lr(OptimSettings(lr=0.005), batch) == 0.005


@pytest.mark.parametrize("name", ["adamw", "sgd", "lars"])
@pytest.mark.parametrize(
    "encoder",
    [
        EncoderSettings(architecture="resnet10t", options={"channels": [8, 16, 24, 32]}, input_px=32),
        EncoderSettings(architecture="vit_tiny_patch16_224", options={"depth": 1}, input_px=32),
    ],
    ids=["resnet", "vit"],
)
def test_weights_of_layers_are_decayed_and_nothing_else(name, encoder):
    objective = SimCLR(SimCLRSettings(hidden_width=8, out_width=4), build_encoder(encoder, seed=0))
    settings = OptimSettings(name=name, weight_decay=0.03)
    optimizer = build_optimizer(objective, objective.param_groups(settings), settings)
    names = {id(p): n for n, p in objective.named_parameters()}
    decayed, others = ({names[id(p)] for p in group["params"]} for group in optimizer.param_groups)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.03, 0.0]
    assert [group["adapt"] for group in optimizer.param_groups] == [True, False]
    assert decayed | others == {n for n, p in objective.named_parameters() if p.requires_grad}
    # All that multiplies is a matrix or a kernel; gains, biases, the class token and positions are not.
    parameters = dict(objective.named_parameters())
    assert all(parameters[n].dim() >= 2 and n.endswith("weight") for n in decayed)
    assert all(parameters[n].dim() == 1 or n.endswith(("cls_token", "pos_embed")) for n in others)


def test_groups_keep_their_scale_through_the_schedule():
    net = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Linear(2, 1))
    groups = [
        {"params": [*net[0].parameters(), *net[1].parameters()], "lr_scale": 0.1},
        {"params": net[2].parameters()},
    ]
    groups[1]["params"] = list(groups[1]["params"])
    optimizer = build_optimizer(net, groups, OptimSettings(name="sgd"))
    set_lr(optimizer, 0.5)
    assert {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]} == {
        id(p): 0.05 if layer < 2 else 0.5 for layer in range(3) for p in net[layer].parameters()
    }


def slow_lars(weights, gradients, *, lr, momentum, decay, trust, adapt):
    """Algorithm 1 of arXiv 1708.03888 for one layer, in float64, as its equations stand."""
    w, v = weights.astype(np.float64), np.zeros(weights.shape)
    for g in gradients:
        g = g.astype(np.float64)
        size, slope = math.sqrt((w**2).sum()), math.sqrt((g**2).sum())
        rate = trust * size / (slope + decay * size) if adapt and size > 0 and slope > 0 else 1.0
        v = momentum * v + lr * rate * (g + decay * w)
        w = w - v
    return w


@pytest.mark.parametrize(
    ("decay", "adapt", "start"), [(1e-2, True, 1.0), (0.0, True, 1.0), (0.0, False, 1.0), (1e-2, True, 0.0)]
)
def test_lars_is_its_formula(decay, adapt, start):
    random = np.random.default_rng(0)
    weights = (start * random.normal(size=(6, 4))).astype(np.float32)
    gradients = [(10 * random.normal(size=(6, 4))).astype(np.float32) for _ in range(5)]
    gradients[2] *= 0  # a dead layer moves by decay and momentum alone
    layer = nn.Parameter(torch.from_numpy(weights.copy()))
    optimizer = LARS([{"params": [layer], "weight_decay": decay, "adapt": adapt}], lr=0.3, momentum=0.9, trust=0.01)
    for gradient in gradients:
        layer.grad = torch.from_numpy(gradient)
        optimizer.step()
    expected = slow_lars(weights, gradients, lr=0.3, momentum=0.9, decay=decay, trust=0.01, adapt=adapt)
    np.testing.assert_allclose(layer.detach().numpy(), expected, rtol=2e-5, atol=1e-6)


def test_lars_leaves_alone_what_has_no_gradient():
    used, unused = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    optimizer = LARS([used, unused], lr=0.1)
    used.sum().backward()
    optimizer.step()
    assert torch.equal(unused, torch.ones(2))
    assert not torch.equal(used, torch.ones(2))
    assert len(optimizer.state) == 1


def paper_rate(t, cold, peak_at, num_steps, start, base):
    """GradualWarmupWithCosineLR as RECIPES 1.3 writes it, update t."""
    if t < cold:
        return start
    if t < peak_at:
        return start + (t - cold) / (peak_at - cold) * (base - start)
    return base * (1 + math.cos(math.pi * (t - peak_at) / (num_steps - peak_at))) / 2 + 1e-6


def test_the_first_papers_schedule_with_its_cold_phase():
    settings = OptimSettings(lr=5e-4, lr_base_batch=512, cold_steps=3, start_lr=5e-4, warmup_steps=5, floor_lr=1e-6)
    for batch in (128, 512, 8192):
        peak = peak_lr(settings, batch)
        rates = [lr_at(t, 40, peak, settings) for t in range(40)]
        assert rates == pytest.approx([paper_rate(t, 3, 8, 40, 5e-4, peak) for t in range(40)], rel=1e-12)
        assert rates[0] == 5e-4
        assert rates[8] == pytest.approx(peak + 1e-6)
        assert lr_at(40, 40, peak, settings) == pytest.approx(1e-6)  # the end


def test_the_second_papers_rate_stays():
    settings = OptimSettings(name="sgd", lr=1e-4, has_cosine=False)
    assert {lr_at(step, 100, 1e-4, settings) for step in range(100)} == {1e-4}


def test_weight_decay_follows_half_a_cosine_and_only_where_it_applies():
    settings = OptimSettings(weight_decay=0.04, final_weight_decay=0.4)
    assert weight_decay_at(0.0, settings) == pytest.approx(0.04)
    assert weight_decay_at(0.5, settings) == pytest.approx(0.22)
    assert weight_decay_at(1.0, settings) == pytest.approx(0.4)
    assert weight_decay_at(0.7, OptimSettings(weight_decay=0.04)) == 0.04
    layer = nn.Linear(3, 2)
    optimizer = build_optimizer(layer, [{"params": list(layer.parameters())}], settings)
    set_weight_decay(optimizer, 0.3)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.3, 0.0]


def test_layer_decay_slows_the_lower_layers_of_the_encoder_and_not_the_head():
    vit = EncoderSettings(architecture="vit_tiny_patch16_224", options={"depth": 3}, input_px=32)
    objective = SimCLR(SimCLRSettings(hidden_width=8, out_width=4), build_encoder(vit, seed=0))
    settings = OptimSettings(lr=1.0, layer_decay=0.5)
    optimizer = build_optimizer(objective, objective.param_groups(settings), settings)
    scale = {id(p): group["lr_scale"] for group in optimizer.param_groups for p in group["params"]}
    trunk = objective.encoder.trunk
    assert scale[id(trunk.patch_embed.proj.weight)] == scale[id(trunk.cls_token)] == 0.125
    assert [scale[id(block.mlp.fc1.weight)] for block in trunk.blocks] == [0.25, 0.5, 1.0]
    assert scale[id(trunk.norm.weight)] == scale[id(objective.projector.layers[0].weight)] == 1.0
    assert len(scale) == sum(p.requires_grad for p in objective.parameters())


def test_a_cold_phase_needs_a_rate():
    with pytest.raises(ValueError, match="cold_steps=3 with start_lr=0"):
        OptimSettings(cold_steps=3)
    with pytest.raises(ValueError, match=r"layer_decay=0\.0"):
        OptimSettings(layer_decay=0.0)


@pytest.mark.parametrize(
    ("settings", "num_steps", "said"),
    [
        (OptimSettings(lr=1e-3, warmup_steps=100), 60, "100 steps of warm-up, but loop.num_steps=60: the rate never reaches"),
        (OptimSettings(lr=1e-3, warmup_steps=60), 60, "the rate only at the last step reaches optim.lr (0.001 of 0.001)"),
        (OptimSettings(lr=1e-3, warmup_steps=60, start_lr=1e-5), 60, "never reaches optim.lr (0.000983 of 0.001)"),
        (OptimSettings(lr=1e-3, cold_steps=30, start_lr=1e-5, warmup_steps=40), 60, "40 steps of warm-up after 30 cold ones"),
        (OptimSettings(lr=1e-3, warmup_share=1.0), 60, "60 steps of warm-up"),
        (OptimSettings(lr=1e-3, warmup_steps=59), 60, None),
        (OptimSettings(lr=1e-3), 1, None),
        (OptimSettings(lr=1e-3, start_lr=1e-3, warmup_share=1.0), 60, None),  # flat from the first step on
    ],
)  # fmt: skip
def test_a_warm_up_that_outlasts_the_run_is_said(settings, num_steps, said):
    note = warmup_note(num_steps, 1e-3, settings)
    assert (note is None) == (said is None)
    assert said is None or said in note
    rates = [lr_at(step, num_steps, 1e-3, settings) for step in range(num_steps)]
    if note and "never" in note:
        assert max(rates) < 1e-3
