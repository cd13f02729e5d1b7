"""The probe behind a confounder: which samples are asked, in which folds, and how their groups are shuffled.

One decision: a group is asked about only where it can be on both sides of a fold: a site of two patients, a patient of two samples.
Of many groups the largest are asked, of many samples as many of each patient as there are, so that the cost has a bound; what is
left out is counted.

Groups are shuffled where the data leave them free: those of whole patients among patients of one class (of several classes: the
most common); where some patient is of several groups (one slide in two scanners), those of its samples of one class among
themselves. Groups that are patients are shuffled among samples of one class.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from raypath.benchmarks import Predictions

PATIENT = "patient"
MAX_GROUPS, MAX_SAMPLES = 20, 1_000
_NUM_FOLDS = 5
_C = 0.1  # of standardised features, not tuned: a reader that chose better would read no less
_MAX_ITER = 1_000


@dataclass(frozen=True, eq=False)
class Asked:
    """The n samples of a question, as numbers."""

    rows: np.ndarray
    """int64 [n], which they are of all that were given."""
    group: np.ndarray
    """int64 [n]"""
    label: np.ndarray
    unit: np.ndarray
    """int64 [n], the patient; where none is known, the sample itself."""
    patient: tuple[str | None, ...]
    is_within: bool
    """Whether the groups are the patients, which folds then divide."""
    notes: tuple[str, ...]
    reason: str
    """Why nothing can be asked; empty where it can."""

    def shuffled(self, rng: np.random.Generator) -> np.ndarray:
        """The groups [n], shuffled where they are free."""
        group_of = _most_common(self.unit, self.group)
        if not self.is_within and (group_of[self.unit] == self.group).all():
            return _shuffled_within(group_of, _most_common(self.unit, self.label), rng)[self.unit]
        blocks = self.label if self.is_within else self.unit * (self.label.max() + 1) + self.label
        return _shuffled_within(self.group, blocks, rng)


def ask(
    group: Sequence[str | None], label: np.ndarray, patient: Sequence[str | None], *, name: str, seed: int
) -> Asked:
    """Choose samples of N; `name` "patient" says that the groups are the patients."""
    is_within = name == PATIENT
    unit = _numbers([f"sample {row}" if p is None else f"patient {p}" for row, p in enumerate(patient)])
    rows = np.array([row for row, value in enumerate(group) if value is not None], dtype=np.int64)
    notes = [f"{len(group) - len(rows)} samples without {name} left out"] if len(rows) < len(group) else []
    number = np.full(len(group), -1)
    number[rows] = _numbers([str(group[row]) for row in rows])

    members = np.arange(len(group)) if is_within else unit
    kept, more_notes = _askable(number[rows], members[rows], "sample" if is_within else "patient")
    rows = rows[np.isin(number[rows], kept)]
    chosen = _evenly(unit[rows], seed)
    if len(chosen) < len(rows):
        more_notes.append(f"{len(chosen):,} of {len(rows):,} samples asked, evenly of all patients")
    rows = rows[chosen]
    return Asked(
        rows=rows,
        group=_numbers(number[rows]),
        label=np.asarray(label)[rows].astype(np.int64),
        unit=_numbers(unit[rows]),
        patient=tuple(patient[row] for row in rows),
        is_within=is_within,
        notes=tuple(notes + more_notes),
        reason="" if len(kept) > 1 else _reason(name, number, is_within),
    )


def cross_validated(features: np.ndarray, target: np.ndarray, asked: Asked, *, seed: int) -> Predictions:
    """What the probe says of `target` int [n] (0 to K - 1) of each sample from `features` [n, D], fitted on other folds."""
    num_classes = int(target.max()) + 1
    probability = np.zeros((len(target), num_classes))
    machine = LogisticRegression(C=_C, class_weight="balanced", max_iter=_MAX_ITER)
    with threadpool_limits(1):  # the fits are small: threads that wait for each other take ten times as long
        for train, test in _folds(target, asked, seed):
            probe = make_pipeline(StandardScaler(), machine).fit(features[train], target[train])
            probability[np.ix_(test, probe.classes_)] = probe.predict_proba(features[test])
    names = [f"{row:07}" for row in asked.rows]
    return Predictions(names, asked.patient, target, probability, [str(k) for k in range(num_classes)])


def _folds(target: np.ndarray, asked: Asked, seed: int):
    """(train, test) numbers of samples, the classes of `target` evenly in all."""
    members = np.arange(len(target)) if asked.is_within else asked.unit
    fewest = min(len(np.unique(members[target == k])) for k in np.unique(target))
    how = {"n_splits": max(2, min(_NUM_FOLDS, fewest)), "shuffle": True, "random_state": seed}
    if asked.is_within:
        return StratifiedKFold(**how).split(target, target)
    return StratifiedGroupKFold(**how).split(target, target, asked.unit)


def _askable(group: np.ndarray, member: np.ndarray, what: str) -> tuple[np.ndarray, list[str]]:
    """The largest of the groups that have two members or more, and what was left out."""
    sizes = Counter(group for group, _ in set(zip(group.tolist(), member.tolist(), strict=True)))
    several = sorted((g for g, size in sizes.items() if size > 1), key=lambda g: (-sizes[g], g))
    notes = []
    if len(several) < len(sizes):
        notes.append(f"{len(sizes) - len(several)} of {len(sizes)} groups left out: of a single {what}")
    if len(several) > MAX_GROUPS:
        notes.append(f"the {MAX_GROUPS} largest of {len(several)} groups asked")
    return np.array(several[:MAX_GROUPS], dtype=np.int64), notes


def _reason(name: str, number: np.ndarray, is_within: bool) -> str:
    num_groups = len(np.unique(number[number >= 0]))
    if num_groups < 2:
        return f"{num_groups} {name} known; expected 2 or more"
    what = "samples" if is_within else "patients"
    return f"of {num_groups} groups fewer than two have two {what} or more, so that none can be learnt and asked"


def _evenly(unit: np.ndarray, seed: int) -> np.ndarray:
    """At most MAX_SAMPLES of the samples, as many of each unit as there are, in their order."""
    order = np.random.default_rng(seed).permutation(len(unit))
    place, seen = np.empty(len(unit), np.int64), Counter()
    for row in order:
        place[row] = seen[unit[row]]
        seen[unit[row]] += 1
    return np.sort(order[np.argsort(place[order], kind="stable")][:MAX_SAMPLES])


def _most_common(unit: np.ndarray, value: np.ndarray) -> np.ndarray:
    """The most common value [U] (the lowest of equals) of each unit."""
    counts = np.zeros((unit.max() + 1, value.max() + 1), np.int64)
    np.add.at(counts, (unit, value), 1)
    return counts.argmax(axis=1)


def _shuffled_within(values: np.ndarray, block: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The values in another order, those of a block among themselves."""
    order = rng.permutation(len(values))
    made = np.empty_like(values)
    made[np.argsort(block, kind="stable")] = values[order[np.argsort(block[order], kind="stable")]]
    return made


def _numbers(values: Sequence) -> np.ndarray:
    """int64 [n]: the place of each value among the sorted different ones."""
    return np.unique(np.asarray(values), return_inverse=True)[1].astype(np.int64)
