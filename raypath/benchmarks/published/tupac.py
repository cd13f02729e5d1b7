"""TUPAC16, its auxiliary set of mitoses: breast cancer at 40x, mitotic figures marked by points.

    mitoses_image_data_part_1/01/01.tif         case, image; cases 1-14, 15-33 and 34-73 in three parts (or all in one folder)
    mitoses_ground_truth/01/01.csv              row,column of each mitotic figure; images without any have no file

One decision: the case is the patient. Boxes of 250 px: ten around every figure, shifted at random, and of an overlapping grid all
that are clear of figures (`sparse_objects`). What it costs: the header of every image is read, and grids make many more boxes of no
mitosis than of one.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np

from raypath.benchmarks.assembling import assemble, folder_of
from raypath.benchmarks.benchmark import Benchmark
from raypath.benchmarks.cutting.boxes import image_size
from raypath.benchmarks.cutting.sparse_objects import box_rows, object_boxes, read_points
from raypath.benchmarks.facts import Facts
from raypath.benchmarks.splits.making import SplitSettings
from raypath.config import setting
from raypath.data.image_rows import ImageRow
from raypath.errors import BadInput

_TRUTH = "mitoses_ground_truth"
_CLASSES = ("none", "mitosis")


@dataclass(frozen=True, kw_only=True)
class TUPACSettings:
    """TUPAC16 mitoses: whether a box holds a mitotic figure."""

    kind: Literal["tupac"] = "tupac"
    path: str = setting("", identity=False)
    extent_px: int = 250
    stride_px: int = 125
    """Of the grid of boxes without a mitosis; the paper's is not published."""
    num_per_object: int = 10
    shift_px: float = 62.5
    """The most that a box is shifted off a figure along each axis; the paper's is not published."""
    clearance_px: float = 30.0
    """How far a box of no mitosis keeps from every figure."""
    split: SplitSettings = field(default_factory=SplitSettings)

    # 73 cases in three parts, and no file for images without mitoses: several public readers of the set, which agree. 77,853 boxes:
    # the second paper's table of its pool, whose grid is not published, so a set built here differs.
    FACTS: ClassVar[Facts] = Facts(
        title="TUPAC16 (mitoses)",
        source="Veta et al. 2019, Medical Image Analysis 54; tupac.grand-challenge.org",
        licence="not stated",
        mpp=None,  # scanned at 40x; no source at hand says the um per px
        counts={"images": 77_853, "patients": 73},
        note="cases 1-23 are those of AMIDA13",
    )

    @staticmethod
    def recognise(folder: Path) -> bool:
        """Whether the ground truth and a part of the images are there."""
        return (folder / _TRUTH).is_dir() and any(folder.glob("mitoses_image_data*"))

    def load(self, seed: int) -> Benchmark:
        """The benchmark; raises BadInput for points without their image, and for damaged files."""
        folder = folder_of(self.path, self.kind)
        images = dict(sorted(_images(folder)))
        truths = {path.relative_to(folder / _TRUTH).with_suffix("").as_posix(): path for path in _truths(folder)}
        lonely = sorted(truths.keys() - images.keys())
        if lonely or not images:
            missing = f"{truths[lonely[0]]}: its image" if lonely else f"{folder}: mitoses_image_data_part_1/01/01.tif"
            raise BadInput(f"{missing} is not there; unpack all three parts of the images")
        rows = [row for name, path in images.items() for row in self._cut(name, path, truths.get(name), seed)]
        return assemble(rows, self.FACTS, self.split, name="tupac", seed=seed, classes=_CLASSES)

    def _cut(self, name: str, path: Path, truth: Path | None, seed: int) -> list[ImageRow]:
        size = image_size(path)
        points = read_points(truth, size, is_row_first=True) if truth else np.empty((0, 2))
        boxes, kinds = object_boxes(
            [points],
            size,
            self.extent_px,
            stride_px=self.stride_px,
            num_per_object=self.num_per_object,
            shift_px=self.shift_px,
            clearance_px=self.clearance_px,
            key=f"{seed} {name}",
        )
        labels = [("mitosis", "none")[kind] for kind in kinds]
        return box_rows(name, path, boxes, labels, name.split("/")[0])


def _images(folder: Path) -> Iterator[tuple[str, Path]]:
    """case/image -> file, of every part."""
    for path in folder.glob("mitoses_image_data*/*/[!.]*.tif"):
        yield f"{path.parent.name}/{path.stem}", path


def _truths(folder: Path) -> list[Path]:
    found = sorted((folder / _TRUTH).glob("*/[!.]*.csv"))
    if not found:
        raise BadInput(f"{folder / _TRUTH}: no 01/01.csv and the like; expected the unpacked ground truth")
    return found
