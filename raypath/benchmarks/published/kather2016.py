"""Kather texture 2016: 5,000 tiles of colorectal cancer in eight classes, 150 px, from ten slides.

    Kather_texture_2016_image_tiles_5000/01_TUMOR/1A11_CRC-Prim-HE-07_022.tif_Row_601_Col_151.tif
    ... 02_STROMA 03_COMPLEX 04_LYMPHO 05_DEBRIS 06_MUCOSA 07_ADIPOSE 08_EMPTY

One decision: the number after CRC-Prim-HE is taken for the slide and for the patient, whatever letters follow it (HE-10c, 007b).
Mormont et al. count ten patients, which fits, but it is read from file names and no more. With ten patients a split is rough.

It is the task "UMCM Colorectal" of Mormont et al. 2020, who split it by patient into 3,349 to train on (6) and 1,651 to test on
(4); which patients those were is not published, so their split cannot be had.

Sources: layout, 0.495 um per px, licence, 625 tiles per class: zenodo.org/records/53169; ten patients: Mormont's thesis, table of
datasets (RECIPES 2.1).
"""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

from raypath.benchmarks.assembling import assemble, folder_of
from raypath.benchmarks.benchmark import Benchmark
from raypath.benchmarks.facts import Facts
from raypath.benchmarks.published.class_folders import images_of_classes
from raypath.benchmarks.splits.making import SplitSettings
from raypath.config import setting
from raypath.data.image_rows import ImageRow
from raypath.errors import BadInput

_FOLDERS = {
    "01_TUMOR": "tumor",
    "02_STROMA": "stroma",
    "03_COMPLEX": "complex",
    "04_LYMPHO": "lympho",
    "05_DEBRIS": "debris",
    "06_MUCOSA": "mucosa",
    "07_ADIPOSE": "adipose",
    "08_EMPTY": "empty",
}
_ARCHIVE = "Kather_texture_2016_image_tiles_5000"
_TILE = re.compile(r"[0-9A-F]+_(CRC-Prim-HE-\d\d).*\.tif_Row_\d+_Col_\d+\.tif")


@dataclass(frozen=True, kw_only=True)
class Kather2016Settings:
    """Eight textures of colorectal cancer, split here by slide."""

    kind: Literal["kather2016"] = "kather2016"
    path: str = setting("", identity=False)
    split: SplitSettings = field(default_factory=SplitSettings)

    FACTS: ClassVar[Facts] = Facts(
        title="Kather texture 2016 (UMCM Colorectal)",
        source="Kather et al. 2016, Scientific Reports 6:27988; zenodo.org/records/53169",
        licence="CC BY 4.0",
        mpp=0.495,
        counts={"images": 5_000, "patients": 10, **dict.fromkeys(_FOLDERS.values(), 625)},
        note="patients are the ten numbers in the file names",
    )

    @staticmethod
    def recognise(folder: Path) -> bool:
        """Whether the first and the last class folder are there, or the archive's folder that has them."""
        home = _home(folder)
        return (home / "01_TUMOR").is_dir() and (home / "08_EMPTY").is_dir()

    def load(self, seed: int) -> Benchmark:
        """The benchmark; raises BadInput for a missing class, an empty file, and a name without its slide."""
        home = _home(folder_of(self.path, self.kind))
        rows = [_row(home, path, label) for path, label in images_of_classes(home, _FOLDERS, ".tif")]
        classes = tuple(_FOLDERS.values())
        return assemble(rows, self.FACTS, self.split, name="kather2016", seed=seed, classes=classes)


def _home(folder: Path) -> Path:
    return folder / _ARCHIVE if (folder / _ARCHIVE).is_dir() else folder


def _row(home: Path, path: Path, label: str) -> ImageRow:
    name = _TILE.fullmatch(path.name)
    if not name:
        raise BadInput(
            f"{path}: expected a name like 1A11_CRC-Prim-HE-07_022.tif_Row_601_Col_151.tif, which says its slide"
        )
    return ImageRow(path.relative_to(home).as_posix(), path, label, "", patient=name[1], slide=name[1])
