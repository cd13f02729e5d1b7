"""PCam200: metastasis or not in tiles of 200 um of lymph nodes, cut from the slides of CAMELYON16.

    training/normal/normal_001.tif ...        training/tumor/tumor_001.tif ...
    training/lesion_annotations/tumor_001.xml ...
    testing/images/test_001.tif ...           testing/lesion_annotations/test_001.xml ...
    testing/reference.csv                     optional: test_001,Tumor,...

One decision: the paper's rule, thresholds and counts are not known, so all of them are settings. By default a tile (512 px at 0.39
um per px, no overlap) is tumour if its central pixel is, and normal if it is more than one tile away from any tumour; what lies
between is left out and counted. Test slides are the challenge's; 20 % of the others are val. A slide is a patient (Bejnordi et al.
2017).

What it costs: one look at every slide (or an `index`), about a second for a large annotation.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from shapely.geometry.base import BaseGeometry

from raypath.benchmarks.annotations.asap import HOLE_GROUPS, TUMOUR_GROUPS, read_asap
from raypath.benchmarks.assembling import folder_of
from raypath.benchmarks.benchmark import Benchmark
from raypath.benchmarks.cutting.boxes import capped
from raypath.benchmarks.facts import Facts
from raypath.benchmarks.from_slides.label_rules import Area, RegionRule
from raypath.benchmarks.from_slides.slide_tiles import SlideTiles, find_tiles, listed, slides_below
from raypath.benchmarks.from_slides.tile_table import LabelledSlide, tile_benchmark
from raypath.benchmarks.splits.making import NEW_VAL, deal
from raypath.config import setting
from raypath.data.csv_files import csv_lines
from raypath.errors import BadInput
from raypath.hashing import file_sha256
from raypath.slides import TileSpec

CLASSES = ("normal", "tumor")
NORMAL, TUMOUR = 0, 1
_FOLDERS = ("training/normal", "training/tumor", "testing/images")
# Slides whose metastases are not all outlined: what lies outside of the outlines is not known to be normal. The union of the lists
# of public pipelines (20 slides in one that builds on DIDSR/dldp, test_114 in others); PMC9659028, table 1, counts 20 such slides.
PARTLY_ANNOTATED = frozenset(
    [
        f"tumor_{number:03d}"
        for number in (10, 15, 18, 20, 25, 29, 33, 34, 44, 46, 51, 54, 55, 56, 67, 79, 85, 92, 95, 110)
    ]
    + ["test_114"]
)


@dataclass(frozen=True, kw_only=True)
class PCam200Settings:
    """Metastases in tiles of CAMELYON16's slides (Kawai et al. 2023)."""

    kind: Literal["pcam200"] = "pcam200"
    path: str = setting("", identity=False)
    tiles: TileSpec = field(default_factory=lambda: TileSpec(extent_px=512, mpp=0.39, stride_px=512, min_tissue=0.5))
    tumour: RegionRule = field(default_factory=RegionRule)
    normal_margin: float = 1.0
    """How far a normal tile is from any tumour of its slide, in tiles; it is farther than this."""
    max_per_class_and_slide: int = 1000
    """As the second paper caps CAMELYON16 (Mormont et al. 2020)."""
    exclude: tuple[str, ...] = ("normal_086", "test_049", "test_114")
    """Slides left out: a tumour filed as normal; a duplicate and an incomplete annotation, which the organisers do not evaluate
    (baidu-research/NCRF, README)."""
    slide_mpp: float | None = None
    index: str = setting("", identity=False)
    """Folder of an index of the same slides and tiles; without one every slide is opened here."""

    FACTS: ClassVar[Facts] = Facts(
        title="PCam200",
        source="Kawai, Ota, Yamaoka 2023, arXiv 2303.15693; slides: CAMELYON16, Bejnordi et al. 2017",
        licence="CC0",
        mpp=0.39,
    )

    @staticmethod
    def recognise(folder: Path) -> bool:
        """Whether the folders of CAMELYON16 are there."""
        return all((folder / name).is_dir() for name in _FOLDERS)

    def load(self, seed: int) -> Benchmark:
        """The benchmark; raises BadInput for a tumour slide without annotation and for files that cannot be used."""
        if self.normal_margin < 0 or self.max_per_class_and_slide < 1:
            raise BadInput(
                f"normal_margin={self.normal_margin}, max_per_class_and_slide={self.max_per_class_and_slide}: expected 0 or more, "
                "and 1 or more"
            )
        folder = folder_of(self.path, self.kind)
        paths = [path for path in _slides(folder) if path.stem.lower() not in self.exclude]
        annotations, notes = _annotations(folder, paths)
        splits = _splits(folder, paths, seed)
        found = find_tiles(paths, self.tiles, slide_mpp=self.slide_mpp, index=self.index)
        said: Counter[str] = Counter()
        slides = [
            self._labelled(tiles, annotations.get(tiles.slide.lower()), split, seed, said)
            for tiles, split in zip(found, splits)
        ]
        return tile_benchmark(
            slides,
            self.FACTS,
            name="pcam200",
            classes=CLASSES,
            mpp=self.tiles.mpp,
            notes=[
                f"test slides of the challenge, val 20 % of the others (seed {seed})",
                *notes,
                *(f"{count:,} {what}" for what, count in sorted(said.items()) if count),
                f"left out by name: {', '.join(self.exclude)}" if self.exclude else "",
            ],
        )

    def _labelled(
        self, tiles: SlideTiles, xml: Path | None, split: str, seed: int, said: Counter[str]
    ) -> LabelledSlide:
        """The tiles of a slide that have a label; what was repaired or left out is counted in `said`."""
        labels, digest = np.full(len(tiles), NORMAL), ""
        if xml is not None:
            tumour, unclear = self._areas(xml, said)
            labels, digest = self._labels(tiles, tumour, unclear), file_sha256(xml)
        if tiles.slide.lower() in PARTLY_ANNOTATED:
            labels = np.where(labels == NORMAL, -1, labels)
        said["tiles of tissue left out, neither tumour nor far from it"] += int((labels < 0).sum())
        tiles, labels = tiles.kept(labels >= 0), labels[labels >= 0]
        groups = [f"{tiles.slide}/{label}" for label in labels.tolist()]
        kept = np.array(capped(tiles.samples, groups, self.max_per_class_and_slide, seed=seed), dtype=np.int64)
        return LabelledSlide(tiles.kept(kept), labels[kept], tiles.slide, split, annotation_sha256=digest)

    def _areas(self, xml: Path, said: Counter[str]) -> tuple[BaseGeometry, BaseGeometry]:
        """Where there is tumour, and where a group of another name leaves it open."""
        regions = read_asap(xml)
        others = [name for name in regions.by_class if name not in (*TUMOUR_GROUPS, *HOLE_GROUPS)]
        said["rings repaired"] += regions.num_repaired
        for name in others:
            said[f"annotations with regions of the group {name!r}, which is neither tumour nor hole"] += 1
        for kind, count in regions.skipped.items():
            said[f"annotations of the type {kind} not used"] += count
        return regions.area_of(TUMOUR_GROUPS, without=HOLE_GROUPS), regions.area_of(others)

    def _labels(self, tiles: SlideTiles, tumour: BaseGeometry, unclear: BaseGeometry) -> np.ndarray:
        """Numbers of CLASSES int64 [N]; -1 for a tile that is neither."""
        area, margin_l0 = Area(tumour), self.normal_margin * tiles.extent_l0
        is_tumour = self.tumour.holds(area, tiles.boxes, tiles.mpp)
        is_near = area.is_near(tiles.boxes, margin_l0) | Area(unclear).is_near(tiles.boxes, margin_l0)
        return np.where(is_tumour, TUMOUR, np.where(is_near, -1, NORMAL))


