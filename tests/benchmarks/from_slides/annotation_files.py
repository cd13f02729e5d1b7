"""Annotation files as the programs write them: QuPath 0.5's GeoJSON, ASAP's XML, CSVs of points, masks."""

import json
import uuid
from pathlib import Path

import numpy as np
import tifffile


def ring(box):
    """A closed ring around left, top, right, bottom."""
    left, top, right, bottom = box
    return [[left, top], [right, top], [right, bottom], [left, bottom], [left, top]]


def feature(kind, coordinates, name, *, number=0):
    """One object of QuPath 0.5 (PathObjectTypeAdapter.write): no measurements, not locked; without a class no classification."""
    properties = {"objectType": "annotation"}
    if name is not None:
        properties["classification"] = {"name": name, "color": [200, 0, 0]}
    return {
        "type": "Feature",
        "id": str(uuid.UUID(int=number)),
        "geometry": {"type": kind, "coordinates": coordinates},
        "properties": properties,
    }


def area(name, box, *holes):
    return feature("Polygon", [ring(box), *map(ring, holes)], name)


def write_geojson(path: Path, *features) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"type": "FeatureCollection", "features": list(features)}))
    return path


def write_asap(path: Path, *groups_and_boxes) -> Path:
    annotations = "".join(
        f'<Annotation Name="Annotation {number}" Type="Polygon" PartOfGroup="{group}" Color="#F4FA58">\n<Coordinates>\n'
        + "".join(f'<Coordinate Order="{order}" X="{x}" Y="{y}" />\n' for order, (x, y) in enumerate(ring(box)[:-1]))
        + "</Coordinates>\n</Annotation>\n"
        for number, (group, box) in enumerate(groups_and_boxes)
    )
    path.write_text(
        f'<?xml version="1.0"?>\n<ASAP_Annotations>\n<Annotations>\n{annotations}</Annotations>\n<AnnotationGroups>\n'
        '<Group Name="Tumor" PartOfGroup="None" Color="#64FE2E"><Attributes /></Group>\n</AnnotationGroups>\n'
        "</ASAP_Annotations>\n"
    )
    return path


def write_points(path: Path, points, header="x,y,class") -> Path:
    path.write_text("\n".join([header, *(f"{x},{y},{label}" for x, y, label in points)]) + "\n")
    return path


def write_mask(path: Path, values: np.ndarray) -> Path:
    """A mask TIFF that OpenSlide opens: class numbers uint8 [H, W] in the first channel."""
    pixels = np.zeros((*values.shape, 3), np.uint8)
    pixels[..., 0] = values
    tifffile.imwrite(path, pixels, tile=(128, 128), photometric="rgb", compression="deflate", metadata=None)
    return path
