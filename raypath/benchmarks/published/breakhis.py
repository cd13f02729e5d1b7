"""BreaKHis: 7,909 photographs of breast tumours at four magnifications, benign or malignant, of eight types.

    BreaKHis_v1/histology_slides/breast/benign/SOB/adenosis/SOB_B_A_14-22549AB/40X/SOB_B_A-14-22549AB-40-001.png
    dsfold1.txt ... dsfold5.txt        optional, from mkfold.tar.gz: SOB_B_A-14-22549AB-40-001.png|40|1|train

One decision: what a patient is depends on the split. The authors count 82 (one per slide folder) and divide those in their five
folds, so `published_fold` does too; but 14-13412 has a folder under ductal and one under lobular carcinoma, and fold 1 trains on
one and tests on the other. A split made here goes by the number of the case (14-22549 for 14-22549AB and 14-22549CD): what may be
one patient stays together.

The magnification is in every sample's id (`magnification_of`). Scores per patient and magnification: Spanhol et al. 2016; Mormont
et al. 2020 report them on the five folds (RECIPES 2.4). The authors' 40X benign count is 652 on their page; their own totals need
625, which is what there is.

Sources: layout, counts per magnification, 82 patients: inf.ufpr.br/vri, "breast-cancer-histopathological-database-breakhis"; fold
files: the authors' mkfold.py, as copied in public repositories; images per type: a public count of the archive, whose sums are
the authors' 2,480 and 5,429; licence: kaiko-ai/eva@36b89467 breakhis.py. um per px is None: the pages above do not give it.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar, Literal

from raypath.benchmarks.assembling import assemble, folder_of
from raypath.benchmarks.benchmark import Benchmark
from raypath.benchmarks.facts import Facts
from raypath.benchmarks.published.class_folders import images_in
from raypath.benchmarks.splits.making import SplitSettings
from raypath.config import setting
from raypath.data.csv_files import csv_lines
from raypath.data.image_rows import ImageRow
from raypath.errors import BadInput

Magnification = Literal[40, 100, 200, 400]

_TYPES = {  # code in the file name -> (malignancy, folder)
    "A": ("benign", "adenosis"),
    "F": ("benign", "fibroadenoma"),
    "PT": ("benign", "phyllodes_tumor"),
    "TA": ("benign", "tubular_adenoma"),
    "DC": ("malignant", "ductal_carcinoma"),
    "LC": ("malignant", "lobular_carcinoma"),
    "MC": ("malignant", "mucinous_carcinoma"),
    "PC": ("malignant", "papillary_carcinoma"),
}
_IMAGE = re.compile(r"(SOB_([BM])_(A|F|PT|TA|DC|LC|MC|PC)-(\d\d-\d+)([A-Z]*))-(40|100|200|400)-(\d{3})\.png")
_HOMES = ("", "histology_slides", "BreaKHis_v1", "BreaKHis_v1/histology_slides")
_IMAGES = {40: (625, 1_370), 100: (644, 1_437), 200: (623, 1_390), 400: (588, 1_232), None: (2_480, 5_429)}
_IMAGES_OF_TYPE = (444, 1_014, 453, 569, 3_451, 626, 792, 560)
_TARGETS = {"malignancy": ("benign", "malignant"), "type": tuple(folder for _, folder in _TYPES.values())}


@dataclass(frozen=True, kw_only=True)
class BreaKHisSettings:
    """Breast tumours, benign or malignant or by type, at one magnification or all."""

    kind: Literal["breakhis"] = "breakhis"
    path: str = setting("", identity=False)
    target: Literal["malignancy", "type"] = "malignancy"
    magnification: Magnification | None = None
    """40, 100, 200 or 400; null: all of them, each photograph a sample."""
    published_fold: Literal[1, 2, 3, 4, 5] | None = None
    """One of the authors' five divisions into train and test; null: a split made here."""
    split: SplitSettings = field(default_factory=SplitSettings)

    FACTS: ClassVar[Facts] = Facts(
        title="BreaKHis 1.0",
        source="Spanhol et al. 2016, IEEE Transactions on Biomedical Engineering 63(7)",
        licence="CC BY 4.0 (as kaiko-ai/eva has it)",
        mpp=None,
        note="slides are what its authors count as 82 patients; case 14-13412 is both ductal and lobular carcinoma",
    )

    @staticmethod
    def recognise(folder: Path) -> bool:
        """Whether its two branches are there, in the folder or where the archive has them."""
        breast = _breast(folder)
        return breast is not None and (breast / "malignant" / "SOB").is_dir()

    def load(self, seed: int) -> Benchmark:
        """The benchmark; raises BadInput for a missing type, for names that contradict their folder and for incomplete folds."""
        if self.published_fold and (self.split.num_folds or not self.split.use_given):
            raise BadInput(
                f"benchmark.published_fold={self.published_fold} beside split.num_folds={self.split.num_folds} and"
                f" split.use_given={self.split.use_given}: two divisions; leave split as it is, or published_fold=null"
            )
        folder = folder_of(self.path, self.kind)
        rows = list(_rows(folder, self))
        name = f"breakhis-{self.target}-{self.magnification or 'all'}x"
        name += f"-fold{self.published_fold}" if self.published_fold else ""
        return assemble(
            rows,
            self._facts(),
            self.split,
            name=name,
            seed=seed,
            classes=_TARGETS[self.target],
            is_split_chosen=self.published_fold is not None,
        )

    def _facts(self) -> Facts:
        """The facts of the part that was chosen; nobody published how many of a type there are at one magnification."""
        images = _IMAGES[self.magnification]
        counts = {"images": sum(images)}
        if self.target == "malignancy":
            counts |= dict(zip(_TARGETS["malignancy"], images, strict=True))
        elif self.magnification is None:
            counts |= dict(zip(_TARGETS["type"], _IMAGES_OF_TYPE, strict=True))
        if self.magnification is None:
            counts["slides"] = 82
        return replace(self.FACTS, counts=counts)


