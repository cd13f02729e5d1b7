"""Who is trained on, who chooses, who is asked once: made splits, and budgets of labels inside the training split.

One decision: everything is keyed. Whether a patient is held out follows from a sha256 of (seed, patient), never from the order
of rows or from Python's `hash`, so a manifest that is sorted differently, or read on another machine, is split the same.
Patients are never divided; where they are not known, slides are not, and where those are not known either, images are not (with
their exact copies and all the parts that were cut out of them).

What it costs: a greedy pass instead of an optimum. Groups are dealt large to small (equal powers of two in keyed order) to the
split that lacks most classes, then to the one furthest below its share; with very few patients the shares are rough.
"""

import csv
import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raypath.config import setting
from raypath.data.manifest import SPLITS
from raypath.errors import BadInput

Unit = Literal["patient", "slide", "image"]
Rule = Literal["patient", "slide", "overlap", "near_duplicate"]
UNITS: tuple[Unit, ...] = get_args(Unit)
RULES: tuple[Rule, ...] = get_args(Rule)


@dataclass(frozen=True, kw_only=True)
class SplitSettings:
    """How a set is divided."""

    by: Unit = "patient"
    """What is never divided; where it is not known, the next smaller thing that is."""
    use_given: bool = True
    """Whether a split that comes with the set stands."""
    num_folds: int | None = None
    """Divide the whole set into so many folds instead, of which one is the test; null: no folds."""
    fold: int = 0
    """Which fold is the test, 0 to num_folds - 1."""
    share_val: float = setting(0.2, identity=False)  # the split that comes of it is in the data's hash
    """Share of the given train that becomes val, where a set comes without one of its own."""
    waive: tuple[Rule, ...] = ()
    """Rules against leakage that this set may break; every run on it is tagged with them."""

    def __post_init__(self):
        if not 0 < self.share_val < 1:
            raise ValueError(f"share_val={self.share_val}: expected more than 0 and less than 1")
        if self.by not in UNITS:
            raise ValueError(f"by={self.by!r}: expected one of {', '.join(UNITS)}")
        if self.num_folds is not None and self.num_folds < 2:
            raise ValueError(f"num_folds={self.num_folds}: expected 2 or more, or null for no folds")
        if not 0 <= self.fold < (self.num_folds or 1):
            raise ValueError(f"fold={self.fold} of num_folds={self.num_folds}: expected 0 to num_folds - 1")
        unknown = [rule for rule in self.waive if rule not in RULES]
        if unknown:
            raise ValueError(f"waive={unknown}: expected names among {', '.join(RULES)}")


NEW_SPLIT = {"train": 0.6, "val": 0.2, "test": 0.2}
NEW_VAL = {"train": 0.8, "val": 0.2}
LABEL_FRACTIONS = (0.01, 0.05, 0.1, 0.25, 1.0)
AS_GIVEN = "split as given"
MAX_LISTED = 10


def undivided(
    patients: Sequence[str | None], slides: Sequence[str | None], images: Sequence[str], by: Unit = "patient"
) -> tuple[list[str], str]:
    """The group of every row, which no split divides, and a note where something smaller than `by` had to stand in for it.

    `images` names the whole image of each row by its contents, so that copies and parts of one image stay together. A row
    without a patient belongs to that of its slide, if another row of the slide names one.
    """
    patient_of = {
        s: p for p, s in sorted(_pairs(patients, slides), reverse=True)
    }  # the first name, should there be two
    groups, stood_in = [], Counter()
    for patient, slide, image in zip(patients, slides, images, strict=True):
        known = {"patient": patient or patient_of.get(slide), "slide": slide, "image": image}
        unit = next(unit for unit in UNITS[UNITS.index(by) :] if known[unit])
        stood_in[unit] += unit != by
        groups.append(f"{unit} {known[unit]}")
    notes = [
        f"{num} of {len(groups)} samples have no {by}: kept together by {unit}" for unit, num in (+stood_in).items()
    ]
    return groups, "; ".join(notes)


