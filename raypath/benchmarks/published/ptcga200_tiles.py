"""PTCGA200: tiles of 200 um of TCGA slides in folders by organ; 24 folders are 20 classes. The first paper's pretraining set.

    PTCGA200/{adrenal_gland,bile_liver,bladder,...}/*.jpg        512 px at 0.39 um per px (inferred, RECIPES 1.1)
    PTCGA200/thumbnail_position_map/                              where tiles were cut; not read

One decision: slide and patient come from a TCGA barcode in the file name (TCGA-02-0001-01Z-00-DX1: the first twelve characters
are the patient), where there is one; how files are named is not published. What has none counts as independent, and the benchmark
says how many those are. The split is made here, by patient: the paper's own (by slide, 97 / 2 / 1 %, from an unseeded draw) is a
pickle.

Sources: layout, the map of organs, 0.39 um per px: enigmanx20/PatchTCGA@ea39a9e5 dataset_utils.organ2id and README. Counts: not
published.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

from raypath.benchmarks.assembling import assemble, folder_of
from raypath.benchmarks.benchmark import Benchmark
from raypath.benchmarks.facts import Facts
from raypath.benchmarks.from_slides.ptcga200 import CLASSES, ORGANS
from raypath.benchmarks.published.class_folders import images_of_classes
from raypath.benchmarks.splits.making import SplitSettings
from raypath.config import setting
from raypath.data.image_rows import ImageRow

_BARCODE = re.compile(r"(TCGA-[A-Z0-9]{2}-[A-Z0-9]{4})(-\d{2}[A-Z]-\d{2}-[A-Z]{2}[A-Z0-9]*)?")


@dataclass(frozen=True, kw_only=True)
class PTCGA200TilesSettings:
    """Twenty organs of TCGA, split here by patient where file names say the patient."""

    kind: Literal["ptcga200_tiles"] = "ptcga200_tiles"
    path: str = setting("", identity=False)
    split: SplitSettings = field(default_factory=SplitSettings)

    FACTS: ClassVar[Facts] = Facts(
        title="PTCGA200",
        source="Kawai et al. 2023, arXiv 2303.15693; enigmanx20/PatchTCGA",
        licence="as TCGA: NIH Genomic Data Sharing Policy",
        mpp=0.39,
        note="other benchmarks made of TCGA slides share its patients",
    )

    @staticmethod
    def recognise(folder: Path) -> bool:
        """Whether folders are there that no other set of organs has."""
        return all((folder / name).is_dir() for name in ("bile_liver", "rectosigmoid", "cervix_uteri"))

    def load(self, seed: int) -> Benchmark:
        """The benchmark; raises BadInput for an organ that is missing or unknown, and for an empty file."""
        folder = folder_of(self.path, self.kind)
        found = images_of_classes(folder, ORGANS, ".jpg", beside=("thumbnail_position_map",))
        rows = [_row(folder, path, label) for path, label in found]
        num_unknown = sum(row.patient is None for row in rows)
        notes = [
            f"{num_unknown:,} of {len(rows):,} file names have no TCGA barcode: their patients are unknown"
            if num_unknown
            else ""
        ]
        return assemble(rows, self.FACTS, self.split, name="ptcga200_tiles", seed=seed, notes=notes, classes=CLASSES)


def _row(folder: Path, path: Path, label: str) -> ImageRow:
    barcode = _BARCODE.search(path.name)
    patient = barcode[1] if barcode else None
    slide = barcode[0] if barcode and barcode[2] else None
    return ImageRow(path.relative_to(folder).as_posix(), path, label, "", patient=patient, slide=slide)
