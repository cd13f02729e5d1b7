"""A table of results, and how it is written for a spreadsheet, a paper and a page.

One decision: a cell is a value, not a text. A mean with its sigma, an estimate with its interval and what is not known (None) keep
what they are until they are written, so that the three forms say the same: CSV has the numbers in columns of their own and an
empty cell where nothing is known; LaTeX (booktabs, threeparttable) and HTML have "75.05 +- 0.70", "3.1 [1.2, 4.9]" and "--", and
say below what "--" means. A remark belongs to its cell (`Noted`) and is numbered by the table. What it costs: all of it is in
memory.
"""

import csv
import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from markupsafe import Markup, escape

NUMBER = ' class="number"'
_LATEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "[": "{[}",  # else \\ before it would take it for its argument
    "µ": r"\textmu{}",
    "\n": " ",
}


@dataclass(frozen=True)
class Spread:
    """A mean and the standard deviation beside it, in one unit; `sigma` None: there is none (a single run)."""

    mean: float
    sigma: float | None = None
    digits: int = 2
    """Decimals of both."""


@dataclass(frozen=True)
class Range:
    """An estimate with its interval, in one unit."""

    estimate: float
    low: float
    high: float
    digits: int = 3
    """Decimals of all three."""


@dataclass(frozen=True)
class Noted:
    """A cell with remarks; a remark that several cells share is written once."""

    cell: "str | int | Spread | Range | None"
    notes: tuple[str, ...]


Cell = str | int | Spread | Range | Noted | None


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows of cells under named columns; raises ValueError for a row of another length."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    caption: str = ""
    missing: str = "not known"
    """What "--" means, said below the table where there is one."""
    footnotes: tuple[str, ...] = ()
    """Remarks on the whole table; they stand in LaTeX and HTML, and not in the CSV, which has no place for them."""

    def __post_init__(self):
        for number, row in enumerate(self.rows):
            if len(row) != len(self.columns):
                raise ValueError(f"row {number} has {len(row)} cells; the table has {len(self.columns)} columns")

    def csv(self) -> str:
        """Numbers as numbers: `NAME sigma`, or `NAME low` and `NAME high`, are columns of their own; `notes` comes last."""
        parts = [_parts_of([_bare(row[place]) for row in self.rows]) for place in range(len(self.columns))]
        has_notes = any(isinstance(cell, Noted) for row in self.rows for cell in row)
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        heads = [f"{name} {part}".strip() for name, own in zip(self.columns, parts) for part in own]
        writer.writerow(heads + ["notes"] * has_notes)
        for row in self.rows:
            cells = [_numbers(_bare(cell)).get(part, "") for cell, own in zip(row, parts) for part in own]
            notes = "; ".join(dict.fromkeys(note for cell in row for note in _notes_of(cell)))
            writer.writerow(cells + [notes] * has_notes)
        return text.getvalue()

    def latex(self) -> str:
        r"""A `threeparttable` with a booktabs `tabular`, for \usepackage{booktabs,threeparttable}; every text is escaped."""
        marks = self._marks()
        lines = [r"% \usepackage{booktabs,threeparttable}", r"\begin{threeparttable}"]
        if self.caption:
            lines.append(rf"\caption{{{_latex_text(self.caption)}}}")
        lines += [rf"\begin{{tabular}}{{@{{}}{self._alignment()}@{{}}}}", r"\toprule"]
        lines += [" & ".join(_latex_text(name) for name in self.columns) + r" \\", r"\midrule"]
        lines += [" & ".join(_latex_cell(cell, marks) for cell in row) + r" \\" for row in self.rows]
        lines += [r"\bottomrule", r"\end{tabular}"]
        below = [rf"\item[{mark}] {_latex_text(note)}" for note, mark in marks.items()]
        below += [rf"\item {_latex_text(note)}" for note in self._unmarked()]
        if below:
            lines += [r"\begin{tablenotes}\footnotesize", *below, r"\end{tablenotes}"]
        return "\n".join([*lines, r"\end{threeparttable}"]) + "\n"

    def html(self) -> Markup:
        """A `<table>` with its notes in a `<tfoot>`; every text is escaped, columns of numbers have the class `number`."""
        marks = self._marks()
        lines = ["<table>"]
        if self.caption:
            lines.append(f"<caption>{escape(self.caption)}</caption>")
        kinds = [NUMBER if _has_numbers(row[place] for row in self.rows) else "" for place in range(len(self.columns))]
        heads = "".join(f'<th scope="col"{kind}>{escape(name)}</th>' for name, kind in zip(self.columns, kinds))
        lines += [f"<thead><tr>{heads}</tr></thead>", "<tbody>"]
        for row in self.rows:
            cells = (_html_cell(cell, name, kind, marks) for cell, name, kind in zip(row, self.columns, kinds))
            lines.append(f"<tr>{''.join(cells)}</tr>")
        lines.append("</tbody>")
        below = [f"<sup>{mark}</sup> {escape(note)}" for note, mark in marks.items()]
        below += [str(escape(note.replace("--:", "–:"))) for note in self._unmarked()]
        if below:
            foot = f'<div class="foot">{"<br/>".join(below)}</div>'
            lines.append(f'<tfoot><tr><td colspan="{len(self.columns)}">{foot}</td></tr></tfoot>')
        return Markup("\n".join([*lines, "</table>"]) + "\n")  # noqa: S704 - every text was escaped above

    def _marks(self) -> dict[str, str]:
        """Remark -> its letter, in the order of reading: a to z, then aa."""
        notes = dict.fromkeys(note for row in self.rows for cell in row for note in _notes_of(cell))
        return {note: _letters(number) for number, note in enumerate(notes)}

    def _unmarked(self) -> tuple[str, ...]:
        is_missing = any(_bare(cell) is None for row in self.rows for cell in row)
        return ((f"--: {self.missing}",) if is_missing else ()) + self.footnotes

    def _alignment(self) -> str:
        columns = ([_bare(row[place]) for row in self.rows] for place in range(len(self.columns)))
        return "".join("l" if any(isinstance(cell, str) for cell in column) else "r" for column in columns)


