"""Near-duplicates by what an encoder says: candidates by their features, judged by their pixels.

One decision: features propose, pixels decide. The NUM_NEAREST of every sample by the cosine of centred features are laid on it
(`near_duplicates.compare`: every flip, turn and enlargement to 1.5), and only the correlation of the pictures makes a pair. So an
encoder that finds all tissue alike costs time and invents nothing, and one that knows a tissue again finds copies that were moved
or enlarged more than the rings of `near_duplicates` bear. Two witnesses, so less is asked of each: LEAST_CORRELATION is lower. But
pictures that are nearly empty, an edge of tissue and white, are alike by their edge: of those with less than LEAST_CONTENT a
correlation of CERTAIN is asked.

Set on real sets, ImageNet features (EfficientNet-Lite0, 112 px), every image against all others of its set: LC25000's lung (480)
has 88 pairs, 4 of them below the 0.5 that rings alone ask for (to the eye copies), with a content of 0.55 and more. The most alike
strangers with as much content have 0.44 (white blood cells), with less 0.55 (breast of IDC); of PCam (520) they have 0.37, of a
polyp set (650) 0.37 beside one pair of copies.

What it costs: one decoding per sample, N x M cosines, NUM_NEAREST comparisons per sample of the first set.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from raypath.benchmarks.splits.near_duplicates import compare, pictures, rings_of
from raypath.errors import BadInput

VERSION = 2  # raised by hand when equal pictures and features give other pairs
LEAST_CORRELATION, LEAST_COSINE = 0.45, 0.4
LEAST_CONTENT, CERTAIN = 0.5, 0.8
NUM_NEAREST = 8
_EXTENT_PX = 128  # at which tiles of slides are read
_QUERIES, _PAIRS = 512, 256  # at once


@dataclass(frozen=True)
class FeaturePair:
    """Two samples that show the same, by features and by pixels."""

    first: str
    second: str
    cosine: float
    """Of their features, less the mean of both sets."""
    correlation: float
    """Of their pictures at the best turn, flip and enlargement."""

    def __str__(self) -> str:
        return f"{self.first} and {self.second}, correlation {self.correlation:.2f}, cosine {self.cosine:.2f}"


def near_duplicates_by_features(
    first: pa.Table,
    first_features: np.ndarray,
    second: pa.Table,
    second_features: np.ndarray,
    *,
    least_cosine: float = LEAST_COSINE,
    least_correlation: float = LEAST_CORRELATION,
) -> list[FeaturePair]:
    """The near-duplicates between two sets of samples, best first; within one (both tables equal) each pair once.

    Tables as those of a benchmark; features float [N, D] and [M, D] of one encoder, in the order of the rows. Raises BadInput where
    they do not fit the rows or each other, are not finite, and for a picture that cannot be read.
    """
    _check(first, first_features, second, second_features)
    a, b = _directions(first_features, second_features)
    names = first["sample"].to_pylist(), second["sample"].to_pylist()
    rows = list(_candidates(a, b, least_cosine))
    if first.equals(second):
        rows = list(
            {(min(i, j), max(i, j)): (min(i, j), max(i, j), cosine) for i, j, cosine in rows if i != j}.values()
        )
    rings = [_rings(table, {row[side] for row in rows}) for side, table in enumerate((first, second))]
    contents = [{number: float(values.std()) for number, values in own.items()} for own in rings]
    found = []
    for start in range(0, len(rows), _PAIRS):
        part = rows[start : start + _PAIRS]
        correlations = compare(np.stack([rings[0][i] for i, *_ in part]), np.stack([rings[1][j] for _, j, _ in part]))[
            0
        ]
        for (i, j, cosine), correlation in zip(part, correlations.tolist(), strict=True):
            content = min(contents[0][i], contents[1][j])
            if correlation >= (least_correlation if content >= LEAST_CONTENT else max(least_correlation, CERTAIN)):
                found.append(FeaturePair(names[0][i], names[1][j], cosine, correlation))
    return sorted(found, key=lambda pair: (-pair.correlation, pair.first, pair.second))


def _candidates(a: np.ndarray, b: np.ndarray, least_cosine: float) -> Iterator[tuple[int, int, float]]:
    """(row, row, cosine) of the nearest of every row of `a` among `b`; one more, because a row may be there itself."""
    num = min(NUM_NEAREST + 1, len(b))
    for start in range(0, len(a), _QUERIES):
        cosine = a[start : start + _QUERIES] @ b.T
        nearest = np.argpartition(-cosine, num - 1, axis=1)[:, :num]
        for row, columns in enumerate(nearest):
            for column in columns.tolist():
                if cosine[row, column] >= least_cosine:
                    yield start + row, column, float(cosine[row, column])


def _directions(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors after the mean of both sets is taken away: what all tissue has in common says nothing."""
    mean = np.concatenate([first, second]).mean(axis=0, dtype=np.float64)
    centred = [(values - mean).astype(np.float32) for values in (first, second)]
    return tuple(v / np.maximum(np.linalg.norm(v, axis=1, keepdims=True), 1e-12) for v in centred)


def _rings(table: pa.Table, numbers: set[int]) -> dict[int, np.ndarray]:
    """The rings of some rows, by their number."""
    order = sorted(numbers)
    rows = table.take(pa.array(order, pa.int64())).to_pylist()
    return {number: rings_of(picture) for number, picture in zip(order, pictures(rows, _EXTENT_PX), strict=True)}


def _check(first: pa.Table, first_features: np.ndarray, second: pa.Table, second_features: np.ndarray) -> None:
    for rows, features in ((first, first_features), (second, second_features)):
        if features.ndim != 2 or len(features) != len(rows) or not len(rows):
            raise BadInput(f"features {list(features.shape)} for {len(rows)} samples; expected one row [N, D] for each")
        if not np.isfinite(features).all():
            raise BadInput("some features are not finite: the encoder has diverged; take an earlier checkpoint of it")
    widths = first_features.shape[1], second_features.shape[1]
    if widths[0] != widths[1]:
        raise BadInput(f"features of width {widths[0]} and {widths[1]}; expected those of one encoder")