def complete_split(
    given: Sequence[str], labels: Sequence[int], groups: Sequence[str], *, seed: int, name: str, share_val: float = 0.2
) -> tuple[list[str], str]:
    """The split of every row, and a note that says what was made.

    `given`: all empty, or every row named. Nothing held out (no names, or train alone): 60/20/20 by class, groups undivided.
    Train and val without a test: the given val *becomes* the test (what was held out stays held out) and a new val, `share_val`
    of it, is carved from train. Train and test: only the val is carved. Raises BadInput for any other set of names.
    """
    names = set(given)
    if names in ({""}, {"train"}):
        why = "the given one is all train" if "train" in names else "none was given"
        return deal(labels, groups, NEW_SPLIT, seed=seed), f"split made here (60/20/20, seed {seed}): {why}"
    if names == set(SPLITS):
        return list(given), AS_GIVEN
    if names not in ({"train", "val"}, {"train", "test"}):
        found = ", ".join(sorted(names)) or "none"
        raise BadInput(
            f"{name}: the split column has only {found}; expected train and test, train and val, or no split"
        )
    is_train = [split == "train" for split in given]
    shares = {"train": 1 - share_val, "val": share_val}
    carved = iter(deal(_where(labels, is_train), _where(groups, is_train), shares, seed=seed))
    note = f"val carved from the given train ({100 * share_val:.0f} %, seed {seed})"
    if "val" in names:
        note = f"the given val is the test here; {note}"
    return [next(carved) if train else "test" for train in is_train], note


def fold_split(
    labels: Sequence[int], groups: Sequence[str], num_folds: int, fold: int, *, seed: int
) -> tuple[list[str], str]:
    """The split of every row where fold number `fold` is the test, and 20 % of the rest the val; and a note that says so.

    Stratified, groups undivided. The folds of one seed are disjoint and cover every row.
    """
    part = deal(labels, groups, {str(number): 1 / num_folds for number in range(num_folds)}, seed=seed)
    is_rest = [number != str(fold) for number in part]
    rest = iter(deal(_where(labels, is_rest), _where(groups, is_rest), NEW_VAL, seed=seed))
    splits = [next(rest) if kept else "test" for kept in is_rest]
    return splits, f"fold {fold} of {num_folds} is the test (seed {seed}), val 20 % of the rest"


def deal(labels: Sequence[int], groups: Sequence[str], shares: Mapping[str, float], *, seed: int) -> list[str]:
    """A split for every row (N labels, N groups), no group divided, each class near its share in every split."""
    names = list(shares)
    counts_GC, group_names = _class_counts(labels, groups)
    target_SC = np.array([shares[s] for s in names])[:, None] * np.ones(counts_GC.shape[1])
    have_SC = np.zeros_like(target_SC)  # in shares of a class, so that rare classes weigh as much as common ones
    share_GC = counts_GC / counts_GC.sum(axis=0)
    sizes = np.log2(counts_GC.sum(axis=1)).astype(int)
    order = sorted(range(len(group_names)), key=lambda g: (-sizes[g], keyed(seed, "split", group_names[g])))
    chosen = {}
    for group in order:
        given_C = share_GC[group]
        num_new_S = ((have_SC == 0) & (given_C > 0)).sum(axis=1)
        cost_S = (given_C * (given_C + 2 * (have_SC - target_SC))).sum(
            axis=1
        )  # growth of the squared distance to the target
        best = min(range(len(names)), key=lambda s: (-num_new_S[s], cost_S[s]))
        have_SC[best] += given_C
        chosen[group_names[group]] = names[best]
    return [chosen[group] for group in groups]


