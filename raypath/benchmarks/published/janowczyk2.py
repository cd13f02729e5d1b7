"""Janowczyk's epithelium (his second use case): H&E of breast cancer, epithelium painted; task Janowczyk2 of the 22-task pool.

    <patient>_<number>.tif             1000 x 1000 px
    masks/<patient>_<number>_mask.png  not 0: epithelium

One decision: for classification the images are cut as Mormont et al. 2020 did (200 px, overlap 100 px, positive if epithelium
covers more than 10 %); as a segmentation every image is one sample. An image without a mask, or the reverse, is refused.

Sources: layout, constantinpape/torch-em@601c0e66 janowczyk.py; patients (all before the first "_"), choosehappy/public@be2fe014
"DL tutorial Code/2-epi/step1_make_patches.m"; cut and counts, appendix of the thesis waliens/phd-thesis@11db1cab: its 3,402
samples are 81 of each of 42 images of 1000 x 1000 px.
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

_CLASSES = ("stroma", "epithelium")
_MASKS = "masks/[!.]*_mask.png"
_EXTENT_PX, _OVERLAP_PX, _ABOVE = 200, 100, 0.10


@dataclass(frozen=True, kw_only=True)
class Janowczyk2Settings:
    """Epithelium of breast cancer (Janowczyk 2016): whether a tile holds it, or which pixels it is."""

    kind: Literal["janowczyk2"] = "janowczyk2"
    path: str = setting("", identity=False)
    target: Literal["tiles", "pixels"] = "tiles"
    """tiles: 200 px, positive above 10 % epithelium; pixels: segmentation of whole images."""
    split: SplitSettings = field(default_factory=SplitSettings)

    FACTS: ClassVar[Facts] = Facts(
        title="Janowczyk use case 2: epithelium",
        source="Janowczyk and Madabhushi 2016, J Pathol Inform 7:29; cut as Mormont et al. 2020",
        licence="not stated",
        mpp=None,
        counts={"images": 3_402, "patients": 42},
        note="what is not epithelium counts as stroma, white background too",
    )

    @staticmethod
    def recognise(folder: Path) -> bool:
        """Whether a mask in masks/ and its image are there."""
        return any((folder / _image_name(path)).is_file() for path in folder.glob(_MASKS))

    def load(self, seed: int) -> Benchmark:
        """The benchmark; raises BadInput for an image without mask (or the reverse), and for files that cannot be read."""
        images = read_rows(folder_of(self.path, self.kind))
        if self.target == "tiles":
            cut = {"extent_px": _EXTENT_PX, "overlap_px": _OVERLAP_PX, "above": _ABOVE}
            rows = rows_by_area(images, **cut, classes=_CLASSES)
            return assemble(rows, self.FACTS, self.split, name="janowczyk2", seed=seed, classes=_CLASSES)
        facts = replace(self.FACTS, counts={"images": 42, "patients": 42})
        name = "janowczyk2-pixels"
        return assemble(images, facts, self.split, name=name, seed=seed, classes=_CLASSES, mask_rule="binary")


def read_rows(folder: Path) -> list[ImageRow]:
    """Every image with its mask and its patient."""
    masks = {_image_name(path): path for path in sorted(folder.glob(_MASKS))}
    images = {path.name: path for path in sorted(folder.glob("[!.]*.tif"))}
    if not masks or not images:
        raise BadInput(
            f"{folder}: {len(images)} images *.tif, {len(masks)} masks/*_mask.png; expected the unpacked epi.tgz"
        )
    alone = sorted(masks.keys() ^ images.keys())
    if alone:
        absent = folder / alone[0] if alone[0] in masks else folder / "masks" / f"{Path(alone[0]).stem}_mask.png"
        raise BadInput(f"{absent}: there is no such file; an image and its mask belong together: fetch the set again")
    return [ImageRow(n, images[n], "breast", "", n.split("_")[0], mask=masks[n]) for n in images]


def _image_name(mask: Path) -> str:
    return mask.name.removesuffix("_mask.png") + ".tif"
