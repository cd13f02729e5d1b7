"""Boxes of marked objects: what each holds against a slow count, clearance, and points that are none."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raypath.benchmarks.cutting.sparse_objects import inside, object_boxes, read_points
from raypath.errors import BadInput

SIZE = (90, 70)


def slow_kind(box, kinds):
    """The first kind of which a point lies in the box, else the number of kinds."""
    left, top, width, height = box
    for kind, points in enumerate(kinds):
        if any(left <= x < left + width and top <= y < top + height for x, y in points):
            return kind
    return len(kinds)


def distance_outside(box, x, y):
    """How far a point lies outside a box, along the axis where it is furthest."""
    left, top, width, height = box
    return max(left - x, x - left - width, top - y, y - top - height)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 5), st.integers(0, 5), st.integers(5, 25), st.floats(0, 6))
def test_boxes_hold_what_they_are_labelled_with(seed, num_first, num_second, stride, clearance):
    generator = np.random.default_rng(seed)
    kinds = [generator.uniform(0, 1, (num, 2)) * (np.array(SIZE) - 1) for num in (num_first, num_second)]
    chosen = {"stride_px": stride, "num_per_object": 4, "shift_px": 5.0, "clearance_px": clearance, "key": str(seed)}
    boxes, found = object_boxes(kinds, SIZE, 20, **chosen)
    again, _ = object_boxes(kinds, SIZE, 20, **chosen)
    np.testing.assert_array_equal(boxes, again)
    assert found.tolist() == [slow_kind(box, kinds) for box in boxes.tolist()]
    num_around = 4 * (num_first + num_second)
    assert (found[: 4 * num_first] == 0).all()  # a first kind comes first, whatever else the box holds
    assert set(found[4 * num_first : num_around].tolist()) <= {0, 1}
    assert (found[num_around:] == 2).all()
    points = np.concatenate(kinds)
    empty = {tuple(box) for box in boxes[num_around:].tolist()}
    for top in range(0, SIZE[1] - 20 + 1, stride):
        for left in range(0, SIZE[0] - 20 + 1, stride):
            gaps = [distance_outside((left, top, 20, 20), x, y) for x, y in points]
            assert ((left, top, 20, 20) in empty) == all(gap >= clearance for gap in gaps)


def test_another_key_shifts_otherwise():
    kinds = [np.array([[45.0, 35.0]])]
    chosen = {"stride_px": 20, "num_per_object": 6, "shift_px": 5.0, "clearance_px": 0.0}
    one, other = (object_boxes(kinds, SIZE, 20, key=key, **chosen)[0][:6] for key in "ab")
    assert one.tolist() != other.tolist()


def test_points_are_read_as_x_y_or_row_column(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(b"\xef\xbb\xbf12,34,0.9\r\n\r\n 5 , 6 \r\n12,34,0.2\r\n")
    assert read_points(path, SIZE, is_row_first=False).tolist() == [[12, 34], [5, 6]]
    assert read_points(path, SIZE, is_row_first=True).tolist() == [[34, 12], [6, 5]]
    path.write_text("")
    assert read_points(path, SIZE, is_row_first=True).shape == (0, 2)


def test_a_point_on_the_far_edge_is_moved_in():
    assert inside(np.array([[90.0, 70.5], [0, 0]]), SIZE, "a").tolist() == [[89.5, 69.5], [0, 0]]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("1,2\nthree,4\n", r"a\.csv: line 2: 'three,4'; expected x,y"),
        ("1\n", r"a\.csv: line 1: '1'; expected x,y"),
        ("91.5,3\n", r"a\.csv: a point at x 91\.5, y 3; expected points of the image of 90 x 70 px"),
        ("3,-1\n", r"a point at x 3, y -1"),
        ("nan,3\n", r"a point at x nan, y 3"),
    ],
)
def test_what_is_no_point_is_refused(tmp_path, text, reason):
    path = tmp_path / "a.csv"
    path.write_text(text)
    with pytest.raises(BadInput, match=reason):
        read_points(path, SIZE, is_row_first=False)
    path.unlink()
    with pytest.raises(BadInput, match=r"a\.csv: cannot be read \(.*No such file"):
        read_points(path, SIZE, is_row_first=False)
