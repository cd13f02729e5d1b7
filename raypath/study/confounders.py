"""Confounders: whether features tell the site, the scanner or the patient of a sample, and whether those go with its class.

One decision: a plain probe (logistic regression on standardised features, not tuned) is cross-validated, and what it reads is set
against what it reads of confounders that were shuffled *among patients of one class*. So an encoder that knows the classes, on a
set whose sites differ in classes, is not said to know the sites: only what goes beyond the classes counts.

    site, scanner   folds by patient: nobody is on both sides, so that a site is not known by its patients' faces
    patient         folds within patients, of which each has samples on both sides; tiles of one slide may share more than a person

A question that cannot be asked (one group, groups of one patient each) comes back with its reason and without numbers. Who is
asked, how folds and shuffles are made: `confounder_probe`.

That a probe reads a site does not say that a score leans on it; that it reads none is the finding of one probe of one kind.
Costs num_permutations + 1 cross-validations of 5 fits: about 6 s for 1,000 samples of 1,280 numbers and 3 sites on one core.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats.contingency import crosstab
from sklearn.metrics import balanced_accuracy_score

from raypath.errors import BadInput
from raypath.study.confounder_probe import Asked, ask, cross_validated
from raypath.study.statistics import Interval, score_interval

NUM_PERMUTATIONS = 20  # the fewest that can say p < 0.05
_LEAST_P = 0.05
_LITTLE, _BY_DESIGN = (
    0.1,
    0.5,
)  # Cramer's V that Cohen calls small and large, for two classes (Power Analysis, 1988, 7.2)
_METRIC = "balanced_accuracy"


@dataclass(frozen=True, kw_only=True)
class Confounder:
    """What features say of one confounder. Numbers are None where the question cannot be asked; `reason` says why."""

    name: str
    """site, scanner, patient."""
    num_groups: int
    """Groups that were told apart."""
    read: Interval | None = None
    """Balanced accuracy of reading the group from the features."""
    shuffled: tuple[float, ...] = ()
    """The same of shuffled groups, each time."""
    guess: Interval | None = None
    """Balanced accuracy of guessing the class from the group alone; None for patients, who are never on both sides."""
    num_classes: int = 0
    cramers_v: float | None = None
    """Association of group and class, 0 to 1, corrected for its bias; each patient counts once for each of its classes."""
    notes: tuple[str, ...] = ()
    """What was left out."""
    reason: str = ""
    """Why it cannot be asked."""

    @property
    def chance(self) -> float:
        """Balanced accuracy of who knows nothing."""
        return 1 / max(1, self.num_groups)

    @property
    def p_value(self) -> float | None:
        """The share of shuffled groups that are read as well, these themselves counted (Phipson and Smyth 2010, SAGMB 9:39)."""
        if self.read is None:
            return None
        return (1 + sum(value >= self.read.estimate for value in self.shuffled)) / (1 + len(self.shuffled))

    @property
    def is_read(self) -> bool:
        """Whether the features tell the group: better than every shuffled one (of 20), with an interval above chance."""
        return self.read is not None and self.p_value < _LEAST_P and self.read.low > self.chance

    @property
    def words(self) -> str:
        """The finding in one sentence, with its numbers."""
        if self.read is None:
            return f"{self.name}: cannot be asked, {self.reason}"
        units = "patients" if self.read.level == "patient" else "samples (no patients are known)"
        shown = "can be read" if self.is_read else "is not shown to be readable"
        parts = [
            f"{self.name} {shown} from the features: {_text(self.read)} of {self.num_groups} groups, chance"
            f" {self.chance:.3f}, shuffled {np.mean(self.shuffled):.3f} (at most {max(self.shuffled):.3f}), n ="
            f" {self.read.num_patients} {units}"
        ]
        if self.cramers_v is not None:
            how = "go together" if self.cramers_v >= _LITTLE else "do not go together"
            how = "are confounded by design" if self.cramers_v >= _BY_DESIGN else how
            parts.append(f"{self.name} and class {how}: Cramer's V {self.cramers_v:.2f}")
        if self.guess is not None:
            parts.append(
                f"{self.name} alone guesses the class with {_text(self.guess)}, chance {1 / self.num_classes:.3f}"
            )
        return "; ".join([*parts, *self.notes])


def confounder(
    features: np.ndarray,
    group: Sequence[str | None],
    label: np.ndarray,
    patient: Sequence[str | None],
    *,
    name: str,
    num_permutations: int = NUM_PERMUTATIONS,
    seed: int = 0,
) -> Confounder:
    """Ask a probe on `features` [N, D] for the `group` [N] of each sample; `label` int [N], `patient` [N].

    `name` is site, scanner or "patient", whose groups are divided by the folds. A sample without a group is left out and counted;
    one without a patient stands for itself. Raises BadInput for lengths that differ or features that are not finite.
    """
    features, label = np.asarray(features), np.asarray(label)
    if features.ndim != 2 or {len(group), len(label), len(patient)} != {len(features)}:
        raise BadInput(
            f"confounder {name}: features {features.shape}, {len(group)} groups, {len(label)} labels, {len(patient)} patients;"
            " expected [N, D] and N of each"
        )
    if not np.isfinite(features).all():
        raise BadInput(f"confounder {name}: features that are not finite; take an earlier checkpoint of the encoder")
    if num_permutations < 1:
        raise ValueError(f"num_permutations={num_permutations}: expected 1 or more")
    asked = ask(group, label, patient, name=name, seed=seed)
    num_groups = len(np.unique(asked.group))
    if asked.reason:
        return Confounder(name=name, num_groups=num_groups, notes=asked.notes, reason=asked.reason)
    values, rng = features[asked.rows], np.random.default_rng(seed)
    read = score_interval(cross_validated(values, asked.group, asked, seed=seed), _METRIC, seed=seed)
    shuffled = (cross_validated(values, asked.shuffled(rng), asked, seed=seed) for _ in range(num_permutations))
    return Confounder(
        name=name,
        num_groups=num_groups,
        read=read,
        shuffled=tuple(float(balanced_accuracy_score(said.label, said.predicted)) for said in shuffled),
        guess=_guess(asked, seed),
        num_classes=len(np.unique(asked.label)),
        cramers_v=None if asked.is_within else _association(asked),
        notes=asked.notes,
    )


def _guess(asked: Asked, seed: int) -> Interval | None:
    """How far the group alone tells the class of other patients; None where a class has a single patient, or there is one class."""
    classes, number = np.unique(asked.label, return_inverse=True)
    fewest = min(len(np.unique(asked.unit[number == k])) for k in range(len(classes)))
    if asked.is_within or len(classes) < 2 or fewest < 2:
        return None
    said = cross_validated(np.eye(asked.group.max() + 1)[asked.group], number, asked, seed=seed)
    return score_interval(said, _METRIC, seed=seed)


def _association(asked: Asked) -> float | None:
    once = np.unique(
        np.stack([asked.unit, asked.group, asked.label]), axis=1
    )  # a patient's many tiles say it no better
    return cramers_v(once[1], once[2])


def _text(interval: Interval) -> str:
    return f"balanced accuracy {interval.estimate:.3f} [{interval.low:.2f}, {interval.high:.2f}]"


def cramers_v(first: np.ndarray, second: np.ndarray) -> float | None:
    """Association [0, 1] of two classifications int [N], with Bergsma's correction; None where one of them is constant.

    Source: Bergsma, Journal of the Korean Statistical Society 42 (2013) 323: without the correction few samples of many groups
    seem to go together.
    """
    counts = crosstab(first, second).count.astype(np.float64)
    num, (num_rows, num_columns) = counts.sum(), counts.shape
    if min(num_rows, num_columns) < 2:
        return None
    expected = counts.sum(1, keepdims=True) * counts.sum(0) / num
    excess = max(
        0.0, ((counts - expected) ** 2 / expected).sum() / num - (num_rows - 1) * (num_columns - 1) / (num - 1)
    )
    least = min(length - (length - 1) ** 2 / (num - 1) for length in counts.shape) - 1
    return float(min(1.0, np.sqrt(excess / least))) if least > 0 else None
