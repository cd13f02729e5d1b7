"""Janowczyk's epithelium: a miniature in the published layout, cut and whole, and what is refused."""

import numpy as np
import pytest
from PIL import Image

from raypath.benchmarks.published.janowczyk2 import Janowczyk2Settings
from raypath.errors import BadInput

NAMES = ("10254_500.tif", "10255_200.tif", "10264_500.tif", "10276_500.tif", "8956_500.tif", "9035_500.tif")
SIZE = (400, 300)


def write(folder):
    """Images in the folder, masks in masks/; the epithelium grows from image to image."""
    (folder / "masks").mkdir(exist_ok=True)
    for number, name in enumerate(NAMES):
        pixels = np.random.default_rng(number).integers(0, 256, (SIZE[1], SIZE[0], 3), dtype=np.uint8)
        mask = np.zeros((SIZE[1], SIZE[0]), np.uint8)
        mask[:, : 15 + 20 * number] = 255
        Image.fromarray(pixels).save(folder / name)
        Image.fromarray(mask).save(folder / "masks" / name.replace(".tif", "_mask.png"))
    return folder


def mask_path(row):
    path = row["path"].replace(".tif", "_mask.png")
    return path.replace("/" + path.rsplit("/", 1)[1], "/masks/" + path.rsplit("/", 1)[1])


def test_tiles_are_labelled_by_area(tmp_path):
    benchmark = Janowczyk2Settings(path=str(write(tmp_path))).load(0)
    assert Janowczyk2Settings.recognise(tmp_path)
    assert benchmark.classes == ("stroma", "epithelium")
    rows = benchmark.table.to_pylist()
    assert len(rows) == 6 * 3 * 2
    for row in rows:
        left, top, width, height = row["box"]
        assert (left % 100, top % 100, width, height) == (0, 0, 200, 200)
        with Image.open(mask_path(row)) as image:
            share = (np.array(image)[top : top + 200, left : left + 200] > 0).mean()
        assert row["label"] == int(share > 0.10), row
    assert {row["patient"] for row in rows} == {name.split("_")[0] for name in NAMES}
    assert sum(row["label"] for row in rows) not in (0, len(rows))


def test_pixels_are_whole_images_with_masks(tmp_path):
    benchmark = Janowczyk2Settings(path=str(write(tmp_path)), target="pixels").load(0)
    rows = benchmark.table.to_pylist()
    assert (len(rows), benchmark.kind, benchmark.mask_rule) == (6, "segmentation", "binary")
    assert all(row["mask"] == mask_path(row) for row in rows)
    assert "images 6 (published: 42)" in benchmark.tags["raypath.data"]


def test_what_is_damaged_is_refused(tmp_path):
    (write(tmp_path) / "masks" / "8956_500_mask.png").unlink()
    with pytest.raises(BadInput, match=r"masks/8956_500_mask\.png: there is no such file"):
        Janowczyk2Settings(path=str(tmp_path)).load(0)
    (write(tmp_path) / "10255_200.tif").unlink()
    with pytest.raises(BadInput, match=r"10255_200\.tif: there is no such file"):
        Janowczyk2Settings(path=str(tmp_path)).load(0)
    (write(tmp_path) / "masks" / "9035_500_mask.png").write_bytes(b"no image")
    with pytest.raises(BadInput, match=r"9035_500_mask\.png: cannot be read as the mask of 9035_500\.tif"):
        Janowczyk2Settings(path=str(tmp_path)).load(0)
    assert not Janowczyk2Settings.recognise(tmp_path / "masks")
