"""The first paper's folds: sizes by its ceilings, nothing shared."""

import math
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raypath.benchmarks.from_slides.ceil_folds import ceil_folds, fold_sizes
from raypath.errors import BadInput


def test_golden_sizes():
    sizes = {7: (1, 1), 50: (1, 1), 51: (2, 1), 100: (2, 1), 101: (3, 2), 150: (3, 2), 700: (14, 7), 1_100: (22, 11)}
    assert {number: fold_sizes(number) for number in sizes} == sizes


@given(st.integers(1, 5_000))
def test_sizes_are_the_ceilings_without_floats(number):
    assert fold_sizes(number) == (math.ceil(Fraction(2, 100) * number), math.ceil(Fraction(1, 100) * number))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(7, 130), min_size=1, max_size=4), st.integers(1, 3), st.integers(0, 99))
def test_folds_are_disjoint_and_divide_no_group(sizes, rows_per_group, seed):
    classes, groups = [], []
    for number, size in enumerate(sizes):
        classes += [f"class{number}"] * size * rows_per_group
        groups += [f"{number}-{i // rows_per_group}" for i in range(size * rows_per_group)]
    folds = ceil_folds(classes, groups, seed=seed, name="x")
    held_out = []
    for fold in folds:
        split_of = dict(zip(groups, fold))
        assert [split_of[group] for group in groups] == fold  # a group is in one split
        for number, size in enumerate(sizes):
            own = [split for group, split in split_of.items() if group.startswith(f"{number}-")]
            assert (own.count("val"), own.count("test")) == fold_sizes(size)
        held_out += [group for group, split in split_of.items() if split != "train"]
    assert len(held_out) == len(set(held_out))


def test_folds_follow_the_seed_and_not_the_order():
    classes, groups = ["a"] * 40, [f"g{i:02d}" for i in range(40)]
    first = ceil_folds(classes, groups, seed=0, name="x")
    again = ceil_folds(classes, groups[::-1], seed=0, name="x")
    assert [fold[::-1] for fold in again] == first
    assert ceil_folds(classes, groups, seed=1, name="x") != first


def test_a_group_of_two_classes_is_in_one_split_and_few_groups_are_refused():
    classes = ["a"] * 8 + ["b"] * 8
    groups = [f"g{i}" for i in range(8)] + ["g0", *(f"h{i}" for i in range(7))]
    for fold in ceil_folds(classes, groups, seed=0, name="x"):
        assert fold[0] == fold[8]
    with pytest.raises(BadInput, match="x: class 'a' has 6 slides or patients; .* 1 val and 1 test need at least 7"):
        ceil_folds(["a"] * 6, [str(i) for i in range(6)], seed=0, name="x")
