"""Images whose every pixel has a class, in memory: what a segmentation trains on and predicts.

One decision: the counterpart of `Samples` for images that stay whole; a prediction of it is how often each class was called each
class, so no predicted mask is kept. An encoder may be fed at another um per px than the benchmark's: what is learnt from is then
resampled, and what is scored is not. Probabilities come back to the image's own extent and meet its own mask, so encoders fed at
different scales answer for the same pixels.

Objects are compared in every look, not in the last alone: for images of GlaS that is 8 ms each, beside some 800 ms for the network
on one core.

Tiles of slides are read at the benchmark's um per px and resampled as images are, not read from the slide anew: so a set of tiles
is one thing, as files and from slides. What it costs: an encoder trained at a finer scale gets no detail that the benchmark leaves
out; cut the benchmark finer for that.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from raypath.benchmarks.metrics.objects import compare_objects, label_objects
from raypath.benchmarks.metrics.pixels import PixelPredictions, pixel_confusion
from raypath.data.alterations import alter_image, parse_alteration
from raypath.data.masked_images import Masked, read_masked
from raypath.data.masked_resampling import resample_all
from raypath.data.masked_tiles import read_masked_tiles
from raypath.data.masks import MaskRule
from raypath.errors import BadInput
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
    objects: list[np.ndarray] | None = None
    """The number of the object at each pixel, 0 for none: uint8, uint16 or uint32 [H, W] at each image's own extent; None: objects
    are not scored."""

    @classmethod
    def of(
        cls,
        rows: pa.Table,
        classes: tuple[str, ...],
        rule: MaskRule,
        *,
        mpp: float | None = None,
        fed_mpp: float | None = None,
        has_objects: bool = False,
        alteration: str = "",
    ) -> "MaskedSamples":
        """Read the rows of a segmentation benchmark, which have `mpp` um per px (tiles of slides are read at it).

        `fed_mpp`: what they have at the encoder's input; None, or the same: as they are. `has_objects`: their masks number
        objects, which are to be scored; that takes one byte more per px, or two above 255 objects. `alteration`: what is done
        to the images as they are fed (see `raypath.data.alterations`). Raises BadInput as `read_masked` and `resample_all` do,
        and for an alteration that moves pixels away from their classes.
        """
        change = parse_alteration(alteration)
        if change is not None and not change.is_in_place:
            raise BadInput(
                f"alteration={alteration}: it moves pixels, and masks would not fit; take a factor of 1 or more"
            )
        if "path" in rows.column_names:
            masked = read_masked(rows, rule, classes, has_objects=has_objects)
        else:
            masked = read_masked_tiles(rows, mpp, classes)
        truth, objects = None, None
        if has_objects:
            objects = [numbers for _, numbers in masked]
            masked = [(image, (numbers != 0).astype(np.uint8)) for image, numbers in masked]
        if fed_mpp not in (None, mpp):
            truth = [mask for _, mask in masked]
            resample_all(masked, mpp / fed_mpp)
        names = tuple(rows["sample"].to_pylist())
        if change is not None:
            masked = [
                (alter_image(image, name, change), mask) for name, (image, mask) in zip(names, masked, strict=True)
            ]
        return cls(
            masked=masked,
            names=names,
            patients=tuple(rows["patient"].to_pylist()),
            classes=tuple(classes),
            truth=truth,
            objects=objects,
        )

    def __len__(self) -> int:
        return len(self.masked)

    def take(self, numbers: np.ndarray) -> "MaskedSamples":
        """Some of the images."""
        masked, names, patients = ([v[number] for number in numbers] for v in (self.masked, self.names, self.patients))
        truth, objects = (v and [v[number] for number in numbers] for v in (self.truth, self.objects))
        return MaskedSamples(masked, tuple(names), tuple(patients), self.classes, truth, objects)

    def predictions(self, said_of: Callable[[np.ndarray], np.ndarray]) -> PixelPredictions:
        """What `said_of` says about each image as it is fed: uint8 [h, w, 3] -> probabilities [K, h, w], or classes [h, w].

        Every pixel of the truth counts once; the objects that are said are the connected parts of class 1. Classes cannot be
        brought to another extent: ValueError where they would have to be.
        """
        truths = self.truth or [mask for _, mask in self.masked]
        confusion, objects = [], []
        for number, ((image, _), truth) in enumerate(zip(self.masked, truths, strict=True)):
            said = said_of(image)
            called = at_extent(said, truth.shape).argmax(0) if said.ndim == 3 else said
            confusion.append(pixel_confusion(truth, called, len(self.classes)))
            if self.objects is not None:
                objects.append(compare_objects(self.objects[number], label_objects(called == 1)))
        return PixelPredictions(self.names, self.patients, np.stack(confusion), self.classes, objects or None)
