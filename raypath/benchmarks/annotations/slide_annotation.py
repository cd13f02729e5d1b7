"""What is annotated on one slide, whichever program wrote it: the file that belongs to a slide, and what is in it.

    NAME.svs    NAME.geojson or NAME.svs.geojson (QuPath), NAME.xml (ASAP), NAME.csv (points) or NAME_mask.tif (class numbers)

One decision: a file belongs to a slide by its name, in whatever subfolder it lies, and a slide has one. Two are an error, because
nobody can say which is the newer; a file that fits no slide is returned, so that a mistyped name is seen.

QuPath counts from the corner of what was scanned (`Slide.seen_from_l0`: MIRAX, SCN), raypath from that of the whole slide, and
GeoJSON is moved by that (qupath/qupath@052a2854, OpenslideImageServer.readTile). ASAP writes the group "None" where there is none.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import shapely
from shapely.geometry.base import BaseGeometry

from raypath.benchmarks.annotations.asap import read_asap
from raypath.benchmarks.annotations.geojson import POINT_TYPES, read_geojson, read_geojson_points
from raypath.benchmarks.annotations.points import NO_POINTS, Points, read_points
from raypath.data.hidden_files import is_hidden
from raypath.data.manifest import SLIDE_SUFFIXES
from raypath.errors import BadInput

MASK = "_mask"
_SUFFIXES = (".geojson", ".xml", ".csv")
_NO_GROUP, _ASAP = "None", b"<ASAP_Annotations"


@dataclass(frozen=True, eq=False)
class Annotation:
    """What a file says of its slide."""

    path: Path
    areas: dict[str, BaseGeometry] = field(default_factory=dict)
    """Polygon or MultiPolygon of every class, in level-0 px of the whole slide."""
    points: Points = NO_POINTS
    is_mask: bool = False
    """Whether the pixels of `path` are the annotation; they are read tile by tile."""
    notes: dict[str, int] = field(default_factory=dict)
    """What was repaired or not used, and how often."""

    @property
    def classes(self) -> set[str]:
        """The names in the file; a mask has none."""
        return {*self.areas, *self.points.labels}


def is_mask_of_a_slide(path: Path, names: set[str]) -> bool:
    """Whether a TIFF is the mask NAME_mask of one of the slides `names`."""
    return path.stem.endswith(MASK) and path.stem.removesuffix(MASK) in names


def is_annotated_beside(slide: Path) -> bool:
    """Whether QuPath's GeoJSON or ASAP's XML of the same name is in the folder of a slide; other programs write other XML there."""
    if slide.with_suffix(".geojson").is_file() or slide.with_name(f"{slide.name}.geojson").is_file():
        return True
    try:
        with slide.with_suffix(".xml").open("rb") as file:
            return _ASAP in file.read(1_000)
    except OSError:
        return False


def files_of(slides: Sequence[Path], folder: Path) -> tuple[dict[str, Path], list[Path]]:
    """The annotation of each slide that has one, by the slide's stem, and the files below `folder` that fit no slide.

    A CSV that fits none is not counted among them. Raises BadInput for a slide with two annotations.
    """
    named: dict[str, list[Path]] = defaultdict(list)
    for path in sorted(folder.rglob("*")):
        if is_hidden(path, folder) or not path.is_file():
            continue
        if path.suffix.lower() in _SUFFIXES:
            named[path.stem].append(path)
        elif path.suffix.lower() in SLIDE_SUFFIXES and path.stem.endswith(MASK):
            named[path.stem.removesuffix(MASK)].append(path)
    found = {}
    for slide in slides:
        own = named.pop(slide.stem, []) + named.pop(slide.name, [])
        if len(own) > 1:
            listed = ", ".join(str(path.relative_to(folder)) for path in own)
            raise BadInput(f"{slide}: has {len(own)} annotations ({listed}); expected one: move the others away")
        if own:
            found[slide.stem] = own[0]
    return found, [path for paths in named.values() for path in paths if path.suffix.lower() != ".csv"]


def read_annotation(
    path: Path,
    size_l0: tuple[int, int],
    seen_from_l0: tuple[int, int],
    *,
    x: str | None = None,
    y: str | None = None,
    label: str | None = None,
) -> Annotation:
    """The annotation of a slide of `size_l0` (width, height); `x`, `y`, `label` name columns of a CSV as in `read_points`.

    Raises BadInput for a file that cannot be used, and for an area that is nowhere on the slide.
    """
    kind = path.suffix.lower()
    if kind == ".csv":
        return Annotation(path, points=read_points(path, x=x, y=y, label=label))
    if kind not in _SUFFIXES:
        return Annotation(path, is_mask=True)
    regions = read_asap(path) if kind == ".xml" else read_geojson(path)
    areas = {name: area for name, area in regions.by_class.items() if kind != ".xml" or name != _NO_GROUP}
    notes = {f"annotations not used: {what}": count for what, count in regions.skipped.items()}
    notes["annotations not used: unclassified"] = notes.get("annotations not used: unclassified", 0)
    notes["rings repaired"] = regions.num_repaired
    notes["files of ASAP with areas in no group, not used"] = int(len(areas) < len(regions.by_class))
    points = NO_POINTS
    if kind == ".geojson":
        points, num_unnamed = read_geojson_points(path)
        notes = {what: count for what, count in notes.items() if not what.endswith(POINT_TYPES)}
        notes["annotations not used: unclassified"] += num_unnamed
        areas = {name: shapely.transform(area, lambda xy: xy + seen_from_l0) for name, area in areas.items()}
        points = Points(points.xy + np.array(seen_from_l0, np.float64), points.labels)
        notes["annotations moved to where the scanner began, as QuPath counts"] = int(any(seen_from_l0))
    whole = shapely.box(0, 0, *size_l0)
    for name, area in areas.items():
        if not area.intersects(whole):
            raise BadInput(
                f"{path}: all of {name!r} lies outside of its slide of {size_l0[0]} x {size_l0[1]} px; expected level-0 px: was it "
                "drawn on another image, or exported at a downsample?"
            )
    return Annotation(path, areas, points, notes={what: count for what, count in notes.items() if count})
