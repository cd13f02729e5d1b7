"""PatchCamelyon (PCam): 96 px tiles of lymph node sections, tumour in the centre or not, in six HDF5 files.

    camelyonpatch_level_2_split_train_x.h5      x uint8 [N, 96, 96, 3]      (also train_x.h5)
    camelyonpatch_level_2_split_train_y.h5      y uint8 [N, 1, 1, 1], 1: tumour in the centre 32 x 32 px
    camelyonpatch_level_2_split_train_meta.csv  optional: coord_y, coord_x, tumor_patch, center_tumor_patch, wsi

and the same for valid and test. One decision: a slide is a patient (CAMELYON16 has one slide of each, Bejnordi et al. 2017), and is
known where the meta files are there. Pixels stay in the files.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal, TypeVar

import h5py
import numpy as np

from raypath.benchmarks.assembling import assemble, folder_of
from raypath.benchmarks.benchmark import Benchmark
from raypath.benchmarks.facts import Facts
from raypath.benchmarks.splits.making import SplitSettings
from raypath.config import setting
from raypath.data.csv_files import csv_table
from raypath.data.image_files import images_of
from raypath.data.image_rows import ImageRow
from raypath.errors import BadInput

_SPLITS = {"train": "train", "valid": "val", "test": "test"}
_PREFIXES = ("camelyonpatch_level_2_split_", "")
_CLASSES = ("normal", "tumor")
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class PCamSettings:
    """PatchCamelyon as published: HDF5 files, split as given."""

    kind: Literal["pcam"] = "pcam"
    path: str = setting("", identity=False)
    split: SplitSettings = field(default_factory=SplitSettings)

    FACTS: ClassVar[Facts] = Facts(
        title="PatchCamelyon (PCam)",
        source="Veeling et al. 2018, arXiv 1806.03962; basveeling/pcam",
        licence="CC0",
        mpp=0.972,
        counts={"images": 327_680, "train": 262_144, "val": 32_768, "test": 32_768},
    )

    @staticmethod
    def recognise(folder: Path) -> bool:
        """Whether the files of train are there."""
        return any((folder / f"{prefix}train_x.h5").is_file() for prefix in _PREFIXES)

    def load(self, seed: int) -> Benchmark:
        """The benchmark; raises BadInput for files that are missing, cannot be read or do not belong together."""
        folder = folder_of(self.path, self.kind)
        rows = [row for split in _SPLITS for row in _rows(folder, split)]
        return assemble(rows, self.FACTS, self.split, name="pcam", seed=seed, classes=_CLASSES)


def _rows(folder: Path, split: str) -> Iterator[ImageRow]:
    images, labels = (_file(folder, f"{split}_{what}.h5") for what in "xy")
    num_images = _read(images, lambda file: len(images_of(file)))
    values = _read(labels, lambda file: np.array(file["y"]).reshape(-1))
    if num_images != len(values) or not np.isin(values, (0, 1)).all():
        raise BadInput(
            f"{labels}: {len(values)} labels of {sorted(set(values.tolist()))[:5]} for {num_images} images; expected a 0 or 1 for"
            " each: fetch both files again"
        )
    slides = _slides(folder, split, num_images)
    for number, label in enumerate(values.tolist()):
        slide = slides[number] if slides else None
        yield ImageRow(
            f"{split}/{number}", images, _CLASSES[label], _SPLITS[split], patient=slide, slide=slide, item=number
        )


def _read(path: Path, take: Callable[[h5py.File], T]) -> T:
    try:
        with h5py.File(path) as file:
            return take(file)
    except (OSError, KeyError, ValueError) as error:
        raise BadInput(f"{path}: cannot be read ({error}); fetch the file again") from None


def _slides(folder: Path, split: str, num_images: int) -> list[str]:
    """The slide of each image; empty where the meta file is not there."""
    paths = [folder / f"{prefix}{split}_meta.csv" for prefix in _PREFIXES]
    path = next((path for path in paths if path.is_file()), None)
    if path is None:
        return []
    slides = [line["wsi"] for _, line in csv_table(path, ("wsi",))]
    if len(slides) != num_images or not all(slides):
        raise BadInput(f"{path}: {len(slides)} lines for {num_images} images; expected a slide (column wsi) for each")
    return slides


def _file(folder: Path, name: str) -> Path:
    found = [folder / f"{prefix}{name}" for prefix in _PREFIXES if (folder / f"{prefix}{name}").is_file()]
    if not found:
        raise BadInput(f"{folder}: no {_PREFIXES[0]}{name} (nor {name}); PCam has six files, unpack the .gz ones")
    return found[0]
