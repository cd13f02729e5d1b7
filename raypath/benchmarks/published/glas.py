"""GlaS: glands in H&E of colon, with the outline of each gland and the grade of the image.

    train_1.bmp ... train_85.bmp, testA_1.bmp ... testA_60.bmp, testB_1.bmp ... testB_20.bmp
    train_1_anno.bmp ...     the number of the gland at each pixel, 0: none
    Grade.csv                name, patient ID, grade (GlaS), grade (Sirinukunwattana et al. 2015)

One decision: the given split divides patients between train and test, so the default is a split by patient
(`benchmark.split.use_given=true` with `benchmark.split.waive=["patient"]` has the challenge's own). As a segmentation the classes
are background and gland; as a classification the grade.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

from raypath.benchmarks.assembling import assemble, folder_of
from raypath.benchmarks.benchmark import Benchmark
from raypath.benchmarks.facts import Facts
from raypath.benchmarks.splits.making import SplitSettings
from raypath.config import setting
from raypath.data.csv_files import csv_table
from raypath.data.image_rows import ImageRow
from raypath.errors import BadInput

_IMAGE = re.compile(r"(train|testA|testB)_\d+\.bmp")
_GRADES = ("benign", "malignant")
_COLUMNS = _NAME, _PATIENT, _GRADE = "name", "patient ID", "grade (GlaS)"


@dataclass(frozen=True, kw_only=True)
class GlaSSettings:
    """The Warwick-QU set of the GlaS challenge: glands, or the grade of the image."""

    kind: Literal["glas"] = "glas"
    path: str = setting("", identity=False)
    target: Literal["glands", "grade"] = "glands"
    split: SplitSettings = field(default_factory=lambda: SplitSettings(use_given=False))

    FACTS: ClassVar[Facts] = Facts(
        title="GlaS (Warwick-QU)",
        source="Sirinukunwattana et al. 2017, Medical Image Analysis 35; MICCAI 2015 challenge",
        licence="research use",
        mpp=0.620,  # 20x, 0.620 um per px: the challenge's page
        counts={"images": 165, "patients": 16},
        note="the challenge's split divides patients",
    )

    @staticmethod
    def recognise(folder: Path) -> bool:
        """Whether Grade.csv and an annotated image are there."""
        return (folder / "Grade.csv").is_file() and (folder / "train_1_anno.bmp").is_file()

    def load(self, seed: int) -> Benchmark:
        """The benchmark; raises BadInput for an image without mask or grade."""
        rows = read_rows(folder_of(self.path, self.kind))
        if self.target == "grade":
            rows = [ImageRow(r.sample, r.path, r.label, r.split, r.patient) for r in rows]
            return assemble(rows, self.FACTS, self.split, name="glas-grade", seed=seed, classes=_GRADES)
        return assemble(
            rows,
            self.FACTS,
            self.split,
            name="glas",
            seed=seed,
            classes=("background", "gland"),
            mask_rule="binary",
            has_objects=True,
        )


def read_rows(folder: Path) -> list[ImageRow]:
    """Every image with its mask, its grade (benign, malignant) and its patient."""
    images = sorted(path for path in folder.glob("*.bmp") if _IMAGE.fullmatch(path.name))
    if not images:
        raise BadInput(f"{folder}: no train_1.bmp and the like; expected the unpacked Warwick QU Dataset")
    grades = _grades(folder / "Grade.csv")
    rows = []
    for path in images:
        mask = path.with_name(f"{path.stem}_anno.bmp")
        if not mask.is_file():
            raise BadInput(f"{mask}: there is no such file; every image has its annotation beside it")
        if path.stem not in grades:
            raise BadInput(f"{folder / 'Grade.csv'}: no line for {path.stem}; expected one for every image")
        grade, patient = grades[path.stem]
        split = "train" if path.stem.startswith("train") else "test"
        rows.append(ImageRow(path.name, path, grade, split, patient, mask=mask))
    return rows


def _grades(path: Path) -> dict[str, tuple[str, str]]:
    """Image name -> (grade, patient)."""
    if not path.is_file():
        raise BadInput(f"{path}: there is no such file; it says the patient and the grade of each image")
    found: dict[str, tuple[str, str]] = {}
    for _, line in csv_table(path, _COLUMNS):
        name, grade, patient = line[_NAME], line[_GRADE], line[_PATIENT]
        if name in found:
            raise BadInput(f"{path}: {name} has two lines; keep one")
        if grade not in _GRADES:
            raise BadInput(f"{path}: {name}: grade {grade!r}; expected {' or '.join(_GRADES)}")
        if not patient:
            raise BadInput(f"{path}: {name}: no patient; expected the column patient ID to be filled")
        found[name] = grade, patient
    return found
