"""PCam200: tiles of 200 um of lymph node sections (CAMELYON16), normal or with tumour. A benchmark of the first paper.

    PCam200/{train,val,test}/{normal,tumor}/CASE/*.jpg        512 px at 0.39 um per px (inferred, RECIPES 1.1)

One decision: a case is a slide and a patient, as CAMELYON16 has one slide of each (Bejnordi et al. 2017), and the split is the
given one; a case in two splits is refused.

Sources: layout, 0.39 um per px, licence: enigmanx20/PatchTCGA@ea39a9e5 dataset_utils.PCam200 and README. Counts, and from which
share of tumour on a tile counts as tumour: not published.
"""

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

_CLASSES = ("normal", "tumor")


@dataclass(frozen=True, kw_only=True)
class PCam200TilesSettings:
    """Metastases in lymph nodes at 200 um, split as given."""

    kind: Literal["pcam200_tiles"] = "pcam200_tiles"
    path: str = setting("", identity=False)
    split: SplitSettings = field(default_factory=SplitSettings)

    FACTS: ClassVar[Facts] = Facts(
        title="PCam200",
        source="Kawai et al. 2023, arXiv 2303.15693; enigmanx20/PatchTCGA",
        licence="CC0",
        mpp=0.39,
        note="of the slides of CAMELYON16, as PCam is: one is no independent test of the other",
    )

    @staticmethod
    def recognise(folder: Path) -> bool:
        """Whether train/tumor holds folders of cases with .jpg files (class folders of one's own hold images)."""
        return (folder / "train" / "normal").is_dir() and any((folder / "train" / "tumor").glob("*/*.jpg"))

    def load(self, seed: int) -> Benchmark:
        """The benchmark; raises BadInput for a missing part, an empty case or file, and a case in two splits."""
        folder = folder_of(self.path, self.kind)
        rows = [row for split in SPLITS for label in _CLASSES for row in _rows(folder, split, label)]
        return assemble(rows, self.FACTS, self.split, name="pcam200_tiles", seed=seed, classes=_CLASSES)


def _rows(folder: Path, split: str, label: str) -> Iterator[ImageRow]:
    home = folder / split / label
    cases = sorted(path for path in home.iterdir() if path.is_dir()) if home.is_dir() else []
    if not cases:
        raise BadInput(f"{home}: no folders of cases; expected PCam200/{split}/{label}/CASE/*.jpg: unpack it again")
    for case in cases:
        for path in images_in(case, ".jpg"):
            sample = path.relative_to(folder).as_posix()
            yield ImageRow(sample, path, label, split, patient=case.name, slide=case.name)
