from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import nn

from raypath.benchmarks import score
from raypath.errors import RaypathError
from raypath.models import ColourEncoder
from raypath.protocols import ProbeSettings, probe
from tests.protocols import small

CPU = torch.device("cpu")


class Pixels(nn.Module):
    """The first pixels of the first channel as features: what the probe sees is what the test wrote."""

    def __init__(self, width: int):
        super().__init__()
        self.width = width

    def forward(self, images):
        return images[:, 0, : self.width, 0].float()


def points(features, labels, prefix: str):
    """Samples whose `Pixels` are the given features."""
    made = small.samples(len(labels), seed=0)
    images = np.zeros_like(made.images)
    images[:, 0, : features.shape[1], 0] = features.round().clip(0, 255)
    names = tuple(f"{prefix}{i}" for i in range(len(labels)))
    return replace(made, images=images, labels=np.asarray(labels, np.int64), names=names)


def fit(train, val, metric="balanced_accuracy", encoder=None, **settings):
    encoder = encoder or ColourEncoder()
    return probe(encoder, train, val, ProbeSettings(**settings), metric=metric, device=CPU)


def test_a_separable_set_is_solved_on_samples_it_never_saw():
    fitted = fit(small.samples(40, seed=0), small.samples(20, seed=1))
    assert score(fitted.val)["accuracy"] == 1
    unseen = small.samples(30, seed=2)
    assert score(fitted.predict(unseen, CPU))["accuracy"] == 1
    assert fitted.predict(unseen, CPU).sample == unseen.names


def test_the_penalty_is_the_one_that_is_best_on_val_as_a_slow_search_finds_it():
    rng = np.random.default_rng(0)
    labels = np.arange(40) % 2

    def noisy(labels):
        features = rng.normal(128, 20, (len(labels), 30))
        features[:, 0] += 30 * labels
        return features

    train, val = points(noisy(labels), labels, "t"), points(noisy(np.arange(400) % 2), np.arange(400) % 2, "v")
    fitted = fit(train, val, metric="auroc", encoder=Pixels(30))
    x = train.images[:, 0, :30, 0].astype(float)
    mean, std = x.mean(0), x.std(0)
    grid = np.geomspace(1e-6, 1e4, 11)
    slow = []
    for c in grid:
        model = LogisticRegression(C=c, max_iter=5_000).fit((x - mean) / std, labels)
        probability = model.predict_proba((val.images[:, 0, :30, 0] - mean) / std)
        slow.append(score(val.predictions(probability))["auroc"])
    assert fitted.c == pytest.approx(grid[int(np.argmax(slow))])
    assert score(fitted.val)["auroc"] == pytest.approx(max(slow))
    assert max(slow) > slow[0] + 0.02
    assert max(slow) > slow[-1] + 0.001
    assert not fitted.is_on_edge


@pytest.mark.parametrize(
    ("lowest", "highest", "is_on_edge"), [(1e-6, 1e-2, True), (1e2, 1e4, True), (1e-4, 1e4, False)]
)
def test_an_optimum_at_the_end_of_the_grid_is_flagged(lowest, highest, is_on_edge):
    labels = np.arange(60) % 3 == 0  # unequal classes: a strong penalty calls everything the larger one
    rng = np.random.default_rng(1)
    train, val = (
        points(np.stack([100 + 40 * labels, rng.normal(128, 30, 60)], 1) + rng.normal(0, 14, (60, 2)), labels, p)
        for p in "tv"
    )
    fitted = fit(train, val, encoder=Pixels(2), lowest_c=lowest, highest_c=highest, num_c=5)
    assert fitted.is_on_edge == is_on_edge


def test_among_equals_the_stronger_penalty_wins():
    labels = np.arange(20) % 2
    train, val = (points(np.stack([50 + 150 * labels], 1), labels, p) for p in "tv")
    assert fit(train, val, encoder=Pixels(1), lowest_c=1e-3, highest_c=1e3, num_c=7).c == pytest.approx(1e-3)


def test_a_fit_that_does_not_converge_is_an_error_that_says_what_to_raise():
    with pytest.raises(RaypathError, match=r"C=.* did not converge in 1 iterations: raise protocol\.max_iter"):
        fit(small.samples(40, seed=0), small.samples(20, seed=1), max_iter=1)


def test_a_class_without_training_samples_has_probability_0_and_keeps_its_column():
    labels = np.arange(30) % 3
    features = np.stack([60 * labels + 40], 1)
    classes = ("a", "b", "c")
    train = replace(points(features[labels != 1], labels[labels != 1], "t"), classes=classes)
    val = replace(points(features, labels, "v"), classes=classes)
    probability = fit(train, val, encoder=Pixels(1)).val.probability
    assert probability.shape == (30, 3)
    assert (probability[:, 1] == 0).all()
    assert (probability[labels != 1].argmax(1) == labels[labels != 1]).all()
