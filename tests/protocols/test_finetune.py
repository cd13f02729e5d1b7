from dataclasses import replace

import numpy as np
import pytest
import torch

from raypath.benchmarks import score
from raypath.config import override
from raypath.errors import BadInput, Diverged
from raypath.models import build_encoder
from raypath.protocols import FinetuneSettings, finetune
from raypath.protocols.finetune import Classifier, _Batches, _optimizer, probability_of
from raypath.protocols.transfer import TransferConfig
from tests.protocols import small

CPU = torch.device("cpu")
QUICK = FinetuneSettings(epochs=3, batch=8, lr=1e-2)


def tune(settings=QUICK, *, seed=0, train=None, val=None, metric="balanced_accuracy", **kwargs):
    train, val = train or small.samples(24, seed=0), val or small.samples(16, seed=1)
    encoder = build_encoder(small.TINY, seed=seed)
    return finetune(encoder, train, val, settings, metric=metric, seed=seed, device=CPU, **kwargs)


def test_a_tiny_encoder_learns_a_simple_cue():
    fitted = tune()
    unseen = small.samples(40, seed=2)
    predictions = fitted.predict(unseen, CPU)
    assert score(predictions)["accuracy"] > 0.9
    assert predictions.sample == unseen.names
    assert fitted.history[-1]["train_loss"] < fitted.history[0]["train_loss"]


def test_the_same_seed_gives_the_same_bits_and_another_one_does_not():
    settings = FinetuneSettings(epochs=2, batch=8, dropout=0.2)
    first, again, other = tune(settings), tune(settings), tune(settings, seed=1)
    assert first.history == again.history
    assert first.val.probability.tobytes() == again.val.probability.tobytes()
    for name, tensor in first.classifier.state_dict().items():
        assert torch.equal(tensor, again.classifier.state_dict()[name]), name
    assert first.val.probability.tobytes() != other.val.probability.tobytes()


def test_the_best_epoch_is_the_one_with_the_best_metric_then_the_least_loss():
    # no cue and a large step: scores go up and down, and equal ones occur
    val = small.samples(6, seed=1, cue=0)
    fitted = tune(FinetuneSettings(epochs=8, batch=8, lr=3e-2), train=small.samples(24, seed=0, cue=0), val=val)
    ranks = [(m["val_balanced_accuracy"], -m["val_loss"]) for m in fitted.history]
    assert ranks.index(max(ranks)) == fitted.look - 1
    assert fitted.look < 8
    assert len({rank[0] for rank in ranks}) < len(ranks)
    assert len(set(ranks)) > 1
    assert fitted.val_loss == fitted.history[fitted.look - 1]["val_loss"]


def test_the_weights_of_the_best_epoch_come_back():
    val = small.samples(6, seed=1, cue=0)
    kept = {}

    def report(look):
        kept[look.number] = {name: tensor.clone() for name, tensor in look.model.state_dict().items()}

    settings = FinetuneSettings(epochs=8, batch=8, lr=3e-2)
    fitted = tune(settings, train=small.samples(24, seed=0, cue=0), val=val, report=report)
    now = fitted.classifier.state_dict()
    assert all(torch.equal(tensor, kept[fitted.look][name]) for name, tensor in now.items())
    assert any(not torch.equal(tensor, kept[8][name]) for name, tensor in now.items())
    np.testing.assert_array_equal(probability_of(fitted.classifier, val.images, CPU), fitted.val.probability)


def test_report_is_called_after_every_epoch_with_its_numbers_and_may_end_the_training():
    calls = []

    def report(look):
        calls.append((look.number, look.metrics, look.is_best))
        if look.number == 2:
            raise StopIteration

    with pytest.raises(StopIteration):
        tune(report=report)
    assert (calls[0][0], calls[0][2]) == (1, True)
    assert [epoch for epoch, _, _ in calls] == [1, 2]
    assert all(set(m) == {"train_loss", "val_loss", "val_balanced_accuracy"} for _, m, _ in calls)
    expected = (calls[1][1]["val_balanced_accuracy"], -calls[1][1]["val_loss"]) > (
        calls[0][1]["val_balanced_accuracy"],
        -calls[0][1]["val_loss"],
    )
    assert calls[1][2] == expected


