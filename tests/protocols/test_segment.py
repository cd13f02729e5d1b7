from dataclasses import replace

import numpy as np
import pytest
import torch

from raypath.benchmarks.metrics.pixels import score_pixels
from raypath.errors import BadInput, Diverged
from raypath.models import ColourEncoder, EncoderSettings, build_encoder
from raypath.protocols.masked_samples import MaskedSamples
from raypath.protocols.segment import SegmentSettings, look, segment
from tests.protocols import segmented, small

CPU = torch.device("cpu")
QUICK = SegmentSettings(crop_px=32, num_steps=16, batch=4, lr=1e-2, validate_every=8, head="unet", jitter=0.0)
ONCE = SegmentSettings(crop_px=32, num_steps=1, batch=2)
FINE = replace(small.TINY, options=small.TINY.options | {"output_stride": 8})  # the last map of 32 px has 4 x 4


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    benchmark = segmented.benchmark(tmp_path_factory.mktemp("blobs"))
    return tuple(MaskedSamples.of(benchmark.rows(s), benchmark.classes, benchmark.mask_rule) for s in ("train", "val"))


@pytest.fixture(scope="module", params=[0.5, 2.0])
def sets_at_another_scale(tmp_path_factory, request):
    benchmark = segmented.benchmark(tmp_path_factory.mktemp("blobs"))
    how = {"mpp": benchmark.mpp, "fed_mpp": benchmark.mpp / request.param}
    return [
        MaskedSamples.of(benchmark.rows(s), benchmark.classes, benchmark.mask_rule, **how) for s in ("train", "val")
    ]


def run(sets, settings=QUICK, *, seed=0, encoder=None, **kwargs):
    encoder = encoder or build_encoder(small.TINY, seed=seed)
    return segment(encoder, *sets, settings, metric="miou_macro", seed=seed, device=CPU, **kwargs)


@pytest.mark.parametrize("head", ["fcn", "unet"])
def test_a_tiny_encoder_learns_where_the_blobs_are(sets, head):
    fitted = run(sets, replace(QUICK, head=head), encoder=build_encoder(FINE if head == "fcn" else small.TINY, seed=0))
    unseen = MaskedSamples([segmented.draw(s, (96, 70)) for s in (91, 92)], ("a", "b"), ("p", None), segmented.CLASSES)
    predictions = fitted.predict(unseen, CPU)
    assert predictions.sample == ("a", "b")
    assert predictions.patient == ("p", None)
    assert predictions.confusion.sum() == 2 * 96 * 70
    share = predictions.confusion.sum((0, 2)) / predictions.confusion.sum()
    best_of_one_class = share.max() / 2  # macro mIoU of calling every pixel the same
    assert score_pixels(predictions)["miou_macro"] > best_of_one_class + 0.2
    assert fitted.history[-1]["train_loss"] < fitted.history[0]["train_loss"] < 1


def test_blobs_are_learnt_at_half_and_at_twice_their_scale_and_scored_at_their_own(sets_at_another_scale):
    fitted = run(sets_at_another_scale, replace(QUICK, num_steps=24))
    val = sets_at_another_scale[1]
    assert {mask.shape for _, mask in val.masked} in ({(32, 40)}, {(128, 160)})
    assert fitted.val.confusion.sum((1, 2)).tolist() == [64 * 80] * len(val)
    np.testing.assert_array_equal(fitted.predict(val, CPU).confusion, fitted.val.confusion)
    truth = np.stack([np.bincount(mask.reshape(-1), minlength=2) for mask in val.truth])
    np.testing.assert_array_equal(fitted.val.confusion.sum(2), truth)
    best_of_one_class = truth.sum(0).max() / truth.sum() / 2
    assert score_pixels(fitted.val)["miou_macro"] > best_of_one_class + 0.2


def test_the_same_seed_gives_the_same_bits_and_another_one_does_not(sets):
    settings = SegmentSettings(crop_px=32, num_steps=4, batch=2, validate_every=2, dropout=0.3)
    first, again, other = run(sets, settings), run(sets, settings), run(sets, settings, seed=1)
    assert first.history == again.history
    for name, tensor in first.model.state_dict().items():
        assert torch.equal(tensor, again.model.state_dict()[name]), name
    assert first.history != other.history


