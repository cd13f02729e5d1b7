"""The SVM of the second paper: frozen features, a linear machine, its penalty by cross-validation inside the training samples.

One decision: it is the paper's protocol as it stands (arXiv 2005.02561): LIBLINEAR on the features as they are (not standardised),
C of 1e-10 to 1 in decades by 5-fold cross-validation with patients (else slides, else images with their copies and parts)
undivided, then one fit on all training samples; val is scored, and for the test the whole of it is done again on train and val
together. Its scores are no probabilities: they are squashed so that order and the winning class stay.

Costs 11 x 5 fits: seconds for a thousand samples of 1,000 features.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.special import softmax
from sklearn.metrics import accuracy_score, roc_auc_score
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from raypath.errors import BadInput
from raypath.protocols.features import Features


@dataclass(frozen=True, kw_only=True)
class SvmSettings:
    """The grid of C and the folds that choose from it; defaults are the second paper's."""

    kind: Literal["svm"] = "svm"
    lowest_c: float = 1e-10
    highest_c: float = 1.0
    num_c: int = 11
    num_folds: int = 5
    is_standardised: bool = False
    """Whether features get mean 0 and spread 1 first; the paper's have not."""
    is_refitted: bool = True
    """Whether the machine for the test is chosen and fitted on train and val together."""

    def __post_init__(self):
        if not 0 < self.lowest_c <= self.highest_c:
            raise ValueError(
                f"lowest_c={self.lowest_c}, highest_c={self.highest_c}: expected 0 < lowest_c <= highest_c"
            )
        if self.num_c < 1 or self.num_folds < 2:
            raise ValueError(f"num_c={self.num_c}, num_folds={self.num_folds}: expected 1 or more and 2 or more")


@dataclass(frozen=True, eq=False)
class Svm:
    """A fitted machine; `c` was chosen with the cross-validated score `cv_score`."""

    machine: Pipeline
    c: float
    cv_score: float
    num_classes: int
    spread: float
    """Of the decisions on the training samples: with a small C they are tiny, and squashed as they are they would all be equal."""

    def probability(self, values: np.ndarray) -> np.ndarray:
        """Squashed decisions float32 [N, K] of features [N, D]; a class without training samples has 0."""
        decision = self.machine.decision_function(values) / self.spread
        return squashed(decision, self.machine.classes_, self.num_classes)


def fit_svm(train: Features, settings: SvmSettings, *, seed: int) -> Svm:
    """Choose C by cross-validation on `train`, then fit all of it (of equals the smaller C).

    The score is the accuracy, for two classes the ROC AUC (the paper's transfer score). Raises BadInput if there are fewer patients
    (or samples) of a class than folds.
    """
    folds = _folds(train, settings, seed)
    grid = np.geomspace(settings.lowest_c, settings.highest_c, settings.num_c).tolist()
    scores = [float(np.mean([_fold_score(train, fold, c, settings) for fold in folds])) for c in grid]
    best = int(np.argmax(np.round(scores, 9)))
    machine = _machine(grid[best], settings).fit(train.values.astype(np.float64), train.labels)
    spread = float(machine.decision_function(train.values.astype(np.float64)).std())
    return Svm(machine, grid[best], scores[best], len(train.classes), spread or 1.0)


def squashed(decision: np.ndarray, classes: np.ndarray, num_classes: int) -> np.ndarray:
    """Decisions [N] (two classes) or [N, k] as rows that sum to 1: the logistic function or a softmax over the classes seen."""
    logits = np.stack([np.zeros_like(decision), decision], 1) if decision.ndim == 1 else decision
    probability = np.zeros((len(logits), num_classes), np.float32)
    probability[:, classes] = softmax(logits, axis=1)
    return probability


def _machine(c: float, settings: SvmSettings) -> Pipeline:
    steps = [StandardScaler()] if settings.is_standardised else []
    return make_pipeline(*steps, LinearSVC(C=c, dual="auto", random_state=0, max_iter=10_000))


def _folds(train: Features, settings: SvmSettings, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    groups = train.groups
    present = np.unique(train.labels)
    fewest = min(len(set(groups[train.labels == label])) for label in present)
    if len(present) < 2 or fewest < settings.num_folds:
        raise BadInput(
            f"svm: {len(present)} classes in the training samples, the smallest with {fewest} patients (or images);"
            f" cross-validation in {settings.num_folds} folds needs as many of each: lower protocol.num_folds, or use probe"
        )
    dealer = StratifiedGroupKFold(settings.num_folds, shuffle=True, random_state=seed)
    return list(dealer.split(train.values, train.labels, groups))


def _fold_score(train: Features, fold: tuple[np.ndarray, np.ndarray], c: float, settings: SvmSettings) -> float:
    inside, outside = fold
    machine = _machine(c, settings).fit(train.values[inside].astype(np.float64), train.labels[inside])
    values, labels = train.values[outside].astype(np.float64), train.labels[outside]
    if len(train.classes) == 2 and len(np.unique(labels)) == 2:
        return float(roc_auc_score(labels, machine.decision_function(values)))
    return float(accuracy_score(labels, machine.predict(values)))
