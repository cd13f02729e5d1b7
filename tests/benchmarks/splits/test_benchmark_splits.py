import random
from collections import Counter, defaultdict

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raypath.benchmarks import IMAGE_SCHEMA, label_budget, label_fraction
from raypath.benchmarks.splits.making import (
    LABEL_FRACTIONS,
    SplitSettings,
    check_classes,
    complete_split,
    deal,
    fold_split,
    keyed,
    undivided,
)
from raypath.config import override
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


def manifests(seed, num):
    """(labels, patients, slides, images) of random sets: patients known or not, of one slide or more, images with parts."""
    rng = np.random.default_rng(seed)
    for _ in range(num):
        size = rng.integers(1, 16)
        slides = rng.integers(0, 8, size)
        patients = [f"p{slide // 2}" if rng.random() < 0.8 else None for slide in slides]
        known = [f"s{slide}" if patient or rng.random() < 0.5 else None for slide, patient in zip(slides, patients)]
        yield rng.integers(0, 3, size).tolist(), patients, known, [f"i{i}" for i in rng.integers(0, 6, size)]


def divided(names, splits):
    """The names (None aside) that stand in more than one split."""
    pairs = {(name, split) for name, split in zip(names, splits, strict=True) if name}
    return [name for name, num in Counter(name for name, _ in pairs).items() if num > 1]


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from(["none", "train", "val"]), st.integers(2, 4))
def test_ten_thousand_random_manifests_never_put_a_patient_on_both_sides(seed, has_given, num_folds):
    for number, (labels, patients, slides, images) in enumerate(manifests(seed, 100)):
        groups, _ = undivided(patients, slides, images)
        held_out = {"none": "", "train": "train", "val": "val"}[has_given]
        # what is held out of a given split is held out by whole groups, as a sound set does
        given_split = [held_out if g < "patient p1" else "train" if held_out else "" for g in groups]
        if set(given_split) == {"val"}:
            continue
        splits, _ = complete_split(given_split, labels, groups, seed=seed, name="set")
        assert not divided(patients, splits)
        assert not divided(slides, splits)  # a patient has its slides to itself here
        if number % 5:
            continue
        tests = [fold_split(labels, groups, num_folds, fold, seed=seed)[0] for fold in range(num_folds)]
        assert all(not divided(patients, folded) and not divided(slides, folded) for folded in tests)
        assert all(sum(folded[row] == "test" for folded in tests) == 1 for row in range(len(labels)))


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32), st.randoms(use_true_random=False))
def test_the_order_of_rows_is_irrelevant_to_groups_and_folds(seed, shuffler):
    for labels, patients, slides, images in manifests(seed, 5):
        order = list(range(len(labels)))
        shuffler.shuffle(order)
        columns = [[column[row] for row in order] for column in (patients, slides, images)]
        groups, _ = undivided(patients, slides, images)
        assert undivided(*columns)[0] == [groups[row] for row in order]
        splits, _ = fold_split(labels, groups, 3, 1, seed=seed)
        moved = fold_split([labels[row] for row in order], [groups[row] for row in order], 3, 1, seed=seed)[0]
        assert moved == [splits[row] for row in order]


def test_what_is_not_divided_falls_back_and_says_so():
    patients, slides, images = ["a", None, None, None], ["s1", "s1", "s2", None], ["i1", "i2", "i3", "i4"]
    groups, note = undivided(patients, slides, images)
    assert groups == ["patient a", "patient a", "slide s2", "image i4"]
    assert (
        note
        == "1 of 4 samples have no patient: kept together by slide; 1 of 4 samples have no patient: kept together by image"
    )
    assert undivided(patients, slides, images, "slide")[0] == ["slide s1", "slide s1", "slide s2", "image i4"]
    assert undivided(patients, slides, images, "image") == ([f"image {name}" for name in images], "")


def test_folds_are_stratified_and_another_part_of_the_rest_is_val():
    labels = [0] * 50 + [1] * 25
    names = [f"i{i}" for i in range(75)]
    splits, note = fold_split(labels, names, 5, 2, seed=0)
    counts = Counter(zip(labels, splits))
    assert [counts[k, s] for k in (0, 1) for s in THIRDS] == [32, 8, 10, 16, 4, 5]
    assert note == "fold 2 of 5 is the test (seed 0), val 20 % of the rest"


def test_settings_that_cannot_be_are_named():
    with pytest.raises(ValueError, match="fold=5 of num_folds=5"):
        SplitSettings(num_folds=5, fold=5)
    with pytest.raises(ValueError, match="num_folds=1: expected 2 or more"):
        SplitSettings(num_folds=1)
    with pytest.raises(ValueError, match=r"waive=\['patients'\]: expected names among patient, slide"):
        SplitSettings(waive=("patients",))
    with pytest.raises(ValueError, match="by='site'"):
        SplitSettings(by="site")
    assert override(SplitSettings(), ['waive=["slide"]', "by=image"]) == SplitSettings(by="image", waive=("slide",))
    with pytest.raises(BadInput, match="fold=1 of num_folds=None"):
        override(SplitSettings(), ["fold=1"])


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**32), st.sets(st.sampled_from(LABEL_FRACTIONS), min_size=2, max_size=2), st.integers(0, 3))
def test_label_fractions_are_nested_by_patient_and_no_class_is_lost(numbers, fractions, seed):
    rng = np.random.default_rng(numbers)
    size = int(rng.integers(1, 60))
    labels = np.minimum(rng.geometric(0.5, size) - 1, 3).tolist()  # rare classes have a sample or two
    patients = [f"p{p}" if p else None for p in rng.integers(0, 8, size)]
    rows = [
        {"sample": f"{i:02d}", "label": label, "patient": patient, "split": "train", "path": "x"}
        for i, (label, patient) in enumerate(zip(labels, patients))
    ]
    table = pa.Table.from_pylist(rows, schema=IMAGE_SCHEMA)
    moved = table.take(rng.permutation(size))
    less, more = (set(label_fraction(table, f, seed=seed)["sample"].to_pylist()) for f in sorted(fractions))
    assert less <= more
    assert set(label_fraction(moved, min(fractions), seed=seed)["sample"].to_pylist()) == less
    assert {labels[int(sample)] for sample in less} == set(labels)
    for label in set(labels):
        of_class = {f"{i:02d}": patients[i] or f"{i:02d}" for i in range(size) if labels[i] == label}
        assert len(less & of_class.keys()) == max(1, round(min(fractions) * len(of_class)))
        taken, left = ({of_class[s] for s in of_class if (s in less) is is_in} for is_in in (True, False))
        assert len(taken & left) <= 1  # at most one patient is there in part
