"""CRCHistoPhenotypes (Warwick): nuclei of 100 images of colorectal adenocarcinoma, marked by their centres.

    Classification/img1/img1.bmp                500 x 500 px
    Classification/img1/img1_epithelial.mat     detection [N, 2]: x, y of such nuclei; _fibroblast, _inflammatory, _others
    Detection/img1/img1.bmp, img1_detection.mat all nuclei, with or without a class

One decision: as a task of the second paper's pool, boxes of 100 px on a grid, positive where one holds an inflammatory nucleus (25
of each image: the 2,500 of the paper); else each nucleus with its class, in a box of 27 px around it (moved inside at the edge).
The images come from few patients that are not named, so the image stands for the patient, as in the paper.
"""

import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from scipy.io import loadmat
from scipy.io.matlab import MatReadError

from raypath.benchmarks.assembling import assemble, folder_of
from raypath.benchmarks.benchmark import Benchmark
from raypath.benchmarks.cutting.boxes import boxes_around, grid_boxes, holds_point, image_size
from raypath.benchmarks.cutting.sparse_objects import box_rows, inside
from raypath.benchmarks.facts import Facts
from raypath.benchmarks.splits.making import SplitSettings
from raypath.config import setting
from raypath.data.image_rows import ImageRow
from raypath.errors import BadInput

_TYPES = ("epithelial", "fibroblast", "inflammatory", "others")
_PRESENCE = ("other", "inflammatory")
_POOL_PX = 100
_NUCLEUS_PX = 27  # the tiles of Sirinukunwattana et al. 2016
_DAMAGED = (OSError, ValueError, TypeError, LookupError, NotImplementedError, zlib.error, MatReadError)


@dataclass(frozen=True, kw_only=True)
class WarwickCRCSettings:
    """CRCHistoPhenotypes: whether a box holds an inflammatory nucleus, or the type of each nucleus."""

    kind: Literal["warwick_crc"] = "warwick_crc"
    path: str = setting("", identity=False)
    target: Literal["inflammatory", "nuclei"] = "inflammatory"
    split: SplitSettings = field(default_factory=SplitSettings)

    # 100 images and 22,444 nuclei with a class: Readme.txt of the set (zhuyiche/sfcn-opi). By class: several readers of the set,
    # which agree. 2,500 boxes: the second paper's table of its pool. Licence: Readme.txt.
    FACTS: ClassVar[Facts] = Facts(
        title="CRCHistoPhenotypes (Warwick CRC)",
        source="Sirinukunwattana et al. 2016, IEEE TMI 35(5); warwick.ac.uk/fac/cross_fac/tia/data/crchistolabelednucleihe",
        licence="research use",
        mpp=None,
        counts={"images": 2500},
        note="patients are not named, the image stands for one: patients may be divided",
    )
    NUCLEI: ClassVar[Facts] = Facts(
        title=FACTS.title,
        source=FACTS.source,
        licence=FACTS.licence,
        mpp=FACTS.mpp,
        counts={"images": 22_444, "epithelial": 7722, "fibroblast": 5712, "inflammatory": 6971, "others": 2039},
        note=FACTS.note,
    )

    @staticmethod
    def recognise(folder: Path) -> bool:
        """Whether the first image with its classes is there."""
        return (folder / "Classification" / "img1" / "img1_inflammatory.mat").is_file()

    def load(self, seed: int) -> Benchmark:
        """The benchmark; raises BadInput for an image without its four files, and for damaged ones."""
        homes = _homes(folder_of(self.path, self.kind))
        if self.target == "nuclei":
            rows = [row for home in homes for row in _nuclei(home)]
            return assemble(rows, self.NUCLEI, self.split, name="warwick-crc-nuclei", seed=seed, classes=_TYPES)
        rows = [row for home in homes for row in _presence(home)]
        return assemble(rows, self.FACTS, self.split, name="warwick-crc", seed=seed, classes=_PRESENCE)


def _homes(folder: Path) -> list[Path]:
    homes = sorted((folder / "Classification").glob("img*"), key=lambda home: (len(home.name), home.name))
    homes = [home for home in homes if home.is_dir()]
    if not homes:
        raise BadInput(f"{folder}: no Classification/img1; expected the unpacked CRCHistoPhenotypes_2016_04_28")
    return homes


def _presence(home: Path) -> list[ImageRow]:
    path, size, points = _image(home)
    boxes = grid_boxes(size, _POOL_PX)
    is_positive = holds_point(boxes, points["inflammatory"])
    return box_rows(home.name, path, boxes, [_PRESENCE[int(positive)] for positive in is_positive], home.name)


def _nuclei(home: Path) -> list[ImageRow]:
    path, size, points = _image(home)
    centres = np.concatenate(list(points.values()))
    boxes, _ = boxes_around(centres, size, _NUCLEUS_PX, num_per_point=1, shift_px=0.0, key=home.name)
    labels = [label for label, found in points.items() for _ in found]
    return box_rows(home.name, path, boxes, labels, home.name)


def _image(home: Path) -> tuple[Path, tuple[int, int], dict[str, np.ndarray]]:
    """The file of an image, its size, and the nuclei of each type."""
    path = home / f"{home.name}.bmp"
    size = image_size(path)
    return path, size, {name: _points(home / f"{home.name}_{name}.mat", size) for name in _TYPES}


def _points(path: Path, size: tuple[int, int]) -> np.ndarray:
    try:
        with path.open("rb") as file:
            points = np.asarray(loadmat(file)["detection"], np.float64)
    except _DAMAGED as error:
        raise BadInput(
            f"{path}: no nuclei in it ({error}); expected MATLAB's variable detection: fetch it again"
        ) from None
    if points.size == 0:
        return np.empty((0, 2))
    if points.ndim != 2 or points.shape[1] != 2:
        raise BadInput(f"{path}: detection has the shape {points.shape}; expected [N, 2], x and y of each nucleus")
    return inside(points, size, path)
