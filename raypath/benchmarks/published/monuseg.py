"""MoNuSeg 2018: nuclei in 1000 x 1000 px of H&E of several organs at 40x, outlined one by one.

    MoNuSeg 2018 Training Data/Tissue Images/TCGA-18-5592-01Z-00-DX1.tif
    MoNuSeg 2018 Training Data/Annotations/TCGA-18-5592-01Z-00-DX1.xml     outlines of Aperio ImageScope
    MoNuSegTestData/TCGA-2Z-A9J9-01A-01-TS1.tif and .xml                   side by side

One decision: images of a folder "Tissue Images" are train, those with their outlines beside them test, as published; the outlines
are the mask and are drawn when it is read. The patient is the TCGA barcode's. Every outline file is parsed at the start (some
seconds), so that a damaged one is named before anything runs.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

from raypath.benchmarks.assembling import assemble, folder_of
from raypath.benchmarks.benchmark import Benchmark
from raypath.benchmarks.facts import Facts
from raypath.benchmarks.splits.making import SplitSettings
from raypath.config import setting
from raypath.data.image_rows import ImageRow
from raypath.data.masks import read_polygons
from raypath.errors import BadInput

_TRAIN_FOLDER = "Tissue Images"
# Organs by the tissue source site, the second part of the barcode. The challenge calls 18, 21, 38, 49 and 50 liver; they are sites
# of TCGA's lung studies (LUSC, LUAD).
_SITES = {
    "bladder": ("CU", "DK", "G2", "ZF"),
    "brain": ("FG", "HT"),
    "breast": ("A7", "AC", "AO", "AR", "E2"),
    "colon": ("A6", "AY", "NH"),
    "kidney": ("2Z", "B0", "GL", "HE", "IZ"),
    "lung": ("18", "21", "38", "44", "49", "50", "69"),
    "prostate": ("CH", "EJ", "G9", "HC"),
    "stomach": ("KB", "RD"),
}


@dataclass(frozen=True, kw_only=True)
class MoNuSegSettings:
    """MoNuSeg 2018: nucleus or not, by pixel."""

    kind: Literal["monuseg"] = "monuseg"
    path: str = setting("", identity=False)
    split: SplitSettings = field(default_factory=SplitSettings)

    # Numbers, size and magnification: the challenge's paper. Licence: monuseg.grand-challenge.org, by its dataset cards.
    FACTS: ClassVar[Facts] = Facts(
        title="MoNuSeg 2018",
        source="Kumar et al. 2017 and 2019, IEEE TMI 36(7) and 39(5); monuseg.grand-challenge.org",
        licence="CC BY-NC-SA 4.0",
        mpp=0.25,  # 40x; ImageScope's own note in the outline files is near it (0.252)
        counts={"images": 44, "train": 30, "test": 14},
        note="a later archive of the training images has 37; 21,623 nuclei are published for the 30",
    )

    @staticmethod
    def recognise(folder: Path) -> bool:
        """Whether the training images are there, at most one folder down."""
        return any(next(folder.glob(f"{up}{_TRAIN_FOLDER}/TCGA-*.tif"), None) for up in ("", "*/"))

    def load(self, seed: int) -> Benchmark:
        """The benchmark; raises BadInput for an image that has no outlines, damaged ones, or is there twice."""
        folder = folder_of(self.path, self.kind)
        rows = list(_rows(folder))
        if not rows:
            raise BadInput(f"{folder}: no TCGA-*.tif in it; expected the unpacked archives of training and test data")
        twice = [name for name, count in Counter(row.path.stem for row in rows).items() if count > 1]
        if twice:
            raise BadInput(f"{folder}: {', '.join(sorted(twice))} is there twice; keep one of them")
        num_nuclei = sum(_num_nuclei(row.mask) for row in rows)
        return assemble(
            rows,
            self.FACTS,
            self.split,
            name="monuseg",
            seed=seed,
            notes=[f"{num_nuclei:,} outlines", _organs_note(rows)],
            classes=("background", "nucleus"),
            mask_rule="binary",
            has_objects=True,
        )


def organ_of(barcode: str) -> str:
    """The organ of a TCGA barcode by its tissue source site; "unknown" for sites that are not among the published images."""
    site = barcode.split("-")[1]
    return next((organ for organ, sites in _SITES.items() if site in sites), "unknown")


def _rows(folder: Path) -> Iterator[ImageRow]:
    """Every image with its outlines, which stand beside it or in the sister folder Annotations."""
    for path in sorted(folder.rglob("TCGA-*.tif")):
        is_train = path.parent.name == _TRAIN_FOLDER
        home = path.parents[1] / "Annotations" if is_train else path.parent
        outlines = home / f"{path.stem}.xml"
        if not outlines.is_file():
            raise BadInput(f"{outlines}: there is no such file; every image has its outlines")
        parts = path.stem.split("-")
        if len(parts) < 3:
            raise BadInput(f"{path}: no TCGA barcode; expected a name like TCGA-18-5592-01Z-00-DX1.tif")
        sample, patient = path.relative_to(folder).as_posix(), "-".join(parts[:3])
        yield ImageRow(sample, path, "", "train" if is_train else "test", patient, slide=path.stem, mask=outlines)


def _num_nuclei(outlines: Path) -> int:
    try:
        inside, _ = read_polygons(str(outlines))
    except (OSError, ValueError, SyntaxError) as error:
        raise BadInput(f"{outlines}: no outlines of Aperio ImageScope ({error}); fetch the file again") from None
    if not inside:
        raise BadInput(f"{outlines}: no outline in it; expected some hundred nuclei: fetch the file again")
    return len(inside)


def _organs_note(rows: list[ImageRow]) -> str:
    said = []
    for split in ("train", "test"):
        organs = Counter(organ_of(row.path.stem) for row in rows if row.split == split)
        said += (
            [f"{split} has {', '.join(f'{organ} {count}' for organ, count in sorted(organs.items()))}"]
            if organs
            else []
        )
    return f"organs by tissue source site: {'; '.join(said)}"
