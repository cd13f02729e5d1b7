"""QuPath's GeoJSON: polygons with holes, in all its wrappings."""

import json

import pytest

from raypath.benchmarks.annotations.geojson import read_geojson, read_geojson_points
from raypath.errors import BadInput

OUTER = [[0, 0], [100, 0], [100, 100], [0, 100], [0, 0]]
HOLE = [[10, 10], [20, 10], [20, 20], [10, 20], [10, 10]]
FAR = [[200, 0], [210, 0], [210, 10], [200, 10], [200, 0]]


def feature(coordinates, kind="Polygon", name="Tumor"):
    """As QuPath 0.4 and later write it."""
    properties = {"objectType": "annotation", "classification": {"name": name, "color": [200, 0, 0]}}
    return {
        "type": "Feature",
        "id": "4e0ae1f2",
        "geometry": {"type": kind, "coordinates": coordinates},
        "properties": properties if name else {"objectType": "annotation"},
    }


def write(path, content):
    path.write_text(json.dumps(content))
    return path


@pytest.mark.parametrize("wrap", [lambda f: {"type": "FeatureCollection", "features": [f]}, lambda f: [f], lambda f: f])
def test_a_polygon_with_a_hole_in_every_wrapping(tmp_path, wrap):
    regions = read_geojson(write(tmp_path / "a.geojson", wrap(feature([OUTER, HOLE]))))
    assert regions.by_class["Tumor"].area == pytest.approx(1e4 - 100)


def test_multipolygons_classes_and_what_is_left_out(tmp_path):
    point = {**feature([1, 2], "Point")}
    derived = feature([FAR], name=None)
    derived["properties"]["classification"] = {"names": ["Stroma", "Dense"]}
    content = [feature([[OUTER, HOLE], [FAR]], "MultiPolygon"), point, feature([OUTER], name=None), derived]
    regions = read_geojson(write(tmp_path / "a.geojson", content))
    assert {name: area.area for name, area in regions.by_class.items()} == {"Stroma: Dense": 100, "Tumor": 10_000}
    assert regions.notes() == "1 Point left out, 1 unclassified left out"


def test_points_have_the_class_of_their_feature(tmp_path):
    content = [
        feature([[1.5, 2], [3, 4, 0]], "MultiPoint", "cell"),
        feature([OUTER]),
        feature([5, 6], "Point", None),
        feature([7, 8], "Point", "mitosis"),
    ]
    points, num_unnamed = read_geojson_points(write(tmp_path / "a.geojson", content))
    assert points.xy.tolist() == [[1.5, 2], [3, 4], [7, 8]]
    assert points.labels == ("cell", "cell", "mitosis")
    assert num_unnamed == 1
    points, num_unnamed = read_geojson_points(write(tmp_path / "a.geojson", [feature([OUTER])]))
    assert (points.xy.shape, points.labels, num_unnamed) == ((0, 2), (), 0)


@pytest.mark.parametrize(
    ("coordinates", "message"),
    [
        ([1], "its points are no pairs"),
        (["a", 1], "its points are no pairs"),
        ([1, float("nan")], "a point is not finite"),
    ],
)
def test_what_is_no_point_is_refused_with_its_feature(tmp_path, coordinates, message):
    with pytest.raises(BadInput, match=rf"bad\.geojson: feature 1 \(id 4e0ae1f2\): {message}"):
        read_geojson_points(write(tmp_path / "bad.geojson", [feature(coordinates, "Point")]))


def test_a_hole_that_leaves_its_polygon_is_repaired_and_counted(tmp_path):
    outside = [[90, 90], [110, 90], [110, 110], [90, 110], [90, 90]]
    regions = read_geojson(write(tmp_path / "a.geojson", [feature([OUTER, outside])]))
    assert regions.num_repaired == 1
    assert regions.by_class["Tumor"].is_valid


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([feature([OUTER]), feature([OUTER[:-1]])], r"feature 2 \(id 4e0ae1f2\): a ring is not closed"),
        ([feature([])], r"feature 1 \(id 4e0ae1f2\): an empty polygon"),
        ([feature([[]])], r"feature 1 \(id 4e0ae1f2\): an empty polygon"),
        ([feature([], "MultiPolygon")], r"feature 1 \(id 4e0ae1f2\): an empty polygon"),
        ([feature([[[0, 0], [1, 1], [0, 0]]])], r"feature 1 \(id 4e0ae1f2\): 3 corners; an area has at least 3"),
        ([feature([[["a", 0], [1, 1], [0, 1], ["a", 0]]])], "feature 1 .*: its corners are no pairs of numbers"),
        ([{"type": "Feature", "geometry": None}], "feature 1: has no geometry"),
        ([{**feature(5, "MultiPolygon"), "id": 1}], r"feature 1 \(id 1\): an empty polygon"),
        ({"type": "Point", "coordinates": [0, 0]}, "no features; expected a FeatureCollection"),
        ("text", "no features"),
    ],
)
def test_what_cannot_be_an_area_is_refused_with_its_feature(tmp_path, content, message):
    with pytest.raises(BadInput, match=rf"bad\.geojson: {message}"):
        read_geojson(write(tmp_path / "bad.geojson", content))


def test_a_damaged_file_is_refused_with_its_line(tmp_path):
    path = tmp_path / "bad.geojson"
    path.write_text('{"type": "FeatureCollection",\n"features": [')
    with pytest.raises(BadInput, match=r"bad\.geojson: line 2, column 14: is no JSON"):
        read_geojson(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BadInput, match=r"bad\.geojson: cannot be read"):
        read_geojson(path)
