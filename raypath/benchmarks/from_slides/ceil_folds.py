"""Folds of the first paper: a few per cent of each class for val and test, other ones in every fold.

One decision: groups are whole. The paper divides slides, and so patients between splits; a group may be a patient here, and which
one it is follows from a sha256 of (seed, group), where the paper has a shuffle without seed. Numbers are counted in groups:
n_val = ceil(0.02 S), n_test = ceil(0.01 S) of the S groups of a class, and fold n takes the n-th stretch of n_val + n_test groups
(Kawai et al. 2023, enigmanx20/PatchTCGA utils.sample_CV).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from raypath.benchmarks.splits.making import keyed
from raypath.errors import BadInput

VAL_PERCENT, TEST_PERCENT, NUM_FOLDS = 2, 1, 3


@dataclass(frozen=True, kw_only=True)
class FoldSettings:
    """Which fold, and what is never divided."""

    by: Literal["patient", "slide"] = "patient"
    """slide: as the paper has it; slides of one patient may then be in two splits, which is tagged."""
    fold: Literal[0, 1, 2] = 0
    """The paper trains on 0 only."""


def fold_sizes(num_groups: int) -> tuple[int, int]:
    """How many groups of a class are val and test in each fold; whole numbers, so that no float rounds a ceiling up."""
    return -(-VAL_PERCENT * num_groups // 100), -(-TEST_PERCENT * num_groups // 100)


def ceil_folds(classes: Sequence[str], groups: Sequence[str], *, seed: int, name: str) -> list[list[str]]:
    """The split of every row (class, group) in each of the NUM_FOLDS folds.

    A group in several classes counts in the first of them. Raises BadInput for a class with too few groups for disjoint folds and a
    group to train on.
    """
    home: dict[str, str] = {}
    for class_name, group in zip(classes, groups, strict=True):
        home[group] = min(class_name, home.get(group, class_name))
    folds = [dict.fromkeys(home, "train") for _ in range(NUM_FOLDS)]
    for class_name in sorted(set(home.values())):
        members = [group for group, own in home.items() if own == class_name]
        members.sort(key=lambda group: keyed(seed, f"fold {class_name}", group))
        num_val, num_test = fold_sizes(len(members))
        step = num_val + num_test
        if len(members) <= NUM_FOLDS * step:
            raise BadInput(
                f"{name}: class {class_name!r} has {len(members)} slides or patients; {NUM_FOLDS} disjoint folds of {num_val} val "
                f"and {num_test} test need at least {NUM_FOLDS * step + 1}: add slides, or move its folder away"
            )
        for number, fold in enumerate(folds):
            held_out = members[number * step : (number + 1) * step]
            fold.update(dict.fromkeys(held_out[:num_val], "val"))
            fold.update(dict.fromkeys(held_out[num_val:], "test"))
    return [[fold[group] for group in groups] for fold in folds]
