import csv

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from raypath.benchmarks import IMAGE_SCHEMA, TILE_SCHEMA
from raypath.benchmarks.assembling import assemble
from raypath.benchmarks.facts import Facts
from raypath.benchmarks.splits.leakage import check_leaks, find_leaks
from raypath.benchmarks.splits.making import SplitSettings
from raypath.data.image_rows import ImageRow
from raypath.errors import BadInput

FACTS = Facts(title="set", source="here", licence="none", mpp=None)


def images(*rows):
    """A table of (sample, split, patient, slide, path, box)."""
    names = ("sample", "split", "patient", "slide", "path", "box")
    return pa.Table.from_pylist([dict(zip(names, row)) | {"label": 0} for row in rows], schema=IMAGE_SCHEMA)


def tiles(rows):
    """A table of (split, slide, x_l0, y_l0, extent_l0)."""
    names = ("split", "slide", "x_l0", "y_l0", "extent_l0")
    return pa.Table.from_pylist(
        [dict(zip(names, row)) | {"sample": f"{n:03d}", "label": 0, "slide_mpp": 0.5} for n, row in enumerate(rows)],
        schema=TILE_SCHEMA,
    )


def test_a_patient_and_a_slide_on_two_sides_are_errors_that_name_them_and_their_waiver():
    table = images(
        ("1", "train", "p1", "s1", "a", None),
        ("2", "test", "p1", "s2", "b", None),
        ("3", "val", None, "s2", "c", None),
    )
    with pytest.raises(BadInput) as caught:
        check_leaks(find_leaks(table), (), name="set")
    first, second = str(caught.value).splitlines()
    assert first.startswith("set: 1 patients stand in more than one split: p1 (train, test); a patient belongs to one")
    assert first.endswith('or waive it: benchmark.split.waive=["patient"]')
    assert second.startswith("set: 1 slides stand in more than one split: s2 (val, test); ")
    with pytest.raises(BadInput, match=r"^set: 1 slides"):
        check_leaks(find_leaks(table), ("patient",), name="set")
    note = check_leaks(find_leaks(table), ("patient", "slide"), name="set")
    assert note.startswith("waived: 1 patients stand in more than one split: p1 (train, test); waived: 1 slides")


def test_a_long_list_is_cut_and_counted():
    rows = [
        (f"{n:02d}{split}", split, f"p{n:02d}", None, f"{n}{split}", None)
        for n in range(13)
        for split in ("train", "val")
    ]
    (leak,) = find_leaks(images(*rows))
    assert (leak.num, len(leak.listed)) == (13, 10)
    assert str(leak).endswith("p09 (train, val); ... and 3 more")


def test_boxes_of_one_image_that_share_pixels():
    rows = [
        ("1", "train", None, None, "a", (0, 0, 10, 10)),
        ("2", "test", None, None, "a", (10, 0, 10, 10)),  # touches
        ("3", "test", None, None, "a", (7, 6, 10, 10)),  # 3 x 4 px
        ("4", "val", None, None, "b", (7, 6, 10, 10)),  # another image
        ("5", "val", None, None, "c", None),
        ("6", "train", None, None, "c", (1, 1, 5, 4)),
        ("7", "val", None, None, "d", None),
        ("8", "train", None, None, "d", None),
    ]
    (leak,) = find_leaks(images(*rows))
    assert leak.listed == (
        "1 (train) and 3 (test), 12 px",
        "6 (train) and 5 (val), 20 px",
        "8 (train) and 7 (val), the whole image",
    )


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["train", "val", "test"]),
            st.sampled_from(["a", "b"]),
            st.integers(0, 12),
            st.integers(0, 12),
            st.integers(1, 5),
        ),
        min_size=1,
        max_size=25,
    )
)
def test_overlaps_of_tiles_are_those_of_painted_pixels(rows):
    painted = []
    for _, slide, x, y, extent in rows:
        canvas = np.zeros((2, 20, 20), bool)
        canvas["ab".index(slide), y : y + extent, x : x + extent] = True
        painted.append(canvas)
    expected = sorted(
        int((painted[i] & painted[j]).sum())
        for i in range(len(rows))
        for j in range(i)
        if rows[i][0] != rows[j][0] and (painted[i] & painted[j]).any()
    )
    found = [leak for leak in find_leaks(tiles(rows)) if leak.rule == "overlap"]
    assert [leak.num for leak in found] == ([len(expected)] if expected else [])
    if found and len(expected) <= 10:
        assert sorted(int(text.split(", ")[1].split()[0]) for text in found[0].listed) == expected
        assert "px of level 0" not in found[0].listed[0]
        assert "level 0" in found[0].what