def _slides(folder: Path) -> list[Path]:
    missing = [name for name in _FOLDERS if not (folder / name).is_dir()]
    if missing:
        raise BadInput(f"{folder}: no {' and no '.join(missing)}; expected the folders of CAMELYON16")
    return [path for name in _FOLDERS for path in slides_below(folder / name)]


def _annotations(folder: Path, paths: list[Path]) -> tuple[dict[str, Path], list[str]]:
    """The annotation of each slide that has tumour, by its name in lower case, and notes."""
    found = {path.stem.lower(): path for path in sorted(folder.rglob("*.xml"))}
    training, reference = folder / "training", folder / "testing" / "reference.csv"
    own = [path for path in paths if path.is_relative_to(training)]
    is_tumour = {path.stem.lower(): path.is_relative_to(training / "tumor") for path in own}
    tests = [path.stem.lower() for path in paths if path.stem.lower() not in is_tumour]
    notes = []
    if reference.is_file():
        is_tumour |= {name: says for name, says in _reference(reference) if name in tests}
    else:
        notes.append("no testing/reference.csv: test slides without an annotation are taken as normal")
    for name, says in is_tumour.items():
        if says and name not in found:
            raise BadInput(f"{folder}: no annotation {name}.xml for a slide with tumour; unpack lesion_annotations.zip")
        if not says and name in found:
            raise BadInput(f"{found[name]}: an annotation of a slide that is said to be normal")
    unnamed = [name for name in tests if name not in is_tumour] if reference.is_file() else []
    if unnamed:
        raise BadInput(f"{reference}: no line for {listed(unnamed)}; expected one for every test slide")
    return found, notes


def _reference(path: Path) -> Iterator[tuple[str, bool]]:
    """(slide, whether it has tumour) of the challenge's table, which has no header: test_001,Tumor,..."""
    for number, cells in csv_lines(path):
        kind = cells[1].lower() if len(cells) > 1 else ""
        if kind not in ("tumor", "normal"):
            raise BadInput(f"{path}: line {number}: {','.join(cells)!r}; expected a slide, and Tumor or Normal")
        yield cells[0].lower().removesuffix(".tif"), kind == "tumor"


def _splits(folder: Path, paths: list[Path], seed: int) -> list[str]:
    """Given for the test slides; the others are dealt, tumour and normal alike."""
    own = [path for path in paths if path.is_relative_to(folder / "training")]
    labels = [int(path.is_relative_to(folder / "training" / "tumor")) for path in own]
    split_of = dict(zip(own, deal(labels, [path.stem for path in own], NEW_VAL, seed=seed)))
    return [split_of.get(path, "test") for path in paths]
