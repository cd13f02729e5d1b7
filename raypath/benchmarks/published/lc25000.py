"""LC25000: 25,000 tiles of lung and colon in five classes, 768 px, all of them made from 1,250.

    lung_colon_image_set/lung_image_sets/{lung_aca,lung_n,lung_scc}/lungaca1.jpeg
    lung_colon_image_set/colon_image_sets/{colon_aca,colon_n}/colonca1.jpeg
    lc25000_image_groups.csv       optional, of GeorgeBatch/LC25000-clean: stem,filename,label,tissue,local_cluster_label,group_id

One decision: the archive does not say which tiles were made (turned, mirrored) from the same one, and a split of tiles has those
in train and test alike: its scores are near 100 % and mean little. Where the groups file lies in the folder, each group is kept
together, in the place of a patient; without it the benchmark says what is wrong with it.

Sources: layout, sizes, counts, 750 + 500 originals: Borkowski et al. 2019 and tampapath/lung_colon_image_set; groups (found by
clustering and looked through by hand; 1,246 of them): GeorgeBatch/LC25000-clean@912f342f kaggle/. um per px: not published.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar, Literal

from raypath.benchmarks.assembling import assemble, folder_of
from raypath.benchmarks.benchmark import Benchmark
from raypath.benchmarks.facts import Facts
from raypath.benchmarks.published.class_folders import images_of_classes
from raypath.benchmarks.splits.making import SplitSettings
from raypath.config import setting
from raypath.data.csv_files import csv_table
from raypath.data.image_rows import ImageRow
from raypath.errors import BadInput

_CLASSES = {"lung": ("lung_aca", "lung_n", "lung_scc"), "colon": ("colon_aca", "colon_n")}
_ARCHIVE = "lung_colon_image_set"
_GROUPS = "lc25000_image_groups.csv"
_LEAKS = f"no {_GROUPS}: tiles made from the same one are in several splits, scores are too high"
_GROUPED = "a patient is a tile that others were made from, as LC25000-clean has it; who was whose is not known"


@dataclass(frozen=True, kw_only=True)
class LC25000Settings:
    """Tissues of lung, of colon, or of both."""

    kind: Literal["lc25000"] = "lc25000"
    path: str = setting("", identity=False)
    organ: Literal["lung", "colon"] | None = None
    """null: both, five classes."""
    split: SplitSettings = field(default_factory=SplitSettings)

    FACTS: ClassVar[Facts] = Facts(
        title="LC25000",
        source="Borkowski et al. 2019, arXiv 1912.12142; tampapath/lung_colon_image_set",
        licence="not stated (its authors: freely available to researchers)",
        mpp=None,
        counts={"images": 25_000, **dict.fromkeys(sum(_CLASSES.values(), ()), 5_000)},
        note="25,000 tiles made from 1,250 by turning and mirroring",
    )

    @staticmethod
    def recognise(folder: Path) -> bool:
        """Whether the folder of one of the organs is there, or the archive's folder that has it."""
        home = _home(folder)
        return (home / "lung_image_sets" / "lung_aca").is_dir() or (home / "colon_image_sets" / "colon_aca").is_dir()

    def load(self, seed: int) -> Benchmark:
        """The benchmark; raises BadInput for a missing organ or class, an empty file, and a tile without its group."""
        folder = folder_of(self.path, self.kind)
        home = _home(folder)
        places = [folder / _GROUPS, home / _GROUPS]
        groups = next((_read_groups(path) for path in places if path.is_file()), None)
        organs = (self.organ,) if self.organ else tuple(_CLASSES)
        rows = [row for organ in organs for row in _rows(home, organ, groups)]
        classes = sum((_CLASSES[organ] for organ in organs), ())
        facts = replace(self.FACTS, counts={"images": 5_000 * len(classes), **dict.fromkeys(classes, 5_000)})
        name = f"lc25000-{self.organ}" if self.organ else "lc25000"
        notes = [_GROUPED if groups else _LEAKS]
        return assemble(rows, facts, self.split, name=name, seed=seed, notes=notes, classes=classes)


def _home(folder: Path) -> Path:
    return folder / _ARCHIVE if (folder / _ARCHIVE).is_dir() else folder


def _rows(home: Path, organ: str, groups: dict[tuple[str, str], str] | None) -> Iterator[ImageRow]:
    folder = home / f"{organ}_image_sets"
    if not folder.is_dir():
        raise BadInput(f"{folder}: there is no such folder; unpack the set again, or choose organ=lung or organ=colon")
    for path, label in images_of_classes(folder, {name: name for name in _CLASSES[organ]}, ".jpeg"):
        group = groups.get((label, path.name)) if groups else None
        if groups and group is None:
            raise BadInput(
                f"{_GROUPS}: no line for {label},{path.name}; fetch it again, or take it away to go without groups"
            )
        yield ImageRow(path.relative_to(home).as_posix(), path, label, "", patient=group and f"original {group}")


def _read_groups(path: Path) -> dict[tuple[str, str], str]:
    """(class, file name) -> number of the group."""
    lines = csv_table(path, ("filename", "label", "group_id"))
    return {(line["label"], line["filename"]): line["group_id"] for _, line in lines}
