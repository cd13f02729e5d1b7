"""BACH: a miniature of the archive, whole and cut into squares, and what is refused."""

import shutil

import pytest
from PIL import Image

from raypath.benchmarks.published.bach import BACHSettings
from raypath.data.image_files import open_image
from raypath.errors import BadInput

PREFIXES = {"Normal": "n", "Benign": "b", "InSitu": "is", "Invasive": "iv"}


@pytest.fixture
def folder(tmp_path):
    """Five photographs of each class, 8 x 6 px: a 256th of the published extent along each side."""
    home = tmp_path / "ICIAR2018_BACH_Challenge" / "Photos"
    lines = []
    for number, (label, prefix) in enumerate(PREFIXES.items()):
        (home / label).mkdir(parents=True)
        for photo in range(1, 6):
            image = Image.new("RGB", (8, 6))
            image.putdata([(number, photo, 16 * y + x) for y in range(6) for x in range(8)])
            image.save(home / label / f"{prefix}{photo:03d}.tif")
            lines.append(f"{prefix}{photo:03d}.tif,{label}")
    (home / "microscopy_ground_truth.csv").write_text("\r\n".join(lines) + "\r\n")
    return tmp_path


@pytest.mark.parametrize("below", ["", "ICIAR2018_BACH_Challenge", "ICIAR2018_BACH_Challenge/Photos"])
def test_whole_photographs(folder, below):
    assert BACHSettings.recognise(folder / below)
    benchmark = BACHSettings(path=str(folder / below)).load(0)
    assert benchmark.classes == tuple(PREFIXES)
    assert benchmark.mpp == 0.42
    assert not benchmark.has_patients
    for row in benchmark.table.to_pylist():
        assert row["box"] is None
        assert Image.open(row["path"]).getpixel((0, 0))[0] == row["label"]
    assert {s: sum(c.values()) for s, c in benchmark.counts().items()} == {"train": 12, "val": 4, "test": 4}


def test_squares_are_cut_and_a_photograph_is_never_divided(folder):
    benchmark = BACHSettings(path=str(folder), box_px=2).load(3)
    assert benchmark.name == "bach-2px"
    rows = benchmark.table.to_pylist()
    assert len(rows) == len({row["sample"] for row in rows}) == 20 * 12
    splits = {}
    for row in rows:
        splits.setdefault(row["slide"], set()).add(row["split"])
    assert len(splits) == 20
    assert all(len(found) == 1 for found in splits.values())
    row = next(row for row in rows if row["sample"] == "InSitu/is002.tif@4,2")
    assert row["box"] == [4, 2, 2, 2]
    pixels = open_image(row["path"], box=row["box"])
    assert [pixels.getpixel((x, y))[2] for y in range(2) for x in range(2)] == [36, 37, 52, 53]


def test_the_second_papers_squares_are_4800():
    assert BACHSettings(box_px=512)._facts().counts == {
        "images": 4800,
        "slides": 400,
        **dict.fromkeys(PREFIXES, 1200),
    }
    assert BACHSettings()._facts().counts["images"] == 400


def test_what_is_damaged_is_refused(folder):
    settings = BACHSettings(path=str(folder))
    home = folder / "ICIAR2018_BACH_Challenge" / "Photos"
    table = home / "microscopy_ground_truth.csv"
    text = table.read_text()
    table.write_text(text.replace("b002.tif,Benign", "b002.tif,Normal"))
    with pytest.raises(
        BadInput, match=r"Benign/b002\.tif: microscopy_ground_truth\.csv says Normal of it; expected Benign"
    ):
        settings.load(0)
    table.write_text(text.replace("b002.tif,Benign", "b002.tif,benign"))
    with pytest.raises(BadInput, match=r"microscopy_ground_truth\.csv: line 7: 'b002\.tif,benign'; expected FILE"):
        settings.load(0)
    table.write_text(text)
    with pytest.raises(BadInput, match=r"n001\.tif: \(8, 6\) px hold no square of box_px=7"):
        BACHSettings(path=str(folder), box_px=7).load(0)
    (home / "Normal" / "n001.tif").write_bytes(b"no tiff")
    with pytest.raises(BadInput, match=r"n001\.tif: cannot be read"):
        BACHSettings(path=str(folder), box_px=2).load(0)
    (home / "Normal" / "n001.tif").unlink()
    with pytest.raises(BadInput, match=r"Normal/n001\.tif: there is no such file"):
        settings.load(0)
    shutil.rmtree(home / "InSitu")
    with pytest.raises(BadInput, match=r"Photos/InSitu: there is no such folder"):
        settings.load(0)
    table.unlink()
    assert not BACHSettings.recognise(folder)
    with pytest.raises(BadInput, match="no microscopy_ground_truth"):
        settings.load(0)


def test_a_table_that_was_saved_in_utf_16_is_refused(folder):
    table = folder / "ICIAR2018_BACH_Challenge/Photos/microscopy_ground_truth.csv"
    table.write_bytes(table.read_text().encode("utf-16"))
    with pytest.raises(BadInput, match=r"microscopy_ground_truth[.]csv: cannot be read .*; expected text in UTF-8"):
        BACHSettings(path=str(folder)).load(0)
