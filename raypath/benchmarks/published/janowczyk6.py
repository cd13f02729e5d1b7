"""Invasive ductal carcinoma (Janowczyk's sixth use case): tiles of 50 px, task Janowczyk6 of the 22-task pool.

    10253/0/10253_idx5_x1001_y1001_class0.png      patient / class / patient, place in the slide, class (1: carcinoma)
    IDC_regular_ps50_idx5/10253/...                or all of it in one more folder
    cases_train.txt, cases_val.txt, cases_test.txt optional: a patient per line

One decision: name and folders say patient and class twice, and must agree. A copy of the set inside the set (one archive in
circulation has every patient again in IDC_regular_ps50_idx5) is not read twice. `cases="published"` keeps the patients of the three
lists with the split they give (84, 29 and 49 of them), which lie beside the authors' code and not in the archive.

What it costs: 277,524 small files are opened once each to hash them. Some tiles at a slide's edge are not square: their largest
square is used. Sources: layout, lists and odd tiles, choosehappy/public@be2fe014 "DL tutorial Code/6-idc"; counts, appendix of the
thesis waliens/phd-thesis@11db1cab (whose split by 230, 29 and 20 patients is not published), by class the set's page on Kaggle.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar, Literal

from raypath.benchmarks.assembling import assemble, folder_of
from raypath.benchmarks.benchmark import Benchmark
from raypath.benchmarks.facts import Facts
from raypath.benchmarks.splits.making import SplitSettings
from raypath.config import setting
from raypath.data.csv_files import csv_lines
from raypath.data.image_rows import ImageRow
from raypath.data.manifest import SPLITS
from raypath.errors import BadInput

_NAME = re.compile(r"(\d+)_idx5_x\d+_y\d+_class([01])\.png")
_INNER = "IDC_regular_ps50_idx5"
_CLASSES = ("non_idc", "idc")


@dataclass(frozen=True, kw_only=True)
class Janowczyk6Settings:
    """Invasive ductal carcinoma of the breast, or not, in tiles of 50 px (Cruz-Roa 2014, Janowczyk 2016)."""

    kind: Literal["janowczyk6"] = "janowczyk6"
    path: str = setting("", identity=False)
    cases: Literal["all", "published"] = "all"
    """published: only the patients of cases_train.txt, cases_val.txt and cases_test.txt, with that split."""
    split: SplitSettings = field(default_factory=SplitSettings)

    FACTS: ClassVar[Facts] = Facts(
        title="Janowczyk use case 6: invasive ductal carcinoma",
        source="Cruz-Roa et al. 2014, SPIE 9041; Janowczyk and Madabhushi 2016, J Pathol Inform 7:29",
        licence="not stated",
        mpp=None,  # 40x is said of the slides, not of these tiles
        counts={"images": 277_524, "patients": 279, "non_idc": 198_738, "idc": 78_786},
        note="patients are numbered as in janowczyk1: the two are not independent",
    )

    @staticmethod
    def recognise(folder: Path) -> bool:
        """Whether a patient's folder with a class folder in it is there."""
        return any((patient / label).is_dir() for patient in _patients(folder) for label in "01")

    def load(self, seed: int) -> Benchmark:
        """The benchmark; raises BadInput for a name that contradicts its folders, and for lists that are not there."""
        folder = folder_of(self.path, self.kind)
        rows = [row for patient in _patients(folder) for row in _rows(patient)]
        if not rows:
            raise BadInput(f"{folder}: no <patient>/<0 or 1>/*.png; expected the unpacked {_INNER}.zip")
        facts, note = self.FACTS, ""
        if self.cases == "published":
            rows, note = _listed(rows, folder)
            facts = replace(facts, counts={})
        return assemble(
            rows,
            facts,
            self.split,
            name="janowczyk6",
            seed=seed,
            notes=[note],
            classes=_CLASSES,
            is_split_chosen=self.cases == "published",
        )


def parse_name(name: str) -> tuple[str, str] | None:
    """(patient, class: "0" or "1") of a tile's file name; None for another name."""
    found = _NAME.fullmatch(name)
    return found and (found[1], found[2])


def _patients(folder: Path) -> list[Path]:
    """The patients' folders; those of the inner folder only where there are none outside."""
    for home in (folder, folder / _INNER):
        found = sorted(path for path in home.glob("*") if path.name.isdecimal() and path.is_dir())
        if found:
            return found
    return []


def _rows(patient: Path) -> Iterator[ImageRow]:
    for label in "01":
        for path in sorted((patient / label).glob("[!.]*.png")):
            if parse_name(path.name) != (patient.name, label):
                raise BadInput(
                    f"{path}: expected {patient.name}_idx5_x<x>_y<y>_class{label}.png by its folders; fetch the set again"
                )
            yield ImageRow(f"{patient.name}/{label}/{path.name}", path, _CLASSES[int(label)], "", patient.name)


def _listed(rows: list[ImageRow], folder: Path) -> tuple[list[ImageRow], str]:
    """The rows of listed patients with their split, and how many are not."""
    split_of = {patient: split for split in SPLITS for patient in _cases(folder / f"cases_{split}.txt")}
    kept = [replace(row, split=split_of[row.patient]) for row in rows if row.patient in split_of]
    absent = len(split_of.keys() - {row.patient for row in rows})
    note = f"{len(rows) - len(kept)} tiles of patients in no list left out"
    return kept, note + (f"; {absent} listed patients have no tiles" if absent else "")


def _cases(path: Path) -> list[str]:
    if not path.is_file():
        raise BadInput(f"{path}: there is no such file; the lists are in choosehappy/public, DL tutorial Code/6-idc")
    return [cells[0] for _, cells in csv_lines(path)]
