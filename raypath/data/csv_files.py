"""The CSV files that come with published sets: cells by line, or by the columns that are asked for.

One decision: what programs do to a table and still mean the same is fine (BOM, CRLF, spaces around cells, capitals in the header,
other columns, empty lines), and anything else is refused with file and line. What it costs: a file is read whole.
"""

import csv
from collections.abc import Sequence
from pathlib import Path

from raypath.errors import BadInput


def csv_lines(path: Path, *, delimiter: str = ",") -> list[tuple[int, list[str]]]:
    """Number and cells of every line that is not empty; raises BadInput for what is no text in UTF-8."""
    try:
        with Path(path).open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, delimiter=delimiter)
            lines = [(reader.line_num, [cell.strip() for cell in cells]) for cells in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise BadInput(f"{path}: cannot be read ({error}); expected text in UTF-8: fetch the file again") from None
    return [(number, cells) for number, cells in lines if any(cells)]


def csv_table(path: Path, columns: Sequence[str]) -> list[tuple[int, dict[str, str]]]:
    """Number and the cells of `columns` of every line below the header; raises BadInput, also for a column that is not there."""
    (_, header), *lines = csv_lines(path) or [(1, [])]
    place = {name.lower(): number for number, name in enumerate(header)}
    absent = [column for column in columns if column.lower() not in place]
    if absent:
        raise BadInput(f"{path}: line 1: no column {', '.join(absent)}; expected {', '.join(columns)}")
    places = [(column, place[column.lower()]) for column in columns]
    return [(number, {c: cells[p] if p < len(cells) else "" for c, p in places}) for number, cells in lines]
