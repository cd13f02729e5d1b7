"""Boxes labelled by area, against a count of pixels; masks that do not belong."""

import numpy as np
import pytest
from PIL import Image

from raypath.benchmarks.cutting.area_rule import rows_by_area
from raypath.data.image_rows import ImageRow
from raypath.errors import BadInput

CUT = {"extent_px": 10, "overlap_px": 3, "above": 0.10, "classes": ("no", "yes")}


def write(folder, mask, size=None):
    """An image and its mask (values 0 and 255)."""
    height, width = mask.shape
    Image.new("RGB", size or (width, height), (9, 8, 7)).save(folder / "a.tif")
    Image.fromarray(mask.astype(np.uint8) * 255).save(folder / "a.png")
    return ImageRow("a.tif", folder / "a.tif", "", "", "p", mask=folder / "a.png")


def test_labels_are_those_of_counting(tmp_path):
    mask = np.random.default_rng(3).random((32, 47)) < 0.11
    rows = rows_by_area([write(tmp_path, mask)], **CUT)
    assert len(rows) == 6 * 4  # every 7 px
    for row in rows:
        left, top, width, height = row.box
        share = mask[top : top + height, left : left + width].sum() / 100
        assert row.label == ("yes" if share > 0.10 else "no"), row
        assert (row.sample, row.patient, row.mask) == (f"a.tif@{left}_{top}", "p", None)
    assert {row.label for row in rows} == {"no", "yes"}


def test_exactly_the_share_is_negative_and_one_pixel_more_is_positive(tmp_path):
    mask = np.zeros((10, 10), bool)
    mask[0] = True
    assert [row.label for row in rows_by_area([write(tmp_path, mask)], **CUT)] == ["no"]
    mask[1, 0] = True
    assert [row.label for row in rows_by_area([write(tmp_path, mask)], **CUT)] == ["yes"]


def test_what_does_not_belong_is_refused(tmp_path):
    with pytest.raises(BadInput, match=r"a\.png: cannot be read as the mask of a\.tif .*20 x 20 px, the image 20 x 21"):
        rows_by_area([write(tmp_path, np.zeros((20, 20), bool), (20, 21))], **CUT)
    with pytest.raises(BadInput, match=r"a\.tif: 9 x 20 px; expected at least 10 x 10 px"):
        rows_by_area([write(tmp_path, np.zeros((20, 9), bool))], **CUT)
    row = write(tmp_path, np.zeros((20, 20), bool))
    row.mask.write_bytes(row.mask.read_bytes()[:40])
    with pytest.raises(BadInput, match=r"a\.png: cannot be read as the mask"):
        rows_by_area([row], **CUT)
    row.path.write_bytes(b"no image")
    with pytest.raises(BadInput, match=r"a\.tif: cannot be read"):
        rows_by_area([row], **CUT)
