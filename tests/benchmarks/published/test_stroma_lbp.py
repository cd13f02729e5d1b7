"""Linder's epithelium and stroma: a miniature, its own split, and what is refused."""

import pytest
from PIL import Image

from raypath.benchmarks.published.stroma_lbp import StromaLBPSettings
from raypath.benchmarks.splits.making import SplitSettings
from raypath.errors import BadInput

SIZES = {("training", "epithelium"): 4, ("training", "stroma"): 3, ("validation", "epithelium"): 5}
SIZES |= {("validation", "stroma"): 4, ("test", "epithelium"): 7, ("test", "stroma"): 6}


def write(folder):
    """Images of different sizes, each with a colour of its own."""
    number = 0
    for (name, label), size in SIZES.items():
        (folder / name / label).mkdir(parents=True, exist_ok=True)
        for image in range(size):
            number += 1
            Image.new("RGB", (30 + number, 31), (number, 9, 9)).save(folder / name / label / f"{image}.jpg")
    return folder


def test_the_authors_split_stands(tmp_path):
    benchmark = StromaLBPSettings(path=str(write(tmp_path))).load(0)
    assert StromaLBPSettings.recognise(tmp_path)
    assert benchmark.classes == ("epithelium", "stroma")
    assert benchmark.counts() == {
        "train": {"epithelium": 4, "stroma": 3},
        "val": {"epithelium": 5, "stroma": 4},
        "test": {"epithelium": 7, "stroma": 6},
    }
    assert not benchmark.has_patients
    assert "image-level" in benchmark.split_note
    assert "train 7 (published: 80); val 9 (published: 576)" in benchmark.tags["raypath.data"]


def test_another_split_may_be_made(tmp_path):
    settings = StromaLBPSettings(path=str(write(tmp_path)), split=SplitSettings(use_given=False))
    assert sum(settings.load(0).counts()["train"].values()) > 15


def test_what_is_damaged_is_refused(tmp_path):
    Image.new("RGB", (5, 5)).save(write(tmp_path) / "training" / "who knows.png")
    with pytest.raises(BadInput, match=r"training/who knows\.png: one of 1 images outside"):
        StromaLBPSettings(path=str(tmp_path)).load(0)
    for path in (tmp_path / "test" / "stroma").iterdir():
        path.unlink()
    with pytest.raises(BadInput, match=r"test/stroma: no images; expected those of stroma of the test set"):
        StromaLBPSettings(path=str(tmp_path)).load(0)
    (tmp_path / "test" / "stroma").rmdir()
    assert not StromaLBPSettings.recognise(tmp_path)


def test_copies_in_hidden_folders_are_no_images(tmp_path):
    write(tmp_path)
    expected = StromaLBPSettings(path=str(tmp_path)).load(0).data_hash
    for place in (tmp_path / "training" / "stroma", tmp_path):
        (place / ".ipynb_checkpoints").mkdir()
        (place / ".ipynb_checkpoints" / "1-checkpoint.png").write_bytes(b"x")
    assert StromaLBPSettings(path=str(tmp_path)).load(0).data_hash == expected
