"""A table says the same in its three forms, and no text of it is taken for markup."""

import csv
import io
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raypath.study.tables import Noted, Range, Spread, Table

TABLE = Table(
    columns=("task", "n", "score", "gain_%"),
    rows=(
        ("Lung & co", 5443, Spread(75.046, 0.7), Range(-3.1, -4.95, 1.2, digits=1)),
        ("Glom <b>", 12, Noted(Spread(99.5), ("one run", "by slide")), None),
        ("Br{1}_2", None, Noted(None, ("by slide",)), Range(0.0, -1.0, 1.0, digits=1)),
    ),
    caption="50 % of [it]",
    missing="not measured",
    footnotes=("the whole: a ~ b",),
)


def test_csv_has_numbers_in_columns_of_their_own_and_gaps():
    assert TABLE.csv().splitlines() == [
        "task,n,score,score sigma,gain_%,gain_% low,gain_% high,notes",
        "Lung & co,5443,75.05,0.70,-3.1,-5.0,1.2,",
        "Glom <b>,12,99.50,,,,,one run; by slide",
        "Br{1}_2,,,,0.0,-1.0,1.0,by slide",
    ]


def test_latex_is_escaped_and_says_what_is_missing():
    lines = TABLE.latex().splitlines()
    assert lines[3] == r"\begin{tabular}{@{}lrrr@{}}"
    assert lines[2] == r"\caption{50 \% of {[}it]}"
    assert lines[5] == r"task & n & score & gain\_\% \\"
    assert lines[7:10] == [
        r"Lung \& co & 5,443 & $75.05 \pm 0.70$ & $-3.1 [-5.0, 1.2]$ \\",
        r"Glom \textless{}b\textgreater{} & 12 & $99.50$\tnote{a,b} & -- \\",
        r"Br\{1\}\_2 & -- & --\tnote{b} & $0.0 [-1.0, 1.0]$ \\",
    ]
    assert lines[12:-1] == [
        r"\begin{tablenotes}\footnotesize",
        r"\item[a] one run",
        r"\item[b] by slide",
        r"\item --: not measured",
        r"\item the whole: a \textasciitilde{} b",
        r"\end{tablenotes}",
    ]


def test_html_is_well_formed_and_escaped():
    root = ElementTree.fromstring(TABLE.html())
    cells = [["".join(cell.itertext()) for cell in row] for row in root.find("tbody")]
    assert cells == [
        ["Lung & co", "5,443", "75.05 ± 0.70", "−3.1 [−5.0, 1.2]"],
        ["Glom <b>", "12", "99.50a,b", "–"],
        ["Br{1}_2", "–", "–b", "0.0 [−1.0, 1.0]"],
    ]
    foot = root.find("tfoot/tr/td")
    assert foot.get("colspan") == "4"
    assert "".join(foot.itertext()) == "a one runb by slide–: not measuredthe whole: a ~ b"
    assert [cell.get("class") for cell in root.find("tbody")[0]] == [None, "number", "number", "number"]
    assert [cell.get("class") for cell in root.find("thead/tr")] == [None, "number", "number", "number"]
    assert [cell.get("data-name") for cell in root.find("tbody")[0]] == ["task", "n", "score", "gain_%"]


def test_a_table_without_notes_has_no_foot():
    plain = Table(columns=("a", "b"), rows=(("x", 1),))
    assert "tablenotes" not in plain.latex()
    assert "caption" not in plain.latex()
    assert "tfoot" not in plain.html()
    assert plain.csv() == "a,b\nx,1\n"


def test_many_notes_have_a_letter_each():
    many = Table(columns=("a",), rows=tuple((Noted("x", (f"note {k}",)),) for k in range(28)))
    assert r"x\tnote{z}" in many.latex()
    assert r"\item[ab] note 27" in many.latex()


def test_a_row_of_another_length_is_refused():
    with pytest.raises(ValueError, match="row 1 has 1 cells; the table has 2 columns"):
        Table(columns=("a", "b"), rows=(("x", 1), ("y",)))


TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs", "Cn")), max_size=20)


@given(st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=5))
def test_any_text_comes_back(rows):
    table = Table(columns=("first", "second"), rows=tuple(rows))
    assert [tuple(row) for row in csv.reader(io.StringIO(table.csv()))][1:] == rows
    body = ElementTree.fromstring(table.html()).find("tbody")
    assert [tuple("".join(cell.itertext()) for cell in row) for row in body] == rows
    for line in table.latex().split("\\midrule\n")[1].split("\n")[: len(rows)]:
        assert line.replace(r"\&", "").count("&") == 1
