"""From the samples of a labelled set to a benchmark: what every reader of a format ends with.

One decision: the set is taken as it is. Class numbers follow the published order of classes, else their sorted names; a split that
was given stands, a missing one is made; and the contents of every file go into the hash, so that two results on "the same" set can
be told apart. What it costs: every byte is read once (four threads; 1 GB in about a second from a warm disk).
"""

import hashlib
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa

from raypath.benchmarks.benchmark import IMAGE_SCHEMA, Benchmark, Primary, hash_rows, primary_metric
from raypath.benchmarks.facts import Facts, compare
from raypath.benchmarks.splits.leakage import check_leaks, find_leaks
from raypath.benchmarks.splits.making import (
    AS_GIVEN,
    SplitSettings,
    check_classes,
    complete_split,
    fold_split,
    undivided,
)
from raypath.data.image_rows import ImageRow
from raypath.data.masks import MaskRule
from raypath.errors import BadInput
from raypath.hashing import file_sha256

NUM_HASH_THREADS = 4
_FILES_PER_TASK = 64  # a task costs as much as a small file
_OF_NOTHING = hashlib.sha256().hexdigest()


def assemble(
    rows: Sequence[ImageRow],
    facts: Facts,
    split: SplitSettings,
    *,
    name: str,
    seed: int,
    notes: Sequence[str] = (),
    classes: Sequence[str] = (),
    primary: Primary | None = None,
    mask_rule: MaskRule = "none",
    has_objects: bool = False,
    is_split_chosen: bool = False,
) -> Benchmark:
    """The benchmark of `rows`.

    `classes` fixes the order of the classes (else sorted names). With a `mask_rule` classes belong to pixels: `classes` are
    those of mask values 0, 1, ..., every row has a mask, and labels only stratify the split. `has_objects`: masks number objects.
    `primary`: else balanced accuracy, the AUROC for a binary set whose larger class exceeds 60 %, or macro mIoU. `is_split_chosen`:
    the given split was asked for by name; one of k folds always is. Raises BadInput for a patient, slide or pixel in two splits
    unless `split.waive` names it, for a class (or stratum) that is not in all three splits or is written in two ways, and for fewer
    than two classes.
    """
    is_dense = mask_rule != "none"
    strata = _strata(rows, () if is_dense else classes, name, at_least=1 if is_dense else 2)
    labels = [strata.index(row.label) for row in rows]
    sha256 = _sha256(rows)
    content = [" ".join([sha256[row.path], *_parts(row, sha256)]) for row in rows]
    images = [f"{sha256[row.path]} item {row.item}" if row.item is not None else sha256[row.path] for row in rows]
    patients, samples = [row.patient for row in rows], [row.sample for row in rows]
    groups, kept = undivided(patients, [row.slide for row in rows], images, split.by)
    splits, made = _divide(rows, labels, groups, split, seed, name)
    digests = [hashlib.sha256(text.encode()).hexdigest() for text in content]
    columns = [samples, labels, patients, splits, digests, *_places(rows)]
    table = pa.table(columns, schema=IMAGE_SCHEMA).sort_by("sample")
    leaks = find_leaks(table)
    waived = check_leaks(leaks, split.waive, name=name)
    check_classes(labels, splits, strata, name=name)
    said = [made, "" if made == AS_GIVEN else kept, waived, *notes, facts.note, _copies_note(content, labels, splits)]
    if not any(patients):
        said.append("no patients: samples are taken as independent, intervals are image-level")
    return Benchmark(
        name=name,
        kind="segmentation" if is_dense else "classification",
        classes=tuple(classes) if is_dense else strata,
        primary=primary or ("miou_macro" if is_dense else primary_metric(labels, len(strata))),
        mpp=facts.mpp,
        table=table,
        data_hash=hash_rows(zip(samples, labels, splits, patients, content, strict=True), strata),
        split_note="; ".join(filter(None, said)),
        mask_rule=mask_rule,
        has_objects=has_objects,
        strata=strata if is_dense else (),
        built=compare(rows, facts) if facts.counts else (),
        is_split_chosen=is_split_chosen or split.num_folds is not None,
        waived=tuple(leak.rule for leak in leaks),
    )


def folder_of(path: str, kind: str) -> Path:
    """The folder of a published set; raises BadInput if none was named, or if it is not there."""
    if not path:
        raise BadInput(f"benchmark.path: where is the set? e.g. benchmark.kind={kind} benchmark.path=../data/{kind}")
    if not Path(path).is_dir():
        raise BadInput(f"benchmark.path={path}: there is no such folder; expected the unpacked set ({kind})")
    return Path(path)


