"""segPANDA200: a miniature in its folders, with masks, and what is refused."""

import numpy as np
import pytest
from PIL import Image

from raypath.benchmarks.published.segpanda200_tiles import SegPANDA200TilesSettings
from raypath.data.masks import read_mask
from raypath.errors import BadInput


@pytest.fixture
def folder(tmp_path):
    """In each split a slide of every grade, two tiles of it; the mask of a tile has the classes 0 to its grade."""
    shade = 0
    for split in ("train", "val", "test"):
        for grade in range(6):
            slide = f"{split}{grade:02d}f0c1"
            home = tmp_path / split / str(grade) / slide
            home.mkdir(parents=True)
            for x in (3288, 4110):
                shade += 5
                name = f"{slide}_level0_x{x}_y9864"
                Image.new("RGB", (8, 8), (shade, 0, 0)).save(home / f"{name}.jpg")
                values = np.arange(64).reshape(8, 8) % (grade + 1)
                Image.fromarray(np.stack([values, values * 0 + 9, values * 0], axis=2).astype(np.uint8)).save(
                    home / f"{name}_mask.png"
                )
    return tmp_path


def test_pixels_have_six_classes_and_grades_stratify(folder):
    assert SegPANDA200TilesSettings.recognise(folder)
    benchmark = SegPANDA200TilesSettings(path=str(folder)).load(0)
    assert benchmark.kind == "segmentation"
    assert benchmark.classes == ("background", "stroma", "healthy epithelium", "Gleason 3", "Gleason 4", "Gleason 5")
    assert benchmark.strata == ("0", "1", "2", "3", "4", "5")
    assert benchmark.primary == "miou_macro"
    assert benchmark.counts() == {s: dict.fromkeys(benchmark.strata, 2) for s in ("train", "val", "test")}
    for row in benchmark.rows("train").to_pylist():
        assert row["patient"] is None
        assert row["slide"] == f"train{row['label']:02d}f0c1"
        mask = read_mask(row["mask"], benchmark.mask_rule, size=(8, 8))
        assert mask.max() == row["label"]


def test_what_is_damaged_is_refused(folder):
    settings = SegPANDA200TilesSettings(path=str(folder))
    home = folder / "val" / "3" / "val03f0c1"
    mask = home / "val03f0c1_level0_x3288_y9864_mask.png"
    kept = mask.read_bytes()
    mask.unlink()
    with pytest.raises(BadInput, match=r"val03f0c1_level0_x3288_y9864\.jpg: no val03f0c1_level0_x3288_y9864_mask\.png"):
        settings.load(0)
    mask.write_bytes(kept)
    (home / "val03f0c1_level0_x0_y0_mask.png").write_bytes(kept)
    with pytest.raises(BadInput, match=r"val03f0c1_level0_x0_y0_mask\.png: there is no tile of this mask"):
        settings.load(0)
    (home / "val03f0c1_level0_x0_y0_mask.png").unlink()
    (home / "other_level0_x0_y0.jpg").write_bytes((home / "val03f0c1_level0_x3288_y9864.jpg").read_bytes())
    with pytest.raises(
        BadInput, match=r"other_level0_x0_y0\.jpg: expected a name like val03f0c1_level0_x3288_y9864\.jpg"
    ):
        settings.load(0)
    (home / "other_level0_x0_y0.jpg").unlink()
    for path in (folder / "test" / "5").rglob("*.*"):
        path.unlink()
    next((folder / "test" / "5").iterdir()).rmdir()
    with pytest.raises(BadInput, match=r"test/5: no folders of slides"):
        settings.load(0)
