import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from raypath.benchmarks import IMAGE_SCHEMA, Benchmark, ImagesSettings, load_images
from raypath.benchmarks.benchmark import primary_metric
from raypath.benchmarks.splits.making import SplitSettings
from raypath.errors import BadInput

REAL = Path(os.environ.get("RAYPATH_REAL_DATA", Path(__file__).parents[3] / "shared" / "data")) / "labelled"
REAL_SETS = {
    "pcam": (520, 2, False, ()),
    "idc": (921, 2, True, ()),
    "lc25000_lung": (480, 3, False, ()),
    "crc_polyp5": (650, 5, False, ()),
    "wbc_jtsc": (299, 4, False, ("basophil",)),
}


def write_images(folder, names):
    """Tiny images, each with contents of its own."""
    for number, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (2, 2), (number % 256, number // 256, 7)).save(path)


def write_manifest(folder, lines, header="path,label"):
    (folder / "manifest.csv").write_text("\n".join([header, *lines]) + "\n")


@pytest.fixture
def folder(tmp_path):
    write_images(tmp_path, [f"{label}/{i}.png" for label in ("a", "b") for i in range(10)])
    return tmp_path


def all_lines():
    return [f"{label}/{i}.png,{label}" for label in ("a", "b") for i in range(10)]


def test_class_folders_are_a_benchmark(folder):
    (folder / "a" / "notes.txt").write_text("not an image")
    benchmark = load_images(folder, name="tiny", mpp=0.5)
    assert benchmark.classes == ("a", "b")
    assert benchmark.counts() == {
        "train": {"a": 6, "b": 6},
        "val": {"a": 2, "b": 2},
        "test": {"a": 2, "b": 2},
    }
    rows = benchmark.rows("train")
    assert rows.schema == IMAGE_SCHEMA
    assert Path(rows["path"][0].as_py()).is_file()
    assert benchmark.groups("val") == benchmark.rows("val")["sample"].to_pylist()
    assert not benchmark.has_patients
    assert "60/20/20" in benchmark.split_note
    assert "image-level" in benchmark.split_note


def test_split_folders_that_hold_class_folders(tmp_path):
    write_images(tmp_path, [f"{s}/{c}/{i}.png" for s in ("train", "val", "test") for c in "ab" for i in range(3)])
    benchmark = load_images(tmp_path)
    assert benchmark.split_note.startswith("split as given")
    assert benchmark.counts()["test"] == {"a": 3, "b": 3}


def test_what_archives_leave_behind_is_no_class_no_split_and_no_image(folder):
    expected = load_images(folder)
    for place in (
        "__MACOSX/a/._0.png",
        ".ipynb_checkpoints/a/0.png",
        "a/._0.png",
        "a/.ipynb_checkpoints/0-checkpoint.png",
    ):
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        (folder / place).write_bytes(b"\0\5\x16\7")
    (folder / "Thumbs.db").write_bytes(b"x")
    assert load_images(folder).data_hash == expected.data_hash


@pytest.mark.parametrize(
    "splits", [("train", "valid", "test"), ("Train", "Test"), ("train", "val", "test", "docs"), ("training",)]
)
def test_splits_of_other_names_are_not_learned_as_classes(tmp_path, splits):
    write_images(tmp_path, [f"{s}/{c}/{i}.png" for s in splits for c in "ab" for i in range(5)])
    with pytest.raises(BadInput, match=r"splits or classes\? Expected train, val, test and nothing else"):
        load_images(tmp_path)


def test_a_folder_around_the_set_is_named(tmp_path):
    write_images(tmp_path, [f"my set/{c}/{i}.png" for c in "ab" for i in range(5)])
    with pytest.raises(BadInput, match=r"has only the folder my set; .* name it: .*/my set"):
        load_images(tmp_path)
    assert load_images(tmp_path / "my set").classes == ("a", "b")


def test_a_header_in_capitals_or_with_spaces_is_the_same(folder):
    lines = [f"{line},p{number}" for number, line in enumerate(all_lines())]
    write_manifest(folder, lines, "path,label,patient")
    expected = load_images(folder)
    for header in ("Path, Label ,Patient", " IMAGE,LABEL,patient "):
        write_manifest(folder, lines, header)
        found = load_images(folder)
        assert found.data_hash == expected.data_hash
        assert "not used" not in found.split_note
    write_manifest(folder, lines, "path,label,label")
    with pytest.raises(BadInput, match=r"manifest\.csv: line 1: the column 'label' is there twice"):
        load_images(folder)


def test_paths_of_windows_are_refused_with_the_remedy(folder):
    write_manifest(folder, [line.replace("/", "\\") for line in all_lines()])
    with pytest.raises(BadInput, match=r"write / for \\"):
        load_images(folder)


def test_the_test_is_behind_a_door(folder):
    with pytest.raises(BadInput, match="open_test"):
        load_images(folder).rows("test")
    with pytest.raises(BadInput, match="open_test"):
        load_images(folder).groups("test")
    with pytest.raises(BadInput, match="unknown split 'dev'"):
        load_images(folder).rows("dev")


def test_the_hash_follows_contents_not_order_or_place(folder, tmp_path_factory):
    lines = all_lines()
    write_manifest(folder, lines)
    first = load_images(folder)
    write_manifest(folder, lines[::-1])
    assert load_images(folder).data_hash == first.data_hash
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "set"
    folder.rename(elsewhere)
    assert load_images(elsewhere).data_hash == first.data_hash
    Image.new("RGB", (2, 2), (1, 2, 3)).save(elsewhere / "a" / "0.png")
    assert load_images(elsewhere).data_hash != first.data_hash


def test_bom_crlf_other_columns_and_parquet(folder):
    table = "path,label,stain\r\n" + "".join(f"{line},he\r\n" for line in all_lines())
    (folder / "manifest.csv").write_bytes(b"\xef\xbb\xbf" + table.encode())
    from_csv = load_images(folder)
    assert "columns not used: stain" in from_csv.split_note
    path, label = zip(*(line.split(",") for line in all_lines()), strict=True)
    pq.write_table(pa.table({"path": path, "label": label}), folder / "other.parquet")
    assert load_images(folder / "other.parquet").data_hash == from_csv.data_hash


def test_every_wrong_cell_is_named_with_line_column_and_value(folder):
    (folder / "a" / "empty.png").touch()
    (folder / "a" / "link.png").symlink_to("/etc/hostname")
    wrong = ["a/0.png,,train", "a/1.png,a,dev", "a/gone.png,a,train", "a/2.png,a,train", "./a/2.png,a,train"]
    wrong += ["../x.png,a,train", "a/link.png,a,train", "a/empty.png,a,train", "a/3.png,nan,train", "a/4.png,a,"]
    write_manifest(folder, [*wrong, ",a,train", "/etc/hostname,b,train"], header="path,label,split")
    with pytest.raises(BadInput) as caught:
        load_images(folder)
    lines = str(caught.value).splitlines()
    assert caught.value.exit_code == 2
    assert "manifest.csv: 11 thing(s) to mend" in lines[0]
    expected = [
        "line 2, column label: '': expected a class name",
        "line 3, column split: 'dev': expected one of train, val, test",
        "line 4, column path: 'a/gone.png': there is no such file",
        "line 6, column path: './a/2.png': already on line 5",
        "line 7, column path: '../x.png': leads out of",
        "line 8, column path: 'a/link.png': leads out of",
        "line 9, column path: 'a/empty.png': the file is empty",
        "line 10, column label: '': expected a class name",
        "line 11, column split: '': expected a split",
        "line 12, column path: '': expected the path of an image",
        "... and 1 more",
    ]
    assert [line[: len(start)] for line, start in zip(lines[1:], expected, strict=True)] == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the file is empty"),
        ("path,label\n", "no images below the header"),
        ("path;label\na;b\n", "no column path and label among path;label; separate the columns with commas"),
        ("file,label\na,b\n", "no column path among file, label"),
    ],
)
def test_a_manifest_of_another_shape(tmp_path, text, message):
    (tmp_path / "manifest.csv").write_text(text)
    with pytest.raises(BadInput, match=message):
        load_images(tmp_path)


