"""A benchmark from images of one's own with masks: classes belong to pixels.

    images/a.png  masks/a.png          equal stems; or train/, val/ and test/ that hold such pairs
    manifest.csv                       image (or path), a column that begins with "mask", and if known label, patient, split

One decision: which class a value of a mask is, is said and never guessed: by the rule (`raypath.data.masks`) and by the names of
the classes in their order; whether masks number objects is said too. So that nothing can be said wrongly, every mask is read once,
and every one that does not fit its image or holds a class without a name is listed. That costs a decoding of each image and mask
(some 10 ms for 1 Mpx).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from raypath.benchmarks.assembling import assemble
from raypath.benchmarks.benchmark import Benchmark
from raypath.benchmarks.facts import Facts
from raypath.benchmarks.splits.making import SplitSettings
from raypath.config import setting
from raypath.data.image_files import UNREADABLE, open_image, size_of
from raypath.data.image_rows import MANIFEST_NAMES, MAX_SHOWN, ImageRow, read_image_rows
from raypath.data.masks import read_mask, read_objects
from raypath.errors import BadInput


@dataclass(frozen=True, kw_only=True)
class MasksSettings:
    """Any folder of images and masks, or a manifest of them."""

    kind: Literal["masks"] = "masks"
    path: str = setting("", identity=False)
    name: str | None = setting(None, identity=False)
    mpp: float | None = None
    """um per px of the images; null: nobody knows."""
    mask_rule: Literal["values", "binary", "channels"] = "binary"
    has_objects: bool = False
    """Whether each mask numbers its objects (1, 2, ...; 0: none), for scores of objects beside those of pixels."""
    classes: tuple[str, ...] = ("background", "foreground")
    """Names of classes 0, 1, ... as the rule makes them."""
    stratum: str = "label"
    """The manifest's column that splits are stratified by; without a column "label" they are not."""
    split: SplitSettings = field(default_factory=SplitSettings)

    def load(self, seed: int) -> Benchmark:
        """Read the manifest or folder and every mask; raises BadInput for what is wrong with them."""
        if not self.path:
            raise BadInput(
                "benchmark.path: which images with masks? e.g. benchmark.kind=masks benchmark.path=../data/my_set"
            )
        if len(self.classes) < 2 or (self.mask_rule == "binary" and len(self.classes) != 2):
            wanted = "two names" if self.mask_rule == "binary" else "a name for each class, at least two"
            raise BadInput(f"benchmark.classes={self.classes!r}: mask_rule={self.mask_rule} needs {wanted}")
        if self.has_objects and self.mask_rule != "binary":
            raise BadInput(
                f"benchmark.has_objects: mask_rule={self.mask_rule}; objects are numbered where there is one class of them (binary)"
            )
        path = Path(self.path)
        rows, note = read_image_rows(path, label=self.stratum, has_masks=True)
        check_masks(rows, self.mask_rule, self.classes)
        if self.has_objects:
            check_objects(rows)
        name = self.name or (path.parent if path.name in MANIFEST_NAMES else path.absolute()).name or path.stem
        facts = Facts(title=name, source=str(path), licence="not stated", mpp=self.mpp)
        return assemble(
            rows,
            facts,
            self.split,
            name=name,
            seed=seed,
            notes=[note],
            classes=self.classes,
            mask_rule=self.mask_rule,
            has_objects=self.has_objects,
        )


def check_masks(rows: Sequence[ImageRow], rule: str, classes: Sequence[str]) -> None:
    """Raises BadInput listing the masks that cannot be read, do not fit their image, or hold a class that has no name."""
    faults = [f"{row.mask}: {fault}" for row in rows if (fault := _fault(row, rule, classes))]
    if faults:
        more = [f"... and {len(faults) - MAX_SHOWN} more"] if len(faults) > MAX_SHOWN else []
        hint = "mend them, or say what they are with benchmark.mask_rule and benchmark.classes"
        raise BadInput(
            "\n".join([f"{len(faults)} of {len(rows)} masks cannot be used; {hint}", *faults[:MAX_SHOWN], *more])
        )


def check_objects(rows: Sequence[ImageRow]) -> None:
    """Raises BadInput if no mask numbers more than one object; masks that `check_masks` has passed."""
    for row in rows:
        numbers = read_objects(str(row.mask), size=size_of(str(row.path)))
        if len(np.unique(numbers[numbers > 0])) > 1:
            return
    raise BadInput(
        f"benchmark.has_objects: none of {len(rows)} masks has another value than 0 and one more, e.g. {rows[0].mask}: they number"
        " no objects; set benchmark.has_objects=false"
    )


def _fault(row: ImageRow, rule: str, classes: Sequence[str]) -> str | None:
    try:
        size = open_image(str(row.path)).size
    except UNREADABLE as error:
        return f"its image {row.path} cannot be read ({error})"
    try:
        highest = int(read_mask(str(row.mask), rule, size=size).max())
    except UNREADABLE as error:
        return str(error)
    if highest >= len(classes):
        return f"it holds class {highest}, but only 0 to {len(classes) - 1} have names ({', '.join(classes)})"
    return None
