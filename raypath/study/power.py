"""The smallest difference a benchmark can show, known before any test is opened.

One decision: the design and nothing else. Which images are of which class and patient is known beforehand; how two encoders will
answer is not, and stands here as assumptions that are printed with the result. Every image has a weight in the score (1 / N, or
1 / (K N_k) in balanced accuracy), a difference has the variance

    v x ((1 - rho) sum of w_i^2 + rho sum over patients of (sum of their w_i)^2)

which for equal weights is the design effect of Kish (Survey Sampling, 1965): v / N x (1 + (m - 1) rho), m the mean size of an
image's patient, so patients of uneven size count as fewer. With v the variance of "a right minus b right" (q - d^2 where the two
disagree about a share q of the images and d is the difference), d solves d = (t_(1 - alpha / 2) + t_power) x error. Student's
t has as many degrees of freedom as there are patients of equal share, less one (Satterthwaite 1946).

For the area under the ROC curve an image's weight is 1 / N of its class and its variance that of Hanley and McNeil, Radiology 143
(1982) 29, times 2 (1 - r) for areas that correlate by r (Radiology 148 (1983) 839); with more than two classes the mean of the
errors of one against the rest, which is too large rather than too small.

Scores of pixels and kappas have no such formula: what an image adds to them varies by an amount that nobody knows beforehand. For
those the difference is told in standard deviations of that amount (`in_deviations`): v = 1 and equal weights.

In a study a difference is one of many, and Holm's correction asks more of it. How much depends on the other p-values: at most, for
the smallest of them, the level alpha / number of comparisons (Bonferroni), which is what the second number says.

One checkpoint against one: pretraining seeds are not in it. What it costs: nothing. Legend: N images, K classes, P patients.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.stats import t as t_distribution

from raypath.benchmarks.benchmark import Primary
from raypath.errors import BadInput

METRICS_WITH_POWER = ("accuracy", "balanced_accuracy", "auroc")


@dataclass(frozen=True, kw_only=True)
class Assumptions:
    """What is not known before the test is opened."""

    disagreement: float = 0.2
    """Share of images on which exactly one of the two encoders is right (0.15 to 0.21 in the measurement below)."""
    correlation: float = 0.05
    """Of "a right minus b right" between two images of one patient. Measured by analysis of variance on 921 IDC tiles of 60
    patients (ImageNet and random EfficientNet-Lite0, colour; logistic regression, folds by patient): 0.02 to 0.03. Twice that,
    because it is one set."""
    area: float = 0.85
    """AUROC of the two."""
    area_correlation: float = 0.5
    """Of the two areas, over tests."""
    power: float = 0.8
    alpha: float = 0.05
    """Two-sided."""

    def __post_init__(self) -> None:
        for name in ("disagreement", "area", "power", "alpha"):
            if not 0 < getattr(self, name) < 1:
                raise BadInput(f"assumption {name} = {getattr(self, name)}: expected more than 0 and less than 1")
        for name in ("correlation", "area_correlation"):
            if not 0 <= getattr(self, name) < 1:
                raise BadInput(f"assumption {name} = {getattr(self, name)}: expected 0 or more and less than 1")


@dataclass(frozen=True, kw_only=True)
class Detectable:
    """The smallest difference that is found with the assumed power, as a fraction."""

    difference: float
    corrected: float
    """The same where it is one of several comparisons: the most that Holm's correction can ask."""
    num_samples: int
    num_patients: int
    """Patients, or images where the benchmark has none."""
    effective_patients: float
    """Patients of equal share that would tell as much."""
    design_effect: float
    """How many times the variance of images that are strangers to each other."""
    words: str
    """One line: the number and what was assumed."""


def smallest_detectable(
    label: Sequence[int],
    patient: Sequence[str | None],
    metric: Primary = "balanced_accuracy",
    assumptions: Assumptions = Assumptions(),
    *,
    num_comparisons: int = 1,
) -> Detectable:
    """What a test of images with these labels [N] and patients [N] can show, alone and as one of `num_comparisons`.

    Images without a patient stand for themselves; so do all, where they are of one. Raises BadInput for a metric that is not one of
    accuracy, balanced_accuracy and auroc, fewer than two patients, or one class alone (auroc).
    """
    label = np.asarray(label)
    if metric not in METRICS_WITH_POWER:
        raise BadInput(f"smallest difference of {metric!r}: expected one of {', '.join(METRICS_WITH_POWER)}")
    group_of, is_by_patient = _units(patient)
    if len(label) != len(group_of) or group_of.max(initial=0) < 1:
        raise BadInput(f"{len(label)} labels, {len(group_of)} patients: expected as many, and two patients or more")
    of_design = _areas if metric == "auroc" else _answers
    difference, effective, design_effect = of_design(label, group_of, metric, assumptions)
    corrected, *_ = of_design(label, group_of, metric, _corrected(assumptions, num_comparisons))
    among = f" ({100 * corrected:.1f} where it is one of {num_comparisons} comparisons)" if num_comparisons > 1 else ""
    return Detectable(
        difference=difference,
        corrected=corrected,
        num_samples=len(label),
        num_patients=int(group_of.max()) + 1,
        effective_patients=effective,
        design_effect=design_effect,
        words=f"{metric}: differences from {100 * difference:.1f} points on are found in {assumptions.power:.0%} of tests{among};"
        f" {_tested(group_of, is_by_patient)}; {_assumed(metric, assumptions, is_by_patient)}",
    )


