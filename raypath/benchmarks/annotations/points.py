"""Points with a label, as CSV: cells, mitoses, centres of spots.

One decision: coordinates are level-0 px, and a header must say which columns they are. Known names (in any case, without their
unit): x, pixel_x, x_l0, centroid x, centroid_x; the same with y; label, class, classification, name. Other names are given by
`x`, `y`, `label`. A column in um is refused, because a slide's mpp would have to be guessed here.
"""

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from raypath.errors import BadInput

_KNOWN = {
    "x": ("x", "pixel_x", "x_l0", "centroid x", "centroid_x", "centroid x px"),
    "y": ("y", "pixel_y", "y_l0", "centroid y", "centroid_y", "centroid y px"),
    "label": ("label", "class", "classification", "name"),
}


@dataclass(frozen=True, eq=False)
class Points:
    """P points of one slide."""

    xy: np.ndarray
    """float64 [P, 2], level-0 px."""
    labels: tuple[str, ...]
    unused_columns: tuple[str, ...] = ()


NO_POINTS = Points(np.empty((0, 2)), ())


def read_points(path: Path, *, x: str | None = None, y: str | None = None, label: str | None = None) -> Points:
    """The points of a CSV; `x`, `y`, `label` name columns whose names are not known.

    Raises BadInput with file, line, column and value for a coordinate that is no number of 0 or more, and for an empty label.
    """
    try:
        with Path(path).open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            columns = reader.fieldnames or ()
            chosen = [_column(path, columns, what, name) for what, name in (("x", x), ("y", y), ("label", label))]
            rows = [(reader.line_num, [(row[name] or "").strip() for name in chosen]) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise BadInput(f"{path}: cannot be read ({error}); expected a CSV in UTF-8") from None
    if not rows:
        raise BadInput(f"{path}: no points below the header")
    xy = [[_number(path, line, chosen[axis], cells[axis]) for axis in (0, 1)] for line, cells in rows]
    for line, cells in rows:
        if not cells[2]:
            raise BadInput(f"{path}: line {line}, column {chosen[2]}: empty; expected a label, or leave the line out")
    unused = tuple(name for name in columns if name not in chosen)
    return Points(np.array(xy), tuple(cells[2] for _, cells in rows), unused)


def _column(path: Path, columns: Sequence[str], what: str, name: str | None) -> str:
    wanted = (name,) if name else _KNOWN[what]
    found = [column for column in columns if column == name or (name is None and _plain(column) in wanted)]
    if len(found) != 1:
        raise BadInput(
            f"{path}: line 1: {len(found)} columns for {what} among {', '.join(columns) or 'none'}; expected one of "
            f"{', '.join(wanted)}, or say its name"
        )
    return found[0]


def _plain(column: str) -> str:
    return column.strip().lower().replace("(px)", "").replace("[px]", "").strip()


def _number(path: Path, line: int, column: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value >= 0):
        raise BadInput(f"{path}: line {line}, column {column}: {text!r}; expected level-0 px, 0 or more")
    return value
