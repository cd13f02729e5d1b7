"""The interval of a score with so few errors, or none, that drawing patients again shows hardly another score.

Of 20 patients without an error every resample is without an error: its interval has no width, and says nothing of the one patient
in thirty who would have been wrong. One decision: the score is taken as a share, with Clopper and Pearson's exact bounds, of as
many independent trials as have the score's error: n = p (1 - p) / error^2, times the squared ratio of the normal and Student's
quantile. That is what surveys do: Korn and Graubard, Survey Methodology 24 (1998) 193; Clopper and Pearson, Biometrika 26 (1934)
404. Without any error there is no such n; then it is the number of patients, as if all images of a patient were right or wrong
together (the "rule of three" of Hanley and Lippman-Hand, JAMA 249 (1983) 1743, by patients), which is cautious.

Two scores' bounds make those of their difference as if they were independent: Newcombe, Statistics in Medicine 17 (1998) 873,
method 10. Encoders err on the same patients, so it is cautious too. What it costs: nothing.
"""

import numpy as np
from scipy.stats import beta, norm
from scipy.stats import t as t_distribution

SMALLEST_ERROR = 1e-9  # a standard error below it is rounding


def share_bounds(
    estimate: float, error: float, num_patients: int, num_alike: float, confidence: float
) -> tuple[float, float]:
    """Low and high of a score from 0 to 1 with this standard error, over patients.

    `num_alike`: as how many independent trials the patients count where nothing varies. NaN for a score that is NaN.
    """
    if np.isnan(estimate):
        return float("nan"), float("nan")
    tail = (1 - confidence) / 2
    if error > SMALLEST_ERROR:
        ratio = norm.ppf(tail) / t_distribution.ppf(tail, num_patients - 1)
        num = estimate * (1 - estimate) / error**2 * ratio**2
    else:
        estimate, num = np.round(estimate, 9), num_alike
    right, wrong = num * estimate, num * (1 - estimate)
    low = beta.ppf(tail, right, wrong + 1) if right > 0 else 0.0
    high = beta.ppf(1 - tail, right + 1, wrong) if wrong > 0 else 1.0
    return float(low), float(high)


def difference_bounds(a: tuple[float, float, float], b: tuple[float, float, float]) -> tuple[float, float]:
    """Low and high of a - b; each is (estimate, low, high)."""
    difference = a[0] - b[0]
    return difference - np.hypot(a[0] - a[1], b[2] - b[0]), difference + np.hypot(a[2] - a[0], b[0] - b[1])


def trials_of_classes(patients_of_class: np.ndarray, num_patients: int) -> float:
    """As how many independent trials patients count in a mean over K classes: the variance of such a mean is that of
    K^2 / sum of 1 / patients of each class; a patient with several classes is one patient still.

    `patients_of_class`: int [K]; classes without a patient are no part of the mean.
    """
    present = patients_of_class[patients_of_class > 0]
    return float(min(num_patients, len(present) ** 2 / (1 / present).sum()))
