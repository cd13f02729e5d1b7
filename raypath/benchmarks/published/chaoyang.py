"""Chaoyang: 6,160 tiles of colon, 512 px: normal, serrated, adenocarcinoma or adenoma.

    train.json                            [{"name": "train/538880-3-IMG031x022-1.JPG", "label": 1}, ...]
    train/538880-3-IMG031x022-1.JPG       slide, place on it, a class (not read: the table says it)
    test.json, test/...                   the same

One decision: slides of one case stay together. A name begins with a number and, where there are several slides, another one
(538897-1, 538897_2): the first is taken as the patient, which the authors do not say. Val is carved from train, whose labels
are noisy: that is what the set was made for.

Sources: bupt-ai-cz/HSA-NRL@e53a3243 data/chaoyang.py; README.md, train.json and test.json of the set in Snarci/DLA@a2d18ff0.
um per px: None, no source was found.
"""

import json
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
from raypath.errors import BadInput

_CLASSES = ("normal", "serrated", "adenocarcinoma", "adenoma")
_PARTS = ("train", "test")
_NAME = re.compile(r"(?P<slide>(?P<case>\d+)\S*)-IMG\d+x\d+-\d\.jpg", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class ChaoyangSettings:
    """Normal, serrated, adenocarcinoma or adenoma, split as published."""

    kind: Literal["chaoyang"] = "chaoyang"
    path: str = setting("", identity=False)
    split: SplitSettings = field(default_factory=SplitSettings)

    FACTS: ClassVar[Facts] = Facts(
        title="Chaoyang",
        source="Zhu et al. 2021, IEEE TMI, ieeexplore.ieee.org/document/9600806; bupt-ai-cz.github.io/HSA-NRL",
        licence="its authors' own: non-commercial, no redistribution",
        mpp=None,
        counts={"images": 6_160, "train": 4_021, "test": 2_139},
        note="labels of train are noisy",
    )

    @staticmethod
    def recognise(folder: Path) -> bool:
        """Whether both tables are there, and tiles with the names of Chaoyang."""
        if not all((folder / f"{part}.json").is_file() and (folder / part).is_dir() for part in _PARTS):
            return False
        return any(_NAME.fullmatch(path.name) for path in (folder / "test").iterdir())

    def load(self, seed: int) -> Benchmark:
        """The benchmark; raises BadInput for wrong entries, and where a table and its images do not belong together."""
        folder = folder_of(self.path, self.kind)
        rows = [row for part in _PARTS for row in _rows(folder, part)]
        return assemble(rows, self.FACTS, self.split, name="chaoyang", seed=seed, classes=_CLASSES)


def _rows(folder: Path, part: str) -> Iterator[ImageRow]:
    if not (folder / part).is_dir():
        raise BadInput(f"{folder / part}: there is no such folder; unpack the set again")
    images = {f"{part}/{path.name}": path for path in images_in(folder / part, ".jpg")}
    for number, name, label in _entries(folder / f"{part}.json"):
        path, match = images.pop(name, None), _NAME.fullmatch(Path(name).name)
        if path is None:
            raise BadInput(f"{folder / part}.json: entry {number}: no {name}, or named twice; unpack the set again")
        if match is None:
            raise BadInput(f"{path}: expected a name as 538880-3-IMG031x022-1.JPG, which says the slide")
        yield ImageRow(name, path, _CLASSES[label], part, match["case"], match["slide"])
    if images:
        raise BadInput(f"{next(iter(images.values()))}: {part}.json does not name it; fetch {part}.json again")


def _entries(table: Path) -> Iterator[tuple[int, str, int]]:
    """(number from 1, name, label) of every entry."""
    try:
        entries = json.loads(table.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise BadInput(f"{table}: cannot be read ({error}); expected a list of names and labels") from None
    if not isinstance(entries, list):
        raise BadInput(f"{table}: expected a list of names and labels, found a {type(entries).__name__}")
    for number, entry in enumerate(entries, 1):
        match entry:
            case {"name": str() as name, "label": int() as label} if 0 <= label < len(_CLASSES):
                yield number, name, label
            case _:
                expected = '{"name": "train/....JPG", "label": 0 to 3}'
                raise BadInput(f"{table}: entry {number}: {json.dumps(entry)[:80]}; expected {expected}")
