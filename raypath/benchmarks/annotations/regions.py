"""Annotated regions of one slide: a geometry for each class, in level-0 pixels.

One decision: what was drawn stands, and what cannot be an area is refused with its place in the file. A ring that crosses itself is
repaired by `shapely.make_valid` and counted; one of fewer than three different corners, or without area, is an error, because
nobody can say what was meant. Regions of one class may overlap: they are united, so no pixel counts twice.

What it costs: about 1 ms for a ring of 1,000 corners.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import shapely
from shapely.geometry.base import BaseGeometry

from raypath.errors import BadInput

MIN_CORNERS = 3
_POLYGONAL = 2  # the dimension of areas: what is left of a repaired ring as lines or points encloses nothing


@dataclass(frozen=True)
class Regions:
    """What is annotated on one slide."""

    by_class: Mapping[str, BaseGeometry]
    """Polygon or MultiPolygon of every class that occurs, in level-0 px."""
    num_repaired: int = 0
    """Rings that crossed or touched themselves and were made valid."""
    skipped: Mapping[str, int] = field(default_factory=dict)
    """What was read and is no area of a class, by kind: "Point", "unclassified", ..."""

    @classmethod
    def of(cls, areas: Iterable[tuple[str, BaseGeometry, int]], skipped: Mapping[str, int] | None = None) -> "Regions":
        """The union by class of (class, area, number of its rings that were repaired)."""
        found, num_repaired = defaultdict(list), 0
        for name, area, repaired in areas:
            found[name].append(area)
            num_repaired += repaired
        united = {name: shapely.union_all(parts) for name, parts in sorted(found.items())}
        return cls(united, num_repaired, dict(skipped or {}))

    def area_of(self, names: Iterable[str], *, without: Iterable[str] = ()) -> BaseGeometry:
        """The union of some classes, less the union of others; names that do not occur add nothing. Empty if none occurs."""
        wanted, holes = (
            shapely.union_all([self.by_class[name] for name in group if name in self.by_class])
            for group in (names, without)
        )
        return shapely.difference(wanted, holes)

    def notes(self) -> str:
        """What was repaired or left out, for a report; empty if nothing."""
        said = [f"{self.num_repaired} rings repaired"] if self.num_repaired else []
        said += [f"{count} {kind} left out" for kind, count in sorted(self.skipped.items())]
        return ", ".join(said)


def ring_area(corners: Sequence[Sequence[float]], where: str) -> tuple[BaseGeometry, int]:
    """The area inside a ring of corners (x, y), closed or not, and 1 if it had to be repaired.

    `where` (file and line) opens the message of the BadInput for a ring that is none.
    """
    return polygon_area([corners], where)


def polygon_area(rings: Sequence[Sequence[Sequence[float]]], where: str) -> tuple[BaseGeometry, int]:
    """The area of an outer ring less the rings in it, and 1 if it had to be repaired; raises as `ring_area`."""
    outer, *holes = (_corners(ring, where) for ring in rings)
    polygon = shapely.Polygon(outer, holes)
    is_sound = polygon.is_valid
    if not is_sound:
        parts = shapely.get_parts(shapely.make_valid(polygon))
        parts = [piece for part in parts for piece in shapely.get_parts(part)]  # a collection may hold multipolygons
        polygon = shapely.union_all([part for part in parts if shapely.get_dimensions(part) == _POLYGONAL])
    if not polygon.area > 0:
        raise BadInput(f"{where}: the ring encloses no area; draw it again or remove it")
    return polygon, int(not is_sound)


def _corners(ring: Sequence[Sequence[float]], where: str) -> np.ndarray:
    """float64 [V, 2]."""
    try:
        corners = np.array([(corner[0], corner[1]) for corner in ring], dtype=np.float64).reshape(-1, 2)
    except (TypeError, ValueError, IndexError, KeyError):
        raise BadInput(f"{where}: its corners are no pairs of numbers; expected x and y in level-0 px") from None
    if not np.isfinite(corners).all():
        raise BadInput(f"{where}: a corner is not finite; expected x and y in level-0 px")
    if len(np.unique(corners, axis=0)) < MIN_CORNERS:
        raise BadInput(f"{where}: {len(corners)} corners; an area has at least {MIN_CORNERS} different ones")
    return corners
