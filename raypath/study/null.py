"""Shuffled labels: what a score is when there is nothing to learn.

One decision: labels are shuffled among the training rows, and among the val rows, and the test stays true. So the null has the
same classes, patients, choices and test as the score beside it. The shuffle is balanced: the rows of each class get the labels of
all classes in the proportions of the set. A free shuffle says something about the true labels by chance, more than the interval of
a test allows for, and one null would often miss chance for that reason alone. In a segmentation every image gets the mask of
another one of its size, so a null there still knows where classes lie in a usual image, as any score above it has to; where masks
are cut from one file (tiles of slides, arrays of many images) there is none.

What it costs: a permutation; for masks the headers of the images.
"""

from collections import defaultdict
from dataclasses import replace

import numpy as np
import pyarrow as pa

from raypath.benchmarks import Benchmark
from raypath.benchmarks.benchmark import hash_rows
from raypath.data.image_files import size_of
from raypath.errors import BadInput


def shuffled(benchmark: Benchmark, *, seed: int) -> Benchmark:
    """A benchmark with the labels of train shuffled, and those of val; the test as it is.

    Of a segmentation, images of train and val whose size no other one has are left out. Raises ValueError where nothing can be
    shuffled (see `has_null`), and BadInput where no two images of train, or of val, have one size.
    """
    if not has_null(benchmark):
        raise ValueError(f"{benchmark.name}: its masks are parts of files and cannot be shuffled")
    rng = np.random.default_rng(seed)
    return (
        _with_other_labels(benchmark, rng) if benchmark.kind == "classification" else _with_other_masks(benchmark, rng)
    )


def has_null(benchmark: Benchmark) -> bool:
    """Whether labels (or whole masks) can be shuffled."""
    if benchmark.kind == "classification":
        return True
    columns = benchmark.table.column_names
    return "item" in columns and not any(item is not None for item in benchmark.table["item"].to_pylist())


def _with_other_masks(benchmark: Benchmark, rng: np.random.Generator) -> Benchmark:
    rows, groups, other = benchmark.table.to_pylist(), defaultdict(list), {}
    for number, row in enumerate(rows):
        if row["split"] != "test":
            groups[row["split"], size_of(row["path"])].append(number)
    for own in (rng.permutation(own) for own in groups.values() if len(own) > 1):
        other |= dict(zip(own.tolist(), np.roll(own, 1).tolist(), strict=True))  # of another image, always
    absent = [split for split in ("train", "val") if not any(rows[number]["split"] == split for number in other)]
    if absent:
        raise BadInput(f"{benchmark.name}: no two images of {absent[0]} have one size")
    kept = [number for number, row in enumerate(rows) if row["split"] == "test" or number in other]
    changed = [rows[number] | {"mask": rows[other.get(number, number)]["mask"]} for number in kept]
    made_of = [("null", benchmark.data_hash, row["sample"], row["mask"], row["split"]) for row in changed]
    table = pa.Table.from_pylist(changed, schema=benchmark.table.schema)
    return replace(benchmark, table=table, data_hash=hash_rows(made_of, ()))


def _with_other_labels(benchmark: Benchmark, rng: np.random.Generator) -> Benchmark:
    table = benchmark.table
    splits = np.array(table["split"].to_pylist(), dtype=str)
    labels = table["label"].to_numpy().copy()
    for split in ("train", "val"):
        own = np.flatnonzero(splits == split)
        labels[own] = dealt(labels[own], rng)
    place = table.schema.get_field_index("label")
    table = table.set_column(place, table.schema.field("label"), pa.array(labels))
    rows = zip(table["sample"].to_pylist(), labels.tolist(), splits.tolist(), strict=True)
    return replace(
        benchmark, table=table, data_hash=hash_rows([("null", benchmark.data_hash, *row) for row in rows], ())
    )


def dealt(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The same labels int64 [N] in another order: to the rows of each class in the proportions of all, to a card.

    Labels stand in a row in which each of them comes round evenly; it is laid along the rows, one class after the other.
    """
    counts = np.bincount(labels)
    turn = np.concatenate([(np.arange(num) + rng.random()) / num for num in counts if num])
    evenly = np.repeat(np.flatnonzero(counts), counts[counts > 0])[np.argsort(turn, kind="stable")]
    order = rng.permutation(len(labels))
    order = order[np.argsort(labels[order], kind="stable")]  # class after class, in any order within each
    found = np.empty_like(labels)
    found[order] = evenly
    return found
