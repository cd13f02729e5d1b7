"""The probe: a frozen encoder and one linear layer, its decay chosen on val.

One decision: the linear layer is multinomial logistic regression solved to convergence on standardised features (scikit-learn),
so that nothing but the strength of its L2 penalty is left to tune, over ten decades. An optimum on the edge of the grid is
flagged, and a fit that did not converge is an error: both would make an encoder look worse than it is.
"""

import warnings
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from raypath.benchmarks import Predictions, score
from raypath.errors import RaypathError
from raypath.protocols.features import features_of
from raypath.protocols.samples import Samples


@dataclass(frozen=True, kw_only=True)
class ProbeSettings:
    """The grid of inverse penalties C of scikit-learn's LogisticRegression."""

    kind: Literal["probe"] = "probe"
    lowest_c: float = 1e-6
    highest_c: float = 1e4
    num_c: int = 11
    max_iter: int = 5_000

    def __post_init__(self):
        if not 0 < self.lowest_c <= self.highest_c:
            raise ValueError(
                f"lowest_c={self.lowest_c}, highest_c={self.highest_c}: expected 0 < lowest_c <= highest_c"
            )
        if self.num_c < 1 or self.max_iter < 1:
            raise ValueError(f"num_c={self.num_c}, max_iter={self.max_iter}: expected 1 or more")


@dataclass(frozen=True, eq=False)
class Probe:
    """A fitted probe; `c` is the penalty that was chosen, `is_on_edge` whether the grid ended there."""

    encoder: nn.Module
    classifier: Pipeline
    c: float
    is_on_edge: bool
    val: Predictions

    def predict(self, samples: Samples, device: torch.device) -> Predictions:
        """Class probabilities of samples."""
        features = features_of(self.encoder, samples.images, device)
        return samples.predictions(_probability(self.classifier, features, len(samples.classes)))


def probe(
    encoder: nn.Module, train: Samples, val: Samples, settings: ProbeSettings, *, metric: str, device: torch.device
) -> Probe:
    """Fit on train for every C, keep the one with the best `metric` on val (the stronger penalty among equals)."""
    x_train, x_val = (features_of(encoder, s.images, device) for s in (train, val))
    grid = np.geomspace(settings.lowest_c, settings.highest_c, settings.num_c)
    tried = []
    for c in grid.tolist():
        classifier = _fit(x_train, train.labels, c, settings.max_iter)
        predictions = val.predictions(_probability(classifier, x_val, len(val.classes)))
        tried.append((score(predictions)[metric], c, classifier, predictions))
    best = max(tried, key=lambda t: (round(t[0], 9), -t[1]))
    return Probe(encoder, best[2], best[1], best[1] in (grid[0], grid[-1]), best[3])


def _fit(features: np.ndarray, labels: np.ndarray, c: float, max_iter: int) -> Pipeline:
    classifier = make_pipeline(StandardScaler(), LogisticRegression(C=c, max_iter=max_iter))
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        try:
            return classifier.fit(features, labels)
        except ConvergenceWarning:
            raise RaypathError(
                f"probe: logistic regression with C={c:g} did not converge in {max_iter} iterations: raise protocol.max_iter"
            ) from None


def _probability(classifier: Pipeline, features: np.ndarray, num_classes: int) -> np.ndarray:
    """[N, K]; a class that the training samples lack has probability 0."""
    probability = np.zeros((len(features), num_classes), np.float32)
    probability[:, classifier[-1].classes_] = classifier.predict_proba(features)
    return probability