@pytest.mark.parametrize(("num", "batch"), [(24, 8), (24, 100)])
def test_every_sample_is_seen_once_per_epoch_in_an_order_that_changes(num, batch):
    samples = small.samples(num, seed=0)
    samples.images[:] = np.arange(num)[:, None, None, None]  # an image is its own number; a crop leaves it so
    made = _Batches(samples, FinetuneSettings(batch=batch, jitter=0.0), seed=3)
    orders = []
    for epoch in range(3):
        batches = [made.at(step) for step in range(epoch * made.steps_per_epoch, (epoch + 1) * made.steps_per_epoch)]
        assert [len(labels) for _, labels in batches] == [min(batch, num)] * made.steps_per_epoch
        orders.append([int(image[0, 0, 0]) for images, _ in batches for image in images])
        labels = [int(label) for _, labels in batches for label in labels]
        assert labels == [int(samples.labels[i]) for i in orders[-1]]
    assert all(sorted(order) == list(range(num)) for order in orders)
    assert len(set(map(tuple, orders))) == 3


def test_what_fills_no_batch_comes_in_the_next_epoch():
    samples = small.samples(10, seed=0)
    samples.images[:] = np.arange(10)[:, None, None, None]
    made = _Batches(samples, FinetuneSettings(batch=4, jitter=0.0), seed=3)
    seen = [int(image[0, 0, 0]) for step in range(10) for image in made.at(step)[0]]
    assert made.steps_per_epoch == 2
    assert np.bincount(seen).tolist() == [4] * 10  # 5 epochs of 8 are 4 of 10


@pytest.mark.parametrize("assignment", ["protocol.epochs=0", "protocol.batch=0", "protocol.dropout=1.5"])
def test_numbers_that_cannot_train_are_refused_by_the_config(assignment):
    with pytest.raises(BadInput, match=assignment.partition("=")[0].partition(".")[2]):
        override(TransferConfig(), [assignment])


def test_a_diverged_training_is_an_error_and_not_a_score():
    with pytest.raises(Diverged, match=r"update 2: the loss is (nan|inf): lower protocol.lr=1e\+30"):
        tune(FinetuneSettings(epochs=1, batch=8, lr=1e30))


def test_updates_are_counted_instead_of_epochs_and_the_last_weights_may_be_kept():
    looks = []
    settings = FinetuneSettings(num_steps=7, validate_every=3, batch=8, lr=3e-2, keep="last")
    val = small.samples(6, seed=1, cue=0)
    fitted = tune(settings, train=small.samples(20, seed=0, cue=0), val=val, report=lambda look: looks.append(look))
    assert [look.number for look in looks] == [1, 2, 3]
    assert settings.num_looks == 3
    assert fitted.look == 3
    assert fitted.val_loss == fitted.history[-1]["val_loss"]
    best = tune(replace(settings, keep="best"), train=small.samples(20, seed=0, cue=0), val=val)
    assert best.history == fitted.history
    ranks = [(m["val_balanced_accuracy"], -m["val_loss"]) for m in best.history]
    assert best.look == ranks.index(max(ranks)) + 1


def test_a_look_is_the_best_so_far_whichever_weights_are_kept():
    looks = []
    settings = FinetuneSettings(num_steps=12, validate_every=1, batch=8, lr=3e-2, keep="last")
    train, val = small.samples(20, seed=0, cue=0), small.samples(6, seed=1, cue=0)
    fitted = tune(settings, train=train, val=val, report=looks.append)
    ranks = [(m["val_balanced_accuracy"], -m["val_loss"]) for m in fitted.history]
    is_best = [rank > max(ranks[:number], default=(-1.0, 0.0)) for number, rank in enumerate(ranks)]
    assert [look.is_best for look in looks] == is_best
    assert is_best != [number == 0 or rank > ranks[number - 1] for number, rank in enumerate(ranks)]


def test_layers_learn_at_rates_that_decay_and_the_optimiser_is_chosen():
    classifier = Classifier(build_encoder(small.TINY, seed=0), 2, 0.0)
    settings = FinetuneSettings(optimizer="sgd", lr=1e-2, layer_decay=0.5, head_lr_scale=3.0)
    optimizer = _optimizer(classifier, settings)
    assert isinstance(optimizer, torch.optim.SGD)
    scales = {id(p): group["lr_scale"] for group in optimizer.param_groups for p in group["params"]}
    assert scales[id(classifier.head.linear.weight)] == 3.0
    assert scales[id(classifier.encoder.trunk.conv1[0].weight)] < 0.5
    last = list(classifier.encoder.trunk.layer4.parameters())[-1]
    assert scales[id(classifier.encoder.trunk.conv1[0].weight)] < scales[id(last)] <= 1
