"""Masks: rules against slow loops, drawn regions against a count of points, and what is refused."""

import imagecodecs
import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from raypath.data.masks import draw_polygons, number_polygons, read_mask, read_objects, read_polygons


def is_inside(x, y, corners):
    """Even-odd by crossings of a ray to the right."""
    crossings = 0
    for (x0, y0), (x1, y1) in zip(corners, [*corners[1:], corners[0]]):
        if (y0 > y) != (y1 > y) and x < x0 + (y - y0) / (y1 - y0) * (x1 - x0):
            crossings += 1
    return crossings % 2 == 1


def slow_drawing(polygons, size):
    return [
        [int(any(is_inside(x + 0.5, y + 0.5, p) for p in polygons)) for x in range(size[0])] for y in range(size[1])
    ]


def region(corners, number=1, negative=0):
    vertices = "".join(f'<Vertex X="{x}" Y="{y}" Z="0"/>' for x, y in corners)
    return f'<Region Id="{number}" Type="0" NegativeROA="{negative}"><Vertices>{vertices}</Vertices></Region>'


def write_xml(path, regions):
    head = '<Annotations MicronsPerPixel="0.252000"><Annotation Id="1" Name="" Type="4"><Regions>'
    path.write_text(f"{head}{''.join(regions)}</Regions><Plots/></Annotation></Annotations>")
    return str(path)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 3), st.integers(3, 9), st.integers(1, 20), st.integers(1, 20))
def test_drawn_is_what_a_count_of_crossings_finds(seed, num_polygons, num_corners, width, height):
    """Any polygons: crossing themselves, overlapping, leaving the image. (A third is no pixel centre: no point is on an edge.)"""
    generator = np.random.default_rng(seed)
    polygons = [
        generator.integers(-4, 24, (num_corners, 2)) + 1 / 3 + generator.random((num_corners, 2)) / 9
        for _ in range(num_polygons)
    ]
    drawn = draw_polygons(polygons, [], (width, height))
    assert drawn.dtype == np.uint8
    assert drawn.tolist() == slow_drawing([p.tolist() for p in polygons], (width, height))


def test_a_drawn_area_is_the_polygons_area():
    turns = np.linspace(0, 2 * np.pi, 200, endpoint=False)
    circle = 50 + 20.3 * np.stack([np.cos(turns), np.sin(turns)], axis=1)
    assert draw_polygons([circle], [], (100, 100)).sum() == pytest.approx(np.pi * 20.3**2, rel=0.01)


def test_regions_of_imagescope_are_drawn_with_their_holes(tmp_path):
    outer, hole = [(2, 2), (12, 2), (12, 9), (2, 9)], [(4, 4), (8, 4), (8, 7), (4, 7)]
    path = write_xml(tmp_path / "a.xml", [region(outer), region(hole, 2, negative=1), region([(1, 1), (3, 3)], 3)])
    expected = np.zeros((10, 15), np.uint8)
    expected[2:9, 2:12] = 1
    expected[4:7, 4:8] = 0
    np.testing.assert_array_equal(read_mask(path, "binary", size=(15, 10)), expected)
    inside, holes = read_polygons(path)
    assert [len(corners) for corners in inside] == [4, 2]
    assert holes[0].tolist() == [list(map(float, corner)) for corner in hole]


def test_xml_that_is_no_annotation_is_refused(tmp_path):
    path = tmp_path / "a.xml"
    path.write_text("<Annotations><Annotation>")
    with pytest.raises(SyntaxError):
        read_mask(str(path), "binary", size=(4, 4))
    path.write_text("<svg/>")
    with pytest.raises(ValueError, match="root is <svg>"):
        read_mask(str(path), "binary", size=(4, 4))
    path.write_text('<Annotations><Region Id="7"><Vertex X="1"/></Region></Annotations>')
    with pytest.raises(ValueError, match="region 7 has a corner without place"):
        read_mask(str(path), "binary", size=(4, 4))
    path.write_text('<!DOCTYPE a [<!ENTITY b "c">]><Annotations>&b;</Annotations>')
    with pytest.raises(ValueError, match="EntitiesForbidden"):
        read_mask(str(path), "binary", size=(4, 4))


