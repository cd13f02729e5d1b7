"""Whether two encoders differ, by swapping them: the paired permutation test over patients, and Holm's correction for many tests.

One decision: what is swapped is a whole patient, all images and all seeds of it, because images of one patient say the same thing
several times. Where encoder names mean nothing, a patient's two answers could as well have come the other way round. Scores of
counts are computed anew after every swap; of several checkpoints and fit seeds the mean counts are scored, which for accuracy
and balanced accuracy is the mean of their scores. The area under the ROC curve has no such counts: there the signs of the patients'
jackknife pseudo-values of the difference are swapped, which is the same to first order.

The population is always this checkpoint (or these): swapping patients says nothing of other pretraining seeds.

Sources: Good, Permutation Tests (2000); Phipson and Smyth, Stat. Appl. Genet. Mol. Biol. 9 (2010) 39 (the + 1: a test of R
swaps never says less than 1 / (R + 1)); Holm, Scand. J. Statist. 6 (1979) 65.

What it costs: R x P x C products (10,000 x 300 x 24: 0.1 s). Below 6 patients no p-value can be less than 0.05.

Legend: R permutations, P patients, C numbers that are counted, M members.
"""

from collections.abc import Sequence

import numpy as np

from raypath.benchmarks.benchmark import Primary
from raypath.errors import BadInput
from raypath.study.alignment import Checkpoints, Members, groups_of, members_of
from raypath.study.auroc import auroc_influence
from raypath.study.counts import COUNTED
from raypath.study.statistics import check_metric

MAX_BLOCK_NUMBERS = 4_000_000  # floats of one block of swaps: 32 MB
ROUNDING = 1e-12  # equal differences may differ by it


def permutation_p(
    a: Checkpoints,
    b: Checkpoints,
    metric: Primary = "balanced_accuracy",
    *,
    num_permutations: int = 10_000,
    seed: int = 0,
) -> float:
    """Two-sided p-value of "a and b are alike on these patients"; each is one prediction, or checkpoints x fits.

    NaN where a score is undefined. Raises BadInput as `paired_difference` does.
    """
    members = members_of(a, b)
    check_metric(metric, members)
    group_of, num_groups, _ = groups_of(members.predictions[0])
    rng = np.random.default_rng(seed)
    block = max(1, MAX_BLOCK_NUMBERS // num_groups)
    sizes = [min(block, num_permutations - first) for first in range(0, num_permutations, block)]
    if metric == "auroc":
        observed, swapped = _areas(members, group_of, num_groups)
    else:
        observed, swapped = _counts(members, metric, group_of, num_groups)
    if np.isnan(observed):
        return float("nan")
    differences = np.concatenate([swapped(rng.integers(2, size=(size, num_groups)).astype(float)) for size in sizes])
    num_as_far = int((np.abs(differences) >= abs(observed) - ROUNDING).sum())
    return (1 + num_as_far) / (1 + num_permutations)


def holm(p_values: Sequence[float]) -> np.ndarray:
    """Adjusted p-values float64, in the order given: below 0.05 means significant among all of them at 5 %.

    Raises BadInput for what is no probability.
    """
    p = np.asarray(p_values, dtype=float)
    if not ((p >= 0) & (p <= 1)).all():
        raise BadInput(f"p-values {p.tolist()}: expected numbers from 0 to 1; leave out comparisons that have none")
    order = np.argsort(p)
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)), 1)
    return adjusted


def _counts(members: Members, metric: str, group_of: np.ndarray, num_groups: int):
    """The difference, and a function from swaps [R, P] (1: swapped) to differences [R]."""
    counted = COUNTED[metric]
    of_each = np.array([counted.count(each, group_of, num_groups) for each in members.predictions])  # [M, P, C]
    a, b = (np.einsum("m,mpc->pc", members.share * (members.side == side), of_each) for side in (0, 1))

    def swapped(swaps: np.ndarray) -> np.ndarray:
        moved = swaps @ (b - a)
        with np.errstate(divide="ignore", invalid="ignore"):
            difference = counted.score(a.sum(axis=0) + moved) - counted.score(b.sum(axis=0) - moved)
        return np.nan_to_num(difference)  # undefined after a swap: no difference

    with np.errstate(divide="ignore", invalid="ignore"):
        return counted.score(a.sum(axis=0)) - counted.score(b.sum(axis=0)), swapped


def _areas(members: Members, group_of: np.ndarray, num_groups: int):
    """The same of the area under the ROC curve."""
    parts = [auroc_influence(each, group_of, num_groups) for each in members.predictions]
    observed = members.weight @ np.array([area for area, _ in parts])
    pseudo_values = observed + num_groups * (members.weight @ np.array([influence for _, influence in parts]))
    return observed, lambda swaps: (1 - 2 * swaps) @ pseudo_values / num_groups