def _bare(cell: Cell) -> Cell:
    return cell.cell if isinstance(cell, Noted) else cell


def _notes_of(cell: Cell) -> tuple[str, ...]:
    return cell.notes if isinstance(cell, Noted) else ()


def _letters(number: int) -> str:
    """0 is a, 25 is z, 26 is aa."""
    rest, last = divmod(number, 26)
    return (_letters(rest - 1) if rest else "") + chr(ord("a") + last)


def _parts_of(column: list[Cell]) -> tuple[str, ...]:
    """The columns of the CSV that a column of cells needs."""
    has_sigma = any(isinstance(cell, Spread) and cell.sigma is not None for cell in column)
    has_range = any(isinstance(cell, Range) for cell in column)
    return ("", *(("sigma",) if has_sigma else ()), *(("low", "high") if has_range else ()))


def _numbers(cell: Cell) -> Mapping[str, str]:
    """What a cell says in each column of the CSV; nothing where it says nothing."""
    match cell:
        case None:
            return {}
        case Spread(mean, None, digits):
            return {"": f"{mean:.{digits}f}"}
        case Spread(mean, sigma, digits):
            return {"": f"{mean:.{digits}f}", "sigma": f"{sigma:.{digits}f}"}
        case Range(estimate, low, high, digits):
            return {"": f"{estimate:.{digits}f}", "low": f"{low:.{digits}f}", "high": f"{high:.{digits}f}"}
        case _:
            return {"": str(cell)}


def _text(cell: Cell) -> str:
    """A cell for a reader; "+-" stands for its sign."""
    numbers = _numbers(cell)
    if isinstance(cell, Range):
        return f"{numbers['']} [{numbers['low']}, {numbers['high']}]"
    if "sigma" in numbers:
        return f"{numbers['']} +- {numbers['sigma']}"
    return f"{cell:,}" if isinstance(cell, int) else numbers.get("", "--")


def _latex_text(text: str) -> str:
    return "".join(_LATEX.get(character, character) for character in text)


def _latex_cell(cell: Cell, marks: Mapping[str, str]) -> str:
    bare = _bare(cell)
    if isinstance(bare, Spread | Range):
        body = "$" + _text(bare).replace("+-", r"\pm") + "$"
    else:
        body = "--" if bare is None else _latex_text(_text(bare))
    letters = ",".join(marks[note] for note in _notes_of(cell))
    return body + (rf"\tnote{{{letters}}}" if letters else "")


def _has_numbers(column: Iterable[Cell]) -> bool:
    return any(isinstance(_bare(cell), int | Spread | Range) for cell in column)


def _html_cell(cell: Cell, column: str, kind: str, marks: Mapping[str, str]) -> str:
    """A `<td>` that knows the name of its column, for a narrow page that has no room for a row of heads."""
    bare = _bare(cell)
    body = _text(bare) if isinstance(bare, str) else _text(bare).replace("+-", "±").replace("--", "–")
    if isinstance(bare, Spread | Range):
        body = body.replace("-", "\u2212")  # the sign of a negative number, which no line break may leave alone
    letters = ",".join(sorted((marks[note] for note in _notes_of(cell)), key=lambda mark: (len(mark), mark)))
    mark = f"<sup>{letters}</sup>" if letters else ""
    return f'<td{kind} data-name="{escape(column)}">{escape(body)}{mark}</td>'
