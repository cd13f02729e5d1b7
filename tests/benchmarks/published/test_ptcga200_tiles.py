"""PTCGA200: a miniature in its folders, named with and without barcodes, and what is refused."""

import shutil

import pytest
from PIL import Image

from raypath.benchmarks.published.ptcga200_tiles import ORGANS, PTCGA200TilesSettings
from raypath.errors import BadInput

# the numbers of the paper's own code: enigmanx20/PatchTCGA dataset_utils.organ2id
IDS = {
    "adrenal_gland": 0,
    "bile_liver": 1,
    "bladder": 2,
    "brain": 3,
    "breast": 4,
    "cervix_uteri": 5,
    "colon": 6,
    "corpus_uteri": 7,
    "esophagus": 8,
    "kidney": 9,
    "liver": 1,
    "lung": 10,
    "lymphnode": 11,
    "ovary": 12,
    "pancreas": 13,
    "prostate": 14,
    "rectosigmoid": 6,
    "rectum": 6,
    "skin": 15,
    "small_intestine": 6,
    "stomach": 16,
    "testis": 17,
    "thymus": 18,
    "thyroid": 19,
}


@pytest.fixture
def folder(tmp_path):
    """Four patients in each organ, two tiles of each; the fourth has file names without a barcode."""
    for number, organ in enumerate(IDS):
        (tmp_path / organ).mkdir()
        for patient in range(4):
            for tile in range(2):
                slide = f"TCGA-{number:02d}-A{patient:03d}-01Z-00-DX1.0A1B-22" if patient < 3 else f"slide_{number}"
                path = tmp_path / organ / f"{slide}_{tile}.jpg"
                Image.new("RGB", (8, 8), (10 * number, 60 * patient, 100 * tile)).save(path)
    (tmp_path / "thumbnail_position_map").mkdir()
    (tmp_path / "thumbnail_position_map" / "a.png").write_bytes(b"x")
    return tmp_path


def test_24_folders_are_the_papers_20_classes(folder):
    assert PTCGA200TilesSettings.recognise(folder)
    benchmark = PTCGA200TilesSettings(path=str(folder)).load(0)
    assert len(benchmark.classes) == 20
    assert set(ORGANS) == set(IDS)
    rows = benchmark.table.to_pylist()
    assert len(rows) == 24 * 8
    assert all(row["label"] == IDS[row["sample"].split("/")[0]] for row in rows)
    assert benchmark.mpp == 0.39
    assert benchmark.built == ()  # nobody published a count


def test_barcodes_say_slide_and_patient(folder):
    benchmark = PTCGA200TilesSettings(path=str(folder)).load(0)
    rows = benchmark.table.to_pylist()
    row = next(row for row in rows if row["sample"].startswith("rectum/TCGA-17-A001"))
    assert (row["patient"], row["slide"]) == ("TCGA-17-A001", "TCGA-17-A001-01Z-00-DX1")
    assert sum(row["patient"] is None for row in rows) == 48
    assert "48 of 192 file names have no TCGA barcode: their patients are unknown" in benchmark.split_note
    splits = {}
    for row in rows:
        if row["patient"]:
            splits.setdefault(row["patient"], set()).add(row["split"])
    assert len(splits) == 72
    assert all(len(found) == 1 for found in splits.values())


def test_what_is_damaged_is_refused(folder):
    (folder / "spleen").mkdir()
    with pytest.raises(BadInput, match=r"found the folder spleen; expected those of the set: adrenal_gland"):
        PTCGA200TilesSettings(path=str(folder)).load(0)
    (folder / "spleen").rmdir()
    shutil.rmtree(folder / "thymus")
    with pytest.raises(BadInput, match=r"thymus: there is no such folder"):
        PTCGA200TilesSettings(path=str(folder)).load(0)
