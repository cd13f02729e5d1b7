"""Lymphoma subtypes (Janowczyk's seventh use case): H&E of CLL, FL and MCL, task Janowczyk7 of the 22-task pool.

    CLL/sj-03-2810_001.tif         1388 x 1040 px; 10 slides of each class, about 12 images of each slide
    FL/sj-05-6124-R3_002.tif       sj-<case>[-R<number>]_<image>
    MCL/sj-05-768_004.tif

One decision: a patient is the case, all before "-R" or "_", so no two images of a case part: not even sj-05-6124-R3 and
sj-05-6124-R4. Both the authors' code and the second paper take every image for a patient (374 of them), so that images of one slide
stand in training and test; their scores are of another, easier question.

By default images are cut to 384 px as Mormont et al. 2020 did: 6 of each image, what remains at the right and below is not used.
Sources: names and counts by class, the lists choosehappy/public@be2fe014 "DL tutorial Code/7-lymphoma/models/*_w32_parent_1.txt";
size, cut and 2,244 samples, appendix of the thesis waliens/phd-thesis@11db1cab (2,244 is 6 of each of 374).
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar, Literal

from raypath.benchmarks.assembling import assemble, folder_of
from raypath.benchmarks.benchmark import Benchmark
from raypath.benchmarks.cutting.boxes import grid_boxes, image_size
from raypath.benchmarks.facts import Facts
from raypath.benchmarks.splits.making import SplitSettings
from raypath.config import setting
from raypath.data.image_rows import ImageRow
from raypath.errors import BadInput

_NAME = re.compile(r"((sj-\d+-\d+)(?:-R\d+)?)_\d+\.tif")
_CLASSES = ("CLL", "FL", "MCL")
_EXTENT_PX = 384


@dataclass(frozen=True, kw_only=True)
class Janowczyk7Settings:
    """Chronic lymphocytic leukaemia, follicular or mantle cell lymphoma (NIA set; Janowczyk 2016)."""

    kind: Literal["janowczyk7"] = "janowczyk7"
    path: str = setting("", identity=False)
    target: Literal["tiles", "images"] = "tiles"
    """tiles: 384 px, six of each image; images: whole ones."""
    split: SplitSettings = field(default_factory=SplitSettings)

    FACTS: ClassVar[Facts] = Facts(
        title="Janowczyk use case 7: lymphoma subtypes",
        source="NIA (IICBU 2008); Janowczyk and Madabhushi 2016, J Pathol Inform 7:29; cut as Mormont et al. 2020",
        licence="not stated",
        mpp=None,
        counts={"images": 2_244, "slides": 30, "CLL": 678, "FL": 834, "MCL": 732},
        note="published splits take every image for a patient and divide slides",
    )

    @staticmethod
    def recognise(folder: Path) -> bool:
        """Whether the three folders of the classes are there, with images named as published."""
        return all(any(_NAME.fullmatch(p.name) for p in (folder / c).glob("*.tif")) for c in _CLASSES)

    def load(self, seed: int) -> Benchmark:
        """The benchmark; raises BadInput for a class without images, and for other names."""
        rows = [row for label in _CLASSES for row in _rows(folder_of(self.path, self.kind), label)]
        facts = self.FACTS
        if self.target == "tiles":
            rows = [tile for row in rows for tile in _tiles(row)]
        else:
            facts = replace(facts, counts={"images": 374, "slides": 30, "CLL": 113, "FL": 139, "MCL": 122})
        return assemble(rows, facts, self.split, name="janowczyk7", seed=seed, classes=_CLASSES)


def parse_name(name: str) -> tuple[str, str] | None:
    """(patient, slide) of an image's file name; None for another name."""
    found = _NAME.fullmatch(name)
    return found and (found[2], found[1])


def _rows(folder: Path, label: str) -> Iterator[ImageRow]:
    paths = sorted((folder / label).glob("[!.]*.tif"))
    if not paths:
        raise BadInput(f"{folder / label}: no images *.tif; expected the unpacked lymphoma.tar.gz (CLL, FL, MCL)")
    for path in paths:
        named = parse_name(path.name)
        if named is None:
            raise BadInput(f"{path}: expected a name like sj-05-6124-R3_002.tif, which says case and slide")
        patient, slide = named
        yield ImageRow(f"{label}/{path.name}", path, label, "", patient, slide=slide)


def _tiles(row: ImageRow) -> Iterator[ImageRow]:
    size = image_size(row.path)
    boxes = grid_boxes(size, _EXTENT_PX)
    if not len(boxes):
        raise BadInput(f"{row.path}: {size[0]} x {size[1]} px; expected at least {_EXTENT_PX} x {_EXTENT_PX} px")
    for box in boxes.tolist():
        yield replace(row, sample=f"{row.sample}@{box[0]}_{box[1]}", box=tuple(box))
