"""The area under the ROC curve with an error that knows about patients.

An area is no function of counts per patient, and drawing patients again would need all pairs of images for every resample. One
decision: the closed form. Every positive image has the share of negatives it beats, every negative the share of positives that
beat it; summed per patient and centred these are the influence of that patient on the area, and their spread is its error.
Source: DeLong, DeLong and Clarke-Pearson, Biometrics 44 (1988) 837; for patients with several images, Obuchowski, Biometrics 53
(1997) 567. For more than two classes: one against the rest, averaged over the classes that are there, as `score` does.

Of nested folds only pairs within a fold are compared, because every fold's classifier has a scale of its own; the area is the share
of all those pairs that are in order, the influence is measured from that one area. (From each fold's own it would be too small:
a fold has few patients of a class, and its area bends towards them.)

What it costs: two sorts per class and fold. The interval leans on Student's t, so with fewer than ten patients of a class it is
rough.

Legend: N samples, P patients, K classes.
"""

import numpy as np
from scipy.stats import rankdata

from raypath.benchmarks.metrics.classification import Predictions


def auroc_influence(predictions: Predictions, group_of: np.ndarray, num_groups: int) -> tuple[float, np.ndarray]:
    """The area, and each patient's influence on it, float64 [P]; both NaN where no fold has two classes.

    `group_of`: int [N], the patient of every sample, below `num_groups`.
    """
    areas, influences = [], []
    for number in np.unique(predictions.label):
        is_positive = predictions.label == number
        share_won, opponents = _compared(predictions.probability[:, number], is_positive, predictions.fold)  # [N] each
        num_pairs = opponents[is_positive].sum()
        if num_pairs:
            area = (share_won * opponents)[is_positive].sum() / num_pairs
            own = (share_won - area) * opponents / num_pairs
            areas.append(area)
            influences.append(np.bincount(group_of, weights=own, minlength=num_groups))
    if not areas:
        return float("nan"), np.full(num_groups, np.nan)
    return float(np.mean(areas)), np.mean(influences, axis=0)


def _compared(value: np.ndarray, is_positive: np.ndarray, fold: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """(share won, number) of every sample's pairs with the other class in its fold, [N] each; 0 and 0 where there are none."""
    share_won, opponents = np.zeros(len(value)), np.zeros(len(value))
    folds = np.zeros(len(value), dtype=int) if fold is None else fold
    for one in np.unique(folds):
        rows = np.flatnonzero(folds == one)
        mine = is_positive[rows]
        if 0 < mine.sum() < len(mine):
            share_won[rows] = _shares_won(value[rows], mine)
            opponents[rows] = np.where(mine, (~mine).sum(), mine.sum())
    return share_won, opponents


def _shares_won(probability: np.ndarray, is_positive: np.ndarray) -> np.ndarray:
    """Of every sample's pairs with the other class, the share in which the positive has more (a tie is half), [N]."""
    rank = rankdata(probability)
    share = np.empty(len(rank))
    num_positive, num_negative = is_positive.sum(), (~is_positive).sum()
    share[is_positive] = (rank[is_positive] - rankdata(probability[is_positive])) / num_negative
    share[~is_positive] = 1 - (rank[~is_positive] - rankdata(probability[~is_positive])) / num_positive
    return share
