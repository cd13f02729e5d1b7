"""NCT-CRC-HE: 100,000 tiles of colorectal cancer in nine tissue classes, and 7,180 of other patients to test on.

    NCT-CRC-HE-100K/{ADI,BACK,DEB,LYM,MUC,MUS,NORM,STR,TUM}/ADI-AAAFLCLY.tif          the train set, colours normalised
    NCT-CRC-HE-100K-NONORM/...                                                        the same without normalisation
    CRC-VAL-HE-7K/...                                                                 the test set (50 patients, none of the above)

One decision: the three archives lie side by side under their own names, and the one with 7,180 tiles is the test set. Neither
says the slide of a tile, so the val set that is carved from train has tiles of the same slides: it chooses, it does not measure.

Sources: layout, 0.5 um per px, counts, 50 patients, licence: zenodo.org/records/1214456, kaiko-ai/eva@2e391012
docs/datasets/crc.md. Tiles per class: as counted in public analyses of both archives, and equal to train + val and to test of
PathMNIST (MedMNIST v2), which was made of them.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

from raypath.benchmarks.assembling import assemble, folder_of
from raypath.benchmarks.benchmark import Benchmark
from raypath.benchmarks.facts import Facts
from raypath.benchmarks.published.class_folders import images_of_classes
from raypath.benchmarks.splits.making import SplitSettings
from raypath.config import setting
from raypath.data.image_rows import ImageRow
from raypath.errors import BadInput

_TRAIN = {"normalised": "NCT-CRC-HE-100K", "raw": "NCT-CRC-HE-100K-NONORM"}
_TEST = "CRC-VAL-HE-7K"
_TRAIN_TILES = {
    "ADI": 10_407,
    "BACK": 10_566,
    "DEB": 11_512,
    "LYM": 11_557,
    "MUC": 8_896,
    "MUS": 13_536,
    "NORM": 8_763,
    "STR": 10_446,
    "TUM": 14_317,
}
_TEST_TILES = {
    "ADI": 1_338,
    "BACK": 847,
    "DEB": 339,
    "LYM": 634,
    "MUC": 1_035,
    "MUS": 592,
    "NORM": 741,
    "STR": 421,
    "TUM": 1_233,
}
_CLASSES = tuple(_TRAIN_TILES)


@dataclass(frozen=True, kw_only=True)
class NCTCRCSettings:
    """NCT-CRC-HE-100K, tested on CRC-VAL-HE-7K: nine tissues of colorectal cancer."""

    kind: Literal["nct_crc"] = "nct_crc"
    path: str = setting("", identity=False)
    """The folder that holds NCT-CRC-HE-100K and CRC-VAL-HE-7K."""
    colours: Literal["normalised", "raw"] = "normalised"
    """Which train set: Macenko-normalised, or the one with -NONORM in its name."""
    split: SplitSettings = field(default_factory=SplitSettings)

    FACTS: ClassVar[Facts] = Facts(
        title="NCT-CRC-HE-100K and CRC-VAL-HE-7K",
        source="Kather et al. 2019, PLOS Medicine 16(1); zenodo.org/records/1214456",
        licence="CC BY 4.0",
        mpp=0.5,
        counts={
            "images": 107_180,
            "train": 100_000,
            "test": 7_180,
            **{name: _TRAIN_TILES[name] + _TEST_TILES[name] for name in _CLASSES},
        },
        note="colour and JPEG artefacts tell its classes apart (Ignatov and Malivenko 2024, arXiv 2409.11546):"
        " compare with the colour encoder",
    )

    @staticmethod
    def recognise(folder: Path) -> bool:
        """Whether the test set and one of the train sets are there."""
        return (folder / _TEST).is_dir() and any((folder / name).is_dir() for name in _TRAIN.values())

    def load(self, seed: int) -> Benchmark:
        """The benchmark; raises BadInput for a missing archive or class, and for an empty file."""
        folder = folder_of(self.path, self.kind)
        rows = [*_rows(folder, _TRAIN[self.colours], "train"), *_rows(folder, _TEST, "test")]
        name = "nct-crc" if self.colours == "normalised" else "nct-crc-raw"
        return assemble(rows, self.FACTS, self.split, name=name, seed=seed, classes=_CLASSES)


def _rows(folder: Path, archive: str, split: str) -> Iterator[ImageRow]:
    if not (folder / archive).is_dir():
        raise BadInput(
            f"{folder / archive}: there is no such folder; unpack {archive}.zip of zenodo.org/records/1214456"
        )
    for path, label in images_of_classes(folder / archive, {name: name for name in _CLASSES}, ".tif"):
        yield ImageRow(path.relative_to(folder).as_posix(), path, label, split, None)
