"""The null is the same benchmark with nothing to learn: labels of train and val are shuffled, the test stays true."""

from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raypath.benchmarks import Benchmark
from raypath.benchmarks.benchmark import IMAGE_SCHEMA
from raypath.study.null import dealt, shuffled

SPLITS = ("train",) * 40 + ("val",) * 20 + ("test",) * 30


def benchmark(kind="classification"):
    rng = np.random.default_rng(0)
    rows = [
        {"sample": f"s{row}", "label": int(label), "split": split, "patient": f"p{row // 3}", "path": f"/x/{row}.png"}
        for row, (split, label) in enumerate(zip(SPLITS, rng.integers(3, size=len(SPLITS))))
    ]
    order = rng.permutation(len(rows))  # splits do not lie together
    table = pa.Table.from_pylist([rows[row] for row in order], schema=IMAGE_SCHEMA)
    return Benchmark(
        name="set",
        kind=kind,
        classes=("a", "b", "c"),
        primary="balanced_accuracy",
        mpp=None,
        table=table,
        data_hash="0" * 64,
        split_note="",
    )


def labels(of, split):
    return [row["label"] for row in of.table.to_pylist() if row["split"] == split]


@pytest.mark.parametrize("seed", range(5))
def test_the_test_is_true_and_the_rest_is_shuffled_within_its_split(seed):
    true = benchmark()
    null = shuffled(true, seed=seed)
    assert labels(null, "test") == labels(true, "test")
    for split in ("train", "val"):
        assert Counter(labels(null, split)) == Counter(labels(true, split))
        assert labels(null, split) != labels(true, split)
    assert null.table.drop_columns("label").equals(true.table.drop_columns("label"))
    assert null.table.schema == true.table.schema
    assert labels(true, "train") == labels(benchmark(), "train")  # what it was made from stays


def test_it_has_a_hash_of_its_own_and_is_the_same_when_made_again():
    true = benchmark()
    first, again, other = shuffled(true, seed=1), shuffled(true, seed=1), shuffled(true, seed=2)
    assert first.table.equals(again.table)
    assert first.data_hash == again.data_hash
    assert len({true.data_hash, first.data_hash, other.data_hash}) == 3
    assert labels(first, "train") != labels(other, "train")


@given(st.lists(st.integers(0, 4), min_size=1, max_size=200), st.integers(0, 9))
def test_the_rows_of_each_class_get_all_labels_in_proportion(labels, seed):
    true = np.array(labels)
    null = dealt(true, np.random.default_rng(seed))
    assert Counter(null.tolist()) == Counter(labels)
    num_classes = len(set(labels))
    for own in set(labels):
        for other in set(labels):
            wanted = (true == own).sum() * (true == other).mean()
            assert abs((null[true == own] == other).sum() - wanted) <= num_classes  # to a few cards of the deal


@pytest.mark.parametrize("seed", range(5))
def test_a_large_null_says_nothing_about_the_true_labels(seed):
    true = np.repeat([0, 1, 2], [1000, 600, 400])  # freely shuffled, the counts below would stray by about 15
    null = dealt(true, np.random.default_rng(seed))
    found = np.array([np.bincount(null[true == own], minlength=3) for own in range(3)])
    np.testing.assert_allclose(found, np.outer([1000, 600, 400], [0.5, 0.3, 0.2]), atol=3)


def test_a_segmentation_has_none():
    with pytest.raises(ValueError, match="set: the labels of a segmentation cannot be shuffled"):
        shuffled(benchmark("segmentation"), seed=0)