def magnification_of(sample: str) -> int:
    """40, 100, 200 or 400, from the id of a sample; raises ValueError for what is no sample of BreaKHis."""
    name = _IMAGE.fullmatch(sample.rsplit("/", 1)[-1])
    if not name:
        raise ValueError(f"{sample}: no photograph of BreaKHis; expected a name like SOB_B_A-14-22549AB-40-001.png")
    return int(name[6])


def _rows(folder: Path, settings: BreaKHisSettings) -> Iterator[ImageRow]:
    breast = _breast(folder)
    if breast is None:
        raise BadInput(f"{folder}: no folder breast/benign; expected the unpacked BreaKHis_v1.tar.gz")
    fold = _read_fold(folder, settings.published_fold) if settings.published_fold else None
    for code, (malignancy, tumour) in _TYPES.items():
        home = breast / malignancy / "SOB" / tumour
        if not home.is_dir():
            raise BadInput(f"{home}: there is no such folder; unpack BreaKHis_v1.tar.gz again, it has eight types")
        for path in _photographs(home, settings.magnification):
            name = _parts(path, code)
            if fold is not None and path.name not in fold:
                raise BadInput(
                    f"dsfold{settings.published_fold}.txt: no line for {path.name}; fetch mkfold.tar.gz again"
                )
            yield ImageRow(
                path.relative_to(breast).as_posix(),
                path,
                malignancy if settings.target == "malignancy" else tumour,
                fold[path.name] if fold is not None else "",
                patient=name[1] if fold is not None else name[4],
                slide=name[1],
            )


def _photographs(home: Path, magnification: int | None) -> Iterator[Path]:
    """Those of every slide folder below a type, at one magnification or all."""
    for slide in sorted(path for path in home.iterdir() if path.is_dir()):
        levels = [magnification] if magnification else [40, 100, 200, 400]
        found = [slide / f"{level}X" for level in levels if (slide / f"{level}X").is_dir()]
        if not found:
            raise BadInput(f"{slide}: no folder {', '.join(f'{level}X' for level in levels)}; unpack the archive again")
        for level in found:
            yield from images_in(level, ".png")


def _parts(path: Path, code: str) -> re.Match:
    """The parts of a file name, which must be those of the folders it lies in."""
    name = _IMAGE.fullmatch(path.name)
    if not name:
        raise BadInput(
            f"{path}: expected a name like SOB_B_A-14-22549AB-40-001.png, which says type, slide and magnification"
        )
    slide = f"SOB_{name[2]}_{name[3]}_{name[4]}{name[5]}"
    if (name[3], slide, f"{name[6]}X") != (code, path.parts[-3], path.parts[-2]):
        raise BadInput(
            f"{path}: its name says {slide}/{name[6]}X; the folders it lies in say another: put it where it belongs"
        )
    return name


def _breast(folder: Path) -> Path | None:
    """The folder that has the branches benign and malignant."""
    places = [folder, *(folder / home / "breast" for home in _HOMES)]
    return next((place for place in places if (place / "benign" / "SOB").is_dir()), None)


def _read_fold(folder: Path, number: int) -> dict[str, str]:
    """File name -> "train" or "test", from the authors' list of one fold."""
    places = [folder / f"dsfold{number}.txt", folder / "mkfold" / f"dsfold{number}.txt"]
    path = next((place for place in places if place.is_file()), None)
    if path is None:
        raise BadInput(
            f"{places[0]}: there is no such file; it comes in mkfold.tar.gz, from where BreaKHis is published"
        )
    splits = {}
    for line, cells in csv_lines(path, delimiter="|"):
        if len(cells) != 4 or cells[3] not in ("train", "test"):
            raise BadInput(f"{path}: line {line}: {'|'.join(cells)!r}; expected FILE|MAGNIFICATION|FOLD|train or test")
        splits[cells[0]] = cells[3]
    return splits
