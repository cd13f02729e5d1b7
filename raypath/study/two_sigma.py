"""The two-sigma rule: a named alternative to intervals, as the second of the two papers behind raypath applies it.

Mormont, Geurts and Marée, Multi-task pre-training of deep neural networks for digital pathology, IEEE JBHI 25 (2021) 412: a
difference of means over seeds is significant where it exceeds twice the larger of the two standard deviations.

One decision: it is the paper's rule and no test. It knows nothing of patients (a test of 20 patients and one of 2,000 are the same
to it), nor of how many seeds there are; so it stands beside the intervals in a report and never in their place.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from raypath.errors import BadInput


@dataclass(frozen=True, eq=False)
class TwoSigma:
    """What the rule says of each comparison of a with b."""

    difference: np.ndarray
    """float64 [N], mean of a minus mean of b, in the unit of the scores."""
    is_significant: np.ndarray
    """bool [N]."""

    @property
    def num_better(self) -> int:
        """Comparisons where a has the larger mean, significant or not."""
        return int((self.difference > 0).sum())

    @property
    def num_significantly_better(self) -> int:
        """Those of them that are significant."""
        return int((self.is_significant & (self.difference > 0)).sum())

    @property
    def num_significantly_worse(self) -> int:
        """Comparisons where a is significantly below b."""
        return int((self.is_significant & (self.difference < 0)).sum())


def two_sigma(mean_a: ArrayLike, sigma_a: ArrayLike, mean_b: ArrayLike, sigma_b: ArrayLike) -> TwoSigma:
    """Apply the rule to tables of means and standard deviations over seeds [N], in any one unit; larger is better.

    A sigma of 0 stands for what has no seeds (a frozen encoder with a support vector machine). Raises BadInput for a sigma that is
    negative, and for a number that is not finite: leave such comparisons out.
    """
    values = np.broadcast_arrays(
        *(np.atleast_1d(np.asarray(v, dtype=float)) for v in (mean_a, sigma_a, mean_b, sigma_b))
    )
    if not all(np.isfinite(v).all() for v in values) or (values[1] < 0).any() or (values[3] < 0).any():
        raise BadInput(
            "two-sigma rule: a mean or sigma is missing or a sigma negative; leave out comparisons without both"
        )
    difference = values[0] - values[2]
    return TwoSigma(difference, np.abs(difference) > 2 * np.maximum(values[1], values[3]))
