"""Tiles around measured spots of slides, with a weak label: spatial transcriptomics (her2st) and its like.

    her2st_C2.tiff    her2st_C2.spots.csv: pixel_x,pixel_y,expression_cluster

One decision: a tile is centred on its spot and has a size in um; one that would leave the slide is not cut, and counted. Slides are
the groups, and whole: `train`, `val` and `test` name them, or `leave_out` makes the n-th slide the test, the next one val, and
trains on the rest. Sections of one patient say nothing of other patients, whatever the split: `is_one_patient`, the default, says
so.

What it costs: a header and one pass over the bytes of every slide.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np

from raypath.benchmarks.annotations.points import Points, read_points
from raypath.benchmarks.assembling import folder_of
from raypath.benchmarks.benchmark import Benchmark
from raypath.benchmarks.facts import Facts
from raypath.benchmarks.from_slides.slide_tiles import SlideTiles, find_tiles, listed, slides_below
from raypath.benchmarks.from_slides.tile_table import LabelledSlide, tile_benchmark
from raypath.config import setting
from raypath.data.manifest import SPLITS
from raypath.errors import BadInput
from raypath.hashing import file_sha256
from raypath.slides import TileSpec

SUFFIX = ".spots.csv"


@dataclass(frozen=True, kw_only=True)
class SpotsSettings:
    """Tiles around the spots of slides, labelled by a column of a CSV beside each slide."""

    kind: Literal["spots"] = "spots"
    path: str = setting("", identity=False)
    extent_um: float = 160.0
    """Side of a tile. her2st's spots are 200 um apart, so tiles of at most that do not overlap."""
    extent_px: int = 224
    """The same in pixels, which sets the um per px that the benchmark is said to have."""
    x: str = "pixel_x"
    y: str = "pixel_y"
    label: str = "expression_cluster"
    train: tuple[str, ...] = ()
    """Slides by name; all three are named, or none."""
    val: tuple[str, ...] = ()
    test: tuple[str, ...] = ()
    leave_out: int = 0
    """Where no slides are named: which one is the test, counted from 0 by their names."""
    drop_classes: tuple[str, ...] = ()
    is_one_patient: bool = True
    slide_mpp: float | None = None

    FACTS: ClassVar[Facts] = Facts(title="Spots", source="a folder of slides and CSVs", licence="not stated", mpp=None)

    @staticmethod
    def recognise(folder: Path) -> bool:
        """Whether a CSV of spots is beside a slide."""
        return bool(_slides(folder))

    def load(self, seed: int) -> Benchmark:
        """The benchmark (nothing is drawn, `seed` has no part); raises BadInput for a split that is none and for a damaged CSV."""
        if not self.extent_um > 0 or self.extent_px < 1:
            raise BadInput(f"extent_um={self.extent_um}, extent_px={self.extent_px}: expected above 0")
        mpp = self.extent_um / self.extent_px
        folder = folder_of(self.path, self.kind)
        slides = _slides(folder)
        split_of = self._split_of(folder, [path.stem for path in slides])
        paths = [path for path in slides if path.stem in split_of]
        points = [read_points(_spots_of(path), x=self.x, y=self.y, label=self.label) for path in paths]
        classes = self._classes(points)
        spec = TileSpec(extent_px=self.extent_px, mpp=mpp, stride_px=self.extent_px, min_tissue=0.0)
        said: Counter[str] = Counter()
        labelled = [
            _labelled(tiles, spots, classes, split_of[path.stem], file_sha256(_spots_of(path)), said)
            for tiles, spots, path in zip(find_tiles(paths, spec, slide_mpp=self.slide_mpp), points, paths)
        ]
        return tile_benchmark(
            labelled,
            self.FACTS,
            name="spots",
            classes=classes,
            mpp=mpp,
            is_of_one_patient=self.is_one_patient,
            notes=[*self._notes(split_of), *(f"{count} {what}" for what, count in sorted(said.items()) if count)],
        )

    def _split_of(self, folder: Path, slides: Sequence[str]) -> dict[str, str]:
        """Slide -> split, as named or with one slide left out."""
        named = {name: split for split in SPLITS for name in getattr(self, split)}
        if not named:
            if len(slides) < len(SPLITS) or not 0 <= self.leave_out < len(slides):
                raise BadInput(
                    f"{folder}: {len(slides)} slides with a {SUFFIX}, leave_out={self.leave_out}; expected at least 3, and one of "
                    f"0 to {len(slides) - 1}"
                )
            val = (self.leave_out + 1) % len(slides)
            special = {self.leave_out: "test", val: "val"}
            return {name: special.get(number, "train") for number, name in enumerate(slides)}
        unknown = sorted(set(named) - set(slides))
        if unknown or len(named) < sum(len(getattr(self, split)) for split in SPLITS):
            raise BadInput(
                f"{folder}: train={self.train}, val={self.val}, test={self.test}; expected each of {', '.join(slides)} at most once"
            )
        return named

    def _classes(self, points: Sequence[Points]) -> tuple[str, ...]:
        found = {label for spots in points for label in spots.labels}
        unknown = sorted(set(self.drop_classes) - found)
        if unknown:
            raise BadInput(f"drop_classes names {', '.join(unknown)}; the classes are {', '.join(sorted(found))}")
        kept = found - set(self.drop_classes)
        return tuple(sorted(kept, key=lambda text: (int(text) if text.isdecimal() else -1, text)))

    def _notes(self, split_of: dict[str, str]) -> list[str]:
        parts = [f"{split} {', '.join(name for name, own in split_of.items() if own == split)}" for split in SPLITS]
        notes = [f"split by slide ({', '.join(parts)})"]
        if self.is_one_patient:
            notes.append("one patient: groups are sections, scores say nothing of other patients")
        return notes + ([f"left out: {', '.join(self.drop_classes)}"] if self.drop_classes else [])


def _labelled(
    tiles: SlideTiles, spots: Points, classes: Sequence[str], split: str, digest: str, said: Counter[str]
) -> LabelledSlide:
    """A tile around every spot that lies wholly inside its slide."""
    corners = np.rint(spots.xy - tiles.extent_l0 / 2).astype(np.int64)
    is_inside = (corners >= 0).all(axis=1) & (corners + tiles.extent_l0 <= tiles.size_l0).all(axis=1)
    is_known = np.array([label in classes for label in spots.labels])
    said["spots left out: their tile would leave the slide"] += int((is_known & ~is_inside).sum())
    which = np.flatnonzero(is_inside & is_known)
    around = replace(tiles, x_l0=corners[which, 0], y_l0=corners[which, 1])
    labels = np.array([classes.index(spots.labels[number]) for number in which], dtype=np.int64)
    if len(set(around.samples)) < len(around):
        raise BadInput(f"{tiles.path}: spots at the same place ({listed(_twice(around.samples))}); every spot once")
    return LabelledSlide(around, labels, tiles.slide, split, annotation_sha256=digest)


def _twice(names: Sequence[str]) -> list[str]:
    return [name for name, count in Counter(names).items() if count > 1]


def _slides(folder: Path) -> list[Path]:
    return [path for path in slides_below(folder) if _spots_of(path).is_file()]


def _spots_of(slide: Path) -> Path:
    return slide.with_name(f"{slide.stem}{SUFFIX}")
