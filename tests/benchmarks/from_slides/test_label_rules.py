"""Labels of tiles by area: against pixels that were counted one by one, and against shapely without any tree."""

import time

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from raypath.benchmarks.cutting.boxes import capped, grid_boxes
from raypath.benchmarks.from_slides.label_rules import Area, RegionRule, squares_at
from raypath.config import from_dict
from raypath.errors import BadInput

SIDE = 48


def drawn(seed, num_rectangles):
    """A region of whole pixels, and its mask bool [SIDE, SIDE]: for these, counting pixels is exact."""
    generator = np.random.default_rng(seed)
    mask, parts = np.zeros((SIDE, SIDE), bool), []
    for _ in range(num_rectangles):
        left, top = generator.integers(0, SIDE - 2, 2)
        width, height = generator.integers(1, 20, 2)
        right, bottom = min(SIDE, left + width), min(SIDE, top + height)
        mask[top:bottom, left:right] = True
        parts.append(shapely.box(left, top, right, bottom))
    return shapely.union_all(parts), mask


def windows(mask, boxes):
    return [mask[y : y + height, x : x + width] for x, y, width, height in boxes.tolist()]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 12), st.integers(2, 17), st.integers(2, 17), st.integers(1, 9))
def test_every_rule_is_that_of_the_pixels(seed, num_rectangles, extent, stride, centre):
    geometry, mask = drawn(seed, num_rectangles)
    boxes = grid_boxes((SIDE, SIDE), extent, stride)
    area = Area(geometry)
    tiles = windows(mask, boxes)
    np.testing.assert_allclose(area.share(boxes), [tile.mean() for tile in tiles], atol=1e-12)
    assert area.holds_centre(boxes).tolist() == [bool(tile[extent // 2, extent // 2]) for tile in tiles]
    side = min(centre, extent)
    start = (extent - side) // 2
    centres = [tile[start : start + side, start : start + side] for tile in tiles]
    assert area.touches_centre(boxes, centre).tolist() == [bool(tile.any()) for tile in centres]
    rule = RegionRule(rule="area", min_share=0.25)
    assert rule.holds(area, boxes, 0.5).tolist() == [bool(tile.mean() >= 0.25) for tile in tiles]


def star(generator, centre, radius, num_corners):
    """An irregular ring around a centre that does not cross itself."""
    angle = np.sort(generator.uniform(0, 2 * np.pi, num_corners))
    reach = radius * generator.uniform(0.3, 1, num_corners)
    return shapely.make_valid(shapely.Polygon(centre + np.stack([np.cos(angle), np.sin(angle)], 1) * reach[:, None]))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(3, 400), st.floats(0, 60))
def test_cutting_changes_no_area_and_no_distance(seed, num_corners, distance):
    generator = np.random.default_rng(seed)
    shell = star(generator, np.array([150.0, 130.0]), 120, num_corners)
    hole = star(generator, np.array([150.0, 130.0]), 40, max(3, num_corners // 3))
    geometry = shapely.difference(shell, hole)
    boxes = grid_boxes((300, 260), 20, 17)
    squares = [shapely.box(x, y, x + w, y + h) for x, y, w, h in boxes.tolist()]
    area = Area(geometry)
    slow = np.array([geometry.intersection(square).area / 400 for square in squares])
    np.testing.assert_allclose(area.share(boxes), slow, atol=1e-9)
    gaps = np.array([geometry.distance(square) for square in squares])
    is_clear = np.abs(gaps - distance) > 1e-6
    assert (area.is_near(boxes, distance) == (gaps <= distance))[is_clear].all()


def test_touching_is_near_and_shares_nothing():
    area = Area(shapely.box(0, 0, 10, 10))
    boxes = squares_at(np.array([10, 12, 5]), np.array([0, 0, 5]), 10)
    assert area.share(boxes).tolist() == [0, 0, 0.25]
    assert area.is_near(boxes, 0).tolist() == [True, False, True]
    assert area.is_near(boxes, 2).tolist() == [True, True, True]


def test_an_empty_region_holds_nothing():
    area = Area(shapely.union_all([]))
    boxes = grid_boxes((SIDE, SIDE), 10)
    assert not area.share(boxes).any()
    assert not area.holds_centre(boxes).any()
    assert not area.is_near(boxes, 1e9).any()
    assert not area.touches_centre(boxes, 4).any()


def test_the_rules_differ_as_they_are_said_to():
    area = Area(shapely.box(0, 0, 100, 52))  # half of the first tile and 2 px
    boxes = squares_at(np.array([0, 0]), np.array([0, 40]), 100)
    holds = {
        name: RegionRule(rule=name, min_share=0.5, centre_um=20).holds(area, boxes, 0.5)
        for name in ("central_pixel", "centre_region", "area")
    }
    assert {name: found.tolist() for name, found in holds.items()} == {
        "central_pixel": [True, False],
        "centre_region": [True, False],
        "area": [True, False],
    }
    assert RegionRule(rule="area", min_share=0.1).holds(area, boxes, 0.5).tolist() == [True, True]
    assert RegionRule(rule="centre_region", centre_um=40).holds(area, boxes, 0.5).tolist() == [
        True,
        True,
    ]  # 80 px at 0.5


def test_caps_per_class_and_slide():
    names = [f"slide/{i}" for i in range(30)]
    groups = [f"slide/{i % 3 == 0}" for i in range(30)]
    kept = capped(names, groups, 4, seed=0)
    assert sorted(groups[i] for i in kept) == ["slide/False"] * 4 + ["slide/True"] * 4


@pytest.mark.parametrize("wrong", [{"min_share": 0.0}, {"min_share": 1.5}, {"centre_um": 0.0}])
def test_bad_settings_are_refused(wrong):
    with pytest.raises(BadInput, match=next(iter(wrong))):
        RegionRule(**wrong)
    assert from_dict(RegionRule, {"rule": "area"}).rule == "area"


def test_twenty_thousand_tiles_and_two_hundred_regions_take_seconds():
    generator = np.random.default_rng(0)
    angle = np.linspace(0, 2 * np.pi, 500, endpoint=False)
    reach = 1_000 + 150 * np.sin(3 * angle) + 150 * np.sin(7 * angle)
    ring = np.stack([np.cos(angle), np.sin(angle)], axis=1) * reach[:, None]
    geometry = shapely.union_all([shapely.Polygon(ring + generator.uniform(1_500, 70_500, 2)) for _ in range(200)])
    boxes = grid_boxes((72_000, 72_000), 500)
    assert len(boxes) == 20_736
    start = time.process_time()
    share = Area(geometry).share(boxes)
    assert time.process_time() - start < 10  # about 1 s; tile by tile against the whole it is minutes
    assert share.sum() * 500**2 == pytest.approx(geometry.area, rel=1e-6)
