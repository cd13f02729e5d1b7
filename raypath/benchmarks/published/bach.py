"""BACH: 400 photographs of breast tissue, 2048 x 1536 px, normal, benign, carcinoma in situ or invasive carcinoma.

    ICIAR2018_BACH_Challenge/Photos/microscopy_ground_truth.csv      n001.tif,Normal      (no header)
    ICIAR2018_BACH_Challenge/Photos/{Normal,Benign,InSitu,Invasive}/n001.tif

One decision: the table and the folders must say the same; where they differ nobody knows which is right. Patients are not in the
archive (its page links to a list of some of them elsewhere), so a photograph stands for its slide: `box_px` cuts squares out of
it on a grid, and all of one photograph stay in one split. Photographs of one patient may still be divided.

512 px is what Mormont et al. 2020 cut (task BACH18 Micro: 4,800 of 400, RECIPES 2.1); their split by patient is not published.

Sources: iciar2018-challenge.grand-challenge.org/Dataset (size, 0.42 um per px, 100 of each class); layout:
zenodo.org/records/3632035, kaiko-ai/eva@04a2c07f docs/datasets/bach.md; the table without header: public readers of it.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar, Literal

from raypath.benchmarks.assembling import assemble, folder_of
from raypath.benchmarks.benchmark import Benchmark
from raypath.benchmarks.cutting.boxes import grid_boxes, image_size
from raypath.benchmarks.facts import Facts
from raypath.benchmarks.published.class_folders import images_of_classes
from raypath.benchmarks.splits.making import SplitSettings
from raypath.config import setting
from raypath.data.csv_files import csv_lines
from raypath.data.image_rows import ImageRow
from raypath.errors import BadInput

_CLASSES = ("Normal", "Benign", "InSitu", "Invasive")
_TABLE = "microscopy_ground_truth.csv"
_HOMES = ("", "Photos", "ICIAR2018_BACH_Challenge/Photos")
_SIZE = (2048, 1536)


@dataclass(frozen=True, kw_only=True)
class BACHSettings:
    """The photographs of the BACH challenge, whole or cut into squares."""

    kind: Literal["bach"] = "bach"
    path: str = setting("", identity=False)
    box_px: int | None = None
    """Extent of the squares that are cut out on a grid, e.g. 512; null: whole photographs."""
    split: SplitSettings = field(default_factory=SplitSettings)

    FACTS: ClassVar[Facts] = Facts(
        title="BACH (ICIAR 2018), photographs",
        source="Aresta et al. 2019, Medical Image Analysis 56; zenodo.org/records/3632035",
        licence="CC BY-NC-ND 4.0",
        mpp=0.42,
        counts={"images": 400, "slides": 400, **dict.fromkeys(_CLASSES, 100)},
        note="patients are not in the archive: photographs of one patient may be in several splits; slides are photographs",
    )

    @staticmethod
    def recognise(folder: Path) -> bool:
        """Whether the table of the photographs is there, in the folder or where the archive has it."""
        return any((folder / home / _TABLE).is_file() for home in _HOMES)

    def load(self, seed: int) -> Benchmark:
        """The benchmark; raises BadInput where table and folders differ, and for a photograph that no square fits into."""
        folder = folder_of(self.path, self.kind)
        home = next((folder / home for home in _HOMES if (folder / home / _TABLE).is_file()), None)
        if home is None:
            raise BadInput(f"{folder}: no {_TABLE}; expected the unpacked ICIAR2018_BACH_Challenge.zip")
        labels = _read_table(home / _TABLE)
        found = dict(images_of_classes(home, {name: name for name in _CLASSES}, ".tif"))
        _compare(home, labels, found)
        rows = [row for path, label in found.items() for row in self._rows(home, path, label)]
        name = f"bach-{self.box_px}px" if self.box_px else "bach"
        return assemble(rows, self._facts(), self.split, name=name, seed=seed, classes=_CLASSES)

    def _facts(self) -> Facts:
        if self.box_px is None:
            return self.FACTS
        num_boxes = len(grid_boxes(_SIZE, self.box_px))
        times = {what: count * (1 if what == "slides" else num_boxes) for what, count in self.FACTS.counts.items()}
        return replace(self.FACTS, counts=times)

    def _rows(self, home: Path, path: Path, label: str) -> Iterator[ImageRow]:
        sample = path.relative_to(home).as_posix()
        if self.box_px is None:
            yield ImageRow(sample, path, label, "", None, slide=path.stem)
            return
        size = image_size(path)
        boxes = grid_boxes(size, self.box_px).tolist()
        if not boxes:
            raise BadInput(f"{path}: {size} px hold no square of box_px={self.box_px}; choose a smaller one")
        for left, top, width, height in boxes:
            place = f"{sample}@{left},{top}"
            yield ImageRow(place, path, label, "", None, slide=path.stem, box=(left, top, width, height))


def _read_table(path: Path) -> dict[str, str]:
    """File name -> class."""
    lines = csv_lines(path)
    for number, cells in lines:
        if len(cells) != 2 or cells[1] not in _CLASSES:
            raise BadInput(f"{path}: line {number}: {','.join(cells)!r}; expected FILE,{' or '.join(_CLASSES)}")
    return dict(cells for _, cells in lines)


def _compare(home: Path, labels: dict[str, str], found: dict[Path, str]) -> None:
    for path, label in found.items():
        if labels.get(path.name) != label:
            raise BadInput(
                f"{path}: {_TABLE} says {labels.get(path.name, 'nothing')} of it; expected {label}: unpack it again"
            )
    missing = sorted(set(labels) - {path.name for path in found})
    if missing:
        raise BadInput(
            f"{home / labels[missing[0]] / missing[0]}: there is no such file, {_TABLE} lists it; unpack it again"
        )
