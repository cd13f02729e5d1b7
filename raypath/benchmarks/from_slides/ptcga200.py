"""PTCGA200: which organ a tile of 200 um of TCGA comes from, cut from the slides themselves.

    <organ folder>/**/TCGA-CR-7395-01A-01-TS1.<uuid>.svs        24 folders, 20 classes

One decision: a patient is never divided (the first 12 characters of the barcode), where the paper divides slides; `folds.by=slide`
has the paper's folds. A tile is 512 px at 0.39 um per px = 199.68 um, 500 of each slide, drawn by a key among those with tissue.
What the paper took for tissue, and which slides, was never published: `tiles.min_tissue` is ours, and the folder is the choice of
slides.

Costs one look at every slide; for all of TCGA name an `index`.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np

from raypath.benchmarks.assembling import folder_of
from raypath.benchmarks.benchmark import Benchmark
from raypath.benchmarks.facts import Facts
from raypath.benchmarks.from_slides.ceil_folds import FoldSettings, ceil_folds
from raypath.benchmarks.from_slides.slide_tiles import SlideTiles, draw, find_tiles, listed, slides_below
from raypath.benchmarks.from_slides.tile_table import LabelledSlide, tile_benchmark
from raypath.config import setting
from raypath.errors import BadInput
from raypath.slides import TileSpec

# organ folder -> class (enigmanx20/PatchTCGA@ea39a9e5, dataset_utils.organ2id)
CLASSES = (
    "adrenal_gland", "bile_liver", "bladder", "brain", "breast", "cervix_uteri", "colon", "corpus_uteri", "esophagus", "kidney",
    "lung", "lymphnode", "ovary", "pancreas", "prostate", "skin", "stomach", "testis", "thymus", "thyroid",
)  # fmt: skip
ORGANS = {name: name for name in CLASSES} | {
    "liver": "bile_liver",
    "rectosigmoid": "colon",
    "rectum": "colon",
    "small_intestine": "colon",
}
BARCODE = re.compile(r"TCGA-[0-9A-Z]{2}-[0-9A-Z]{4}")  # project, tissue source site, participant


@dataclass(frozen=True, kw_only=True)
class PTCGA200Settings:
    """Organ of tiles of TCGA slides (Kawai et al. 2023), from a folder of organ folders."""

    kind: Literal["ptcga200"] = "ptcga200"
    path: str = setting("", identity=False)
    tiles: TileSpec = field(default_factory=lambda: TileSpec(extent_px=512, mpp=0.39, stride_px=512, min_tissue=0.5))
    tiles_per_slide: int = 500
    folds: FoldSettings = field(default_factory=FoldSettings)
    slide_mpp: float | None = None
    """um per level-0 px of all slides, where the files do not say it; null: as the files say."""
    index: str = setting("", identity=False)
    """Folder of an index of the same slides and tiles; without one every slide is opened here."""

    FACTS: ClassVar[Facts] = Facts(
        title="PTCGA200",
        source="Kawai, Ota, Yamaoka 2023, arXiv 2303.15693; enigmanx20/PatchTCGA@ea39a9e5",
        licence="NIH Genomic Data Sharing Policy",
        mpp=0.39,
        counts={"classes": 20, "organ folders": 24},
    )

    @staticmethod
    def recognise(folder: Path) -> bool:
        """Whether it has organ folders of TCGA slides."""
        return any(BARCODE.match(path.name) for path, _ in _organ_slides(folder))

    def load(self, seed: int) -> Benchmark:
        """The benchmark; raises BadInput for a folder without organs, a name without barcode and classes too small to divide."""
        if self.tiles_per_slide < 1:
            raise BadInput(f"tiles_per_slide={self.tiles_per_slide}: expected 1 or more")
        folder = folder_of(self.path, self.kind)
        slides = list(_organ_slides(folder))
        if not slides:
            raise BadInput(f"{folder}: no slides in organ folders; expected some of {', '.join(sorted(ORGANS))}")
        tiles = find_tiles([path for path, _ in slides], self.tiles, slide_mpp=self.slide_mpp, index=self.index)
        organs = {part.slide: organ for part, (_, organ) in zip(tiles, slides)}
        filled = [part for part in tiles if len(part)]
        return tile_benchmark(
            self._labelled(filled, organs, seed),
            self.FACTS,
            name="ptcga200",
            classes=CLASSES,
            mpp=self.tiles.mpp,
            notes=[self._split_note(seed), *_notes(folder, tiles, self.tiles_per_slide)],
            also_built={
                "classes": len({ORGANS[organs[part.slide]] for part in filled}),
                "organ folders": len({organs[part.slide] for part in filled}),
            },
            waive=("patient",) if self.folds.by == "slide" else (),
        )

    def _labelled(self, tiles: list[SlideTiles], organs: dict[str, str], seed: int) -> list[LabelledSlide]:
        classes = [ORGANS[organs[part.slide]] for part in tiles]
        patients = [patient_of(Path(part.path)) for part in tiles]
        groups = patients if self.folds.by == "patient" else [part.slide for part in tiles]
        splits = ceil_folds(classes, groups, seed=seed, name="ptcga200")[self.folds.fold]
        drawn = [draw(part, self.tiles_per_slide, seed) for part in tiles]
        return [
            LabelledSlide(part, np.full(len(part), CLASSES.index(name), np.int64), patient, split)
            for part, name, patient, split in zip(drawn, classes, patients, splits)
        ]

    def _split_note(self, seed: int) -> str:
        who = "patients" if self.folds.by == "patient" else "slides, as in the paper: patients may be divided"
        return f"fold {self.folds.fold} of 3 disjoint ones, ceil(2 %) val and ceil(1 %) test of the {who} (seed {seed})"


def patient_of(path: Path) -> str:
    """The patient of a TCGA slide: the first 12 characters of its barcode. Raises BadInput for another name."""
    found = BARCODE.match(path.name)
    if not found:
        raise BadInput(
            f"{path}: its name does not begin with a TCGA barcode (TCGA-XX-XXXX-...), which says the patient"
        )
    return found.group()


def _organ_slides(folder: Path) -> Iterator[tuple[Path, str]]:
    """Every slide with its organ folder."""
    for organ in sorted(ORGANS):
        for path in slides_below(folder / organ):
            yield path, organ


def _notes(folder: Path, tiles: list[SlideTiles], wanted: int) -> Iterator[str]:
    unknown = sorted(p.name for p in folder.iterdir() if p.is_dir() and p.name not in ORGANS and slides_below(p))
    if unknown:
        yield f"folders that are none of the 24 organs, not used: {listed(unknown)}"
    empty = [part.slide for part in tiles if not len(part)]
    if empty:
        yield f"{len(empty)} slides without a tile of tissue left out: {listed(empty)}"
    num_short = sum(0 < len(part) < wanted for part in tiles)
    if num_short:
        yield f"{num_short} of {len(tiles)} slides have fewer than {wanted} tiles of tissue: all of theirs are taken"
