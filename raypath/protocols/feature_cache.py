"""Features on disk: computed once per encoder and sample, found again by what they are made of.

One decision: a feature belongs to a sample's content and to everything on the encoder's side (weights, batch norm, extent, scale),
and to nothing else: not to a benchmark's name, its split or the order of its rows. So k-NN, probe and SVM share features, folds
share them, and a set that grew costs only what is new.

    features/KEY/part-XXXX.parquet      content (sha256), feature (float32 [D])       KEY: the encoder's side

Parts are written whole and never changed, so several processes may write at once; what two of them compute twice is equal. Costs
4 D bytes per sample; a damaged part is named and set aside by deleting it.
"""

import hashlib
import os
import secrets
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from raypath.errors import BadInput

VERSION = 2  # raised by hand when equal inputs give other features; 2: images that are marked as turned come upright


class FeatureCache:
    """The features of one encoder, fed in one way."""

    def __init__(self, root: Path, key: str):
        self.folder = Path(root) / hashlib.sha256(f"{VERSION} {key}".encode()).hexdigest()[:24]

    def features(self, rows: pa.Table, compute: Callable[[pa.Table], np.ndarray]) -> tuple[np.ndarray, int]:
        """float32 [N, D] of the rows of a benchmark, and how many of them were computed now, by `compute(rows)`.

        Rows whose content is not known are computed every time. Raises BadInput for a part that cannot be read.
        """
        contents = rows["content"].to_pylist()
        known = self._known(set(contents) - {None})
        absent = np.array([content not in known for content in contents])
        made = compute(rows.filter(pa.array(absent))) if absent.any() else None
        if made is None:
            return np.stack([known[content] for content in contents]), 0
        fresh = [content for content, is_absent in zip(contents, absent) if is_absent]
        self._keep(fresh, made)
        values = np.empty((len(rows), made.shape[1]), np.float32)
        values[absent] = made
        for number in np.flatnonzero(~absent):
            values[number] = known[contents[number]]
        return values, int(absent.sum())

    def _known(self, wanted: set[str]) -> dict[str, np.ndarray]:
        found: dict[str, np.ndarray] = {}
        for path in sorted(self.folder.glob("part-*.parquet")):
            try:
                contents = pq.read_table(path, columns=["content"])["content"].to_pylist()
                if wanted.isdisjoint(contents):
                    continue  # of another set: its features are not even read
                feature = pq.read_table(path, columns=["feature"])["feature"]
                values = feature.combine_chunks().flatten().to_numpy(zero_copy_only=False)
            except (OSError, pa.ArrowInvalid, KeyError) as error:
                raise BadInput(
                    f"{path}: not a sound file of features ({error}); delete it, they are computed anew"
                ) from None
            values = values.reshape(len(contents), -1)
            found |= {content: value for content, value in zip(contents, values) if content in wanted}
        return found

    def _keep(self, contents: list[str | None], values: np.ndarray) -> None:
        numbers = [number for number, content in enumerate(contents) if content is not None]
        if not numbers:
            return
        flat = pa.array(values[numbers].reshape(-1), pa.float32())
        table = pa.table(
            {
                "content": pa.array([contents[number] for number in numbers]),
                "feature": pa.FixedSizeListArray.from_arrays(flat, values.shape[1]),
            }
        )
        self.folder.mkdir(parents=True, exist_ok=True)
        name = f"part-{secrets.token_hex(8)}.parquet"
        draft = self.folder / f".{name}.{os.getpid()}"
        pq.write_table(table, draft)
        draft.rename(self.folder / name)
