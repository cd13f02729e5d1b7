"""The probe: a frozen encoder and one linear layer, its decay chosen on val.

One decision: the linear layer is multinomial logistic regression solved to convergence on standardised features (scikit-learn),
so that nothing but the strength of its L2 penalty is left to tune, over ten decades. An optimum on the edge of the grid extends
the grid; one that is still on it then is flagged, and a fit that did not converge is an error: both would make an encoder look
worse than it is.
"""

import warnings
from dataclasses import dataclass
from typing import Literal

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from raypath.benchmarks import Predictions, score
from raypath.errors import RaypathError
from raypath.protocols.features import Features


@dataclass(frozen=True, kw_only=True)
class ProbeSettings:
    """The grid of inverse penalties C of scikit-learn's LogisticRegression."""

    kind: Literal["probe"] = "probe"
    lowest_c: float = 1e-6
    highest_c: float = 1e4
    num_c: int = 11
    max_extensions: int = 3
    """How often the grid grows by a step beyond an edge that the optimum lies on."""
    max_iter: int = 5_000

    def __post_init__(self):
        if not 0 < self.lowest_c <= self.highest_c:
            raise ValueError(
                f"lowest_c={self.lowest_c}, highest_c={self.highest_c}: expected 0 < lowest_c <= highest_c"
            )
        if self.num_c < 1 or self.max_iter < 1:
            raise ValueError(f"num_c={self.num_c}, max_iter={self.max_iter}: expected 1 or more")
        if self.max_extensions < 0:
            raise ValueError(f"max_extensions={self.max_extensions}: expected 0 or more")


@dataclass(frozen=True, eq=False)
class Probe:
    """A fitted probe; `c` is the penalty that was chosen, `is_on_edge` whether the score still rises beyond the grid."""

    classifier: Pipeline
    c: float
    is_on_edge: bool
    num_classes: int
    val: Predictions

    def probability(self, values: np.ndarray) -> np.ndarray:
        """Class probabilities float32 [N, K] of features [N, D]; a class without training samples has 0."""
        return _probability(self.classifier, values, self.num_classes)


def fit_probe(train: Features, val: Features, settings: ProbeSettings, *, metric: str) -> Probe:
    """Fit on train for every C, keep the one with the best `metric` on val (the stronger penalty among equals).

    Raises RaypathError for a fit that does not converge.
    """
    grid = np.geomspace(settings.lowest_c, settings.highest_c, settings.num_c).tolist()
    ratio = grid[1] / grid[0] if len(grid) > 1 else 10.0
    tried = {c: _tried(train, val, c, settings, metric) for c in grid}
    for _ in range(settings.max_extensions):
        best = _best(tried)
        if best not in (min(tried), max(tried)) or len(grid) == 1:
            break
        further = best / ratio if best == min(tried) else best * ratio
        tried[further] = _tried(train, val, further, settings, metric)
    best = _best(tried)
    _, classifier, predictions = tried[best]
    return Probe(classifier, best, _is_on_edge(tried, best), len(train.classes), predictions)


def _is_on_edge(tried: dict[float, tuple], best: float) -> bool:
    """Whether the score still rises towards the end where `best` lies; a plateau that ends there promises nothing beyond."""
    if best not in (min(tried), max(tried)) or len(tried) == 1:
        return len(tried) == 1
    inwards = sorted(tried)[1 if best == min(tried) else -2]
    return round(tried[best][0], 9) > round(tried[inwards][0], 9)


def _best(tried: dict[float, tuple]) -> float:
    return max(tried, key=lambda c: (round(tried[c][0], 9), -c))


def _tried(train: Features, val: Features, c: float, settings: ProbeSettings, metric: str) -> tuple:
    classifier = _fit(train.values, train.labels, c, settings.max_iter)
    predictions = val.predictions(_probability(classifier, val.values, len(val.classes)))
    return score(predictions)[metric], classifier, predictions


def _fit(features: np.ndarray, labels: np.ndarray, c: float, max_iter: int) -> Pipeline:
    classifier = make_pipeline(StandardScaler(), LogisticRegression(C=c, max_iter=max_iter))
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        try:
            return classifier.fit(features, labels)
        except ConvergenceWarning:
            raise RaypathError(
                f"probe: C={c:g} did not converge in {max_iter} iterations: raise protocol.max_iter"
            ) from None


def _probability(classifier: Pipeline, features: np.ndarray, num_classes: int) -> np.ndarray:
    """Class probabilities float32 [N, K]; a class that training never saw has 0."""
    probability = np.zeros((len(features), num_classes), np.float32)
    probability[:, classifier.classes_] = classifier.predict_proba(features)
    return probability
