"""The manifest: which slides a study is made of, and what is known of each.

One decision: a manifest is read whole and judged whole. Every wrong cell is named with its line, column and value (the first
ten at once), and nothing starts until all are mended: a label that silently goes missing costs more than a second look.

A manifest is a CSV (commas; a BOM and CRLF are fine) or a Parquet file with the columns below, or a folder of slides. Paths may
be relative to the manifest, absolute, or URIs that fsspec reads (s3://, gs://).
"""

import csv
import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from raypath.data.hidden_files import is_hidden
from raypath.errors import BadInput
from raypath.slides.mpp import MAX_MPP, MIN_MPP

SLIDE_SUFFIXES = (".svs", ".tif", ".tiff", ".ndpi", ".mrxs", ".scn", ".bif", ".vms", ".vmu", ".svslide", ".dcm", ".czi")
SPLITS = ("train", "val", "test")
MPP_RANGE = (MIN_MPP, MAX_MPP)
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")  # an id becomes a file name: nothing that could leave a folder
_SHOWN = 10


@dataclass(frozen=True, kw_only=True)
class SlideRow:
    """One line of a manifest; empty cells are None. A slide without a patient is a patient of its own."""

    slide: str
    path: str
    patient: str
    site: str | None = None
    label: str | None = None
    split: str | None = None
    mpp: float | None = None


MANIFEST = "manifest.csv"
COLUMNS = tuple(field.name for field in fields(SlideRow))


def read_manifest(path: str | Path) -> list[SlideRow]:
    """The rows of a manifest or of a folder of slides, sorted by slide id.

    A folder with a `manifest.csv` is what that says: without it splits and patients would be lost unseen. A single slide is a row.
    Raises BadInput (exit code 2) that lists the first ten wrong cells with line, column and value.
    """
    source = Path(path)
    if (source / MANIFEST).is_file():
        source = source / MANIFEST
    if source.is_dir():
        return _rows_of_folder(source)
    if not source.exists():
        raise BadInput(f"{source}: there is no such manifest, slide, or folder of slides")
    if source.suffix.lower() in SLIDE_SUFFIXES:
        return _rows_of_slides(source.absolute(), [source.absolute()])
    try:
        lines = list(_parquet_lines(source) if source.suffix == ".parquet" else _csv_lines(source))
    except (UnicodeDecodeError, csv.Error, pa.ArrowInvalid) as error:
        raise BadInput(f"{source}: expected a CSV in UTF-8 or a Parquet file ({error})") from None
    return _judge(source, lines)


def write_manifest(rows: Iterable[SlideRow], path: Path) -> None:
    """Write rows as CSV, to be looked at, completed (an mpp, say) and read again."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        writer.writerows(["" if getattr(row, c) is None else getattr(row, c) for c in COLUMNS] for row in rows)


def _rows_of_folder(folder: Path) -> list[SlideRow]:
    folder = folder.absolute()
    found = (p for p in folder.rglob("*") if p.suffix.lower() in SLIDE_SUFFIXES and not is_hidden(p, folder))
    paths = sorted(p for p in found if not p.is_dir())
    if not paths:
        raise BadInput(f"{folder}: no slides in this folder; expected files ending in {', '.join(SLIDE_SUFFIXES)}")
    return _rows_of_slides(folder, paths)


def _rows_of_slides(source: Path, paths: list[Path]) -> list[SlideRow]:
    lines = [(number, {"slide": _id_of(p), "path": str(p)}) for number, p in enumerate(paths, start=1)]
    return _judge(source, lines)


def _id_of(path: Path) -> str:
    """The file's name without its suffix, other characters than an id may hold replaced by '-'."""
    return re.sub(r"[^A-Za-z0-9._-]", "-", path.stem).lstrip("._-") or "slide"


