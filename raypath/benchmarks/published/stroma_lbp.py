"""Epithelium or stroma (Linder 2012): immunostained colorectal cancer, task StromaLBP of the 22-task pool.

    training/epithelium/*      validation/epithelium/*      test/epithelium/*
    training/stroma/*          validation/stroma/*          test/stroma/*

One decision: this layout is asked for, not found: no description of the names inside the authors' archives (webmicroscope) is at
hand, only that there are three sets of two classes, of 80, 576 and 720 images. Put each image into the folder of its set and class;
images that lie elsewhere are refused, so none is left out unseen.

The images are of 643 patients, and which is whose is not known: intervals are image-level. The second paper has 2,313 samples of
these 1,376 images and does not say how. Its training and validation images are 720, its test images 656 (= 80 + 576), so it seems
to test on what Linder trained and validated on, the other way round than here.

Sources: sets, counts and patients, abstract of Linder et al. 2012; stain and samples, chapter 5 and appendix B of the thesis
waliens/phd-thesis@11db1cab.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

from raypath.benchmarks.assembling import assemble, folder_of
from raypath.benchmarks.benchmark import Benchmark
from raypath.benchmarks.facts import Facts
from raypath.benchmarks.splits.making import SplitSettings
from raypath.config import setting
from raypath.data.hidden_files import is_hidden
from raypath.data.image_rows import IMAGE_SUFFIXES, ImageRow
from raypath.errors import BadInput

_SETS = {"training": "train", "validation": "val", "test": "test"}
_CLASSES = ("epithelium", "stroma")


@dataclass(frozen=True, kw_only=True)
class StromaLBPSettings:
    """Epithelium or stroma in tissue microarrays of colorectal cancer (Linder 2012)."""

    kind: Literal["stroma_lbp"] = "stroma_lbp"
    path: str = setting("", identity=False)
    split: SplitSettings = field(default_factory=SplitSettings)

    FACTS: ClassVar[Facts] = Facts(
        title="Stroma LBP: epithelium and stroma",
        source="Linder et al. 2012, Diagnostic Pathology 7:22",
        licence="not stated",
        mpp=None,
        counts={"images": 1_376, "train": 80, "val": 576, "test": 720},
        note="the published training set is small (41 epithelium, 39 stroma)",
    )

    @staticmethod
    def recognise(folder: Path) -> bool:
        """Whether the six folders are there."""
        return all((folder / name / label).is_dir() for name in _SETS for label in _CLASSES)

    def load(self, seed: int) -> Benchmark:
        """The benchmark; raises BadInput for a folder that is missing or empty, and for images outside the six."""
        rows = read_rows(folder_of(self.path, self.kind))
        return assemble(rows, self.FACTS, self.split, name="stroma_lbp", seed=seed, classes=_CLASSES)


def read_rows(folder: Path) -> list[ImageRow]:
    """Every image with its class and split."""
    rows = []
    for name, split in _SETS.items():
        for label in _CLASSES:
            found = _images(folder / name / label)
            if not found:
                raise BadInput(f"{folder / name / label}: no images; expected those of {label} of the {name} set")
            rows += [ImageRow(p.relative_to(folder).as_posix(), p, label, split, None) for p in found]
    elsewhere = sorted(set(_images(folder)) - {row.path for row in rows})
    if elsewhere:
        raise BadInput(f"{elsewhere[0]}: one of {len(elsewhere)} images outside <set>/<class>; put it where it belongs")
    return rows


def _images(folder: Path) -> list[Path]:
    found = (path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
    return sorted(path for path in found if not is_hidden(path, folder))
