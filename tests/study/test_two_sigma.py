"""The two-sigma rule, and the counts that the paper prints."""

import os
from pathlib import Path

import numpy as np
import pytest

from raypath.data.csv_files import csv_table
from raypath.errors import BadInput
from raypath.study.two_sigma import two_sigma

ROOT = Path(__file__).resolve().parents[2]
REAL = Path(os.environ.get("RAYPATH_REAL_DATA", ROOT / "../shared/data"))
GOLDEN = REAL / "golden" / "mtask_results.csv"


def test_twice_the_larger_sigma():
    found = two_sigma([3.0, 3.0, 3.0, 1.0, 2.0], [1.0, 0.5, 1.5, 0.1, 0.0], 1.0, [0.5, 0.9, 0.2, 0.2, 0.4])
    assert found.is_significant.tolist() == [False, True, False, False, True]
    assert found.difference == pytest.approx([2, 2, 2, 0, 1])
    assert (found.num_better, found.num_significantly_better, found.num_significantly_worse) == (4, 2, 0)
    other_way = two_sigma(1.0, 0.9, 3.0, 0.5)
    assert (other_way.num_better, other_way.num_significantly_worse) == (0, 1)


def test_bad_input():
    for mean, sigma in ((np.nan, 1), (1, np.nan), (1, -0.1)):
        with pytest.raises(BadInput, match="two-sigma rule"):
            two_sigma(mean, sigma, 0, 0)


@pytest.mark.real
@pytest.mark.skipif(not GOLDEN.is_file(), reason=f"no published tables at {GOLDEN}; set RAYPATH_REAL_DATA")
@pytest.mark.parametrize(
    ("a", "b", "counts"),
    [
        # Mormont et al. 2021: better, significantly better, significantly worse of 20
        (("fe_mtask_mean", "fe_mtask_std"), ("fe_imagenet", None), (15, 11, 2)),
        (("ft_mtask_mean", "ft_mtask_std"), ("ft_imagenet_mean", "ft_imagenet_std"), (11, 0, 0)),
    ],
    ids=["feature extraction", "fine-tuning"],
)
def test_the_counts_of_the_paper(a, b, counts):
    columns = [name for name in (*a, *b) if name]
    cells = [row for _, row in csv_table(GOLDEN, columns)]
    table = {name: [float(row[name]) for row in cells] for name in columns}
    assert len(cells) == 20
    # features of ImageNet have no seeds, and so no sigma
    found = two_sigma(*(table[name] if name else 0.0 for name in (*a, *b)))
    assert (found.num_better, found.num_significantly_better, found.num_significantly_worse) == counts