@pytest.mark.parametrize("keep", ["best", "last"])
def test_the_weights_that_come_back_are_those_of_the_best_look_or_the_last(sets, keep):
    seen = {}

    def report(look):
        weights = {name: tensor.clone() for name, tensor in look.model.state_dict().items()}
        seen[look.number] = (look.metrics["val_miou_macro"], -look.metrics["val_loss"]), weights, look.is_best

    train, val = sets
    inverted = replace(val, masked=[(image, 1 - mask) for image, mask in val.masked])  # what is learnt is wrong there
    settings = replace(QUICK, num_steps=7, validate_every=1, warmup_share=0, keep=keep)
    fitted = run((train, inverted), settings, report=report)
    assert list(seen) == list(range(1, 8))
    best = max(seen, key=lambda step: (seen[step][0], -step))
    assert best < 7
    assert fitted.look == (best if keep == "best" else 7)
    assert [step for step in seen if seen[step][2]][-1] == best
    now = fitted.model.state_dict()
    assert all(torch.equal(tensor, seen[fitted.look][1][name]) for name, tensor in now.items())
    np.testing.assert_array_equal(fitted.predict(inverted, CPU).confusion, fitted.val.confusion)
    assert fitted.val_loss == -seen[fitted.look][0][1]


def test_the_loss_on_val_is_the_cross_entropy_of_all_its_pixels(sets):
    fitted = run(sets, ONCE)
    predictions, loss = look(fitted.model, sets[1], SegmentSettings(crop_px=128), CPU)  # an image is one crop
    fitted.model.eval()
    expected, confusion = [], []
    for image, mask in sets[1].masked:
        logits = fitted.model(torch.from_numpy(image)[None]).detach().double()
        truth = torch.from_numpy(mask)[None].long()
        expected.append(torch.nn.functional.cross_entropy(logits, truth).item())
        confusion.append([[((truth == i) & (logits.argmax(1) == j)).sum().item() for j in (0, 1)] for i in (0, 1)])
    assert loss == pytest.approx(np.mean(expected), rel=1e-5)
    assert predictions.confusion.tolist() == confusion


def test_a_frozen_encoder_comes_back_bit_for_bit_and_the_rest_learns(sets):
    encoder = build_encoder(small.TINY, seed=0)
    before = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    fitted = run(sets, replace(QUICK, is_frozen=True), encoder=encoder)
    assert all(torch.equal(tensor, before[name]) for name, tensor in encoder.state_dict().items())
    assert fitted.history[-1]["train_loss"] < fitted.history[0]["train_loss"]
    free = run(sets, ONCE)
    assert not all(torch.equal(tensor, before[name]) for name, tensor in free.model.encoder.state_dict().items())


def test_the_decoder_has_a_learning_rate_of_its_own(sets):
    start = run(sets, replace(ONCE, lr=1e-12)).model.state_dict()
    moved = run(sets, replace(ONCE, head_lr_scale=1e-9)).model
    names = [n for n, p in moved.named_parameters() if not torch.allclose(p, start[n], rtol=0, atol=1e-6)]
    assert len(names) > 5
    assert all(name.startswith("encoder.") for name in names)


def test_what_cannot_be_segmented_is_refused(sets):
    with pytest.raises(BadInput, match=r"ColourEncoder has none.*protocol.kind=pixel_colour"):
        run(sets, encoder=ColourEncoder())
    with pytest.raises(BadInput, match=r"protocol.head=unet: mixer_s32_224 has no feature pyramid"):
        run(sets, encoder=build_encoder(EncoderSettings(architecture="mixer_s32_224"), seed=0))
    with pytest.raises(BadInput, match=r"crops of 96 px.*smallest is 64 px"):
        run(sets, SegmentSettings(crop_px=96))
    with pytest.raises(Diverged, match="protocol.lr"):
        run(sets, SegmentSettings(crop_px=32, num_steps=5, batch=2, lr=1e30, warmup_share=0, validate_every=9))


@pytest.mark.parametrize("wrong", [{"crop_px": 16}, {"batch": 1}, {"lr": 0.0}, {"overlap": 1.0}, {"jitter": 2.0}])
def test_numbers_that_cannot_train_are_refused(wrong):
    with pytest.raises(ValueError, match=f"{next(iter(wrong))}="):
        SegmentSettings(**wrong)
