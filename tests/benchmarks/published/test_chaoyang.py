"""Chaoyang: a miniature of its two tables and their tiles, and what is refused."""

import json
from pathlib import Path

import pytest
from PIL import Image

from raypath.benchmarks.audit import kinds_of
from raypath.benchmarks.published.chaoyang import ChaoyangSettings
from raypath.errors import BadInput

SLIDES = {"train": ["353042_4", "538880-3", "538897-1", "538897_2", "535940"], "test": ["541500", "543003_1"]}


@pytest.fixture
def folder(tmp_path):
    number = 0
    for part, slides in SLIDES.items():
        (tmp_path / part).mkdir()
        entries = []
        for slide in slides:
            for label in range(4):
                name = f"{part}/{slide}-IMG{number:03}x014-{label}.JPG"
                Image.new("RGB", (8, 8), (10 * label, 8 * number, 0)).save(tmp_path / name, quality=100)
                entries.append({"label": label, "name": name})
                number += 1
        (tmp_path / f"{part}.json").write_text(json.dumps(entries))
    return tmp_path


def test_the_tables_say_class_and_split_and_names_the_case(folder):
    assert kinds_of(folder) == [ChaoyangSettings]
    benchmark = ChaoyangSettings(path=str(folder)).load(0)
    assert benchmark.classes == ("normal", "serrated", "adenocarcinoma", "adenoma")
    assert benchmark.mpp is None
    rows = benchmark.table.to_pylist()
    assert len(rows) == 28
    for row in rows:
        name = Path(row["sample"]).name
        assert row["label"] == int(name[-5])
        assert row["slide"] == name.partition("-IMG")[0]
        assert row["patient"] == name[:6]
        assert (row["split"] == "test") == row["sample"].startswith("test/")
        assert abs(Image.open(row["path"]).getpixel((4, 4))[0] - 10 * row["label"]) <= 2
    of_case = {row["split"] for row in rows if row["patient"] == "538897"}
    assert len(of_case) == 1  # two slides of one case
    assert {row["split"] for row in rows} == {"train", "val", "test"}
    assert {c.what: (c.built, c.published) for c in benchmark.built} == {
        "images": (28, 6160),
        "train": (20, 4021),
        "test": (8, 2139),
        "patients": (6, None),
    }


def test_a_case_on_both_sides_is_listed(folder):
    shared = "test/353042_9-IMG099x001-0.JPG"
    Image.new("RGB", (8, 8), (1, 2, 3)).save(folder / shared)
    entries = json.loads((folder / "test.json").read_text())
    (folder / "test.json").write_text(json.dumps([*entries, {"label": 0, "name": shared}]))
    with pytest.raises(BadInput, match=r"1 patients stand in more than one split: 353042 \(t"):
        ChaoyangSettings(path=str(folder)).load(0)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('"label": 3', '"label": 4', r'train\.json: entry 4: .*expected .*"label": 0 to 3'),
        ('"label": 2', '"label": "2"', r"train\.json: entry 3: "),
        ("IMG001x014", "IMG777x014", r"train\.json: entry 2: no train/353042_4-IMG777x014-1\.JPG, or named twice"),
        ('{"label": 0, "name": "train/353042_4-IMG000x014-0.JPG"}, ', "", r"train\.json does not name it"),
        ("[", "{", r"train\.json: cannot be read"),
    ],
)
def test_what_does_not_belong_together_is_refused(folder, old, new, said):
    table = folder / "train.json"
    table.write_text(table.read_text().replace(old, new, 1))
    with pytest.raises(BadInput, match=said):
        ChaoyangSettings(path=str(folder)).load(0)


def test_other_names_and_lost_folders_are_refused(folder):
    (folder / "test" / "541500-IMG020x014-0.JPG").rename(folder / "test" / "tile.JPG")
    table = folder / "test.json"
    table.write_text(table.read_text().replace("541500-IMG020x014-0", "tile"))
    with pytest.raises(BadInput, match=r"tile\.JPG: expected a name as 538880-3-IMG031x022-1\.JPG"):
        ChaoyangSettings(path=str(folder)).load(0)
    table.write_text("7")
    with pytest.raises(BadInput, match=r"test\.json: expected a list of names and labels, found a int"):
        ChaoyangSettings(path=str(folder)).load(0)
    (folder / "train").rename(folder / "training")
    assert not ChaoyangSettings.recognise(folder)
    with pytest.raises(BadInput, match=r"train: there is no such folder"):
        ChaoyangSettings(path=str(folder)).load(0)
