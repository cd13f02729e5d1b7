"""Janowczyk's mitoses: a miniature in the published layout, its samples counted by hand, and what is refused."""

import re

import numpy as np
import pytest
from PIL import Image

from raypath.benchmarks.published.janowczyk5 import Janowczyk5Settings, centres_of
from raypath.errors import BadInput

SIZE = (800, 500)  # a grid of 3 x 2 boxes of 250 px
MITOSES = [(239, 90), (700, 480)]  # left top corners of squares of 12 px: one in two boxes, one at the lower edge


def write(folder, patients=("01", "02", "03", "04", "05")):
    """One image with mitoses and one without (and so without mask) of each patient, and the masks that are not used."""
    for number, patient in enumerate(patients):
        for image in ("01", "02"):
            Image.new("RGB", SIZE, (number, int(image), 0)).save(folder / f"{patient}_{image}.tif")
            Image.new("L", SIZE, 255).save(folder / f"{patient}_{image}_cmask.png")
        mask = np.zeros(SIZE[::-1], np.uint8)
        for left, top in MITOSES:
            mask[top : top + 12, left : left + 12] = 255
        Image.fromarray(mask).save(folder / f"{patient}_01_pc.png")
    return folder


def test_negatives_are_empty_and_ten_positives_hold_each_mitosis(tmp_path):
    benchmark = Janowczyk5Settings(path=str(write(tmp_path))).load(0)
    assert Janowczyk5Settings.recognise(tmp_path)
    rows = benchmark.table.to_pylist()
    assert len({row["sample"] for row in rows}) == len(rows)
    assert benchmark.classes == ("none", "mitosis")
    assert {row["patient"] for row in rows} == {"01", "02", "03", "04", "05"}
    marked = [row for row in rows if row["path"].endswith("01_01.tif")]
    unmarked = [row for row in rows if row["path"].endswith("01_02.tif")]
    assert sorted(row["box"][:2] for row in unmarked) == [[x, y] for x in (0, 250, 500) for y in (0, 250)]
    assert {row["label"] for row in unmarked} == {0}
    held = dict.fromkeys(MITOSES, 0)
    for row in marked:
        left, top, width, height = row["box"]
        assert (width, height) == (250, 250)
        assert min(left, top) >= 0
        assert left + width <= SIZE[0]
        assert top + height <= SIZE[1]
        inside = [
            m for m in MITOSES if left - 12 < m[0] < left + 250 and top - 12 < m[1] < top + 250
        ]  # any pixel of it
        assert bool(inside) == bool(row["label"]), row
        if row["label"]:
            number = int(re.search(r"#(\d+)\.\d+$", row["sample"])[1])
            x, y = MITOSES[number][0] + 5.5, MITOSES[number][1] + 5.5
            held[MITOSES[number]] += left <= x < left + 250 and top <= y < top + 250
    assert held == dict.fromkeys(MITOSES, 10)
    assert sum(row["label"] == 0 for row in marked) == 3  # the two mitoses lie in three boxes of the six
    assert "15 boxes of the grid hold a mitosis and are no negatives" in benchmark.split_note
    assert "5 images have no mask: taken as without mitoses" in benchmark.split_note
    assert "published: 24,870" in benchmark.tags["raypath.data"]


def test_the_same_boxes_every_time_and_more_with_an_overlap(tmp_path):
    one, other = (Janowczyk5Settings(path=str(write(tmp_path))).load(seed) for seed in (0, 1))
    assert one.table["box"].to_pylist() == other.table["box"].to_pylist()
    overlapping = Janowczyk5Settings(path=str(tmp_path), overlap_px=125).load(0)
    unmarked = [row for row in overlapping.table.to_pylist() if row["path"].endswith("01_02.tif")]
    assert len(unmarked) == 5 * 3


def test_centres_are_those_of_connected_parts():
    mask = np.zeros((20, 30), bool)
    mask[2:5, 10:13] = True  # centre (11, 3)
    mask[5, 13] = True  # touches at a corner: the same mitosis
    mask[15, 25] = True
    x, y = np.mean([*(np.arange(10, 13).repeat(3)), 13]), np.mean([*(np.arange(2, 5).repeat(3)), 5])
    np.testing.assert_allclose(centres_of(mask), [[x, y], [25, 15]])
    assert centres_of(np.zeros((3, 3), bool)).shape == (0, 2)


def test_what_is_damaged_is_refused(tmp_path):
    Image.new("RGB", SIZE).save(write(tmp_path) / "image1.tif")
    with pytest.raises(BadInput, match=r"image1\.tif: expected a name like 01_01\.tif"):
        Janowczyk5Settings(path=str(tmp_path)).load(0)
    (tmp_path / "image1.tif").unlink()
    (tmp_path / "03_01.tif").unlink()
    with pytest.raises(BadInput, match=r"03_01_pc\.png: its image is not there"):
        Janowczyk5Settings(path=str(tmp_path)).load(0)
    Image.new("L", (9, 9)).save(write(tmp_path) / "02_01_pc.png")
    with pytest.raises(BadInput, match=r"02_01_pc\.png: cannot be read as the mask of 02_01\.tif .* 9 x 9 px"):
        Janowczyk5Settings(path=str(tmp_path)).load(0)
    for path in tmp_path.glob("*_pc.png"):
        path.unlink()
    with pytest.raises(BadInput, match=r"10 images 01_01\.tif and the like, no mask"):
        Janowczyk5Settings(path=str(tmp_path)).load(0)
    with pytest.raises(BadInput, match=r"overlap_px=250: expected 0 to 249"):
        Janowczyk5Settings(path=str(tmp_path), overlap_px=250).load(0)
