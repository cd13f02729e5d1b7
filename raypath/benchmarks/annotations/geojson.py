"""Annotations of QuPath as GeoJSON: polygons with holes, and points, by class.

A FeatureCollection, one Feature, or a bare list of Features. The class is `properties.classification.name` (`names` for a class
derived of others, joined by ": " as QuPath shows it). One decision: rings are as RFC 7946 wants them, closed by repeating the first
corner; one that is not closed was cut off or made by other hands, and is refused with its feature. What is no area (or, for
points, no point) and annotations without a class are counted and left out. Coordinates are level-0 px, as QuPath exports them.

A file is one line of text, so a fault names the feature (and its id) in place of a line; broken JSON has line and column.
"""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from raypath.benchmarks.annotations.points import NO_POINTS, Points
from raypath.benchmarks.annotations.regions import Regions, polygon_area
from raypath.errors import BadInput

POINT_TYPES = ("Point", "MultiPoint")  # QuPath's tool for points writes one feature for all points of a class


def read_geojson(path: Path) -> Regions:
    """The regions of a GeoJSON file, by class; raises BadInput with file and feature for what cannot be used."""
    skipped: Counter[str] = Counter()
    return Regions.of(_areas(path, _features(path), skipped), skipped)


def read_geojson_points(path: Path) -> tuple[Points, int]:
    """The points of a GeoJSON file with their classes, and how many have none; raises as `read_geojson`."""
    xy, labels = [], []
    for where, feature, kind, coordinates in _geometries(path, _features(path)):
        if kind in POINT_TYPES:
            found = _points([coordinates] if kind == "Point" else coordinates, where)
            xy.append(found)
            labels += [_class_of(feature)] * len(found)
    if not xy:
        return NO_POINTS, 0
    is_named = np.array([label is not None for label in labels])
    named = tuple(label for label in labels if label is not None)
    return Points(np.concatenate(xy)[is_named], named), len(labels) - len(named)


def _features(path: Path) -> list[dict]:
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{path}: cannot be read ({error}); expected GeoJSON in UTF-8") from None
    except json.JSONDecodeError as error:
        raise BadInput(f"{path}: line {error.lineno}, column {error.colno}: is no JSON ({error.msg})") from None
    if isinstance(content, dict):
        content = [content] if content.get("type") == "Feature" else content.get("features")
    if not isinstance(content, list) or not all(isinstance(feature, dict) for feature in content):
        raise BadInput(f"{path}: no features; expected a FeatureCollection, a Feature or a list of Features")
    return content


def _geometries(path: Path, features: list[dict]) -> Iterator[tuple[str, dict, object, object]]:
    """Where it is in the file, the feature, and the type and coordinates of its geometry."""
    for number, feature in enumerate(features, start=1):
        where = f"{path}: feature {number}" + (f" (id {feature['id']})" if "id" in feature else "")
        geometry = feature.get("geometry")
        if not isinstance(geometry, dict):
            raise BadInput(f"{where}: has no geometry; expected a Polygon or a MultiPolygon")
        yield where, feature, geometry.get("type"), geometry.get("coordinates")


def _areas(path: Path, features: list[dict], skipped: Counter[str]) -> Iterator[tuple]:
    for where, feature, kind, coordinates in _geometries(path, features):
        name = _class_of(feature)
        if kind not in ("Polygon", "MultiPolygon"):
            skipped[str(kind)] += 1
        elif name is None:
            skipped["unclassified"] += 1
        else:
            parts = [coordinates] if kind == "Polygon" else coordinates
            for rings in parts if isinstance(parts, list) and parts else [[]]:
                _require_closed(rings, where)
                yield name, *polygon_area(rings, where)


def _class_of(feature: dict) -> str | None:
    properties = feature.get("properties")
    found = properties.get("classification") if isinstance(properties, dict) else None
    if not isinstance(found, dict):
        return found if isinstance(found, str) and found else None
    return found.get("name") or ": ".join(found.get("names") or ()) or None


def _points(coordinates: object, where: str) -> np.ndarray:
    """float64 [P, 2]."""
    try:
        xy = np.array([(x, y) for x, y, *_ in coordinates], dtype=np.float64).reshape(-1, 2)
    except (TypeError, ValueError):
        raise BadInput(f"{where}: its points are no pairs of numbers; expected x and y in level-0 px") from None
    if not np.isfinite(xy).all():
        raise BadInput(f"{where}: a point is not finite; expected x and y in level-0 px")
    return xy


def _require_closed(rings: object, where: str) -> None:
    if not isinstance(rings, list) or not rings or not all(isinstance(ring, list) and ring for ring in rings):
        raise BadInput(f"{where}: an empty polygon; draw it again or remove it")
    for ring in rings:
        if ring[0] != ring[-1]:
            raise BadInput(
                f"{where}: a ring is not closed, it begins at {ring[0]} and ends at {ring[-1]}; expected the first corner again "
                "at its end (RFC 7946)"
            )