def check_classes(labels: Sequence[int], splits: Sequence[str], classes: Sequence[str], *, name: str) -> None:
    """Raises BadInput naming every class that is missing in a split, with its number of samples and the remedy."""
    present = Counter(zip(labels, splits, strict=True))
    lines, short = [], []
    for number, class_name in enumerate(classes):
        absent = [split for split in SPLITS if not present[number, split]]
        if absent:
            total = sum(present[number, split] for split in SPLITS)
            lines.append(f"class {class_name!r} has {total} samples and none in {', '.join(absent)}")
            short.append(class_name)
    if lines:
        listed = "; ".join(lines[:MAX_LISTED])
        wanted = "benchmark.drop_classes=" + json.dumps(short[:MAX_LISTED], ensure_ascii=False)
        raise BadInput(
            f"{name}: {listed}. Every class must be in train, val and test (of different patients): "
            f"add samples, or leave the class out with {wanted}"
        )


def label_budget(rows: pa.Table, per_class: int, *, seed: int) -> pa.Table:
    """About `per_class` training rows of every class (all of a smaller class), in the order of `rows`.

    Nested: a smaller budget is contained in a larger one of the same seed, because each is a prefix of one keyed order per
    class: patients first, samples inside a patient after, as a lab would label.
    """
    if per_class < 1:
        raise BadInput(f"label budget {per_class}: expected at least 1 sample per class")
    return _keyed_prefix(rows, lambda count: per_class, seed)


def label_fraction(rows: pa.Table, fraction: float, *, seed: int) -> pa.Table:
    """A share (0, 1] of the training rows of every class (rounded), at least one each; nested as `label_budget` is.

    Whole patients come first, in one order for all classes; in each class at most one patient is there in part.
    """
    if not 0 < fraction <= 1:
        raise BadInput(f"label fraction {fraction}: expected more than 0 and at most 1")
    return _keyed_prefix(rows, lambda count: max(1, round(fraction * count)), seed)


def write_split(table: pa.Table, classes: Sequence[str], folder: Path) -> Path:
    """Write `split.csv` (sample, label, patient, split), sorted by sample."""
    path = Path(folder) / "split.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = [table[name].to_pylist() for name in ("sample", "label", "patient", "split")]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["sample", "label", "patient", "split"])
        for sample, label, patient, split in sorted(zip(*columns, strict=True)):
            writer.writerow([sample, classes[label], patient or "", split])
    return path


def keyed(seed: int, purpose: str, name: str) -> bytes:
    """The place of a name in a keyed order: sha256, the same in every process and on every machine."""
    return hashlib.sha256(f"{seed}\0{purpose}\0{name}".encode()).digest()


def _keyed_prefix(rows: pa.Table, num_of: Callable[[int], int], seed: int) -> pa.Table:
    samples = rows["sample"].to_pylist()
    groups = pc.coalesce(rows["patient"], rows["slide"], rows["sample"]).to_pylist()
    by_class: dict[int, list[int]] = defaultdict(list)
    for row, label in enumerate(rows["label"].to_pylist()):
        by_class[label].append(row)
    kept: list[int] = []
    for members in by_class.values():
        members.sort(key=lambda r: (keyed(seed, "patient", groups[r]), keyed(seed, "sample", samples[r])))
        kept += members[: num_of(len(members))]
    return rows.take(sorted(kept))


def _pairs(patients: Iterable[str | None], slides: Iterable[str | None]) -> set[tuple[str, str]]:
    return {(patient, slide) for patient, slide in zip(patients, slides, strict=True) if patient and slide}


def _class_counts(labels: Sequence[int], groups: Sequence[str]) -> tuple[np.ndarray, list[str]]:
    """Samples per group and class [G, C], and the groups' names (sorted; classes that do not occur have no column)."""
    names, group_of = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    found, label_of = np.unique(np.asarray(labels), return_inverse=True)
    counts_GC = np.zeros((len(names), len(found)))
    np.add.at(counts_GC, (group_of, label_of), 1)
    return counts_GC, names.tolist()


def _where(values: Sequence, is_kept: Iterable[bool]) -> list:
    return [value for value, keep in zip(values, is_kept, strict=True) if keep]
