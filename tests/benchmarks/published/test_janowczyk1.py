"""Janowczyk's nuclei: a miniature in the published layout, cut and whole, and what is refused."""

import numpy as np
import pytest
from PIL import Image

from raypath.benchmarks.published.janowczyk1 import Janowczyk1Settings
from raypath.data.image_files import open_image
from raypath.errors import BadInput

PATIENTS = {"8913": 2, "10256": 1, "12750": 1, "12875": 1, "9036": 1, "13691": 1}  # patient -> images
SIZE = (500, 375)


def write(folder):
    """Images with a nucleus block in one corner each, its size different from image to image."""
    number = 0
    for patient, num_images in PATIENTS.items():
        for image in range(num_images):
            number += 1
            name = f"{patient}_500_f{image:05d}"
            pixels = np.random.default_rng(number).integers(0, 256, (SIZE[1], SIZE[0], 3), dtype=np.uint8)
            mask = np.zeros((SIZE[1], SIZE[0]), np.uint8)
            mask[: 40 * number, :60] = 255
            Image.fromarray(pixels).save(folder / f"{name}_original.tif")
            Image.fromarray(mask).save(folder / f"{name}_mask.png")
    (folder / "._8913_500_f00000_mask.png").write_bytes(b"what a Mac leaves in archives")
    return folder


def test_tiles_are_labelled_by_area_and_split_by_patient(tmp_path):
    benchmark = Janowczyk1Settings(path=str(write(tmp_path))).load(0)
    assert Janowczyk1Settings.recognise(tmp_path)
    assert benchmark.kind == "classification"
    assert benchmark.classes == ("background", "nuclei")
    assert len(benchmark.table) == 7 * 3 * 2
    assert benchmark.tags["raypath.data"] == (
        "not the paper's data: images 42 (published: 31,725); patients 6 (published: 137)"
    )
    splits = {}
    for row in benchmark.table.to_pylist():
        left, top, width, height = row["box"]
        assert (left % 125, top % 125, width, height) == (0, 0, 250, 250)
        with Image.open(row["path"].replace("_original.tif", "_mask.png")) as image:
            share = (np.array(image)[top : top + 250, left : left + 250] > 0).mean()
        assert row["label"] == int(share > 0.05), row
        assert row["sample"].startswith(f"{row['patient']}_500_f")
        assert row["mask"] is None
        splits.setdefault(row["patient"], set()).add(row["split"])
    assert set(splits) == set(PATIENTS)
    assert all(len(found) == 1 for found in splits.values())
    assert open_image(row["path"], box=row["box"]).size == (250, 250)


def test_pixels_are_whole_images_with_masks(tmp_path):
    benchmark = Janowczyk1Settings(path=str(write(tmp_path)), target="pixels").load(0)
    assert (benchmark.kind, benchmark.mask_rule, benchmark.primary) == ("segmentation", "binary", "miou_macro")
    rows = benchmark.table.to_pylist()
    assert len(rows) == 7
    assert all(row["mask"] == row["path"].replace("_original.tif", "_mask.png") for row in rows)
    assert all(row["box"] is None for row in rows)


def test_an_image_without_mask_is_left_out_and_named(tmp_path):
    (write(tmp_path) / "9036_500_f00000_mask.png").unlink()
    benchmark = Janowczyk1Settings(path=str(tmp_path)).load(0)
    assert len(benchmark.table) == 6 * 3 * 2
    assert "1 images have no mask and are left out: 9036_500_f00000_original.tif" in benchmark.split_note


def test_what_is_damaged_is_refused(tmp_path):
    (write(tmp_path) / "9036_500_f00000_original.tif").unlink()
    with pytest.raises(BadInput, match=r"9036_500_f00000_original\.tif: there is no such file, but"):
        Janowczyk1Settings(path=str(tmp_path)).load(0)
    write(tmp_path)
    Image.new("L", (10, 10)).save(tmp_path / "8913_500_f00001_mask.png")
    with pytest.raises(BadInput, match=r"8913_500_f00001_mask\.png: .* 10 x 10 px, the image 500 x 375"):
        Janowczyk1Settings(path=str(tmp_path)).load(0)
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadInput, match=r"empty: no <id>_mask\.png"):
        Janowczyk1Settings(path=str(tmp_path / "empty")).load(0)
