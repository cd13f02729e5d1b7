"""The null is the same benchmark with nothing to learn: labels of train and val are shuffled, the test stays true."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from raypath.benchmarks import Benchmark
from raypath.benchmarks.benchmark import IMAGE_SCHEMA
from raypath.errors import BadInput
from raypath.study.null import dealt, has_null, shuffled

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


def masked(folder, sizes):
    """A segmentation of images of these (width, height)s, in turn of train, val and test, each with a mask of its own."""
    rows = []
    for number, size in enumerate(sizes):
        for kind in ("image", "mask"):
            Image.new("L", size, number).save(folder / f"{kind}-{number}.png")
        row = {"sample": f"s{number:02}", "label": 0, "split": ("train", "val", "test")[number % 3]}
        rows.append(row | {"path": str(folder / f"image-{number}.png"), "mask": str(folder / f"mask-{number}.png")})
    return replace(
        benchmark("segmentation"), table=pa.Table.from_pylist(rows, schema=IMAGE_SCHEMA), primary="miou_macro"
    )


@pytest.mark.parametrize("seed", range(3))
def test_images_of_train_and_val_get_masks_of_others_of_their_size_and_split(tmp_path, seed):
    true = masked(tmp_path, [(8, 8)] * 12 + [(8, 6)] * 9 + [(5, 5)] * 3)
    null = shuffled(true, seed=seed)
    own = {row["sample"]: row for row in true.table.to_pylist()}
    owner = {row["mask"]: row for row in true.table.to_pylist()}
    found = {row["sample"]: row for row in null.table.to_pylist()}
    assert own.keys() - found.keys() == {"s21", "s22"}  # whose size is theirs alone in train and in val
    for sample, row in found.items():
        of = owner[row["mask"]]
        assert of["split"] == row["split"]
        assert Image.open(of["path"]).size == Image.open(row["path"]).size
        assert (of["sample"] == sample) == (row["split"] == "test")
    assert len({row["mask"] for row in found.values()}) == len(found)
    assert null.data_hash != true.data_hash
    assert shuffled(true, seed=seed).data_hash == null.data_hash != shuffled(true, seed=seed + 9).data_hash


def test_masks_that_no_other_image_fits_and_parts_of_files_have_no_null(tmp_path):
    with pytest.raises(BadInput, match="set: no two images of train have one size"):
        shuffled(masked(tmp_path, [(8, 8 + number) for number in range(9)]), seed=0)
    rows = [row | {"item": 3} for row in masked(tmp_path, [(8, 8)] * 6).table.to_pylist()]
    of_arrays = replace(benchmark("segmentation"), table=pa.Table.from_pylist(rows, schema=IMAGE_SCHEMA))
    assert not has_null(of_arrays)
    with pytest.raises(ValueError, match="set: its masks are parts of files"):
        shuffled(of_arrays, seed=0)
