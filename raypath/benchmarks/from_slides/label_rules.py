"""From annotated areas to the labels of tiles: by the central pixel, a centre region, the share of the area, or the distance.

One decision: areas are exact. A tile and a region are intersected as polygons (shapely), not as pixels, so a label depends neither
on a mask's scale nor on which corner a pixel is counted from. "Any pixel" of a centre region means at least one level-0 pixel's
worth of area in it.

Boxes are those of `cutting`: int64 [N, 4], left, top, width, height, here in level-0 px. Labels by points are
`cutting.holds_point`, tiles around points `cutting.boxes_around`, a limit per class and slide `cutting.capped`.

What it costs: a region is cut once into pieces of few corners, which an STRtree finds, so a tile meets only what is near it: 20,000
tiles and 200 regions of 500 corners take about 0.3 s of one core, ragged ones several times that.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import shapely
from shapely.geometry.base import BaseGeometry

from raypath.errors import BadInput

MAX_CORNERS = 128  # of a piece: below it intersecting costs less than cutting further


class Area:
    """A region that many boxes are asked about; `geometry` in level-0 px, may be empty."""

    def __init__(self, geometry: BaseGeometry):
        self._pieces = np.array([piece for part in shapely.get_parts(geometry) for piece in _cut(part)], dtype=object)
        self._tree = shapely.STRtree(self._pieces)

    def share(self, boxes: np.ndarray) -> np.ndarray:
        """The part of every box that lies in the region, float64 [N]."""
        squares = _polygons(boxes)
        numbers, pieces = self._tree.query(squares, predicate="intersects")
        covered = shapely.area(shapely.intersection(squares[numbers], self._pieces[pieces]))
        sums = np.bincount(numbers, weights=covered, minlength=len(boxes))
        return np.clip(sums / (boxes[:, 2] * boxes[:, 3]), 0, 1)

    def holds_centre(self, boxes: np.ndarray) -> np.ndarray:
        """Whether the central pixel of every box (of an even extent: the one right and below the centre) is inside, bool [N]."""
        middle = shapely.points(boxes[:, :2] + boxes[:, 2:] // 2 + 0.5)
        return self._found(self._tree.query(middle, predicate="intersects")[0], len(boxes))

    def touches_centre(self, boxes: np.ndarray, centre_l0: float) -> np.ndarray:
        """Whether at least a pixel of the region lies in the centre square of side `centre_l0` of every box, bool [N]."""
        side = np.minimum(max(1, round(centre_l0)), boxes[:, 2:])
        centres = np.concatenate([boxes[:, :2] + (boxes[:, 2:] - side) // 2, side], axis=1)
        return self.share(centres) * side.prod(axis=1) >= 1 - 1e-9

    def is_near(self, boxes: np.ndarray, distance_l0: float) -> np.ndarray:
        """Whether the region comes as near as `distance_l0` to every box, or nearer (0: they touch), bool [N]."""
        numbers, _ = self._tree.query(_polygons(boxes), predicate="dwithin", distance=distance_l0)
        return self._found(numbers, len(boxes))

    @staticmethod
    def _found(numbers: np.ndarray, num_boxes: int) -> np.ndarray:
        found = np.zeros(num_boxes, bool)
        found[numbers] = True
        return found


@dataclass(frozen=True, kw_only=True)
class RegionRule:
    """When a tile is one of a region."""

    rule: Literal["central_pixel", "centre_region", "area"] = "central_pixel"
    """central_pixel: it lies in the region (Breast1 of Mormont et al. 2020); centre_region: any pixel of the centre square does
    (PCam, Veeling et al. 2018: 32 of 96 px); area: at least `min_share` of the tile does (Breast2, Camelyon16 of Mormont: 0.1)."""
    centre_um: float = 62.4
    """Side of the centre square: PCam's third of a tile of 200 um, in whole pixels at 0.39."""
    min_share: float = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.min_share <= 1:
            raise BadInput(
                f"min_share = {self.min_share!r}; expected above 0 and at most 1 (a part of the tile's area)"
            )
        if not self.centre_um > 0:
            raise BadInput(f"centre_um = {self.centre_um!r}; expected above 0 (um)")

    def holds(self, area: Area, boxes: np.ndarray, slide_mpp: float) -> np.ndarray:
        """Whether each box is one of the region, bool [N]; `slide_mpp` is um per level-0 px."""
        if self.rule == "central_pixel":
            return area.holds_centre(boxes)
        if self.rule == "centre_region":
            return area.touches_centre(boxes, self.centre_um / slide_mpp)
        return area.share(boxes) >= self.min_share - 1e-12


def squares_at(x_l0: np.ndarray, y_l0: np.ndarray, extent_l0: int) -> np.ndarray:
    """Boxes int64 [N, 4] of tiles with the corners (x_l0, y_l0)."""
    return np.stack([x_l0, y_l0, *np.full((2, len(x_l0)), extent_l0)], axis=1).astype(np.int64)


def _polygons(boxes: np.ndarray) -> np.ndarray:
    left, top, width, height = boxes.astype(np.float64).T
    return shapely.box(left, top, left + width, top + height)


def _cut(piece: BaseGeometry) -> Iterator[BaseGeometry]:
    """Pieces of at most MAX_CORNERS that make up the whole: halves across the longer side, again and again."""
    if shapely.get_dimensions(piece) < 2 or piece.is_empty:
        return
    left, top, right, bottom = piece.bounds
    if shapely.get_num_coordinates(piece) <= MAX_CORNERS or max(right - left, bottom - top) < 1:
        yield piece
        return
    if right - left > bottom - top:
        middle = (left + right) / 2
        halves = (left, top, middle, bottom), (middle, top, right, bottom)
    else:
        middle = (top + bottom) / 2
        halves = (left, top, right, middle), (left, middle, right, bottom)
    for half in halves:
        for part in shapely.get_parts(shapely.intersection(piece, shapely.box(*half))):
            yield from _cut(part)
