"""Annotations of QuPath as GeoJSON: polygons with holes, by class.

A FeatureCollection, one Feature, or a bare list of Features. The class is `properties.classification.name` (`names` for a class
derived of others, joined by ": " as QuPath shows it). One decision: rings are as RFC 7946 wants them, closed by repeating the first
corner; one that is not closed was cut off or made by other hands, and is refused with its feature. Points and lines, and
annotations without a class, are counted and left out. Coordinates are level-0 px, as QuPath exports them.

A file is one line of text, so a fault names the feature (and its id) in place of a line; broken JSON has line and column.
"""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from raypath.benchmarks.annotations.regions import Regions, polygon_area
from raypath.errors import BadInput


def read_geojson(path: Path) -> Regions:
    """The regions of a GeoJSON file, by class; raises BadInput with file and feature for what cannot be used."""
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{path}: cannot be read ({error}); expected GeoJSON in UTF-8") from None
    except json.JSONDecodeError as error:
        raise BadInput(f"{path}: line {error.lineno}, column {error.colno}: is no JSON ({error.msg})") from None
    skipped: Counter[str] = Counter()
    return Regions.of(_areas(path, _features(path, content), skipped), skipped)


def _features(path: Path, content: object) -> list[dict]:
    if isinstance(content, dict):
        content = [content] if content.get("type") == "Feature" else content.get("features")
    if not isinstance(content, list) or not all(isinstance(feature, dict) for feature in content):
        raise BadInput(f"{path}: no features; expected a FeatureCollection, a Feature or a list of Features")
    return content


def _areas(path: Path, features: list[dict], skipped: Counter[str]) -> Iterator[tuple]:
    for number, feature in enumerate(features, start=1):
        where = f"{path}: feature {number}" + (f" (id {feature['id']})" if "id" in feature else "")
        geometry = feature.get("geometry")
        if not isinstance(geometry, dict):
            raise BadInput(f"{where}: has no geometry; expected a Polygon or a MultiPolygon")
        kind, coordinates, name = geometry.get("type"), geometry.get("coordinates"), _class_of(feature)
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


def _require_closed(rings: object, where: str) -> None:
    if not isinstance(rings, list) or not rings or not all(isinstance(ring, list) and ring for ring in rings):
        raise BadInput(f"{where}: an empty polygon; draw it again or remove it")
    for ring in rings:
        if ring[0] != ring[-1]:
            raise BadInput(
                f"{where}: a ring is not closed, it begins at {ring[0]} and ends at {ring[-1]}; expected the first corner again "
                "at its end (RFC 7946)"
            )
