"""Images whose every pixel has a class, in memory: what a segmentation trains on and predicts.

One decision: the counterpart of `Samples` for images that stay as large as they are; a prediction of it is how often each class was
called each class, so no predicted mask is kept.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from raypath.benchmarks.metrics.pixels import PixelPredictions, pixel_confusion
from raypath.data.masked_images import Masked, read_masked
from raypath.data.masked_tiles import read_masked_tiles
from raypath.data.masks import MaskRule


@dataclass(frozen=True, eq=False)
class MaskedSamples:
    """N images with masks."""

    masked: list[Masked]
    """Image uint8 [H, W, 3] and classes uint8 [H, W] of each."""
    names: tuple[str, ...]
    patients: tuple[str | None, ...]
    classes: tuple[str, ...]

    @classmethod
    def of(
        cls, rows: pa.Table, classes: tuple[str, ...], rule: MaskRule, *, mpp: float | None = None
    ) -> "MaskedSamples":
        """Read the rows of a segmentation benchmark, tiles of slides at `mpp`; raises BadInput as `read_masked` does."""
        is_of_slides = "path" not in rows.column_names
        return cls(
            masked=read_masked_tiles(rows, mpp, classes) if is_of_slides else read_masked(rows, rule, classes),
            names=tuple(rows["sample"].to_pylist()),
            patients=tuple(rows["patient"].to_pylist()),
            classes=tuple(classes),
        )

    def __len__(self) -> int:
        return len(self.masked)

    def take(self, numbers: np.ndarray) -> "MaskedSamples":
        """Some of the images."""
        masked, names, patients = (
            [values[number] for number in numbers] for values in (self.masked, self.names, self.patients)
        )
        return MaskedSamples(masked, tuple(names), tuple(patients), self.classes)

    def predictions(self, classes_of: Callable[[np.ndarray], np.ndarray]) -> PixelPredictions:
        """What `classes_of` says about each image: uint8 [H, W, 3] -> classes [H, W]."""
        confusion = [pixel_confusion(mask, classes_of(image), len(self.classes)) for image, mask in self.masked]
        return PixelPredictions(self.names, self.patients, np.stack(confusion), self.classes)