def test_values_and_instances_of_image_files(tmp_path):
    values = np.random.default_rng(0).integers(0, 4, (6, 9)).astype(np.uint8)
    for name in ("a.png", "a.bmp", "a.tif"):
        Image.fromarray(values).save(tmp_path / name)
        np.testing.assert_array_equal(read_mask(str(tmp_path / name), "values", size=(9, 6)), values)
    instances = values.astype(np.uint16) * 700
    Image.fromarray(instances).save(tmp_path / "many.png")
    np.testing.assert_array_equal(read_mask(str(tmp_path / "many.png"), "binary", size=(9, 6)), values > 0)
    with pytest.raises(ValueError, match=r"values from 0 to 2100: expected class numbers of 0 to 255"):
        read_mask(str(tmp_path / "many.png"), "values", size=(9, 6))


def test_a_palette_only_paints(tmp_path):
    values = np.array([[0, 1], [2, 3]], np.uint8)
    image = Image.fromarray(values).convert("P")
    image.putpalette([0, 0, 0, 255, 0, 0, 255, 0, 0, 9, 9, 9])
    image.putdata(values.ravel().tolist())
    image.save(tmp_path / "a.png")
    assert read_mask(str(tmp_path / "a.png"), "values", size=(2, 2)).tolist() == values.tolist()


def test_of_several_channels_the_first_counts_if_the_others_agree(tmp_path):
    first = np.random.default_rng(1).integers(0, 6, (5, 5)).astype(np.uint8)
    path = str(tmp_path / "a.png")
    for others in (np.zeros_like(first), first):
        Image.fromarray(np.stack([first, others, others], axis=2)).save(path)
        np.testing.assert_array_equal(read_mask(path, "values", size=(5, 5)), first)
    Image.fromarray(np.stack([first] * 3 + [np.full_like(first, 255)], axis=2)).save(path)
    np.testing.assert_array_equal(read_mask(path, "values", size=(5, 5)), first)
    Image.fromarray(np.stack([np.zeros_like(first), first, first], axis=2)).save(path)
    with pytest.raises(ValueError, match="coloured"):
        read_mask(path, "binary", size=(5, 5))


def slow_channels(values):
    """The first of all but the last channel that is not 0, counted from 1."""
    classes = np.zeros(values.shape[:2], np.uint8)
    for y, x in np.ndindex(classes.shape):
        for channel in reversed(range(values.shape[2] - 1)):
            if values[y, x, channel]:
                classes[y, x] = channel + 1
    return classes


def test_channels_as_in_pannuke(tmp_path):
    generator = np.random.default_rng(2)
    instances = generator.integers(1, 400, (3, 8, 8, 6)) * (generator.random((3, 8, 8, 6)) < 0.3)
    instances[..., -1] = ~instances[..., :-1].any(axis=3)
    np.save(tmp_path / "masks.npy", instances.astype(np.float64))
    for item in range(3):
        found = read_mask(str(tmp_path / "masks.npy"), "channels", size=(8, 8), item=item)
        np.testing.assert_array_equal(found, slow_channels(instances[item]))
    with pytest.raises(ValueError, match=r"shape \(3, 8, 8, 6\)"):
        read_mask(str(tmp_path / "masks.npy"), "channels", size=(8, 8))
    with pytest.raises(IndexError):
        read_mask(str(tmp_path / "masks.npy"), "channels", size=(8, 8), item=3)


def test_arrays_of_one_and_of_many(tmp_path):
    many = np.random.default_rng(3).integers(0, 3, (4, 5, 7))
    np.save(tmp_path / "many.npy", many)
    np.save(tmp_path / "one.npy", many[2].astype(bool))
    assert read_mask(str(tmp_path / "many.npy"), "values", size=(7, 5), item=2).tolist() == many[2].tolist()
    assert read_mask(str(tmp_path / "one.npy"), "values", size=(7, 5)).tolist() == (many[2] > 0).astype(int).tolist()


