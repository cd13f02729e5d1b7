"""Images whose every pixel has a class, in memory: what a segmentation trains on and predicts.

One decision: the counterpart of `Samples` for images that stay whole; a prediction of it is how often each class was called each
class, so no predicted mask is kept. An encoder may be fed at another um per px than the benchmark's: what is learnt from is then
resampled, and what is scored is not. Probabilities come back to the image's own extent and meet its own mask, so encoders fed at
different scales answer for the same pixels.

Tiles of slides are read at the benchmark's um per px and resampled as images are, not read from the slide anew: so a set of tiles
is one thing, as files and from slides. What it costs: an encoder trained at a finer scale gets no detail that the benchmark leaves
out; cut the benchmark finer for that.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from raypath.benchmarks.metrics.pixels import PixelPredictions, pixel_confusion
from raypath.data.masked_images import Masked, read_masked
from raypath.data.masked_resampling import resample_all
from raypath.data.masked_tiles import read_masked_tiles
from raypath.data.masks import MaskRule
from raypath.protocols.whole_images import at_extent


@dataclass(frozen=True, eq=False)
class MaskedSamples:
    """N images with masks."""

    masked: list[Masked]
    """Image uint8 [h, w, 3] and classes uint8 [h, w] of each, as the encoder is fed."""
    names: tuple[str, ...]
    patients: tuple[str | None, ...]
    classes: tuple[str, ...]
    truth: list[np.ndarray] | None = None
    """Classes uint8 [H, W] that are scored, at each image's own extent; None: those of `masked`."""

    @classmethod
    def of(
        cls,
        rows: pa.Table,
        classes: tuple[str, ...],
        rule: MaskRule,
        *,
        mpp: float | None = None,
        fed_mpp: float | None = None,
    ) -> "MaskedSamples":
        """Read the rows of a segmentation benchmark, which have `mpp` um per px (tiles of slides are read at it).

        `fed_mpp`: what they have at the encoder's input; None, or the same: as they are. Raises BadInput as `read_masked` and
        `resample_all` do.
        """
        is_of_slides = "path" not in rows.column_names
        masked = read_masked_tiles(rows, mpp, classes) if is_of_slides else read_masked(rows, rule, classes)
        truth = None
        if fed_mpp not in (None, mpp):
            truth = [mask for _, mask in masked]
            resample_all(masked, mpp / fed_mpp)
        return cls(
            masked=masked,
            names=tuple(rows["sample"].to_pylist()),
            patients=tuple(rows["patient"].to_pylist()),
            classes=tuple(classes),
            truth=truth,
        )

    def __len__(self) -> int:
        return len(self.masked)

    def take(self, numbers: np.ndarray) -> "MaskedSamples":
        """Some of the images."""
        masked, names, patients = ([v[number] for number in numbers] for v in (self.masked, self.names, self.patients))
        truth = None if self.truth is None else [self.truth[number] for number in numbers]
        return MaskedSamples(masked, tuple(names), tuple(patients), self.classes, truth)

    def predictions(self, said_of: Callable[[np.ndarray], np.ndarray]) -> PixelPredictions:
        """What `said_of` says about each image as it is fed: uint8 [h, w, 3] -> probabilities [K, h, w], or classes [h, w].

        Every pixel of the truth counts once. Classes cannot be brought to another extent: ValueError where they would have to be.
        """
        truths = self.truth or [mask for _, mask in self.masked]
        confusion = []
        for (image, _), truth in zip(self.masked, truths, strict=True):
            said = said_of(image)
            called = at_extent(said, truth.shape).argmax(0) if said.ndim == 3 else said
            confusion.append(pixel_confusion(truth, called, len(self.classes)))
        return PixelPredictions(self.names, self.patients, np.stack(confusion), self.classes)
