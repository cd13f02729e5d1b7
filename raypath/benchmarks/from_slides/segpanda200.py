"""segPANDA200: tissue and Gleason pattern of every pixel of prostate biopsies, cut from PANDA's slides and Radboud's masks.

    train.csv                              image_id,data_provider,isup_grade,gleason_score
    train_images/<image_id>.tiff           0.486 um per px at level 0 (Radboud)
    train_label_masks/<image_id>_mask.tiff the class in the first channel; same extent

One decision: only Radboud's masks tell six classes, so only its slides are used. A tile is 1,024 px at 0.39 um per px, which is a
grid of 822 px at level 0 without overlap (the names of the published files say so: x3288 = 4 x 822); a tile stays if at least
`min_labelled` of it is not class 0, which is our choice, the paper's is not known. Splits go by slide, stratified by its ISUP
grade: PANDA names no patients.

What it costs: one pass over a coarse level of every mask, and over the bytes of slides and masks.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np

from raypath.benchmarks.annotations.mask_tiff import mask_shares
from raypath.benchmarks.assembling import folder_of
from raypath.benchmarks.benchmark import Benchmark
from raypath.benchmarks.facts import Facts
from raypath.benchmarks.from_slides.slide_tiles import NUM_THREADS, SlideTiles, find_tiles, listed
from raypath.benchmarks.from_slides.tile_table import LabelledSlide, tile_benchmark
from raypath.benchmarks.splits.making import NEW_SPLIT, deal
from raypath.config import setting
from raypath.data.csv_files import csv_table
from raypath.errors import BadInput
from raypath.hashing import file_sha256
from raypath.slides import TileGrid, TileSpec

CLASSES = ("background", "stroma", "healthy epithelium", "Gleason 3", "Gleason 4", "Gleason 5")
STRATA = tuple(f"ISUP {grade}" for grade in range(6))
_COLUMNS = ("image_id", "data_provider", "isup_grade")
_PROVIDERS = ("radboud", "karolinska")


@dataclass(frozen=True, kw_only=True)
class SegPANDA200Settings:
    """Six classes of pixels in prostate biopsies (Kawai et al. 2023), from the slides and masks of PANDA."""

    kind: Literal["segpanda200"] = "segpanda200"
    path: str = setting("", identity=False)
    tiles: TileSpec = field(default_factory=lambda: TileSpec(extent_px=1024, mpp=0.39, stride_px=1024, min_tissue=0.0))
    min_labelled: float = 0.05
    """The part of a tile that is not class 0 (background or unknown)."""
    slide_mpp: float | None = None
    """um per level-0 px of all slides, where the files do not say it; null: as the files say."""

    FACTS: ClassVar[Facts] = Facts(
        title="segPANDA200",
        source="Kawai, Ota, Yamaoka 2023, arXiv 2303.15693; counts: openmedlab/Awesome-Medical-Dataset@960de7b4",
        licence="CC BY-NC-SA 4.0",
        mpp=0.39,
        counts={"images and masks": 100_960},
        note="PANDA names no patients: a slide stands for one, and slides of one patient may be in two splits",
    )

    @staticmethod
    def recognise(folder: Path) -> bool:
        """Whether PANDA's table, slides and masks are there."""
        return (folder / "train.csv").is_file() and (folder / "train_label_masks").is_dir()

    def load(self, seed: int) -> Benchmark:
        """The benchmark; raises BadInput for a table, slide or mask that cannot be used."""
        if not 0 <= self.min_labelled <= 1:
            raise BadInput(f"min_labelled={self.min_labelled}: expected 0 to 1 (a part of the tile's area)")
        folder = folder_of(self.path, self.kind)
        grades, notes = _usable(folder, read_grades(folder / "train.csv"))
        paths = [_slide_of(folder, name) for name in grades]
        found = find_tiles(paths, self.tiles, slide_mpp=self.slide_mpp)
        masks = [_mask_of(folder, name) for name in grades]
        with ThreadPoolExecutor(NUM_THREADS) as pool:
            tiles = list(pool.map(self._labelled_tiles, found, masks))
            sha256 = list(pool.map(file_sha256, masks))
        splits = deal(list(grades.values()), list(grades), NEW_SPLIT, seed=seed)
        empty = [part.slide for part in tiles if not len(part)]
        if empty:
            notes.append(f"{len(empty)} slides without a labelled tile left out: {listed(empty)}")
        slides = [
            LabelledSlide(part, np.full(len(part), grade, np.int64), part.slide, split, str(mask.absolute()), digest)
            for part, grade, split, mask, digest in zip(tiles, grades.values(), splits, masks, sha256)
        ]
        return tile_benchmark(
            slides,
            self.FACTS,
            name="segpanda200",
            classes=CLASSES,
            strata=STRATA,
            mpp=self.tiles.mpp,
            notes=[f"split made here (60/20/20 of the slides by ISUP grade, seed {seed})", *notes],
            also_built={"images and masks": 2 * sum(len(part) for part in tiles)},
        )

    def _labelled_tiles(self, tiles: SlideTiles, mask: Path) -> SlideTiles:
        """Those of which enough is annotated."""
        grid = TileGrid.of(tiles.size_l0, tiles.mpp, self.tiles)
        if not grid.num_cells:
            return tiles
        return tiles.kept(1 - mask_shares(mask, tiles.mpp, grid, len(CLASSES))[:, 0] >= self.min_labelled)


def read_grades(path: Path) -> dict[str, int]:
    """The ISUP grade (0 to 5) of every slide of Radboud in PANDA's table; raises BadInput with line, column and value."""
    if not path.is_file():
        raise BadInput(f"{path}: there is no such file; PANDA's table says provider and ISUP grade of each slide")
    grades: dict[str, int] = {}
    for number, row in csv_table(path, _COLUMNS):
        where = f"{path}: line {number}, column"
        if row["data_provider"] not in _PROVIDERS:
            raise BadInput(f"{where} data_provider: {row['data_provider']!r}; expected {' or '.join(_PROVIDERS)}")
        if row["isup_grade"] not in tuple("012345"):
            raise BadInput(f"{where} isup_grade: {row['isup_grade']!r}; expected 0 to 5")
        if not row["image_id"] or row["image_id"] in grades:
            raise BadInput(f"{where} image_id: {row['image_id']!r}; expected every slide once")
        if row["data_provider"] == "radboud":
            grades[row["image_id"]] = int(row["isup_grade"])
    return grades


def _usable(folder: Path, grades: dict[str, int]) -> tuple[dict[str, int], list[str]]:
    """The slides that are there with their masks, and how many are not (PANDA itself lacks some masks)."""
    has_slide = {name: grade for name, grade in grades.items() if _slide_of(folder, name).is_file()}
    has_both = {name: grade for name, grade in has_slide.items() if _mask_of(folder, name).is_file()}
    if not has_both:
        raise BadInput(
            f"{folder}: none of {len(grades)} slides of Radboud has its files; expected train_images/<image_id>.tiff and "
            "train_label_masks/<image_id>_mask.tiff"
        )
    notes = []
    for what, more, fewer in (("slide", grades, has_slide), ("mask", has_slide, has_both)):
        absent = [name for name in more if name not in fewer]
        if absent:
            notes.append(f"{len(absent)} of {len(grades)} slides of Radboud have no {what} here: {listed(absent)}")
    return has_both, notes


def _slide_of(folder: Path, name: str) -> Path:
    return folder / "train_images" / f"{name}.tiff"


def _mask_of(folder: Path, name: str) -> Path:
    return folder / "train_label_masks" / f"{name}_mask.tiff"
