"""Lymphoma subtypes: a miniature with published names, cut and whole, and what is refused."""

import numpy as np
import pytest
from PIL import Image

from raypath.benchmarks.published.janowczyk7 import Janowczyk7Settings, parse_name
from raypath.data.image_files import open_image
from raypath.errors import BadInput

SIZE = (1388, 1040)
SLIDES = {
    "CLL": ("sj-03-2810", "sj-03-852-R2", "sj-05-5269-R10"),
    "FL": ("sj-05-6124-R3", "sj-05-6124-R4", "sj-05-5829", "sj-05-588-R1"),
    "MCL": ("sj-04-3077-R2", "sj-05-1374", "sj-05-768"),
}


def write(folder):
    """One image of each slide, plain but for a corner of its own."""
    number = 0
    for label, slides in SLIDES.items():
        (folder / label).mkdir(exist_ok=True)
        for slide in slides:
            number += 1
            image = Image.new("RGB", SIZE, (200, 150, 180))
            image.putpixel((0, 0), (number, 0, 0))
            image.save(folder / label / f"{slide}_{number:03d}.tif")
    (folder / "FL" / ".DS_Store").write_bytes(b"")
    return folder


def test_six_tiles_of_each_image_and_cases_stay_together(tmp_path):
    benchmark = Janowczyk7Settings(path=str(write(tmp_path))).load(0)
    assert Janowczyk7Settings.recognise(tmp_path)
    assert benchmark.classes == ("CLL", "FL", "MCL")
    rows = benchmark.table.to_pylist()
    assert len(rows) == 6 * 10
    corners = sorted(tuple(row["box"]) for row in rows if "sj-05-768_" in row["sample"])
    assert corners == [(x, y, 384, 384) for x in (0, 384, 768) for y in (0, 384)]
    assert open_image(rows[0]["path"], box=rows[0]["box"]).size == (384, 384)
    two_slides = [row for row in rows if row["patient"] == "sj-05-6124"]
    assert {row["slide"] for row in two_slides} == {"sj-05-6124-R3", "sj-05-6124-R4"}
    assert len({row["split"] for row in two_slides}) == 1
    assert len({row["slide"] for row in rows}) == 10
    assert len({row["patient"] for row in rows}) == 9
    assert "CLL 18 (published: 678)" in benchmark.tags["raypath.data"]
    sizes = {k: v for k, v in Janowczyk7Settings.FACTS.counts.items() if k in SLIDES}
    assert sum(sizes.values()) == Janowczyk7Settings.FACTS.counts["images"] == 6 * (113 + 139 + 122)


def test_whole_images(tmp_path):
    benchmark = Janowczyk7Settings(path=str(write(tmp_path)), target="images").load(0)
    assert len(benchmark.table) == 10
    assert benchmark.table["box"].null_count == 10
    assert "images 10 (published: 374)" in benchmark.tags["raypath.data"]


def test_names_say_case_and_slide():
    assert parse_name("sj-05-5269-R10_014.tif") == ("sj-05-5269", "sj-05-5269-R10")
    assert parse_name("sj-03-476_001.tif") == ("sj-03-476", "sj-03-476")
    assert parse_name("sj-03-476.tif") is None


def test_what_is_damaged_is_refused(tmp_path):
    path = next((write(tmp_path) / "MCL").glob("sj-05-768_*"))
    path.write_bytes(b"no image")
    with pytest.raises(BadInput, match=r"MCL/sj-05-768_010\.tif: cannot be read"):
        Janowczyk7Settings(path=str(tmp_path)).load(0)
    Image.new("RGB", (383, 1040)).save(path)
    with pytest.raises(BadInput, match=r"sj-05-768_010\.tif: 383 x 1040 px; expected at least 384"):
        Janowczyk7Settings(path=str(tmp_path)).load(0)
    path.rename(tmp_path / "MCL" / "slide 3.tif")
    with pytest.raises(BadInput, match=r"MCL/slide 3\.tif: expected a name like"):
        Janowczyk7Settings(path=str(tmp_path)).load(0)
    for image in (tmp_path / "MCL").iterdir():
        image.unlink()
    assert not Janowczyk7Settings.recognise(tmp_path)
    with pytest.raises(BadInput, match=r"MCL: no images \*\.tif"):
        Janowczyk7Settings(path=str(tmp_path)).load(0)


def test_pixels_of_a_tile_are_those_of_the_image(tmp_path):
    rows = Janowczyk7Settings(path=str(write(tmp_path))).load(0).table.to_pylist()
    row = next(row for row in rows if row["sample"].endswith("@768_384"))
    with Image.open(row["path"]) as image:
        whole = np.asarray(image.convert("RGB"))
    np.testing.assert_array_equal(np.asarray(open_image(row["path"], box=row["box"])), whole[384:768, 768:1152])
