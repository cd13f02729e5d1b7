"""Mitoses (Janowczyk's fifth use case): H&E of breast cancer with mitoses marked, task Janowczyk5 of the 22-task pool.

    01_01.tif          2000 x 2000 px; the first two characters are the patient
    01_01_pc.png       not 0: mitosis. Absent where an image has none (patient 10 has none at all)
    01_01_cmask.png    what the authors' code looked at for negatives: not used here

One decision: samples are made as Mormont et al. 2020 say. Negatives are the boxes of a grid that hold no pixel of a mitosis;
around the centre of each mitosis lie ten boxes, shifted at random; boxes of the grid that hold some mitosis are neither, and
are counted. An image without `_pc.png` is taken as one without mitoses, as the authors' code does, and counted too.

Not published: the overlap of the grid and the range of the shifts. The default is no overlap: if there are 311 images, as
AMIDA13 is said to have of its first twelve patients (not checked against it), these give 19,904 boxes of 250 px without and
69,975 with half, and the paper has 24,870 samples in all. The shifts keep the centre of a mitosis in the middle half of its
box.

Costs one decoding and one labelling per mask, 0.2 s for 2000 x 2000 px with two busy cores. Sources: layout,
choosehappy/public@1c0ef414 "DL tutorial Code/5-mitosis/step1_make_patches.m" and step6_make_patches_probs_based_blue_ratio.m;
counts, sizes and ten per object, appendix of the thesis waliens/phd-thesis@11db1cab.
"""

import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from scipy import ndimage

from raypath.benchmarks.assembling import assemble, folder_of
from raypath.benchmarks.benchmark import Benchmark
from raypath.benchmarks.cutting.area_rule import boxes_of, cut_out, mask_of
from raypath.benchmarks.cutting.boxes import boxes_around, share_inside
from raypath.benchmarks.facts import Facts
from raypath.benchmarks.splits.making import SplitSettings
from raypath.config import setting
from raypath.data.image_rows import ImageRow
from raypath.errors import BadInput

_NAME = re.compile(r"(\d\d)_\d+\.tif")
_CLASSES = ("none", "mitosis")
_EXTENT_PX, _NUM_PER_MITOSIS, _SHIFT_PX = 250, 10, 62.5
_TOUCHING = np.ones((3, 3), int)  # pixels that touch at a corner belong to one mitosis
_NUM_THREADS = 4


@dataclass(frozen=True, kw_only=True)
class Janowczyk5Settings:
    """Mitoses of breast cancer (Janowczyk 2016): whether a tile of 250 px holds one."""

    kind: Literal["janowczyk5"] = "janowczyk5"
    path: str = setting("", identity=False)
    overlap_px: int = 0
    """Of neighbouring negatives."""
    split: SplitSettings = field(default_factory=SplitSettings)

    FACTS: ClassVar[Facts] = Facts(
        title="Janowczyk use case 5: mitoses",
        source="Janowczyk and Madabhushi 2016, J Pathol Inform 7:29; cut as Mormont et al. 2020",
        licence="not stated",
        mpp=None,
        counts={"images": 24_870, "patients": 12},
        note="twelve patients numbered as the first of AMIDA13, which TUPAC16 contains: probably the same",
    )

    @staticmethod
    def recognise(folder: Path) -> bool:
        """Whether an image and its mask are there."""
        return any(_mask_path(path).is_file() for path in folder.glob("*.tif") if _NAME.fullmatch(path.name))

    def load(self, seed: int) -> Benchmark:
        """The benchmark; raises BadInput for files that cannot be read, other names, and a set without masks."""
        if not 0 <= self.overlap_px < _EXTENT_PX:
            raise BadInput(f"benchmark.overlap_px={self.overlap_px}: expected 0 to {_EXTENT_PX - 1}")
        images = read_rows(folder_of(self.path, self.kind))
        with ThreadPoolExecutor(_NUM_THREADS) as pool:
            parts = list(pool.map(lambda row: _cut(row, _EXTENT_PX - self.overlap_px), images))
        num_between = sum(between for _, between in parts)
        num_unmarked = sum(row.mask is None for row in images)
        notes = [
            f"{num_between} boxes of the grid hold a mitosis and are no negatives",
            f"{num_unmarked} images have no mask: taken as without mitoses" if num_unmarked else "",
        ]
        rows = [row for rows, _ in parts for row in rows]
        return assemble(rows, self.FACTS, self.split, name="janowczyk5", seed=seed, notes=notes, classes=_CLASSES)


def read_rows(folder: Path) -> list[ImageRow]:
    """Every image with its patient, and its mask where there is one."""
    rows = []
    for path in sorted(folder.glob("[!.]*.tif")):
        named = _NAME.fullmatch(path.name)
        if named is None:
            raise BadInput(f"{path}: expected a name like 01_01.tif, which begins with the patient")
        mask = _mask_path(path)
        rows.append(ImageRow(path.name, path, "", "", named[1], mask=mask if mask.is_file() else None))
    masks = {path.name for path in folder.glob("[!.]*_pc.png")}
    alone = sorted(masks - {row.mask.name for row in rows if row.mask})
    if alone:
        raise BadInput(f"{folder / alone[0]}: its image is not there; fetch the set again")
    if not masks:
        raise BadInput(f"{folder}: {len(rows)} images 01_01.tif and the like, no mask 01_01_pc.png; expected both")
    return rows


def _mask_path(image: Path) -> Path:
    return image.with_name(f"{image.stem}_pc.png")


def _cut(row: ImageRow, stride_px: int) -> tuple[list[ImageRow], int]:
    """The samples of an image, negatives first, and how many boxes of its grid are neither."""
    mask = mask_of(row)
    grid = boxes_of(row, mask, _EXTENT_PX, stride_px)
    empty = grid[share_inside(mask, grid) == 0]
    height, width = mask.shape
    around, numbers = boxes_around(
        centres_of(mask),
        (width, height),
        _EXTENT_PX,
        num_per_point=_NUM_PER_MITOSIS,
        shift_px=_SHIFT_PX,
        key=row.sample,
    )
    rows = [cut_out(row, box, "none") for box in empty]
    draws = np.arange(len(numbers)) % _NUM_PER_MITOSIS
    rows += [
        cut_out(row, box, "mitosis", f"#{number}.{draw}")
        for box, number, draw in zip(around, numbers, draws, strict=True)
    ]
    return rows, len(grid) - len(empty)


def centres_of(mask: np.ndarray) -> np.ndarray:
    """The centre (x, y; float64 [P, 2]) of every connected part of a mask (bool [H, W]), parts in the order of scipy's labels."""
    if not mask.any():
        return np.empty((0, 2))
    parts, _ = ndimage.label(mask, _TOUCHING)
    y, x = np.nonzero(mask)  # some hundred pixels: means over them, not over the image
    part = parts[y, x]
    size = np.bincount(part)[1:]
    return np.stack([np.bincount(part, weights=along)[1:] / size for along in (x, y)], axis=1)
