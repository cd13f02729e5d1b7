import random
from collections import Counter, defaultdict

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raypath.benchmarks import IMAGE_SCHEMA, label_budget, label_fraction
from raypath.benchmarks.splits import check_classes, complete_split, deal, keyed
from raypath.errors import BadInput

THIRDS = {"train": 0.6, "val": 0.2, "test": 0.2}
# every class has at least three patients of its own, so that a split exists; others hold several classes
cohorts = st.integers(2, 4).flatmap(
    lambda num_classes: st.tuples(
        st.lists(st.integers(1, 6), min_size=3 * num_classes, max_size=10 * num_classes),
        st.lists(st.lists(st.integers(0, num_classes - 1), min_size=1, max_size=6), max_size=15),
        st.just(num_classes),
    )
)


def rows_of(cohort):
    """(label, patient) per sample."""
    own, mixed, num_classes = cohort
    rows = [(i % num_classes, f"own{i}") for i, size in enumerate(own) for _ in range(size)]
    return rows + [(label, f"mixed{i}") for i, labels in enumerate(mixed) for label in labels]


@settings(max_examples=60, deadline=None)
@given(cohorts, st.integers(0, 5), st.randoms(use_true_random=False))
def test_a_made_split_divides_no_patient_misses_no_class_and_ignores_the_order(cohort, seed, shuffler):
    rows = rows_of(cohort)
    labels, patients = zip(*rows, strict=True)
    splits = deal(labels, patients, THIRDS, seed=seed)
    of_patient = defaultdict(set)
    for patient, split in zip(patients, splits, strict=True):
        of_patient[patient].add(split)
    assert all(len(found) == 1 for found in of_patient.values())
    check_classes(labels, splits, [str(k) for k in range(cohort[2])], name="cohort")
    order = list(range(len(rows)))
    shuffler.shuffle(order)
    again = deal([labels[i] for i in order], [patients[i] for i in order], THIRDS, seed=seed)
    assert again == [splits[i] for i in order]


def test_single_images_are_dealt_in_exact_shares():
    labels = [0] * 50 + [1] * 100 + [2] * 5
    splits = deal(labels, [f"i{i}" for i in range(155)], THIRDS, seed=0)
    counts = Counter(zip(labels, splits, strict=True))
    assert [counts[0, s] for s in THIRDS] == [30, 10, 10]
    assert [counts[1, s] for s in THIRDS] == [60, 20, 20]
    assert [counts[2, s] for s in THIRDS] == [3, 1, 1]


def test_another_seed_is_another_split_and_the_order_is_pinned():
    names = [f"i{i}" for i in range(40)]
    assert deal([0] * 40, names, THIRDS, seed=0) != deal([0] * 40, names, THIRDS, seed=1)
    assert keyed(0, "split", "patient 1").hex()[:8] == "b8466197"  # printf "0\0split\0patient 1" | sha256sum


def test_a_given_val_becomes_the_test():
    given = ["train"] * 20 + ["val"] * 10
    splits, note = complete_split(given, [0, 1] * 15, [f"i{i}" for i in range(30)], seed=0, name="set")
    assert splits[20:] == ["test"] * 10
    assert Counter(splits[:20]) == {"train": 16, "val": 4}
    assert note.startswith("the given val is the test here")


def test_what_a_split_column_may_hold():
    names = [f"i{i}" for i in range(30)]
    labels = [0, 1] * 15
    full = ["train", "val", "test"] * 10
    assert complete_split(full, labels, names, seed=0, name="set") == (full, "split as given")
    splits, note = complete_split(["train"] * 20 + ["test"] * 10, labels, names, seed=0, name="set")
    assert (splits[20:], note) == (["test"] * 10, "val carved from the given train (20 %, seed 0)")
    assert set(complete_split(["train"] * 30, labels, names, seed=0, name="set")[0]) == set(THIRDS)
    with pytest.raises(BadInput, match="set: the split column has only test, val"):
        complete_split(["val", "test"] * 15, labels, names, seed=0, name="set")


def table_of(num_patients, seed=0):
    rows = [
        {"sample": f"p{p}/{i}", "label": (p + i) % 2, "patient": f"p{p}", "split": "train", "path": "x"}
        for p in range(num_patients)
        for i in range(6)
    ]
    random.Random(seed).shuffle(rows)
    return pa.Table.from_pylist(rows, schema=IMAGE_SCHEMA)


def test_label_budgets_are_nested_take_patients_first_and_ignore_the_order():
    samples = {n: set(label_budget(table_of(10), n, seed=3)["sample"].to_pylist()) for n in (1, 4, 9, 100)}
    assert [len(samples[n]) for n in (1, 4, 9, 100)] == [2, 8, 18, 60]
    assert samples[1] < samples[4] < samples[9] < samples[100]
    assert len({s.split("/")[0] for s in samples[9]}) == 3  # 3 patients have 9 of each class
    assert set(label_budget(table_of(10, seed=9), 9, seed=3)["sample"].to_pylist()) == samples[9]
    assert set(label_budget(table_of(10), 9, seed=4)["sample"].to_pylist()) != samples[9]


def test_label_fractions_are_nested_and_leave_one_of_each_class():
    table = table_of(10)
    few, half = (set(label_fraction(table, f, seed=0)["sample"].to_pylist()) for f in (0.001, 0.5))
    assert (len(few), len(half)) == (2, 30)
    assert few < half
    with pytest.raises(BadInput, match="label fraction 0"):
        label_fraction(table, 0, seed=0)
    with pytest.raises(BadInput, match="label budget 0"):
        label_budget(table, 0, seed=0)