def check_spelling(classes: Sequence[str], *, name: str) -> None:
    """Raises BadInput for two classes that differ only in capitals."""
    spelled: dict[str, str] = {}
    for label in classes:
        other = spelled.setdefault(label.lower(), label)
        if other != label:
            raise BadInput(
                f"{name}: the classes {other} and {label} differ only in capitals; write one of them for both"
            )


def _strata(rows: Sequence[ImageRow], classes: Sequence[str], name: str, *, at_least: int) -> tuple[str, ...]:
    found = sorted({row.label for row in rows}, key=lambda text: (int(text) if text.isdecimal() else -1, text))
    check_spelling(found, name=name)
    unknown = sorted(set(found) - set(classes)) if classes else []
    if unknown:
        raise BadInput(f"{name}: found the classes {', '.join(unknown)}; expected {', '.join(classes)}")
    kept = [label for label in classes if label in found] if classes else found
    if len(kept) < at_least:
        raise BadInput(f"{name}: found the classes {kept}; a benchmark needs at least two")
    return tuple(kept)


def _divide(
    rows: Sequence[ImageRow], labels: Sequence[int], groups: Sequence[str], split: SplitSettings, seed: int, name: str
) -> tuple[list[str], str]:
    """The split of every row, and a note that says what was made."""
    if split.num_folds is not None:
        return fold_split(labels, groups, split.num_folds, split.fold, seed=seed)
    given = [row.split if split.use_given else "" for row in rows]
    return complete_split(given, labels, groups, seed=seed, name=name, share_val=split.share_val)


def _sha256(rows: Sequence[ImageRow]) -> dict[Path, str]:
    """Of every file, masks included; raises BadInput for one without bytes."""
    files = list(dict.fromkeys(path for row in rows for path in (row.path, row.mask) if path is not None))
    parts = [files[start : start + _FILES_PER_TASK] for start in range(0, len(files), _FILES_PER_TASK)]
    with ThreadPoolExecutor(NUM_HASH_THREADS) as pool:
        found = dict(pair for part in pool.map(_digests, parts) for pair in part)
    empty = [path for path, sha256 in found.items() if sha256 == _OF_NOTHING]
    if empty:
        more = f" (one of {len(empty)} such files)" if len(empty) > 1 else ""
        raise BadInput(f"{empty[0]}: the file is empty{more}; unpack the set again")
    return found


def _digests(files: Sequence[Path]) -> list[tuple[Path, str]]:
    return [(path, _digest(path)) for path in files]


def _digest(path: Path) -> str:
    try:
        str(path.absolute()).encode()
        return file_sha256(path)
    except UnicodeEncodeError:
        raise BadInput(f"{str(path)!a}: its name is no text in UTF-8; rename it") from None
    except OSError as error:
        raise BadInput(f"{path}: cannot be read ({error.strerror}); fetch the file again") from None


def _parts(row: ImageRow, sha256: dict[Path, str]) -> list[str]:
    """What tells the sample from others of its file."""
    parts = [f"item {row.item}"] if row.item is not None else []
    parts += [f"box {row.box}"] if row.box is not None else []
    return parts + ([f"mask {sha256[row.mask]}"] if row.mask is not None else [])


def _places(rows: Sequence[ImageRow]) -> list[list]:
    """The columns path, slide, item, box, mask."""
    return [
        [str(row.path.absolute()) for row in rows],
        [row.slide for row in rows],
        [row.item for row in rows],
        [row.box and list(row.box) for row in rows],
        [row.mask and str(row.mask.absolute()) for row in rows],
    ]


def _copies_note(content: Sequence[str], labels: Sequence[int], splits: Sequence[str]) -> str:
    """Exact copies are tolerated and said: they leak across splits, or carry two labels."""
    copied = {digest for digest, count in Counter(content).items() if count > 1}
    where: dict[str, set[str]] = {digest: set() for digest in copied}
    found: dict[str, set[int]] = {digest: set() for digest in copied}
    for digest, split, label in zip(content, splits, labels, strict=True):
        if digest in copied:
            where[digest].add(split)
            found[digest].add(label)
    if not copied:
        return ""
    num_across, num_conflicts = (sum(len(kinds) > 1 for kinds in kind.values()) for kind in (where, found))
    return f"{len(copied)} images have exact copies ({num_across} across splits, {num_conflicts} with two labels)"
