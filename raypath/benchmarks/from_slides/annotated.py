"""Tiles of one's own slides, labelled by what was drawn on them in QuPath or ASAP, by masks, or by points.

    a.svs    a.geojson      QuPath: areas and points, by their class
    b.tiff   b.xml          ASAP: areas, by their group
    c.ndpi   c.csv          points: x, y, label
    d.svs    d_mask.tif     class numbers, named by `mask_classes`
    patients.csv            optional: slide,patient or slide,patient,split; else each slide is a patient of its own

One decision: only what somebody annotated has a label. A tile of the grid is of the class that covers half of it (`region`: another
rule), one of which no class is sure is left out, and tissue that no annotation touches is a class only if `background` names it.
Around points tiles are cut by themselves. Whatever is left out is counted by its reason in the note of the split; a slide without
annotation is named there, because it may be healthy or not yet done.

What it costs: one look at every annotated slide (or an `index`), and about a second for 20,000 tiles and 200 outlines of a slide.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np

from raypath.benchmarks.annotations.slide_annotation import (
    Annotation,
    files_of,
    is_annotated_beside,
    is_mask_of_a_slide,
    read_annotation,
)
from raypath.benchmarks.assembling import check_spelling, folder_of
from raypath.benchmarks.benchmark import Benchmark
from raypath.benchmarks.cutting.boxes import capped
from raypath.benchmarks.facts import Facts
from raypath.benchmarks.from_slides.annotated_tiles import AreaRule, PointRule, grid_tiles, joined, point_tiles
from raypath.benchmarks.from_slides.label_rules import RegionRule
from raypath.benchmarks.from_slides.slide_patients import read_patients
from raypath.benchmarks.from_slides.slide_tiles import SlideTiles, find_tiles, listed, slides_below
from raypath.benchmarks.from_slides.tile_table import LabelledSlide, tile_benchmark
from raypath.benchmarks.splits.making import AS_GIVEN, SplitSettings, complete_split, fold_split
from raypath.config import setting
from raypath.errors import BadInput
from raypath.hashing import file_sha256
from raypath.slides import Slide, TileSpec


@dataclass(frozen=True, kw_only=True)
class AnnotatedSettings:
    """Tiles of a folder of slides, labelled by the annotations of the same names."""

    kind: Literal["annotated"] = "annotated"
    path: str = setting("", identity=False)
    annotations: str = setting("", identity=False)
    """The folder of the annotations, where they are not among the slides."""
    name: str | None = setting(None, identity=False)
    extent_px: int = 256
    """Side of a tile in px at `mpp`."""
    mpp: float = 0.5
    stride_px: int | None = None
    """Distance of neighbours on the grid; null: `extent_px`, so they do not overlap."""
    max_upsample: float = 1.3
    """How much coarser than `mpp` level 0 may be."""
    min_tissue: float = 0.5
    """The part of a tile of the grid that is tissue; 0: glass, fat and lumen count as well."""
    region: RegionRule = field(default_factory=lambda: RegionRule(rule="area"))
    """When a tile is in an area; masks know the share of the area only."""
    precedence: tuple[str, ...] = ()
    """Classes drawn on top of others, the topmost first: an area of theirs is cut out of all that come after and are not named."""
    background: str | None = None
    """The class of tiles of tissue that share no pixel with an annotation or a tile around a point; null: they are left out."""
    points: PointRule = field(default_factory=PointRule)
    x: str | None = None
    """Columns of the CSVs; null: as they are commonly called (`raypath.benchmarks.annotations.points`)."""
    y: str | None = None
    label: str | None = None
    mask_classes: tuple[str, ...] = ()
    """Names of the values 1, 2, ... of masks; 0 is not annotated."""
    drop_classes: tuple[str, ...] = ()
    max_per_class_and_slide: int | None = 1000
    split: SplitSettings = field(default_factory=SplitSettings)
    slide_mpp: float | None = None
    """um per level-0 px of all slides, where the files do not say it; null: as the files say."""
    index: str = setting("", identity=False)
    """Folder of an index of the same slides and tiles; without one every slide is opened here."""

    FACTS: ClassVar[Facts] = Facts(
        title="Annotated slides", source="a folder of slides and annotations", licence="not stated", mpp=None
    )

    @staticmethod
    def recognise(folder: Path) -> bool:
        """Whether QuPath's GeoJSON or ASAP's XML of the same name is beside a slide (Aperio writes other XML there)."""
        return any(is_annotated_beside(path) for path in slides_below(folder))

    def load(self, seed: int) -> Benchmark:
        """The benchmark; raises BadInput or a SlideError for a file that cannot be used, and for settings that do not fit."""
        folder, spec = folder_of(self.path, self.kind), self._tile_spec()
        paths, files, notes = self._files(folder)
        patients, given = read_patients(folder / "patients.csv", [path.stem for path in paths])
        annotations = [self._annotation(path, files[path.stem]) for path in paths]
        name = self.name or folder.absolute().name
        names = self._names(annotations, name)
        said: Counter[str] = Counter()
        for annotation in annotations:
            said.update(annotation.notes)
        found = find_tiles(paths, spec, slide_mpp=self.slide_mpp, index=self.index)
        slides = [
            LabelledSlide(
                *self._labelled(tiles, annotation, spec, names, seed, said),
                patients.get(tiles.slide, tiles.slide),
                given.get(tiles.slide, ""),
                annotation_sha256=file_sha256(annotation.path),
            )
            for tiles, annotation in zip(found, annotations, strict=True)
        ]
        notes += [f"{count:,} {what}" for what, count in sorted(said.items()) if count]
        empty = [slide.tiles.slide for slide in slides if not len(slide.tiles)]
        notes += [f"{len(empty)} annotated slides without a labelled tile: {listed(empty)}"] if empty else []
        slides = [slide for slide in slides if len(slide.tiles)]
        self._require_two_classes(slides, names, name, notes)
        slides, made = self._divided(slides, seed, name)
        who = "" if patients else "no patients.csv: each slide is taken for a patient of its own"
        return tile_benchmark(
            slides,
            self.FACTS,
            name=name,
            classes=names,
            mpp=self.mpp,
            notes=[made, who, *notes],
            waive=self.split.waive,
            is_split_chosen=self.split.num_folds is not None,
        )

    def _tile_spec(self) -> TileSpec:
        self.points.require(self.extent_px * self.mpp)
        if self.max_per_class_and_slide is not None and self.max_per_class_and_slide < 1:
            raise BadInput(
                f"max_per_class_and_slide={self.max_per_class_and_slide}: expected 1 or more, or null: no limit"
            )
        if self.split.by == "image":
            raise BadInput("split.by=image: tiles of a slide may overlap; expected patient or slide")
        stride_px = self.extent_px if self.stride_px is None else self.stride_px
        return TileSpec(
            extent_px=self.extent_px,
            mpp=self.mpp,
            stride_px=stride_px,
            min_tissue=self.min_tissue,
            max_upsample=self.max_upsample,
        )

    def _files(self, folder: Path) -> tuple[list[Path], dict[str, Path], list[str]]:
        """The slides that are annotated, the annotation of each by the slide's name, and notes on what fits nothing."""
        beside = Path(self.annotations) if self.annotations else folder
        if not beside.is_dir():
            raise BadInput(f"annotations={self.annotations}: there is no such folder")
        everything = slides_below(folder)
        names = {path.stem for path in everything}
        slides = [path for path in everything if not is_mask_of_a_slide(path, names)]
        files, strangers = files_of(slides, beside)
        if not files:
            raise BadInput(
                f"{beside}: no annotation for any of {len(slides)} slides; expected NAME.geojson, NAME.xml, NAME.csv or "
                "NAME_mask.tif for a slide NAME"
            )
        bare = [path.name for path in slides if path.stem not in files]
        notes = [f"{len(bare)} of {len(slides)} slides have no annotation, not used: {listed(bare)}"] if bare else []
        if strangers:
            notes.append(f"{len(strangers)} annotations fit no slide: {listed([path.name for path in strangers])}")
        return [path for path in slides if path.stem in files], files, notes

    def _annotation(self, path: Path, file: Path) -> Annotation:
        with Slide.open(path, self.slide_mpp) as slide:
            found = read_annotation(file, slide.size_l0, slide.seen_from_l0, x=self.x, y=self.y, label=self.label)
        if found.is_mask and (not self.mask_classes or self.region.rule != "area"):
            raise BadInput(
                f"{file}: a mask needs mask_classes, the names of its values 1, 2, ..., and region.rule=area (now "
                f"mask_classes={list(self.mask_classes)}, region.rule={self.region.rule})"
            )
        return found

    def _names(self, annotations: Sequence[Annotation], name: str) -> tuple[str, ...]:
        """All classes, numbers in their order and the background first; raises BadInput for a setting that names another."""
        found = set().union(*(annotation.classes for annotation in annotations))
        if any(annotation.is_mask for annotation in annotations):
            found |= set(self.mask_classes)
        for what, wanted in (("drop_classes", self.drop_classes), ("precedence", self.precedence)):
            unknown = sorted(set(wanted) - found)
            if unknown:
                raise BadInput(f"{what} names {', '.join(unknown)}; the classes are {', '.join(sorted(found))}")
        found |= {self.background} if self.background else set()
        order = sorted(found, key=lambda text: (text != self.background, int(text) if text.isdecimal() else -1, text))
        check_spelling(order, name=name)
        return tuple(order)

    def _labelled(
        self,
        tiles: SlideTiles,
        annotation: Annotation,
        spec: TileSpec,
        names: Sequence[str],
        seed: int,
        said: Counter[str],
    ) -> tuple[SlideTiles, np.ndarray]:
        """The tiles of a slide that have a label, and their labels; what is left out is counted in `said`."""
        around, labels = point_tiles(tiles, annotation, names, self.points, seed, said)
        if annotation.areas or annotation.is_mask or self.background:
            rule = AreaRule(
                region=self.region,
                precedence=self.precedence,
                mask_classes=self.mask_classes,
                background=self.background,
            )
            on_grid = grid_tiles(tiles, annotation, around, spec, names, rule, said)
        else:
            on_grid = around.kept(slice(0)), labels[:0]
        tiles, labels = joined(*on_grid, around, labels, said)
        for name in self.drop_classes:
            is_dropped = labels == names.index(name)
            said[f"tiles of {name!r} left out (drop_classes)"] += int(is_dropped.sum())
            tiles, labels = tiles.kept(~is_dropped), labels[~is_dropped]
        if self.max_per_class_and_slide is None:
            return tiles, labels
        groups = [f"{tiles.slide}/{label}" for label in labels.tolist()]
        kept = np.array(capped(tiles.samples, groups, self.max_per_class_and_slide, seed=seed), dtype=np.int64)
        said["tiles left out, more than max_per_class_and_slide"] += len(labels) - len(kept)
        return tiles.kept(kept), labels[kept]

    def _require_two_classes(
        self, slides: Sequence[LabelledSlide], names: Sequence[str], name: str, notes: Sequence[str]
    ) -> None:
        present = sorted({number for slide in slides for number in np.unique(slide.labels).tolist()})
        if len(present) < 2:
            raise BadInput(
                f"{name}: found tiles of {', '.join(names[number] for number in present) or 'no class'}; a benchmark needs two "
                f"classes (benchmark.background names the tissue that nobody annotated); {'; '.join(notes)}"
            )

    def _divided(self, slides: Sequence[LabelledSlide], seed: int, name: str) -> tuple[list[LabelledSlide], str]:
        """The slides with their splits, dealt by the labels of all tiles, and a note that says how."""
        sizes = [len(slide.tiles) for slide in slides]
        labels = np.concatenate([slide.labels for slide in slides])
        owners = [slide.patient if self.split.by == "patient" else slide.tiles.slide for slide in slides]
        groups = np.repeat(owners, sizes).tolist()
        if self.split.num_folds is not None:
            splits, made = fold_split(labels, groups, self.split.num_folds, self.split.fold, seed=seed)
        else:
            given = [slide.split if self.split.use_given else "" for slide in slides]
            how = {"seed": seed, "name": name, "share_val": self.split.share_val}
            splits, made = complete_split(np.repeat(given, sizes).tolist(), labels, groups, **how)
        firsts = np.cumsum([0, *sizes[:-1]]).tolist()
        by = "" if made == AS_GIVEN else f", no {self.split.by} divided"
        return [replace(slide, split=splits[first]) for slide, first in zip(slides, firsts)], made + by