def test_what_is_no_mask_is_refused(tmp_path):
    path = str(tmp_path / "a.npy")
    np.save(path, np.zeros((4, 6)))
    with pytest.raises(ValueError, match="its mask is 6 x 4 px, the image 4 x 6"):
        read_mask(path, "values", size=(4, 6))
    for wrong in (0.5, np.nan):
        np.save(path, np.full((4, 6), wrong))
        with pytest.raises(ValueError, match="no whole numbers"):
            read_mask(path, "binary", size=(6, 4))
    np.save(path, np.full((4, 6), -1))
    with pytest.raises(ValueError, match="from -1 to -1"):
        read_mask(path, "values", size=(6, 4))
    np.save(path, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="Python objects"):
        read_mask(path, "values", size=(6, 4))
    Image.new("L", (6, 4)).save(tmp_path / "a.jpg")
    with pytest.raises(OSError, match="cannot identify"):
        read_mask(str(tmp_path / "a.jpg"), "values", size=(6, 4))
    pages = [Image.new("L", (6, 4)), Image.new("L", (6, 4))]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    with pytest.raises(ValueError, match="2 pages"):
        read_mask(str(tmp_path / "a.tif"), "values", size=(6, 4))


@pytest.mark.parametrize("name", ["m.png", "m.tif"])
def test_a_mask_in_colours_of_16_bits_is_refused_since_small_numbers_would_become_0(tmp_path, name):
    numbers = np.full((4, 4, 3), 7, np.uint16)
    if name.endswith(".png"):
        (tmp_path / name).write_bytes(imagecodecs.png_encode(numbers))
    else:
        tifffile.imwrite(tmp_path / name, numbers, photometric="rgb")
    with pytest.raises(ValueError, match="is RGB of 16 bits"):
        read_mask(str(tmp_path / name), "binary", size=(4, 4))
    Image.fromarray(numbers[..., 0]).save(tmp_path / "grey.png")
    assert read_mask(str(tmp_path / "grey.png"), "values", size=(4, 4)).tolist() == [[7] * 4] * 4


def test_endings_in_capitals_are_the_same_formats(tmp_path):
    values = np.arange(6, dtype=np.uint8).reshape(2, 3)
    np.save(tmp_path / "m.npy", values)
    Image.fromarray(values).save(tmp_path / "m.PNG")
    (tmp_path / "m.npy").rename(tmp_path / "m.NPY")
    write_xml(tmp_path / "m.XML", [region([(0, 0), (2, 0), (2, 2), (0, 2)])])
    for name in ("m.NPY", "m.PNG"):
        assert read_mask(str(tmp_path / name), "values", size=(3, 2)).tolist() == values.tolist()
    assert read_mask(str(tmp_path / "m.XML"), "values", size=(3, 2)).tolist() == [[1, 1, 0]] * 2


@pytest.mark.parametrize(("highest", "dtype"), [(7, np.uint8), (300, np.uint16), (70_000, np.uint32)])
def test_objects_keep_their_numbers_in_few_bytes(tmp_path, highest, dtype):
    numbers = np.array([[0, 3, highest], [0, 0, highest]], np.int64)
    np.save(tmp_path / "a.npy", numbers)
    found = read_objects(str(tmp_path / "a.npy"), size=(3, 2))
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, numbers)
    np.testing.assert_array_equal(found > 0, read_mask(str(tmp_path / "a.npy"), "binary", size=(3, 2)))
    for wrong, message in (
        (numbers - 1, "values from -1"),
        (numbers / 2, "no whole numbers"),
        (numbers.T, "is 2 x 3 px"),
    ):
        np.save(tmp_path / "b.npy", wrong)
        with pytest.raises(ValueError, match=message):
            read_objects(str(tmp_path / "b.npy"), size=(3, 2))


def test_regions_are_numbered_in_their_order_and_the_first_has_what_two_claim(tmp_path):
    first, second, hole = ([(a, a), (b, a), (b, b), (a, b)] for a, b in ((0, 4), (2, 8), (6, 7)))
    path = write_xml(tmp_path / "a.xml", [region(first), region(hole, 2, negative=1), region(second, 3)])
    expected = np.zeros((9, 9), np.uint8)
    expected[2:8, 2:8] = 2
    expected[0:4, 0:4] = 1
    expected[6, 6] = 0
    np.testing.assert_array_equal(read_objects(path, size=(9, 9)), expected)
    np.testing.assert_array_equal(read_mask(path, "values", size=(9, 9)), expected > 0)
    many = [np.array([(k, 0), (k + 1, 0), (k + 1, 1), (k, 1)]) for k in range(300)]
    assert number_polygons(many, [], (300, 1)).tolist() == [list(range(1, 301))]
