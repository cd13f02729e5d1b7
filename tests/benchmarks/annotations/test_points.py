"""Points of a CSV: whose columns they are, and what is refused."""

import pytest

from raypath.benchmarks.annotations.points import read_points
from raypath.errors import BadInput


@pytest.mark.parametrize(
    "header", ["x,y,label", "pixel_x,pixel_y,Class", "Centroid X [px],Centroid Y [px],Classification"]
)
def test_known_headers(tmp_path, header):
    path = tmp_path / "points.csv"
    path.write_bytes(b"\xef\xbb\xbf" + f"{header},extra\r\n1.5,2,mitosis,z\r\n3,4e1,other,z\r\n".encode())
    points = read_points(path)
    assert points.xy.tolist() == [[1.5, 2.0], [3.0, 40.0]]
    assert points.labels == ("mitosis", "other")
    assert points.unused_columns == ("extra",)


def test_other_headers_are_named(tmp_path):
    path = tmp_path / "points.csv"
    path.write_text("a,b,cluster\n1,2,7\n")
    points = read_points(path, x="b", y="a", label="cluster")
    assert (points.xy.tolist(), points.labels) == ([[2.0, 1.0]], ("7",))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x,y\n1,2\n", r"line 1: 0 columns for label among x, y; expected one of label, class"),
        ("x,pixel_x,y,label\n1,1,2,a\n", "line 1: 2 columns for x among"),
        ("Centroid X um,y,label\n1,2,a\n", "line 1: 0 columns for x"),
        ("x,y,label\n1,2,a\n1,nan,a\n", "line 3, column y: 'nan'; expected level-0 px"),
        ("x,y,label\n-1,2,a\n", "line 2, column x: '-1'; expected level-0 px"),
        ("x,y,label\n1,2\n", "line 2, column label: empty"),
        ("x,y,label\n", "no points below the header"),
        ("", "line 1: 0 columns for x among none"),
    ],
)
def test_what_is_wrong_is_refused_with_line_column_and_value(tmp_path, text, message):
    path = tmp_path / "bad.csv"
    path.write_text(text)
    with pytest.raises(BadInput, match=rf"bad\.csv: {message}"):
        read_points(path)