def in_deviations(
    patient: Sequence[str | None],
    metric: Primary,
    assumptions: Assumptions = Assumptions(),
    *,
    num_comparisons: int = 1,
) -> str:
    """One line of what a test of images of these patients [N] can show by a score without a formula, as a mean over images.

    Raises BadInput for fewer than two patients.
    """
    group_of, is_by_patient = _units(patient)
    if group_of.max(initial=0) < 1:
        raise BadInput(f"{len(group_of)} images of one patient: expected two or more")
    weight = np.full(len(group_of), 1 / len(group_of))
    parts = _variance_by_patient(weight, np.ones(len(weight)), group_of, assumptions.correlation)
    alone, among = (
        _steps(parts, assumed) * np.sqrt(parts.sum())
        for assumed in (assumptions, _corrected(assumptions, num_comparisons))
    )
    corrected = f" ({among:.2f} where it is one of {num_comparisons} comparisons)" if num_comparisons > 1 else ""
    within = f"; assumed: correlation within patients {assumptions.correlation:g}" if is_by_patient else ""
    return (
        f"{metric}: no formula in points; differences from {alone:.2f} standard deviations of an image's difference on are found in"
        f" {assumptions.power:.0%} of tests{corrected}: {10 * alone:.1f} points where images differ by 10;"
        f" {_tested(group_of, is_by_patient)}{within}"
    )


def _units(patient: Sequence[str | None]) -> tuple[np.ndarray, bool]:
    """The patient of every image int64 [N], or the image itself; and whether they are patients."""
    is_by_patient = len(set(patient)) > 1
    names = [p if is_by_patient and p is not None else f"\0{row}" for row, p in enumerate(patient)]
    return np.unique(np.asarray(names, dtype=object), return_inverse=True)[1], is_by_patient


def _corrected(assumptions: Assumptions, num_comparisons: int) -> Assumptions:
    return replace(assumptions, alpha=assumptions.alpha / max(1, num_comparisons))


def _tested(group_of: np.ndarray, is_by_patient: bool) -> str:
    unit = "patients" if is_by_patient else "images, image-level"
    return f"{group_of.max() + 1} {unit}, {len(group_of)} samples"


def _answers(label: np.ndarray, group_of: np.ndarray, metric: str, assumed: Assumptions) -> tuple[float, float, float]:
    """Difference, effective patients and design effect of a score that counts what is right."""
    counts = np.bincount(label)
    num_classes = np.count_nonzero(counts)
    weight = np.full(len(label), 1 / len(label)) if metric == "accuracy" else 1 / (num_classes * counts[label])
    parts = _variance_by_patient(weight, np.ones(len(label)), group_of, assumed.correlation)
    unit = (_steps(parts, assumed) ** 2) * parts.sum()  # d^2 = unit x (q - d^2)
    difference = np.sqrt(unit * assumed.disagreement / (1 + unit))
    if difference > assumed.disagreement:  # they must disagree more, and b is right nowhere that a is wrong: q = d
        difference = unit / (1 + unit)
    return float(difference), _effective(parts), float(parts.sum() / (weight**2).sum())


def _areas(label: np.ndarray, group_of: np.ndarray, metric: str, assumed: Assumptions) -> tuple[float, float, float]:
    """The same of the area under the ROC curve, where effective patients and design effect are means over classes."""
    present = np.unique(label)
    if len(present) < 2:
        raise BadInput(f"smallest difference of {metric!r}: only one class has samples; expected two or more")
    area, found = assumed.area, []
    of_positive, of_negative = area / (2 - area) - area**2, 2 * area**2 / (1 + area) - area**2
    for number in present:
        is_positive = label == number
        weight = 1 / np.where(is_positive, is_positive.sum(), (~is_positive).sum())
        variance = 2 * (1 - assumed.area_correlation) * np.where(is_positive, of_positive, of_negative)
        parts = _variance_by_patient(weight, variance, group_of, assumed.correlation)
        difference = _steps(parts, assumed) * np.sqrt(parts.sum())
        found.append((difference, _effective(parts), parts.sum() / (variance * weight**2).sum()))
    difference, effective, design_effect = np.mean(found, axis=0)
    return float(min(difference, 1)), float(effective), float(design_effect)


def _variance_by_patient(
    weight: np.ndarray, variance: np.ndarray, group_of: np.ndarray, correlation: float
) -> np.ndarray:
    """Each patient's part of the variance of the weighted sum [P]."""
    alone = np.bincount(group_of, weights=weight**2 * variance)
    together = np.bincount(group_of, weights=weight * np.sqrt(variance)) ** 2
    return (1 - correlation) * alone + correlation * together


def _effective(parts: np.ndarray) -> float:
    return float(parts.sum() ** 2 / (parts**2).sum())


def _steps(parts: np.ndarray, assumed: Assumptions) -> float:
    """How many standard errors a difference must be away from zero."""
    freedom = max(_effective(parts) - 1, 1)
    return float(t_distribution.ppf(1 - assumed.alpha / 2, freedom) + t_distribution.ppf(assumed.power, freedom))


def _assumed(metric: str, assumed: Assumptions, is_by_patient: bool) -> str:
    what = (
        f"areas of {assumed.area:g} that correlate by {assumed.area_correlation:g}"
        if metric == "auroc"
        else f"disagreement {assumed.disagreement:.0%}"
    )
    within = f", correlation within patients {assumed.correlation:g}" if is_by_patient else ""
    return f"assumed: {what}{within}, {assumed.alpha:.0%} level"
