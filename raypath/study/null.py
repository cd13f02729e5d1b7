"""Shuffled labels: what a score is when there is nothing to learn.

One decision: labels are shuffled among the training rows, and among the val rows, and the test stays true. So the null has the
same classes, patients, choices and test as the score beside it, and its interval should cover chance. A segmentation has none:
masks of other images do not fit.
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
    order = np.arange(len(table))
    for split in ("train", "val"):
        own = np.flatnonzero(splits == split)
        order[own] = rng.permutation(own)
    place = table.schema.get_field_index("label")
    labels = pa.array(table["label"].to_numpy()[order])
    table = table.set_column(place, table.schema.field("label"), labels)
    rows = zip(table["sample"].to_pylist(), order.tolist(), splits.tolist(), strict=True)
    return replace(
        benchmark, table=table, data_hash=hash_rows([("null", benchmark.data_hash, *row) for row in rows], ())
    )