def test_undivided_slides_of_many_tiles_are_quick_and_a_divided_one_is_counted():
    number = np.arange(40_000)
    grid = {"x_l0": number % 200 * 100, "y_l0": number // 200 * 100, "extent_l0": np.full(40_000, 101)}
    split = np.where(number < 20_000, "train", "test")
    table = pa.table(
        {
            "sample": [f"{n:05d}" for n in number],
            "label": np.zeros(40_000, np.int64),
            "patient": pa.nulls(40_000, pa.string()),
            "split": split,
            "content": pa.nulls(40_000, pa.string()),
            "slide": ["s"] * 40_000,
            "slide_mpp": np.full(40_000, 0.5),
            **grid,
            "mask": pa.nulls(40_000, pa.string()),
        },
        schema=TILE_SCHEMA,
    )
    overlap = find_leaks(table)[1]
    assert overlap.num == 200 + 2 * 199  # a row of tiles overlaps the next by 1 px, below and to both sides
    assert overlap.listed[0] == "19800 (train) and 20000 (test), 101 px"


def write_rows(folder, splits, patients=None):
    rows = []
    for number, split in enumerate(splits):
        path = folder / f"{number}.png"
        Image.new("RGB", (2, 2), (number, 0, 0)).save(path)
        rows.append(ImageRow(path.name, path, "ab"[number % 2], split, patients[number] if patients else None))
    return rows


def test_assemble_refuses_a_leak_and_keeps_the_name_of_what_is_waived(tmp_path):
    splits = ["train", "train", "val", "val", "test", "test"]
    rows = write_rows(tmp_path, splits, patients=["p", "q", "r", "s", "p", "t"])
    with pytest.raises(BadInput, match=r"^set: 1 patients stand in more than one split: p \(train, test\)"):
        assemble(rows, FACTS, SplitSettings(), name="set", seed=0)
    benchmark = assemble(rows, FACTS, SplitSettings(waive=("patient",)), name="set", seed=0)
    assert benchmark.waived == ("patient",)
    assert benchmark.tags["raypath.waived"] == "patient"
    assert "waived: 1 patients stand in more than one split: p (train, test)" in benchmark.split_note


def test_assemble_makes_folds_and_keeps_the_parts_of_an_image_together(tmp_path):
    rows = [
        ImageRow(f"{row.sample}#{part}", row.path, row.label, row.split, None, box=(part, 0, 2 - part, 2))
        for row in write_rows(tmp_path, [""] * 30)
        for part in (0, 1)
    ]
    tests = []
    for fold in range(3):
        benchmark = assemble(rows, FACTS, SplitSettings(num_folds=3, fold=fold), name="set", seed=0)
        assert f"fold {fold} of 3 is the test (seed 0)" in benchmark.split_note
        assert "60 of 60 samples have no patient: kept together by image" in benchmark.split_note
        columns = zip(benchmark.table["sample"].to_pylist(), benchmark.table["split"].to_pylist(), strict=True)
        tests.append({sample for sample, split in columns if split == "test"})
    assert [len(test) for test in tests] == [20, 20, 20]
    assert len(set.union(*tests)) == 60


@pytest.mark.real
def test_glas_shares_patients_between_its_train_and_test(real_data):
    folder = real_data / "masks" / "glas"
    with (folder / "manifest.csv").open(newline="", encoding="utf-8-sig") as file:
        lines = list(csv.DictReader(file))
    rows = [
        ImageRow(line["image"], folder / line["image"], line["grade"], line["split"], line["patient"]) for line in lines
    ]
    sides = [{line["patient"] for line in lines if line["split"] == split} for split in ("train", "test")]
    shared = sorted(set.intersection(*sides))
    assert shared
    with pytest.raises(BadInput) as caught:
        assemble(rows, FACTS, SplitSettings(), name="glas", seed=0)
    assert f"glas: {len(shared)} patients stand in more than one split: " in str(caught.value)
    for patient in shared[:10]:
        assert f" {patient} (" in str(caught.value).split("split:")[1]
    waived = assemble(rows, FACTS, SplitSettings(waive=("patient",)), name="glas", seed=0)
    assert waived.tags["raypath.waived"] == "patient"
    mended = assemble(rows, FACTS, SplitSettings(use_given=False), name="glas", seed=0)
    split_of = set(zip(mended.table["patient"].to_pylist(), mended.table["split"].to_pylist(), strict=True))
    assert len(split_of) == len({line["patient"] for line in lines})
