"""Two ranks over gloo learn what one learns, with shares of unequal size, and look at val together."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from raypath.errors import BadInput
from raypath.models import build_encoder
from raypath.protocols import FinetuneSettings, SegmentSettings, finetune, segment
from raypath.protocols.masked_samples import MaskedSamples
from raypath.protocols.ranks import check_batch, own_share
from raypath.protocols.segment import look, segmenter_of
from tests.protocols import segmented, small
from tests.training.gloo_ranks import RanksFailed, run_ranks

CPU = torch.device("cpu")


def finetuned(rank, batch=7):
    """A batch of 7 and a val of 13: one rank has 4 of the one and 7 of the other."""
    settings = FinetuneSettings(epochs=2, batch=batch, optimizer="sgd", lr=0.1, clip_norm=1.0)
    parts = small.samples(22, seed=0), small.samples(13, seed=1)
    encoder = build_encoder(small.TINY, seed=0)
    fitted = finetune(encoder, *parts, settings, metric="balanced_accuracy", seed=3, device=CPU)
    return fitted.history, fitted.look, fitted.val.probability, fitted.classifier.state_dict()


def masked(num, *, seed):
    names = tuple(f"{seed}-{number}" for number in range(num))
    drawn = [segmented.draw(100 * seed + number, (48, 40)) for number in range(num)]
    return MaskedSamples(drawn, names, (None,) * num, segmented.CLASSES)


def with_masks(rank):
    settings = SegmentSettings(crop_px=32, num_steps=4, batch=3, validate_every=2, dropout=0.0, lr=1e-3)
    parts, encoder = (masked(5, seed=1), masked(3, seed=2)), build_encoder(small.TINY, seed=0)
    fitted = segment(encoder, *parts, settings, metric="miou_macro", seed=3, device=CPU)
    shares = fitted.val.confusion / fitted.val.confusion.sum((1, 2), keepdims=True)
    return fitted.history, fitted.look, shares, fitted.model.state_dict()


@pytest.mark.parametrize("train", [finetuned, with_masks])
def test_two_ranks_learn_what_one_learns(train):
    history, look, val, weights = train(0)
    first, second = run_ranks(train, 2)
    assert first[:2] == second[:2]  # both know the same of every look
    np.testing.assert_array_equal(first[2], second[2])
    for name, tensor in first[3].items():
        assert torch.equal(tensor, second[3][name]), name
        # AdamW, which segmentation has, makes a whole step of a gradient's rounding, SGD does not
        torch.testing.assert_close(tensor, weights[name], rtol=1e-3, atol=1e-5 if train is finetuned else 4e-3)
    for own, alone in zip(first[0], history, strict=True):
        assert own == pytest.approx(alone, rel=1e-3)
    assert first[1] == look
    np.testing.assert_allclose(first[2], val, atol=1e-3)


def objects_looked_at(rank):
    settings = SegmentSettings(crop_px=32, head="unet")
    val = masked(3, seed=2)
    val = replace(val, objects=[mask * np.uint8(9) for _, mask in val.masked])
    torch.manual_seed(0)
    model = segmenter_of(build_encoder(small.TINY, seed=0), 2, settings)
    return look(model, val, settings, CPU)[0].objects


def test_two_ranks_count_the_objects_that_one_counts():
    alone = objects_looked_at(0)
    assert [image.num_true for image in alone] == [1, 1, 1]
    assert len({image.area_true for image in alone}) == 3, "else their order could not be seen"
    assert run_ranks(objects_looked_at, 2) == [alone, alone]


def test_a_batch_smaller_than_the_workers_is_refused():
    with pytest.raises(RanksFailed, match=r"a batch of 1 for 2 workers: lower sweep\.workers_per_trial"):
        run_ranks(finetuned, 2, 1)


def test_one_rank_has_everything():
    np.testing.assert_array_equal(own_share(np.arange(5)), np.arange(5))
    check_batch(1)
    with pytest.raises(BadInput, match="a batch of 0"):
        check_batch(0)
