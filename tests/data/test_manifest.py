import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raypath.data.manifest import SlideRow, read_manifest, write_manifest
from raypath.errors import BadInput


@pytest.fixture
def folder(tmp_path):
    for name in ("a.svs", "b.svs", "c d.tiff", "notes.txt"):
        (tmp_path / name).write_bytes(b"x")
    return tmp_path


def write(folder, text, name="manifest.csv"):
    path = folder / name
    path.write_bytes(text.encode("utf-8"))
    return path


def test_a_manifest_with_every_column(folder):
    text = "\ufeffslide,path,patient,site,label,split,mpp\r\ns2,b.svs,p1,north,tumour,train,0.5\r\ns1,a.svs,p1,,,train,\r\n"
    assert read_manifest(write(folder, text)) == [
        SlideRow(slide="s1", path=str(folder / "a.svs"), patient="p1", split="train"),
        SlideRow(
            slide="s2", path=str(folder / "b.svs"), patient="p1", site="north", label="tumour", split="train", mpp=0.5
        ),
    ]


def test_a_folder_is_a_manifest_and_a_slide_without_patient_is_its_own(folder):
    rows = read_manifest(folder)
    assert [(r.slide, r.patient) for r in rows] == [("a", "a"), ("b", "b"), ("c-d", "c-d")]


def test_a_single_slide_is_a_row(folder):
    (row,) = read_manifest(folder / "a.svs")
    assert (row.slide, row.patient, row.path) == ("a", "a", str(folder / "a.svs"))


def test_a_manifest_in_the_folder_is_the_manifest_of_the_folder(folder):
    (folder / "manifest.csv").write_text("slide,path,patient,split\ns1,a.svs,p1,test\n")
    (row,) = read_manifest(folder)
    assert (row.slide, row.patient, row.split, row.path) == ("s1", "p1", "test", str(folder / "a.svs"))


def test_a_folder_may_be_named_relative_to_here(folder, monkeypatch):
    monkeypatch.chdir(folder.parent)
    assert read_manifest(folder.name) == read_manifest(folder)


def test_parquet_reads_like_csv(folder):
    pq.write_table(pa.table({"slide": [1, 2], "path": ["a.svs", "b.svs"], "mpp": [0.25, None]}), folder / "m.parquet")
    assert [(r.slide, r.mpp) for r in read_manifest(folder / "m.parquet")] == [("1", 0.25), ("2", None)]


def test_every_wrong_cell_is_named_at_once(folder):
    text = "slide,path,patient,colour\ns1,a.svs,p,red\ns1,b.svs,p,red\ns3,gone.svs,p,red\n"
    with pytest.raises(BadInput) as caught:
        read_manifest(write(folder, text))
    said = str(caught.value)
    assert caught.value.exit_code == 2
    for part in (
        "column 'colour': unknown",
        "line 3, column 'slide': 's1': already on line 2",
        "line 4, column 'path': 'gone.svs'",
    ):
        assert part in said, said


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("../up,a.svs,p,train,0.5", "expected an id"),
        ("s,a.svs,p,training,0.5", "expected one of train, val, test"),
        ("s,a.svs,p,train,250", "um per px"),
        ("s,a.svs,p,train,nan", "um per px"),
        ('s,a.svs,p,train,"0,25"', "um per px"),
        ("s,,p,train,0.5", "expected a file"),
        ("s,a.svs,p,train,0.5,surplus", "(no column)"),
    ],
)
def test_wrong_cells(folder, row, said):
    with pytest.raises(BadInput) as caught:
        read_manifest(write(folder, f"slide,path,patient,split,mpp\n{row}\n"))
    assert said in str(caught.value)


def test_the_same_file_under_two_names_and_a_patient_in_two_splits(folder):
    with pytest.raises(BadInput, match="already on line 2; every slide once"):
        read_manifest(write(folder, f"slide,path\ns1,a.svs\ns2,{folder}/a.svs\n"))
    with pytest.raises(BadInput, match="patient 'p' is in test and train"):
        read_manifest(write(folder, "slide,path,patient,split\ns1,a.svs,p,train\ns2,b.svs,p,test\n"))


def test_only_the_first_ten_of_many(folder):
    rows = "".join(f"s{i},gone{i}.svs\n" for i in range(30))
    with pytest.raises(BadInput, match="30 thing.*\n(.*\n){10}... and 20 more"):
        read_manifest(write(folder, f"slide,path\n{rows}"))


@pytest.mark.parametrize("text", ["", "slide,path\n", "slide,path\n,\n"])
def test_a_manifest_without_slides_is_an_error(folder, text):
    with pytest.raises(BadInput):
        read_manifest(write(folder, text))


def test_a_written_manifest_reads_back(folder):
    rows = read_manifest(folder)
    write_manifest(rows, folder / "out.csv")
    assert read_manifest(folder / "out.csv") == rows


@given(st.text(max_size=60))
def test_any_text_is_rows_or_a_clear_error(tmp_path_factory, text):
    path = tmp_path_factory.mktemp("any") / "m.csv"
    path.write_text(text, encoding="utf-8")
    try:
        rows = read_manifest(path)
    except BadInput as error:
        assert str(path) in str(error)
    else:
        assert all(row.slide for row in rows)
