from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from raypath.benchmarks import score
from raypath.errors import RaypathError
from raypath.models import ColourEncoder
from raypath.protocols import Features, ProbeSettings, fit_probe
from raypath.protocols.features import features_of
from tests.protocols import small


def points(values, labels, prefix: str, classes=small.CLASSES) -> Features:
    """Features as they are given."""
    names = tuple(f"{prefix}{i}" for i in range(len(labels)))
    values = np.asarray(values, np.float32)
    return Features(values, np.asarray(labels, np.int64), names, (None,) * len(labels), classes)


def colours(num: int, *, seed: int) -> Features:
    """The 30 colour numbers of the small set."""
    made = small.samples(num, seed=seed)
    values = features_of(ColourEncoder(), made.images, torch.device("cpu"))
    return Features(values, made.labels, made.names, made.patients, made.classes)


def fit(train, val, metric="balanced_accuracy", **settings):
    return fit_probe(train, val, ProbeSettings(**settings), metric=metric)


def predicted(fitted, asked: Features):
    return asked.predictions(fitted.probability(asked.values))


def test_a_separable_set_is_solved_on_samples_it_never_saw():
    fitted = fit(colours(40, seed=0), colours(20, seed=1))
    assert score(fitted.val)["accuracy"] == 1
    unseen = colours(30, seed=2)
    assert score(predicted(fitted, unseen))["accuracy"] == 1
    assert predicted(fitted, unseen).sample == unseen.names


def test_the_penalty_is_the_one_that_is_best_on_val_as_a_slow_search_finds_it():
    rng = np.random.default_rng(0)
    labels = np.arange(40) % 2

    def noisy(labels):
        features = rng.normal(128, 20, (len(labels), 30))
        features[:, 0] += 30 * labels
        return features

    train, val = points(noisy(labels), labels, "t"), points(noisy(np.arange(400) % 2), np.arange(400) % 2, "v")
    fitted = fit(train, val, metric="auroc")
    x = train.values.astype(float)
    mean, std = x.mean(0), x.std(0)
    grid = np.geomspace(1e-6, 1e4, 11)
    slow = []
    for c in grid:
        model = LogisticRegression(C=c, max_iter=5_000).fit((x - mean) / std, labels)
        probability = model.predict_proba((val.values - mean) / std)
        slow.append(score(val.predictions(probability))["auroc"])
    assert fitted.c == pytest.approx(grid[int(np.argmax(slow))])
    assert score(fitted.val)["auroc"] == pytest.approx(max(slow))
    assert max(slow) > slow[0] + 0.02
    assert max(slow) > slow[-1] + 0.001
    assert not fitted.is_on_edge


def unequal(prefix: str, seed: int) -> Features:
    """Two in three of one class: a strong penalty calls everything the larger one."""
    rng, labels = np.random.default_rng(seed), np.arange(60) % 3 == 0
    noise = rng.normal(0, 14, (60, 2))
    return points(np.stack([100 + 40 * labels, rng.normal(128, 30, 60)], 1) + noise, labels, prefix)


@pytest.mark.parametrize("max_extensions", [0, 1, 4])
def test_an_optimum_at_the_end_of_the_grid_extends_it_and_is_flagged_if_it_stays_there(max_extensions):
    train, val = unequal("t", 1), unequal("v", 11)
    fitted = fit(train, val, lowest_c=1e-3, highest_c=1e-1, num_c=3, max_extensions=max_extensions)
    wide = fit(train, val, lowest_c=1e-6, highest_c=1e4, num_c=11, max_extensions=0)
    assert wide.c == pytest.approx(1)  # what the narrow grid lacks
    assert not wide.is_on_edge
    assert fitted.is_on_edge == (max_extensions < 2)
    if max_extensions == 4:
        assert fitted.c == pytest.approx(wide.c)
    else:
        assert fitted.c == pytest.approx(1e-1 * 10**max_extensions)


def test_a_plateau_at_the_end_of_the_grid_is_no_edge():
    labels = np.arange(20) % 2
    train, val = (points(np.stack([50 + 150 * labels], 1), labels, p) for p in "tv")
    fitted = fit(train, val, lowest_c=1e-3, highest_c=1e3, num_c=7, max_extensions=1)
    assert fitted.c == pytest.approx(1e-4)
    assert not fitted.is_on_edge


def test_among_equals_the_stronger_penalty_wins():
    labels = np.arange(20) % 2
    train, val = (points(np.stack([50 + 150 * labels], 1), labels, p) for p in "tv")
    assert fit(train, val, lowest_c=1e-3, highest_c=1e3, num_c=7, max_extensions=0).c == pytest.approx(1e-3)


def test_a_fit_that_does_not_converge_is_an_error_that_says_what_to_raise():
    with pytest.raises(RaypathError, match=r"C=.* did not converge in 1 iterations: raise protocol\.max_iter"):
        fit(colours(40, seed=0), colours(20, seed=1), max_iter=1)


def test_a_class_without_training_samples_has_probability_0_and_keeps_its_column():
    labels = np.arange(30) % 3
    features = np.stack([60 * labels + 40], 1)
    classes = ("a", "b", "c")
    train = replace(points(features[labels != 1], labels[labels != 1], "t"), classes=classes)
    val = replace(points(features, labels, "v"), classes=classes)
    probability = fit(train, val).val.probability
    assert probability.shape == (30, 3)
    assert (probability[:, 1] == 0).all()
    assert (probability[labels != 1].argmax(1) == labels[labels != 1]).all()
