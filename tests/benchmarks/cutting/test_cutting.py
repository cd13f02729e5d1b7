"""Boxes lie inside, shares are those of a slow count, draws can be repeated."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from raypath.benchmarks.cutting.boxes import boxes_around, capped, grid_boxes, holds_point, share_inside


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 12), st.integers(1, 12), st.integers(0, 99))
def test_a_grid_fills_what_fits_and_shares_are_counted(width, height, extent, stride, seed):
    boxes = grid_boxes((width, height), extent, stride)
    whole = [(x, y) for y in range(0, height, stride) for x in range(0, width, stride)]
    whole = [(x, y) for x, y in whole if x + extent <= width and y + extent <= height]
    assert boxes[:, :2].tolist() == [list(corner) for corner in whole]
    mask = np.random.default_rng(seed).random((height, width)) < 0.4
    slow = [mask[y : y + extent, x : x + extent].mean() for x, y in whole]
    np.testing.assert_allclose(share_inside(mask, boxes), slow, atol=1e-12)


@settings(max_examples=40, deadline=None)
@given(st.integers(10, 50), st.integers(10, 50), st.floats(0, 8), st.integers(0, 20))
def test_boxes_around_points_hold_them_and_stay_inside(width, height, shift, num_points):
    points = np.random.default_rng(num_points).uniform(0, 1, (num_points, 2)) * (width - 1, height - 1)
    boxes, numbers = boxes_around(points, (width, height), 10, num_per_point=3, shift_px=shift, key="image")
    again, _ = boxes_around(points, (width, height), 10, num_per_point=3, shift_px=shift, key="image")
    np.testing.assert_array_equal(boxes, again)
    assert numbers.tolist() == [n for n in range(num_points) for _ in range(3)]
    assert (boxes[:, :2] >= 0).all()
    assert (boxes[:, :2] + boxes[:, 2:] <= (width, height)).all()
    if shift <= 4 and num_points:
        assert all(holds_point(box[None], points[n : n + 1]).all() for box, n in zip(boxes, numbers))


def test_other_keys_draw_other_boxes_and_small_images_have_none():
    points = np.array([[50.0, 50.0]])
    one, other = (boxes_around(points, (100, 100), 10, num_per_point=5, shift_px=9, key=key)[0] for key in "ab")
    assert one.tolist() != other.tolist()
    assert len(boxes_around(points, (100, 9), 10, num_per_point=5, shift_px=9, key="a")[0]) == 0


def test_a_margin_keeps_points_off_the_edge():
    boxes = np.array([[0, 0, 10, 10], [10, 0, 10, 10]])
    assert holds_point(boxes, np.array([[9.5, 5.0]])).tolist() == [True, False]
    assert holds_point(boxes, np.array([[9.5, 5.0]]), margin_px=1).tolist() == [False, False]
    assert holds_point(boxes, np.empty((0, 2))).tolist() == [False, False]


def test_a_cap_keeps_the_same_ones_in_any_order():
    names, groups = [f"tile{i}" for i in range(20)], ["a" if i % 3 else "b" for i in range(20)]
    kept = {names[i] for i in capped(names, groups, 4, seed=1)}
    assert len(kept) == 8
    order = np.random.default_rng(0).permutation(20)
    shuffled = capped([names[i] for i in order], [groups[i] for i in order], 4, seed=1)
    assert {names[order[i]] for i in shuffled} == kept
    assert kept != {names[i] for i in capped(names, groups, 4, seed=2)}
