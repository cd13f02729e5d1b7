"""Tables as programs write them, read alike; and what is no table, refused with file and line."""

import pytest

from raypath.data.csv_files import csv_lines, csv_table
from raypath.errors import BadInput

ROWS = [(2, {"name": "a", "place": "x, y"}), (4, {"name": "b", "place": ""})]


@pytest.mark.parametrize(
    "text",
    [
        'name,place\na,"x, y"\n\nb,\n',
        'name,place\r\na,"x, y"\r\n,\r\nb,\r\n',
        '\ufeffname,place\na,"x, y"\n\nb\n',
        ' Name ,PLACE\na , "x, y"\n,,,\nb\n'.replace(' "x, y"', '"x, y"'),
        'id,place,other,name\n1,"x, y",,a\n\n2,,z,b',
    ],
)
def test_the_same_table_in_several_hands(tmp_path, text):
    path = tmp_path / "my table.csv"
    path.write_bytes(text.encode())
    assert csv_table(path, ("name", "place")) == ROWS


def test_lines_of_another_delimiter(tmp_path):
    path = tmp_path / "fold.txt"
    path.write_text("a.png|40| train\n\nb.png|100|test\n")
    assert csv_lines(path, delimiter="|") == [(1, ["a.png", "40", "train"]), (3, ["b.png", "100", "test"])]


@pytest.mark.parametrize(
    "content", ["name,place\na,é\n".encode("utf-16"), "name,place\na,é\n".encode("cp1252"), b"\xff\x00"]
)
def test_what_is_no_text_in_utf_8_is_refused(tmp_path, content):
    path = tmp_path / "table.csv"
    path.write_bytes(content)
    for read in (csv_lines, lambda path: csv_table(path, ("name",))):
        with pytest.raises(BadInput, match=r"table\.csv: cannot be read .*; expected text in UTF-8"):
            read(path)


@pytest.mark.parametrize("text", ["", "\n", "place,other\nx,y\n"])
def test_a_column_that_is_not_there(tmp_path, text):
    (tmp_path / "table.csv").write_text(text)
    with pytest.raises(
        BadInput, match=r"table\.csv: line 1: no column name; expected name, Place|no column name, Place"
    ):
        csv_table(tmp_path / "table.csv", ("name", "Place"))
