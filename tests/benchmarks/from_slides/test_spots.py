"""Tiles around spots: where they lie, who is held out, and her2st itself."""

import pytest

from raypath.benchmarks.from_slides.spots import SpotsSettings
from raypath.benchmarks.settings import KINDS
from raypath.errors import BadInput
from raypath.slides import Slide
from tests.benchmarks.from_slides.small_slides import write_slide

SETTINGS = {"extent_um": 60.0, "extent_px": 30}
POINTS = [(100.4, 200.6, "0"), (300, 300, "1"), (400, 100, "10"), (20, 300, "0"), (15, 15, "1")]


def write_section(folder, name, seed, points=POINTS, mpp=1.5):
    write_slide(folder / f"{name}.tiff", (50, 50, 450, 450), mpp=mpp, seed=seed)
    lines = ["pixel_x,pixel_y,expression_cluster", *(f"{x},{y},{label}" for x, y, label in points)]
    (folder / f"{name}.spots.csv").write_text("\n".join(lines) + "\n")


@pytest.fixture
def folder(tmp_path):
    for seed, name in enumerate(("C2", "C3", "C4")):
        write_section(tmp_path, name, seed)
    write_slide(tmp_path / "no_spots.tiff", (0, 0, 10, 10), mpp=1.5)
    return tmp_path


def test_a_tile_is_centred_on_its_spot_and_inside_its_slide(folder):
    benchmark = SpotsSettings(path=str(folder), **SETTINGS).load(0)
    assert benchmark.classes == ("0", "1", "10")
    assert benchmark.mpp == pytest.approx(2.0)
    rows = [row for row in benchmark.table.to_pylist() if row["patient"] == "C2"]
    assert {row["extent_l0"] for row in rows} == {40}
    corners = {(row["x_l0"], row["y_l0"]): row["label"] for row in rows}
    assert corners == {(80, 181): 0, (280, 280): 1, (380, 80): 2, (0, 280): 0}
    assert "3 spots left out: their tile would leave the slide" in benchmark.split_note
    with Slide.open(rows[0]["slide"]) as slide:
        assert slide.read(rows[0]["x_l0"], rows[0]["y_l0"], 40, 30).shape == (30, 30, 3)


def splits_of(benchmark):
    return dict(sorted(set(zip(benchmark.table["patient"].to_pylist(), benchmark.table["split"].to_pylist()))))


def test_slides_are_named_or_one_is_left_out(folder):
    named = SpotsSettings(path=str(folder), **SETTINGS, train=("C4",), val=("C2",), test=("C3",)).load(0)
    assert splits_of(named) == {"C2": "val", "C3": "test", "C4": "train"}
    rotated = [splits_of(SpotsSettings(path=str(folder), **SETTINGS, leave_out=n).load(0)) for n in range(3)]
    assert rotated == [
        {"C2": "test", "C3": "val", "C4": "train"},
        {"C2": "train", "C3": "test", "C4": "val"},
        {"C2": "val", "C3": "train", "C4": "test"},
    ]
    assert "one patient" in named.split_note
    assert named.tags["raypath.patients"] == "one patient"
    several = SpotsSettings(path=str(folder), **SETTINGS, is_one_patient=False).load(0)
    assert "one patient" not in several.split_note
    assert several.tags == {}


def test_classes_can_be_left_out(folder):
    benchmark = SpotsSettings(path=str(folder), **SETTINGS, drop_classes=("10",)).load(0)
    assert benchmark.classes == ("0", "1")
    assert len(benchmark.table) == 9
    with pytest.raises(BadInput, match="drop_classes names 11; the classes are 0, 1, 10"):
        SpotsSettings(path=str(folder), **SETTINGS, drop_classes=("11",)).load(0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"train": ("C2",), "val": ("C3",), "test": ("C9",)}, "expected each of C2, C3, C4 at most once"),
        ({"train": ("C2",), "val": ("C3",), "test": ("C2",)}, "expected each of C2, C3, C4 at most once"),
        ({"train": ("C2",), "val": ("C3",)}, "none in test"),
        ({"leave_out": 3}, "3 slides with a .spots.csv, leave_out=3; expected at least 3, and one of 0 to 2"),
        ({"x": "x"}, r"C2\.spots\.csv: line 1: 0 columns for x"),
        ({"extent_um": 0.0}, "extent_um=0.0"),
    ],
)
def test_what_cannot_be_is_refused(folder, settings, message):
    with pytest.raises(BadInput, match=message):
        SpotsSettings(**{"path": str(folder), **SETTINGS, **settings}).load(0)


def test_damaged_spots_are_refused(folder):
    write_section(folder, "C3", 1, [*POINTS, (100.4, 200.6, "1")])
    with pytest.raises(BadInput, match=r"C3\.tiff: spots at the same place \(C3/80-181\)"):
        SpotsSettings(path=str(folder), **SETTINGS).load(0)
    write_section(folder, "C3", 1, [("x", 2, "1")])
    with pytest.raises(BadInput, match=r"C3\.spots\.csv: line 2, column pixel_x: 'x'"):
        SpotsSettings(path=str(folder), **SETTINGS).load(0)


def test_it_is_chosen_by_its_kind(folder, tmp_path):
    assert SpotsSettings in KINDS
    assert SpotsSettings.recognise(folder)
    assert not SpotsSettings.recognise(tmp_path / "none")


@pytest.mark.real
def test_her2st_is_one_patient_with_548_spots(real_data):
    slides = {"train": ("her2st_C2",), "val": ("her2st_C3",), "test": ("her2st_C4",)}
    benchmark = SpotsSettings(path=str(real_data / "slides"), **slides).load(0)
    counts = {split: sum(found.values()) for split, found in benchmark.counts().items()}
    assert benchmark.classes == tuple("0123456")
    assert counts == {"train": 185, "val": 179, "test": 184}
    assert benchmark.counts()["train"] == {"0": 36, "1": 34, "2": 34, "3": 25, "4": 24, "5": 18, "6": 14}
    assert "one patient" in benchmark.split_note
    row = benchmark.rows("train").slice(0, 1).to_pylist()[0]
    assert row["extent_l0"] == round(160 / row["slide_mpp"])
    with Slide.open(row["slide"]) as slide:
        assert slide.read(row["x_l0"], row["y_l0"], row["extent_l0"], 224).shape == (224, 224, 3)
