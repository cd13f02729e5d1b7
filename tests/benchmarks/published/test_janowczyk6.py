"""Invasive ductal carcinoma: a miniature in the published layout, the lists, real names, and what is refused."""

import csv
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from raypath.benchmarks.published.janowczyk6 import Janowczyk6Settings, parse_name
from raypath.data.image_files import read_image
from raypath.errors import BadInput

REAL = Path(os.environ.get("RAYPATH_REAL_DATA", Path(__file__).parents[4] / "shared" / "data")) / "labelled" / "idc"
PATIENTS = ("8863", "8864", "9255", "10253", "12750", "16896")


def write(folder, patients=PATIENTS):
    """Two tiles of each class for every patient; one at the edge is not square."""
    for patient in patients:
        for label in (0, 1):
            home = folder / patient / str(label)
            home.mkdir(parents=True, exist_ok=True)
            for place in (1, 51):
                pixels = np.random.default_rng([int(patient), label, place]).integers(
                    0, 256, (50, 50, 3), dtype=np.uint8
                )
                pixels = pixels[:31] if (patient, label, place) == ("8863", 0, 51) else pixels
                Image.fromarray(pixels).save(home / f"{patient}_idx5_x{place}_y1251_class{label}.png")
    return folder


def test_patients_and_classes_come_from_folders_and_names(tmp_path):
    benchmark = Janowczyk6Settings(path=str(write(tmp_path))).load(0)
    assert Janowczyk6Settings.recognise(tmp_path)
    assert benchmark.classes == ("non_idc", "idc")
    rows = benchmark.table.to_pylist()
    assert len(rows) == 24
    for row in rows:
        patient, label, name = row["sample"].split("/")
        assert (row["patient"], row["label"]) == (patient, int(label))
        assert name.endswith(f"_class{label}.png")
        assert Path(row["path"]) == tmp_path / row["sample"]
    of_patient = {row["patient"]: row["split"] for row in rows}
    assert all(of_patient[row["patient"]] == row["split"] for row in rows)
    assert set(of_patient.values()) == {"train", "val", "test"}
    assert "non_idc 12 (published: 198,738)" in benchmark.tags["raypath.data"]
    assert read_image(str(tmp_path / "8863/0/8863_idx5_x51_y1251_class0.png"), 50).shape == (50, 50, 3)


def test_a_copy_inside_is_not_read_twice_and_the_inner_folder_will_do(tmp_path):
    write(write(tmp_path) / "IDC_regular_ps50_idx5")
    assert len(Janowczyk6Settings(path=str(tmp_path)).load(0).table) == 24
    inner = tmp_path / "only"
    inner.mkdir()
    (tmp_path / "IDC_regular_ps50_idx5").rename(inner / "IDC_regular_ps50_idx5")
    assert Janowczyk6Settings.recognise(inner)
    assert len(Janowczyk6Settings(path=str(inner)).load(0).table) == 24


def test_published_lists_split_and_choose(tmp_path):
    settings = Janowczyk6Settings(path=str(write(tmp_path)), cases="published")
    with pytest.raises(BadInput, match=r"cases_train\.txt: there is no such file"):
        settings.load(0)
    (tmp_path / "cases_train.txt").write_text("8863\n12750\n77\n")
    (tmp_path / "cases_val.txt").write_text("9255\n")
    (tmp_path / "cases_test.txt").write_text("16896\r\n8864\r\n")
    benchmark = settings.load(0)
    split_of = {row["patient"]: row["split"] for row in benchmark.table.to_pylist()}
    assert split_of == {"8863": "train", "12750": "train", "9255": "val", "16896": "test", "8864": "test"}
    assert len(benchmark.table) == 20
    assert "4 tiles of patients in no list left out; 1 listed patients have no tiles" in benchmark.split_note
    assert benchmark.split_note.startswith("split as given")
    assert benchmark.is_split_chosen


@pytest.mark.parametrize(
    "name", ["10253_idx5_x1_y1_class2.png", "8863_idx5_x51_y1251_class1.png", "9255_x1_class0.png"]
)
def test_a_tile_in_the_wrong_folder_is_refused(tmp_path, name):
    Image.new("RGB", (50, 50)).save(write(tmp_path) / "9255" / "0" / name)
    with pytest.raises(BadInput, match=rf"9255/0/{name}: expected 9255_idx5_x<x>_y<y>_class0\.png"):
        Janowczyk6Settings(path=str(tmp_path)).load(0)


def test_no_set_is_refused(tmp_path):
    assert not Janowczyk6Settings.recognise(tmp_path)
    with pytest.raises(BadInput, match=r"no <patient>/<0 or 1>/\*\.png"):
        Janowczyk6Settings(path=str(tmp_path)).load(0)


@pytest.mark.real
@pytest.mark.skipif(not REAL.is_dir(), reason="no real labelled sets here")
def test_real_names_say_what_the_manifest_says():
    with (REAL / "manifest.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 921
    for line in lines:
        patient, label = parse_name(Path(line["path"]).name)
        assert (patient, ("non_idc", "idc")[int(label)]) == (line["patient"], line["label"])


@pytest.mark.real
@pytest.mark.skipif(not REAL.is_dir(), reason="no real labelled sets here")
def test_real_tiles_in_the_published_folders(tmp_path):
    for path in REAL.glob("*/*.png"):
        patient, label = parse_name(path.name)
        (tmp_path / patient / label).mkdir(parents=True, exist_ok=True)
        (tmp_path / patient / label / path.name).symlink_to(path)
    benchmark = Janowczyk6Settings(path=str(tmp_path)).load(0)
    assert (len(benchmark.table), len(set(benchmark.table["patient"].to_pylist()))) == (921, 60)
