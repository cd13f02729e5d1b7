"""LC25000: a miniature of the archive, with and without its groups, and what is refused."""

import shutil

import pytest
from PIL import Image

from raypath.benchmarks.published.lc25000 import LC25000Settings
from raypath.errors import BadInput

FOLDERS = {
    "lung_image_sets/lung_aca": "lungaca",
    "lung_image_sets/lung_n": "lungn",
    "lung_image_sets/lung_scc": "lungscc",
    "colon_image_sets/colon_aca": "colonca",
    "colon_image_sets/colon_n": "colonn",
}
NUM_TILES, NUM_ORIGINALS = 20, 5  # of each class


@pytest.fixture
def folder(tmp_path):
    home = tmp_path / "lung_colon_image_set"
    for number, (name, prefix) in enumerate(FOLDERS.items()):
        (home / name).mkdir(parents=True)
        for tile in range(1, NUM_TILES + 1):
            Image.new("RGB", (8, 8), (40 * number, 10 * tile, 0)).save(home / name / f"{prefix}{tile}.jpeg")
    return tmp_path


def write_groups(folder):
    lines = ["stem,filename,label,tissue,local_cluster_label,group_id"]
    for number, (name, prefix) in enumerate(FOLDERS.items()):
        label = name.split("/")[1]
        for tile in range(1, NUM_TILES + 1):
            group = tile % NUM_ORIGINALS
            stem = f"{prefix}{tile}"
            lines.append(f"{stem},{stem}.jpeg,{label},{label.split('_')[0]},{group},{number * NUM_ORIGINALS + group}")
    (folder / "lc25000_image_groups.csv").write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize("below", ["", "lung_colon_image_set"])
def test_five_classes_and_a_warning(folder, below):
    assert LC25000Settings.recognise(folder / below)
    benchmark = LC25000Settings(path=str(folder / below)).load(0)
    assert benchmark.classes == ("lung_aca", "lung_n", "lung_scc", "colon_aca", "colon_n")
    assert len(benchmark.table) == 100
    assert benchmark.mpp is None
    assert not benchmark.has_patients
    assert "no lc25000_image_groups.csv: tiles made from the same one are in several splits" in benchmark.split_note
    assert "images 100 (published: 25,000)" in benchmark.tags["raypath.data"]
    assert all(row["path"].split("/")[-2] == benchmark.classes[row["label"]] for row in benchmark.table.to_pylist())


def test_groups_are_never_divided(folder):
    write_groups(folder)
    benchmark = LC25000Settings(path=str(folder), organ="lung").load(0)
    assert benchmark.name == "lc25000-lung"
    assert benchmark.classes == ("lung_aca", "lung_n", "lung_scc")
    splits = {}
    for row in benchmark.table.to_pylist():
        splits.setdefault(row["patient"], set()).add(row["split"])
    assert len(splits) == 3 * NUM_ORIGINALS
    assert all(len(found) == 1 for found in splits.values())
    assert "lc25000_image_groups.csv" not in benchmark.split_note
    assert {count.what: count.published for count in benchmark.built}["images"] == 15_000


def test_what_is_damaged_is_refused(folder):
    write_groups(folder)
    groups = folder / "lc25000_image_groups.csv"
    text = groups.read_text()
    groups.write_text(text.replace("lungn7,lungn7.jpeg,", "lungn7,lungn_7.jpeg,"))
    with pytest.raises(BadInput, match=r"lc25000_image_groups\.csv: no line for lung_n,lungn7\.jpeg"):
        LC25000Settings(path=str(folder)).load(0)
    LC25000Settings(path=str(folder), organ="colon").load(0)
    groups.write_text(text.replace("group_id", "group"))
    with pytest.raises(BadInput, match=r"line 1: no column group_id"):
        LC25000Settings(path=str(folder)).load(0)
    groups.unlink()
    shutil.rmtree(folder / "lung_colon_image_set" / "colon_image_sets")
    with pytest.raises(BadInput, match=r"colon_image_sets: there is no such folder"):
        LC25000Settings(path=str(folder)).load(0)
