"""The area under the ROC curve with an error that knows about patients.

An area is no function of counts per patient, and drawing patients again would need all pairs of images for every resample. One
decision: the closed form. Every positive image has the share of negatives it beats, every negative the share of positives that
beat it; summed per patient and centred these are the influence of that patient on the area, and their spread is its error.
Source: DeLong, DeLong and Clarke-Pearson, Biometrics 44 (1988) 837; for patients with several images, Obuchowski, Biometrics 53
(1997) 567. For more than two classes: one against the rest, averaged over the classes that are there, as `score` does.

What it costs: two sorts per class. The interval leans on Student's t, so with fewer than ten patients of a class it is rough.

Legend: N samples, P patients, K classes.
"""

import numpy as np
from scipy.stats import rankdata

from raypath.benchmarks.metrics.classification import Predictions


def auroc_influence(predictions: Predictions, group_of: np.ndarray, num_groups: int) -> tuple[float, np.ndarray]:
    """The area, and each patient's influence on it, float64 [P]; both NaN where only one class has samples.

    `group_of`: int [N], the patient of every sample, below `num_groups`.
    """
    present = np.unique(predictions.label)
    if len(present) < 2:
        return float("nan"), np.full(num_groups, np.nan)
    areas, influences = [], []
    for number in present:
        is_positive = predictions.label == number
        share_won = _shares_won(predictions.probability[:, number], is_positive)  # [N]
        area = share_won[is_positive].mean()
        count = np.where(is_positive, is_positive.sum(), (~is_positive).sum())
        areas.append(area)
        influences.append(np.bincount(group_of, weights=(share_won - area) / count, minlength=num_groups))
    return float(np.mean(areas)), np.mean(influences, axis=0)


def _shares_won(probability: np.ndarray, is_positive: np.ndarray) -> np.ndarray:
    """Of every sample's pairs with the other class, the share in which the positive has more (a tie is half), [N]."""
    rank = rankdata(probability)
    share = np.empty(len(rank))
    num_positive, num_negative = is_positive.sum(), (~is_positive).sum()
    share[is_positive] = (rank[is_positive] - rankdata(probability[is_positive])) / num_negative
    share[~is_positive] = 1 - (rank[~is_positive] - rankdata(probability[~is_positive])) / num_positive
    return share
