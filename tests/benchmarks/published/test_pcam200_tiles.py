"""PCam200: a miniature in its folders, and what is refused."""

import shutil

import pytest
from PIL import Image

from raypath.benchmarks.published.pcam200_tiles import PCam200TilesSettings
from raypath.errors import BadInput


@pytest.fixture
def folder(tmp_path):
    """In each split two slides without tumour, and one that has tiles of both classes."""
    shade = 0
    for number, split in enumerate(("train", "val", "test")):
        for label, cases in (("normal", ("normal_00", "normal_01", "tumor_00")), ("tumor", ("tumor_00",))):
            for case in cases:
                home = tmp_path / split / label / f"{case}{number}"
                home.mkdir(parents=True)
                for tile in range(2):
                    shade += 5
                    Image.new("RGB", (8, 8), (shade, 0, 0)).save(home / f"{case}{number}_{tile}.jpg")
    return tmp_path


def test_split_class_and_case_are_folders(folder):
    assert PCam200TilesSettings.recognise(folder)
    benchmark = PCam200TilesSettings(path=str(folder)).load(0)
    assert benchmark.classes == ("normal", "tumor")
    assert benchmark.counts() == {split: {"normal": 6, "tumor": 2} for split in ("train", "val", "test")}
    rows = benchmark.rows("val").to_pylist()
    assert (
        {row["patient"] for row in rows} == {row["slide"] for row in rows} == {"normal_001", "normal_011", "tumor_001"}
    )
    assert all(row["sample"].split("/")[1] == benchmark.classes[row["label"]] for row in rows)
    assert benchmark.mpp == 0.39


def test_class_folders_of_ones_own_are_not_it(tmp_path):
    for label in ("normal", "tumor"):
        (tmp_path / "train" / label).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(tmp_path / "train" / label / "1.jpg")
    assert not PCam200TilesSettings.recognise(tmp_path)


def test_what_is_damaged_is_refused(folder):
    settings = PCam200TilesSettings(path=str(folder))
    shutil.copytree(folder / "train" / "normal" / "normal_000", folder / "test" / "normal" / "normal_000")
    with pytest.raises(BadInput, match=r"1 patients stand in more than one split: normal_000 \(train, test\)"):
        settings.load(0)
    shutil.rmtree(folder / "test" / "normal" / "normal_000")
    (folder / "val" / "tumor" / "tumor_001" / "tumor_001_0.jpg").write_bytes(b"")
    with pytest.raises(BadInput, match=r"val/tumor/tumor_001/tumor_001_0\.jpg: the file is empty"):
        settings.load(0)
    shutil.rmtree(folder / "val" / "tumor")
    with pytest.raises(BadInput, match=r"val/tumor: no folders of cases"):
        settings.load(0)
