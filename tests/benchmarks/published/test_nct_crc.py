"""NCT-CRC-HE: a miniature of its archives, and what is refused."""

import os
import shutil

import pytest
from PIL import Image

from raypath.benchmarks.published.nct_crc import NCTCRCSettings
from raypath.errors import BadInput

CLASSES = ("ADI", "BACK", "DEB", "LYM", "MUC", "MUS", "NORM", "STR", "TUM")


def write(folder, archive, num, shade):
    """`num` tiles of every class, named by eight letters as in the archive; every tile has contents of its own."""
    for number, name in enumerate(CLASSES):
        home = folder / archive / name
        home.mkdir(parents=True)
        for tile in range(num):
            letters = "AAAF" + "".join(chr(65 + (tile // 26**k) % 26) for k in (3, 2, 1, 0))
            Image.new("RGB", (4, 4), (shade, number, tile)).save(home / f"{name}-{letters}.tif")


@pytest.fixture
def folder(tmp_path):
    write(tmp_path, "NCT-CRC-HE-100K", 10, 1)
    write(tmp_path, "CRC-VAL-HE-7K", 3, 2)
    return tmp_path


def test_one_archive_trains_and_the_other_tests(folder):
    assert NCTCRCSettings.recognise(folder)
    benchmark = NCTCRCSettings(path=str(folder)).load(0)
    assert benchmark.classes == CLASSES
    assert benchmark.counts() == {
        "train": dict.fromkeys(CLASSES, 8),
        "val": dict.fromkeys(CLASSES, 2),
        "test": dict.fromkeys(CLASSES, 3),
    }
    assert not benchmark.has_patients
    assert benchmark.mpp == 0.5
    test = benchmark.table.filter([split == "test" for split in benchmark.table["split"].to_pylist()])
    assert all(sample.startswith("CRC-VAL-HE-7K/") for sample in test["sample"].to_pylist())
    row = next(row for row in benchmark.table.to_pylist() if row["sample"] == "NCT-CRC-HE-100K/TUM/TUM-AAAFAAAC.tif")
    assert benchmark.classes[row["label"]] == "TUM"
    assert Image.open(row["path"]).getpixel((0, 0)) == (1, 8, 2)


def test_what_is_published_adds_up_and_a_miniature_is_marked(folder):
    counts = NCTCRCSettings.FACTS.counts
    assert counts["train"] + counts["test"] == counts["images"] == sum(counts[name] for name in CLASSES)
    said = NCTCRCSettings(path=str(folder)).load(0).tags["raypath.data"]
    assert "images 117 (published: 107,180)" in said
    assert "ADI 13 (published: 11,745)" in said


def test_the_raw_colours_are_another_archive(folder):
    settings = NCTCRCSettings(path=str(folder), colours="raw")
    with pytest.raises(BadInput, match=r"NCT-CRC-HE-100K-NONORM: there is no such folder"):
        settings.load(0)
    write(folder, "NCT-CRC-HE-100K-NONORM", 10, 3)
    raw = settings.load(0)
    assert raw.name == "nct-crc-raw"
    assert raw.data_hash != NCTCRCSettings(path=str(folder)).load(0).data_hash
    assert sum("NONORM" in sample for sample in raw.table["sample"].to_pylist()) == 90


def test_what_is_damaged_is_refused(folder):
    settings = NCTCRCSettings(path=str(folder))
    tile = folder / "CRC-VAL-HE-7K" / "MUS" / "MUS-AAAFAAAA.tif"
    whole = tile.read_bytes()
    tile.write_bytes(b"")
    with pytest.raises(BadInput, match=r"MUS-AAAFAAAA\.tif: the file is empty"):
        settings.load(0)
    tile.write_bytes(whole)
    (folder / "CRC-VAL-HE-7K" / "FAT").mkdir()
    with pytest.raises(BadInput, match=r"CRC-VAL-HE-7K: found the folder FAT; expected"):
        settings.load(0)
    (folder / "CRC-VAL-HE-7K" / "FAT").rmdir()
    shutil.rmtree(folder / "NCT-CRC-HE-100K" / "STR")
    with pytest.raises(BadInput, match=r"NCT-CRC-HE-100K/STR: there is no such folder"):
        settings.load(0)
    (folder / "NCT-CRC-HE-100K" / "STR").mkdir()
    with pytest.raises(BadInput, match=r"NCT-CRC-HE-100K/STR: no images in it"):
        settings.load(0)
    shutil.rmtree(folder / "CRC-VAL-HE-7K")
    assert not NCTCRCSettings.recognise(folder)


def test_files_that_are_not_there_or_have_no_name_are_refused_by_name(folder):
    home = folder / "CRC-VAL-HE-7K" / "ADI"
    link = home / "broken.tif"
    link.symlink_to(folder / "nowhere.tif")
    with pytest.raises(BadInput, match=r"broken\.tif: cannot be read \(No such file or directory\)"):
        NCTCRCSettings(path=str(folder)).load(0)
    link.unlink()
    (home / "cut short.tif").touch()
    with pytest.raises(BadInput, match=r"cut short\.tif: the file is empty"):
        NCTCRCSettings(path=str(folder)).load(0)
    (home / "cut short.tif").rename(os.fsdecode(os.fsencode(home / "ADI-") + b"\xff.tif"))
    with pytest.raises(BadInput, match=r"ADI-\\udcff\.tif': its name is no text in UTF-8; rename it"):
        NCTCRCSettings(path=str(folder)).load(0)


def test_capitals_and_what_archives_leave_behind(folder):
    expected = NCTCRCSettings(path=str(folder)).load(0).table["content"].to_pylist()
    home = folder / "NCT-CRC-HE-100K" / "ADI"
    first = min(home.iterdir())
    first.rename(first.with_suffix(".TIF"))
    for name in ("._ADI-AAAFAAAB.tif", ".DS_Store", "Thumbs.db"):
        (home / name).write_bytes(b"x")
    (folder / "NCT-CRC-HE-100K" / "__MACOSX").mkdir()
    found = NCTCRCSettings(path=str(folder)).load(0).table["content"].to_pylist()
    assert sorted(found) == sorted(expected)