def _csv_lines(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        for row in reader:
            extra = row.pop(None, None)
            if extra:
                row["(no column)"] = ",".join(extra)
            yield reader.line_num, {k: (v or "").strip() for k, v in row.items()}
        if reader.line_num <= 1:
            yield 1, dict.fromkeys(reader.fieldnames or [], "")


def _parquet_lines(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    for number, row in enumerate(pq.read_table(path).to_pylist(), start=1):
        yield number, {k: "" if v is None or v != v else str(v) for k, v in row.items()}


def _judge(source: Path, lines: list[tuple[int, dict[str, str]]]) -> list[SlideRow]:
    """Every row that is sound, or one BadInput for all that are not."""
    root = source if source.is_dir() else source.parent
    faults = list(_wrong_columns(source, lines))
    rows, seen, paths = [], {}, {}
    for number, cells in lines:
        wrong = list(_wrong_cells(cells, root))
        for column, key, known in (("slide", cells.get("slide"), seen), ("path", _resolve(cells, root), paths)):
            if key and key in known:
                wrong.append((column, cells[column], f"already on line {known[key]}; every slide once"))
            known.setdefault(key, number)
        faults += [f"line {number}, column {column!r}: {value!r}: {expected}" for column, value, expected in wrong]
        if not faults:
            rows.append(_row(cells, root))
    faults += list(_patients_in_two_splits(lines))
    if faults:
        more = [f"... and {len(faults) - _SHOWN} more"] if len(faults) > _SHOWN else []
        raise BadInput("\n".join([f"{source}: {len(faults)} thing(s) to mend", *faults[:_SHOWN], *more]))
    return sorted(rows, key=lambda row: row.slide)


def _wrong_columns(source: Path, lines: list[tuple[int, dict[str, str]]]) -> Iterator[str]:
    present = dict.fromkeys(column for _, cells in lines for column in cells)
    for column in present:
        if column not in COLUMNS:
            yield f"line 1, column {column!r}: unknown; expected some of {', '.join(COLUMNS)}"
    for column in ("slide", "path"):
        if column not in present:
            yield f"line 1: the column {column!r} is missing"
    if not any(any(cells.values()) for _, cells in lines):
        yield "line 2: no slides"


def _wrong_cells(cells: dict[str, str], root: Path) -> Iterator[tuple[str, str, str]]:
    slide, path = cells.get("slide", ""), cells.get("path", "")
    if not _ID.fullmatch(slide) or ".." in slide:
        yield (
            "slide",
            slide,
            "expected an id of letters, digits, '.', '_', '-' (at most 128, starting with a letter or digit)",
        )
    if not path:
        yield "path", path, "expected a file or URI"
    elif "://" not in path and not Path(_resolve(cells, root)).exists():
        yield "path", path, f"no such file ({_resolve(cells, root)})"
    if cells.get("split") and cells["split"] not in SPLITS:
        yield "split", cells["split"], f"expected one of {', '.join(SPLITS)}, or nothing"
    if cells.get("mpp") and not _is_mpp(cells["mpp"]):
        yield "mpp", cells["mpp"], f"expected um per px between {MPP_RANGE[0]} and {MPP_RANGE[1]}, e.g. 0.5"


def _is_mpp(text: str) -> bool:
    try:
        value = float(text)
    except ValueError:
        return False
    return math.isfinite(value) and MPP_RANGE[0] <= value <= MPP_RANGE[1]


def _resolve(cells: dict[str, str], root: Path) -> str:
    path = cells.get("path", "")
    return path if "://" in path or not path else str((root / path).absolute())


def _row(cells: dict[str, str], root: Path) -> SlideRow:
    known = {c: cells.get(c) or None for c in COLUMNS}
    known["path"] = _resolve(cells, root)
    known["patient"] = known["patient"] or known["slide"]
    known["mpp"] = float(known["mpp"]) if known["mpp"] else None
    return SlideRow(**known)


def _patients_in_two_splits(lines: list[tuple[int, dict[str, str]]]) -> Iterator[str]:
    splits: dict[str, set[str]] = {}
    for _, cells in lines:
        patient = cells.get("patient") or cells.get("slide", "")
        if cells.get("split") in SPLITS:
            splits.setdefault(patient, set()).add(cells["split"])
    for patient, found in sorted(splits.items()):
        if len(found) > 1:
            yield f"patient {patient!r} is in {' and '.join(sorted(found))}: a patient belongs to one split"
