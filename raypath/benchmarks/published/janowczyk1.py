"""Janowczyk's nuclei (his first use case): H&E of breast cancer with nuclei outlined, task Janowczyk1 of the 22-task pool.

    12750_500_f00003_original.tif      2000 x 2000 px; before the first "_": the patient
    12750_500_f00003_mask.png          not 0: nucleus

in one folder. One decision: for classification the images are cut as Mormont et al. 2020 did (250 px, overlap 125 px, positive if
nuclei cover more than 5 %); as a segmentation every image is one sample. An image without a mask is left out and counted, for the
authors' own code takes the images from the masks; a mask without its image is refused.

Sources: layout and patients, choosehappy/public@be2fe014 "DL tutorial Code/1-nuclei/step1_make_patches.m"; cut and counts, appendix
of the thesis waliens/phd-thesis@11db1cab. Its 31,725 samples are 225 of each of 141 images of 2000 x 2000 px. That only some nuclei
are outlined: constantinpape/torch-em@601c0e66 janowczyk.py.
"""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar, Literal

from raypath.benchmarks.assembling import assemble, folder_of
from raypath.benchmarks.benchmark import Benchmark
from raypath.benchmarks.cutting.area_rule import rows_by_area
from raypath.benchmarks.facts import Facts
from raypath.benchmarks.splits.making import SplitSettings
from raypath.config import setting
from raypath.data.image_rows import ImageRow
from raypath.errors import BadInput

_IMAGE, _MASK = "_original.tif", "_mask.png"
_CLASSES = ("background", "nuclei")
_EXTENT_PX, _OVERLAP_PX, _ABOVE = 250, 125, 0.05


@dataclass(frozen=True, kw_only=True)
class Janowczyk1Settings:
    """Nuclei of breast cancer (Janowczyk 2016): whether a tile holds them, or which pixels they are."""

    kind: Literal["janowczyk1"] = "janowczyk1"
    path: str = setting("", identity=False)
    target: Literal["tiles", "pixels"] = "tiles"
    """tiles: 250 px, positive above 5 % nuclei; pixels: segmentation of whole images."""
    split: SplitSettings = field(default_factory=SplitSettings)

    FACTS: ClassVar[Facts] = Facts(
        title="Janowczyk use case 1: nuclei",
        source="Janowczyk and Madabhushi 2016, J Pathol Inform 7:29; cut as Mormont et al. 2020",
        licence="not stated",
        mpp=None,
        counts={"images": 31_725, "patients": 137},
        note="only some nuclei of an image are outlined: the background holds others; patients are numbered as in janowczyk6"
        " (12750, 10256 and 8913 are in both): the two are not independent",
    )

    @staticmethod
    def recognise(folder: Path) -> bool:
        """Whether an image and its mask are there."""
        return any((folder / path.name.replace(_MASK, _IMAGE)).is_file() for path in folder.glob(f"[!.]*{_MASK}"))

    def load(self, seed: int) -> Benchmark:
        """The benchmark; raises BadInput for a mask without image, and for files that cannot be read."""
        folder = folder_of(self.path, self.kind)
        images, note = read_rows(folder)
        if self.target == "tiles":
            cut = {"extent_px": _EXTENT_PX, "overlap_px": _OVERLAP_PX, "above": _ABOVE}
            rows = rows_by_area(images, **cut, classes=_CLASSES)
            return assemble(rows, self.FACTS, self.split, name="janowczyk1", seed=seed, notes=[note], classes=_CLASSES)
        facts = replace(self.FACTS, counts={"images": 141, "patients": 137})
        name = "janowczyk1-pixels"
        return assemble(
            images, facts, self.split, name=name, seed=seed, notes=[note], classes=_CLASSES, mask_rule="binary"
        )


def read_rows(folder: Path) -> tuple[list[ImageRow], str]:
    """Every image that has a mask, with its patient; and a note on those that have none."""
    masks = sorted(folder.glob(f"[!.]*{_MASK}"))
    rows = []
    for mask in masks:
        image = folder / mask.name.replace(_MASK, _IMAGE)
        if not image.is_file():
            raise BadInput(f"{image}: there is no such file, but {mask.name} is there; fetch the set again")
        rows.append(ImageRow(image.name, image, "breast", "", mask.name.split("_")[0], mask=mask))
    if not rows:
        raise BadInput(f"{folder}: no <id>{_MASK} beside <id>{_IMAGE}; expected the unpacked nuclei.tgz")
    without = sorted({path.name for path in folder.glob(f"[!.]*{_IMAGE}")} - {row.path.name for row in rows})
    return rows, f"{len(without)} images have no mask and are left out: {', '.join(without[:5])}" if without else ""