def test_a_patient_in_two_splits_is_listed_and_a_split_by_patient_is_the_remedy(folder):
    lines = [f"{line},p{i % 5},{'train' if i < 15 else 'test'}" for i, line in enumerate(all_lines())]
    write_manifest(folder, lines, header="path,label,patient,split")
    with pytest.raises(
        BadInput,
        match=r"5 patients stand in more than one split: p0 \(train, test\).*benchmark\.split\.use_given=false",
    ):
        load_images(folder)
    benchmark = load_images(folder, ignore_split=True)
    split_of = set(zip(benchmark.table["patient"].to_pylist(), benchmark.table["split"].to_pylist(), strict=True))
    assert len(split_of) == 5


def test_the_classes_may_stand_in_a_column_of_another_name(folder):
    lines = [f"{line.replace(',', f',{i % 2},')}" for i, line in enumerate(all_lines())]
    write_manifest(folder, lines, header="path,grade,tissue")
    with pytest.raises(BadInput, match=r"grade or tissue \(benchmark\.label=grade"):
        ImagesSettings(path=str(folder)).load(0)
    assert ImagesSettings(path=str(folder), label="grade").load(0).classes == ("0", "1")
    assert ImagesSettings(path=str(folder), label="tissue").load(0).classes == ("a", "b")


