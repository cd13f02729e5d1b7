"""MHIST: 3,152 tiles of colorectal polyps, 224 px, hyperplastic (HP) or sessile serrated adenoma (SSA).

    annotations.csv      Image Name,Majority Vote Label,Number of Annotators who Selected SSA (Out of 7),Partition
    images/MHIST_aaa.png

One decision: the label is the majority of seven pathologists, as published; how many said SSA is not used. The test set is the
authors', the val set is carved from train, by image: patients are not published.

Sources: layout, splits: bmirds.github.io/MHIST, kaiko-ai/eva@010d5359 docs/datasets/mhist.md. um per px: None, because sources
contradict each other (eva has had 2.0 and 0.25).
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

from raypath.benchmarks.assembling import assemble, folder_of
from raypath.benchmarks.benchmark import Benchmark
from raypath.benchmarks.facts import Facts
from raypath.benchmarks.published.class_folders import images_in
from raypath.benchmarks.splits.making import SplitSettings
from raypath.config import setting
from raypath.data.csv_files import csv_table
from raypath.data.image_rows import ImageRow
from raypath.errors import BadInput

_CLASSES = ("HP", "SSA")
_PARTITIONS = ("train", "test")
_IMAGE, _LABEL, _PARTITION = "Image Name", "Majority Vote Label", "Partition"
_COLUMNS = (_IMAGE, _LABEL, "Number of Annotators who Selected SSA (Out of 7)", _PARTITION)


@dataclass(frozen=True, kw_only=True)
class MHISTSettings:
    """Hyperplastic polyp or sessile serrated adenoma, split as published."""

    kind: Literal["mhist"] = "mhist"
    path: str = setting("", identity=False)
    split: SplitSettings = field(default_factory=SplitSettings)

    FACTS: ClassVar[Facts] = Facts(
        title="MHIST",
        source="Wei et al. 2021, arXiv 2101.12355; bmirds.github.io/MHIST",
        licence="Dataset Research Use Agreement of its authors",
        mpp=None,
        counts={"images": 3_152, "train": 2_175, "test": 977},
        note="sources contradict each other on um per px",
    )

    @staticmethod
    def recognise(folder: Path) -> bool:
        """Whether annotations.csv begins as that of MHIST does."""
        path = folder / "annotations.csv"
        if not path.is_file():
            return False
        with path.open(encoding="utf-8-sig", errors="replace") as file:
            return file.readline().startswith(f"{_IMAGE},{_LABEL}")

    def load(self, seed: int) -> Benchmark:
        """The benchmark; raises BadInput for wrong cells, and where the table and the images do not belong together."""
        folder = folder_of(self.path, self.kind)
        rows = list(_rows(folder))
        return assemble(rows, self.FACTS, self.split, name="mhist", seed=seed, classes=_CLASSES)


def _rows(folder: Path) -> Iterator[ImageRow]:
    table = folder / "annotations.csv"
    if not table.is_file():
        raise BadInput(f"{table}: there is no such file; it says the label and the partition of each image")
    if not (folder / "images").is_dir():
        raise BadInput(f"{folder / 'images'}: there is no such folder; unpack images.zip")
    images = {path.name: path for path in images_in(folder / "images", ".png")}
    for number, line in csv_table(table, _COLUMNS):
        for column, known in ((_LABEL, _CLASSES), (_PARTITION, _PARTITIONS)):
            if line[column] not in known:
                raise BadInput(f"{table}: line {number}: {column} {line[column]!r}; expected {' or '.join(known)}")
        path = images.pop(line[_IMAGE], None)
        if path is None:
            raise BadInput(f"{table}: line {number}: no images/{line[_IMAGE]}, or named twice; unpack images.zip again")
        yield ImageRow(f"images/{path.name}", path, line[_LABEL], line[_PARTITION], None)
    if images:
        raise BadInput(
            f"{next(iter(images.values()))}: annotations.csv has no line for it; fetch annotations.csv again"
        )
