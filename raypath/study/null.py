"""Shuffled labels: what a score is when there is nothing to learn.

One decision: labels are shuffled among the training rows, and among the val rows, and the test stays true. So the null has the
same classes, patients, choices and test as the score beside it. The shuffle is balanced: the rows of each class get the labels of
all classes in the proportions of the set. A free shuffle says something about the true labels by chance, more than the interval of
a test allows for, and one null would often miss chance for that reason alone. A segmentation has none: masks of other images do
not fit.
"""

from dataclasses import replace

import numpy as np
import pyarrow as pa

from raypath.benchmarks import Benchmark
from raypath.benchmarks.benchmark import hash_rows


def shuffled(benchmark: Benchmark, *, seed: int) -> Benchmark:
    """A classification with the labels of train shuffled, and those of val; the test as it is.

    Raises ValueError for a segmentation.
    """
    if benchmark.kind != "classification":
        raise ValueError(f"{benchmark.name}: the labels of a {benchmark.kind} cannot be shuffled")
    table, rng = benchmark.table, np.random.default_rng(seed)
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
