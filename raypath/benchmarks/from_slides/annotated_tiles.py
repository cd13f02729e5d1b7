"""The labelled tiles of one annotated slide: those of the grid by the areas they lie in, and those cut around points.

One decision: a tile of the grid has the class that holds it by the rule, of several the one that covers the larger part of it.
Where two cover as much (one outline inside another, say) it has none and is counted, unless `precedence` says which is on top. A
tile around a point is the point's. It is jittered by a key of (seed, slide, place of the point), so neither the order of points nor
other points move it, and one that would leave the slide is pushed back inside.

What it costs: as `label_rules`, for every class (38,000 tiles and 2 x 100 outlines of 500 corners: 0.6 s of one core); 0.02 ms for
each point.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import shapely
from shapely.geometry.base import BaseGeometry

from raypath.benchmarks.annotations.mask_tiff import mask_shares
from raypath.benchmarks.annotations.slide_annotation import Annotation
from raypath.benchmarks.cutting.boxes import boxes_around
from raypath.benchmarks.cutting.sparse_objects import inside
from raypath.benchmarks.from_slides.label_rules import Area, RegionRule
from raypath.benchmarks.from_slides.slide_tiles import SlideTiles
from raypath.errors import BadInput
from raypath.slides import TileGrid, TileSpec

NO_CLASS, TIED = -1, -2
_AS_LARGE = 1e-9  # shares that differ by less are the same: outlines have two decimals


@dataclass(frozen=True, kw_only=True)
class PointRule:
    """Which tiles are cut around a point."""

    tiles_per_point: int = 1
    jitter_um: float = 0.0
    """How far the middle of a tile is from its point at most, along both axes; less than half a tile."""

    def require(self, extent_um: float) -> None:
        """Raises BadInput for numbers that cannot be, for tiles of `extent_um`."""
        said = f"points.tiles_per_point={self.tiles_per_point}, points.jitter_um={self.jitter_um}"
        if self.tiles_per_point < 1 or not 0 <= self.jitter_um < extent_um / 2:
            raise BadInput(
                f"{said}: expected 1 or more, and 0 to less than half a tile ({extent_um / 2:g} um): every tile holds its point"
            )
        if self.tiles_per_point > 1 and not self.jitter_um:
            raise BadInput(f"{said}: the same tile again; expected a jitter above 0")


@dataclass(frozen=True, kw_only=True)
class AreaRule:
    """Which class the tiles of a grid have."""

    region: RegionRule
    precedence: tuple[str, ...]
    mask_classes: tuple[str, ...]
    background: str | None


def grid_tiles(
    tiles: SlideTiles,
    annotation: Annotation,
    around: SlideTiles,
    spec: TileSpec,
    names: Sequence[str],
    rule: AreaRule,
    said: Counter[str],
) -> tuple[SlideTiles, np.ndarray]:
    """The tiles of a slide's grid that have a class, and their classes (numbers of `names`, int64 [N]).

    `tiles` are those of tissue, `around` those around points, which no tile of the background overlaps. What is left out is counted
    in `said`. Raises BadInput for a mask that cannot be used.
    """
    grid = TileGrid.of(tiles.size_l0, tiles.mpp, spec)
    x_l0, y_l0 = grid.corners(np.arange(grid.num_cells))
    whole, is_tissue = replace(tiles, x_l0=x_l0, y_l0=y_l0), np.zeros(grid.num_cells, bool)
    is_tissue[tiles.y_l0 // grid.stride_l0 * grid.num_columns + tiles.x_l0 // grid.stride_l0] = True
    shares, holds = _shares(whole, grid, annotation, names, rule)
    labels, is_touched = _largest(shares, holds, names, is_tissue, said), (shares > 0).any(axis=1)
    is_open, is_near_point = is_tissue & (labels == NO_CLASS), _overlaps(whole, around)
    is_free = is_open & ~is_touched & ~is_near_point
    counts = {
        "annotated tiles left out, with less tissue than min_tissue": ~is_tissue & (labels >= 0),
        "tiles of tissue left out, touched by an area but of no class by the rule": is_open & is_touched,
    }
    if rule.background:
        labels[is_free] = names.index(rule.background)
        counts["tiles of tissue left out, no background beside a point"] = is_open & ~is_touched & is_near_point
    else:
        counts["tiles of tissue left out, outside of every annotation"] = is_free
    said.update({what: int(which.sum()) for what, which in counts.items()})
    is_kept = is_tissue & (labels >= 0)
    return whole.kept(is_kept), labels[is_kept]


def point_tiles(
    tiles: SlideTiles, annotation: Annotation, names: Sequence[str], rule: PointRule, seed: int, said: Counter[str]
) -> tuple[SlideTiles, np.ndarray]:
    """The tiles around the points of a slide, and their classes (numbers of `names`, int64 [N]).

    A point that is there twice counts once. Raises BadInput for a point outside of the slide, and for one with two classes.
    """
    points = annotation.points
    xy = inside(points.xy, tiles.size_l0, annotation.path)
    class_at: dict[tuple[float, float], str] = {}
    for x, y, label in sorted(zip(*xy.T.tolist(), points.labels, strict=True)):
        other = class_at.setdefault((x, y), label)
        if other != label:
            raise BadInput(f"{annotation.path}: the point at x {x:g}, y {y:g} is both {other} and {label}; keep one")
    said["points that are there twice, used once"] += len(points.labels) - len(class_at)
    corners, labels = [np.empty((0, 2), np.int64)], []
    for (x, y), label in class_at.items():
        boxes, _ = boxes_around(
            np.array([[x, y]]),
            tiles.size_l0,
            tiles.extent_l0,
            num_per_point=rule.tiles_per_point,
            shift_px=rule.jitter_um / tiles.mpp,
            key=f"{seed} {tiles.slide} {x!r} {y!r}",
        )
        corners.append(boxes[:, :2])
        labels += [names.index(label)] * len(boxes)
        said["points left out: their slide is smaller than a tile"] += not len(boxes)
    x_l0, y_l0 = np.concatenate(corners).T
    return replace(tiles, x_l0=x_l0, y_l0=y_l0), np.array(labels, np.int64)


def joined(
    tiles: SlideTiles, labels: np.ndarray, others: SlideTiles, other_labels: np.ndarray, said: Counter[str]
) -> tuple[SlideTiles, np.ndarray]:
    """Both, every place once, row by row; a place with two classes has none, and is counted."""
    places = np.stack([np.concatenate([tiles.y_l0, others.y_l0]), np.concatenate([tiles.x_l0, others.x_l0])], axis=1)
    labels = np.concatenate([labels, other_labels])
    unique, where = np.unique(places, axis=0, return_inverse=True)
    lowest, highest = np.full(len(unique), np.iinfo(np.int64).max), np.full(len(unique), NO_CLASS)
    np.minimum.at(lowest, where.reshape(-1), labels)
    np.maximum.at(highest, where.reshape(-1), labels)
    is_one = lowest == highest
    said["tiles cut twice at the same place, used once"] += int((np.bincount(where.reshape(-1)) - 1)[is_one].sum())
    said["tiles left out, of two classes at the same place"] += int((~is_one).sum())
    return replace(tiles, x_l0=unique[is_one, 1], y_l0=unique[is_one, 0]), lowest[is_one]


def _shares(
    tiles: SlideTiles, grid: TileGrid, annotation: Annotation, names: Sequence[str], rule: AreaRule
) -> tuple[np.ndarray, np.ndarray]:
    """The part of every tile that each class covers (float64 [N, C]), and whether the class holds it by the rule (bool [N, C])."""
    shares, holds = np.zeros((len(tiles), len(names))), np.zeros((len(tiles), len(names)), bool)
    if annotation.is_mask and len(tiles):
        found = mask_shares(annotation.path, tiles.mpp, grid, len(rule.mask_classes) + 1)
        shares[:, [names.index(name) for name in rule.mask_classes]] = found[:, 1:]
        holds = shares >= rule.region.min_share - 1e-12
    for name, geometry in _on_top(annotation, rule.precedence).items():
        area = Area(geometry)
        shares[:, names.index(name)] = area.share(tiles.boxes)
        holds[:, names.index(name)] = rule.region.holds(area, tiles.boxes, tiles.mpp)
    return shares, holds


def _overlaps(tiles: SlideTiles, others: SlideTiles) -> np.ndarray:
    """Whether each tile shares pixels with any of `others` of its slide, bool [N]."""
    inner = _squares(others, inset=0.5)  # half a pixel smaller: what only touches shares none
    overlaps = np.zeros(len(tiles), bool)
    overlaps[shapely.STRtree(inner).query(_squares(tiles), predicate="intersects")[0]] = True
    return overlaps


def _squares(tiles: SlideTiles, inset: float = 0.0) -> np.ndarray:
    low, high = inset, tiles.extent_l0 - inset
    return shapely.box(tiles.x_l0 + low, tiles.y_l0 + low, tiles.x_l0 + high, tiles.y_l0 + high)


def _on_top(annotation: Annotation, precedence: Sequence[str]) -> dict[str, BaseGeometry]:
    """The areas by class, with those named in `precedence` cut out of all that come after them."""
    rest = dict(annotation.areas)
    found = {}
    for name in precedence:
        if name in rest:
            found[name] = rest.pop(name)
            rest = {other: shapely.difference(area, found[name]) for other, area in rest.items()}
    return found | rest


def _largest(
    shares: np.ndarray, holds: np.ndarray, names: Sequence[str], is_counted: np.ndarray, said: Counter[str]
) -> np.ndarray:
    """The class of every tile (int64 [N]; else NO_CLASS or TIED); ties are counted by the names of the classes."""
    if not names or not len(shares):
        return np.full(len(shares), NO_CLASS)
    held = np.where(holds, shares, -1.0)
    best, largest = held.argmax(axis=1), held.max(axis=1)
    is_best = holds & (held >= largest[:, None] - _AS_LARGE)
    is_tied = is_best.sum(axis=1) > 1
    for row, count in Counter(map(tuple, is_best[is_tied & is_counted].tolist())).items():
        equal = " as ".join(name for name, is_equal in zip(names, row, strict=True) if is_equal)
        said[f"tiles left out, as much {equal} (precedence says which is on top)"] += count
    return np.where(is_tied, TIED, np.where(holds.any(axis=1), best, NO_CLASS))
