"""segPANDA200: tiles of prostate biopsies (PANDA, Radboud) with a tissue class at every pixel. A benchmark of the first paper.

    segPANDA200/{train,val,test}/{0,1,2,3,4,5}/SLIDE/SLIDE_level0_x3288_y9864.jpg           1024 px at 0.39 um per px
    segPANDA200/{train,val,test}/{0,1,2,3,4,5}/SLIDE/SLIDE_level0_x3288_y9864_mask.png      the first channel: classes 0 to 5

One decision: the folders 0 to 5 are the ISUP grade of the slide; it only stratifies, what is scored are the six classes of the
pixels. The split is the given one, by slide; patients are not published.

Sources: layout: enigmanx20/PatchTCGA@ea39a9e5 dataset_utils.segPANDA200; sizes, classes:
openmedlab/Awesome-Medical-Dataset@960de7b4 resources/SegPANDA200.md; 0.39 um per px, licence: the README of PatchTCGA. That
page's 100,960 "images" are probably files, half of them masks (RECIPES 1.1), so no count stands here.
"""

import re
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
from raypath.data.image_rows import ImageRow
from raypath.data.manifest import SPLITS
from raypath.errors import BadInput

_CLASSES = ("background", "stroma", "healthy epithelium", "Gleason 3", "Gleason 4", "Gleason 5")
_GRADES = ("0", "1", "2", "3", "4", "5")
_TILE = re.compile(r"(.+)_level0_x\d+_y\d+")


@dataclass(frozen=True, kw_only=True)
class SegPANDA200TilesSettings:
    """Six tissues of the prostate at every pixel, split as given."""

    kind: Literal["segpanda200_tiles"] = "segpanda200_tiles"
    path: str = setting("", identity=False)
    split: SplitSettings = field(default_factory=SplitSettings)

    FACTS: ClassVar[Facts] = Facts(
        title="segPANDA200",
        source="Kawai et al. 2023, arXiv 2303.15693; enigmanx20/PatchTCGA",
        licence="CC BY-NC-SA 4.0",
        mpp=0.39,
        note="class 0 is background and what nobody annotated; patients are not published",
    )

    @staticmethod
    def recognise(folder: Path) -> bool:
        """Whether a tile with its mask lies where one of its train set does."""
        return any((folder / "train").glob("[0-5]/*/*_level0_x*_y*_mask.png"))

    def load(self, seed: int) -> Benchmark:
        """The benchmark; raises BadInput for a tile without mask, a mask without tile, and a name that is not its folder's."""
        folder = folder_of(self.path, self.kind)
        rows = [row for split in SPLITS for grade in _GRADES for row in _rows(folder, split, grade)]
        return assemble(
            rows,
            self.FACTS,
            self.split,
            name="segpanda200_tiles",
            seed=seed,
            classes=_CLASSES,
            mask_rule="values",
        )


def _rows(folder: Path, split: str, grade: str) -> Iterator[ImageRow]:
    home = folder / split / grade
    slides = sorted(path for path in home.iterdir() if path.is_dir()) if home.is_dir() else []
    if not slides:
        raise BadInput(f"{home}: no folders of slides; expected segPANDA200/{split}/{grade}/SLIDE/: unpack it again")
    for slide in slides:
        masks = {path.name: path for path in images_in(slide, "_mask.png")}
        for path in images_in(slide, ".jpg"):
            name = _TILE.fullmatch(path.stem)
            if not name or name[1] != slide.name:
                raise BadInput(f"{path}: expected a name like {slide.name}_level0_x3288_y9864.jpg in this folder")
            mask = masks.pop(f"{path.stem}_mask.png", None)
            if mask is None:
                raise BadInput(f"{path}: no {path.stem}_mask.png beside it; unpack the set again")
            yield ImageRow(path.relative_to(folder).as_posix(), path, grade, split, None, slide=slide.name, mask=mask)
        if masks:
            raise BadInput(f"{next(iter(masks.values()))}: there is no tile of this mask; unpack the set again")