def test_a_class_too_small_for_three_splits_names_the_remedy(folder):
    write_images(folder, ["rare/0.png"])
    with pytest.raises(BadInput, match=r'rare. has 1 samples.*benchmark\.drop_classes=\["rare"\]'):
        load_images(folder)
    benchmark = load_images(folder, drop_classes=("rare",))
    assert benchmark.classes == ("a", "b")
    assert "left out: rare" in benchmark.split_note
    with pytest.raises(BadInput, match="drop_classes names c; the classes are a, b, rare"):
        load_images(folder, drop_classes=("c",))


def test_exact_copies_stay_together_and_are_said(folder):
    write_images(folder / "more", [f"{i}.png" for i in range(30)])
    for i in range(10):
        (folder / "a" / f"copy{i}.png").write_bytes((folder / "a" / f"{i}.png").read_bytes())
    (folder / "more").rename(folder.parent / "aside")
    benchmark = load_images(folder)
    assert "10 images have exact copies (0 across splits, 0 with two labels)" in benchmark.split_note


def test_numbers_as_class_names_are_ordered_as_numbers(tmp_path):
    write_images(tmp_path, [f"{c}/{i}.png" for c in (10, 2, 1) for i in range(5)])
    assert load_images(tmp_path).classes == ("1", "2", "10")


def test_the_primary_metric():
    assert primary_metric([0] * 6 + [1] * 4, 2) == "balanced_accuracy"
    assert primary_metric([0] * 7 + [1] * 3, 2) == "auroc"
    assert primary_metric([0] * 9 + [1, 2], 3) == "balanced_accuracy"


def test_one_class_in_two_spellings_is_not_two(folder):
    lines = [line.replace("0.png,a", "0.png,A") for line in all_lines()]
    write_manifest(folder, lines)
    with pytest.raises(BadInput, match="the classes A and a differ only in capitals"):
        load_images(folder)


def test_one_of_k_folds_is_a_split_that_somebody_chose(folder):
    assert load_images(folder, split=SplitSettings(num_folds=4, fold=1)).is_split_chosen
    assert not load_images(folder).is_split_chosen


def test_grades_are_in_their_order_and_scored_by_kappa(tmp_path):
    write_images(tmp_path, [f"{grade}/{i}.png" for grade in ("low", "mid", "high") for i in range(10)])
    benchmark = ImagesSettings(path=str(tmp_path), grades=("low", "mid", "high")).load(0)
    assert (benchmark.classes, benchmark.primary) == (("low", "mid", "high"), "quadratic_kappa")
    assert {row["sample"].split("/")[0]: row["label"] for row in benchmark.table.to_pylist()} == {
        "low": 0,
        "mid": 1,
        "high": 2,
    }
    assert ImagesSettings(path=str(tmp_path)).load(0).primary == "balanced_accuracy"
    with pytest.raises(BadInput, match="found the classes mid; expected low, high"):
        ImagesSettings(path=str(tmp_path), grades=("low", "high")).load(0)
    with pytest.raises(BadInput, match="no image has the grade none; leave it out"):
        ImagesSettings(path=str(tmp_path), grades=("none", "low", "mid", "high")).load(0)


def test_write_split(folder, tmp_path):
    path = load_images(folder).write_split(tmp_path / "run")
    lines = path.read_text().splitlines()
    assert lines[0] == "sample,label,patient,split"
    assert len(lines) == 21
    assert lines[1].startswith("a/0.png,a,,")


@pytest.mark.real
@pytest.mark.skipif(not REAL.is_dir(), reason=f"no labelled sets at {REAL}; set RAYPATH_REAL_DATA")
@pytest.mark.parametrize("name", REAL_SETS)
def test_the_real_sets_load_as_they_are(name):
    num_samples, num_classes, has_patients, drop_classes = REAL_SETS[name]
    benchmark = load_images(REAL / name, drop_classes=drop_classes)
    assert isinstance(benchmark, Benchmark)
    assert (len(benchmark.table), len(benchmark.classes)) == (num_samples, num_classes)
    assert (benchmark.name, benchmark.has_patients) == (name, has_patients)
    assert all(count > 0 for counts in benchmark.counts().values() for count in counts.values())
