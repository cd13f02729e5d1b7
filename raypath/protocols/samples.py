"""Labelled samples in memory: what a protocol trains on and predicts.

One decision: pixels are read once and shared (Ray's object store hands the same memory to all trials); everything after is a pure
function of them.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from raypath.benchmarks import Predictions
from raypath.data.images import Frame, read_pixels


@dataclass(frozen=True, eq=False)
class Samples:
    """N samples; `images` uint8 [N, H, W, 3], `labels` int64 [N]."""

    images: np.ndarray
    labels: np.ndarray
    names: tuple[str, ...]
    patients: tuple[str | None, ...]
    classes: tuple[str, ...]

    @classmethod
    def of(cls, rows: pa.Table, classes: tuple[str, ...], frame: Frame | int) -> "Samples":
        """Read the rows of a benchmark; an int is an extent in px at which all of each sample is read."""
        frame = Frame(extent_px=frame) if isinstance(frame, int) else frame
        return cls(
            images=read_pixels(rows, frame),
            labels=rows["label"].to_numpy(),
            names=tuple(rows["sample"].to_pylist()),
            patients=tuple(rows["patient"].to_pylist()),
            classes=tuple(classes),
        )

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, numbers: np.ndarray) -> "Samples":
        """Some of the samples."""
        names, patients = (tuple(values[number] for number in numbers) for values in (self.names, self.patients))
        return Samples(self.images[numbers], self.labels[numbers], names, patients, self.classes)

    def predictions(self, probability: np.ndarray) -> Predictions:
        """What was said about each sample; `probability` [N, K]."""
        return Predictions(self.names, self.patients, self.labels, probability, self.classes)
