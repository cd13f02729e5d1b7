"""PanNuke: nuclei of five types in 256 px tiles of 19 tissues, in three folds of array files.

    Fold 1/images/fold1/images.npy    float64 [2656, 256, 256, 3], whole numbers of 0 to 255
    Fold 1/images/fold1/types.npy     text [2656], the tissue
    Fold 1/masks/fold1/masks.npy      float64 [2656, 256, 256, 6]: numbers of nuclei by type, and what is none of them

and the same for Fold 2 and Fold 3. One decision: the folds are the splits, and which fold is which is said by the settings (the
paper's three rounds are 1-2-3, 2-1-3 and 3-2-1 for train, val and test). Pixels stay in the files.

What it costs: 37 GB are hashed at every start (12 GB for the tissue), which is 20 s of one core (1.9 GB/s), or as long as the disk
takes to give them (75 s at 0.5 GB/s). It stays so: features and the hash of the set stand on these bytes, a record of hashes by
size and time would have them stand on a clock, and what is trained on the set takes hours. Who saves the arrays anew
under the same names as uint8 (images) and uint16 (masks) has the same pixels and classes in 8 GB, as another set by its hash.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np

from raypath.benchmarks.assembling import assemble, folder_of
from raypath.benchmarks.benchmark import Benchmark
from raypath.benchmarks.facts import Facts
from raypath.benchmarks.splits.making import SplitSettings
from raypath.config import setting
from raypath.data.image_rows import ImageRow
from raypath.errors import BadInput

_CLASSES = ("background", "neoplastic", "inflammatory", "connective", "dead", "epithelial")  # channels 5, 0, 1, 2, 3, 4
_TISSUES = (
    *("Adrenal_gland", "Bile-duct", "Bladder", "Breast", "Cervix", "Colon", "Esophagus", "HeadNeck", "Kidney", "Liver"),
    *("Lung", "Ovarian", "Pancreatic", "Prostate", "Skin", "Stomach", "Testis", "Thyroid", "Uterus"),
)
_EXTENT_PX = 256
_FOLD_SIZES = {1: 2656, 2: 2523, 3: 2722}
_FOLDS = tuple(_FOLD_SIZES)


@dataclass(frozen=True, kw_only=True)
class PanNukeSettings:
    """PanNuke: types of nuclei by pixel, or the tissue of the image."""

    kind: Literal["pannuke"] = "pannuke"
    path: str = setting("", identity=False)
    target: Literal["nuclei", "tissue"] = "nuclei"
    train_fold: int = 1
    val_fold: int = 2
    test_fold: int = 3
    split: SplitSettings = field(default_factory=SplitSettings)

    # Channels and licence: the README inside each fold. Counts and mpp: dataset card of RationAI/PanNuke, which keeps the authors'
    # folds. Names of tissues: openml task 361175 and several readers, which agree. Rounds: public readers of the set, which agree.
    FACTS: ClassVar[Facts] = Facts(
        title="PanNuke",
        source="Gamper et al. 2019 (ECDP) and 2020, arXiv 2003.10778; warwick.ac.uk/fac/cross_fac/tia/data/pannuke",
        licence="CC BY-NC-SA 4.0",
        mpp=0.25,
        counts={"images": 7901},
        note="no patients are published, so folds may share them; labels are half automatic",
    )

    @staticmethod
    def recognise(folder: Path) -> bool:
        """Whether the images of a fold are where they are published."""
        return any(_images_of(folder, fold) for fold in _FOLDS)

    def load(self, seed: int) -> Benchmark:
        """The benchmark; raises BadInput for folds that are missing, damaged or named twice."""
        split_of = {self.train_fold: "train", self.val_fold: "val", self.test_fold: "test"}
        if set(split_of) != set(_FOLDS):
            chosen = (self.train_fold, self.val_fold, self.test_fold)
            raise BadInput(f"benchmark: train_fold, val_fold, test_fold = {chosen}; expected each of 1, 2, 3 once")
        folder = folder_of(self.path, self.kind)
        has_masks = self.target == "nuclei"
        rows = [row for fold in _FOLDS for row in _rows(folder, fold, split_of[fold], has_masks=has_masks)]
        sizes = {split: _FOLD_SIZES[fold] for fold, split in split_of.items()}
        facts = replace(self.FACTS, counts=dict(self.FACTS.counts) | sizes)
        if self.target == "tissue":
            return assemble(rows, facts, self.split, name="pannuke-tissue", seed=seed, classes=_TISSUES)
        return assemble(rows, facts, self.split, name="pannuke", seed=seed, classes=_CLASSES, mask_rule="channels")


def _rows(folder: Path, fold: int, split: str, *, has_masks: bool) -> Iterator[ImageRow]:
    images = _images_of(folder, fold)
    if images is None:
        raise BadInput(f"{folder}: no Fold {fold}/images/fold{fold}/images.npy; expected the three unpacked folds")
    num_images = len(_array(images, (_EXTENT_PX, _EXTENT_PX, 3)))
    masks = images.parents[2] / "masks" / f"fold{fold}" / "masks.npy" if has_masks else None
    types = images.with_name("types.npy")
    tissues = _array(types, ())
    lengths = {types: len(tissues)} | ({masks: len(_array(masks, (_EXTENT_PX, _EXTENT_PX, 6)))} if masks else {})
    for path, length in lengths.items():
        if length != num_images:
            raise BadInput(
                f"{path}: {length} entries for {num_images} images; expected one for each: fetch the fold again"
            )
    unknown = sorted(set(tissues.tolist()) - set(_TISSUES))
    if unknown:
        raise BadInput(f"{types}: the tissue {unknown[0]!r}; expected {', '.join(_TISSUES)}")
    for item, tissue in enumerate(tissues.tolist()):
        yield ImageRow(f"fold{fold}/{item}", images, tissue, split, None, item=item, mask=masks)


def _images_of(folder: Path, fold: int) -> Path | None:
    """images.npy of a fold: as published, or with the name of its archive around it, or without any."""
    homes = (f"Fold {fold}", f"fold_{fold}/Fold {fold}", f"fold{fold}/Fold {fold}", f"Fold{fold}", ".")
    paths = [folder / home / "images" / f"fold{fold}" / "images.npy" for home in homes]
    return next((path for path in paths if path.is_file()), None)


def _array(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    """The array [N, *shape] of a file, not read yet."""
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise BadInput(f"{path}: cannot be read ({error}); fetch the fold again") from None
    if array.ndim != 1 + len(shape) or array.shape[1:] != shape:
        wanted = ", ".join(["N", *map(str, shape)])
        raise BadInput(f"{path}: its shape is {array.shape}; expected [{wanted}]: fetch the fold again")
    return array
