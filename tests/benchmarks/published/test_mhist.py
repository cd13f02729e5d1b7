"""MHIST: a miniature of its table and images, and what is refused."""

import pytest
from PIL import Image

from raypath.benchmarks.published.mhist import MHISTSettings
from raypath.errors import BadInput

HEADER = "Image Name,Majority Vote Label,Number of Annotators who Selected SSA (Out of 7),Partition"


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "images").mkdir()
    lines = [HEADER]
    for number in range(26):
        name = f"MHIST_aa{chr(97 + number)}.png"
        Image.new("RGB", (4, 4), (number, 0, 0)).save(tmp_path / "images" / name)
        votes = number % 8
        lines.append(f"{name},{'SSA' if votes > 3 else 'HP'},{votes},{'test' if number >= 18 else 'train'}")
    (tmp_path / "annotations.csv").write_text("\n".join(lines) + "\n")
    return tmp_path


def test_the_table_says_class_and_split(folder):
    assert MHISTSettings.recognise(folder)
    benchmark = MHISTSettings(path=str(folder)).load(0)
    assert benchmark.classes == ("HP", "SSA")
    assert benchmark.mpp is None
    rows = benchmark.table.to_pylist()
    assert len(rows) == 26
    for row in rows:
        number = ord(row["sample"][-5]) - 97
        assert row["label"] == (number % 8 > 3)
        assert (row["split"] == "test") == (number >= 18)
        assert Image.open(row["path"]).getpixel((0, 0)) == (number, 0, 0)
    assert {row["split"] for row in rows} == {"train", "val", "test"}
    assert {c.what: (c.built, c.published) for c in benchmark.built} == {
        "images": (26, 3152),
        "train": (18, 2175),
        "test": (8, 977),
    }


def test_another_table_of_that_name_is_not_mhist(folder):
    (folder / "annotations.csv").write_bytes(b"file,label\n\xff\xfe\n")
    assert not MHISTSettings.recognise(folder)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (",Partition", ",Split", r"annotations\.csv: line 1: no column Partition"),
        ("MHIST_aab.png,HP", "MHIST_aab.png,hp", r"line 3: Majority Vote Label 'hp'"),
        ("1,train", "1,val", r"line 3: Partition 'val'"),
        ("MHIST_aab.png", "MHIST_abb.png", r"line 3: no images/MHIST_abb\.png"),
        ("MHIST_aab.png", "MHIST_aaa.png", r"line 3: no images/MHIST_aaa\.png, or named twice"),
        ("MHIST_aab.png,HP,1,train\n", "", r"MHIST_aab\.png: annotations\.csv has no line for it"),
    ],
)
def test_what_is_damaged_is_refused(folder, old, new, said):
    table = folder / "annotations.csv"
    table.write_text(table.read_text().replace(old, new, 1))
    with pytest.raises(BadInput, match=said):
        MHISTSettings(path=str(folder)).load(0)


def test_a_table_that_was_saved_in_utf_16_is_refused(folder):
    table = folder / "annotations.csv"
    table.write_bytes(table.read_text().encode("utf-16"))
    with pytest.raises(BadInput, match=r"annotations[.]csv: cannot be read .*; expected text in UTF-8"):
        MHISTSettings(path=str(folder)).load(0)
