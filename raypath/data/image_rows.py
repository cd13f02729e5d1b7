"""The list of a labelled image set: read whole, judged whole.

A set is a `manifest.csv` or `manifest.parquet` (`path,label[,split][,patient]`, paths relative to it; the path's column may be
called `image`, and the label's is named by who reads), or a folder with one subfolder per class, or with train, val and test
folders that hold those. Where classes belong to pixels every image has a mask: a column whose name begins with "mask", or the
folders images/ and masks/ with files of equal stems; labels are optional then. One decision: nothing is repaired and nothing is
skipped in silence. Every wrong cell is collected, the first ten are shown with line, column and value, and nothing starts until all
are mended. A BOM, CRLF and capitals in the header are fine; other columns are tolerated and named in the note, for a misspelt
`patient` is one. Hidden files are passed over.

What it costs: a `stat` per image before anything runs, and ids that are paths, so renaming a folder makes other samples.
"""

import csv
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import pyarrow as pa
import pyarrow.parquet as pq

from raypath.data.hidden_files import is_hidden
from raypath.data.manifest import SPLITS
from raypath.errors import BadInput

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
MASK_SUFFIXES = (".png", ".tif", ".tiff", ".bmp", ".npy", ".xml")
MANIFEST_NAMES = ("manifest.csv", "manifest.parquet")
COLUMNS = ("path", "label", "split", "patient")
MISSING = ("", "nan", "none", "null", "n/a")  # how spreadsheets and data frames write an empty cell
MAX_SHOWN = 10

_PAIR = (("images", IMAGE_SUFFIXES), ("masks", MASK_SUFFIXES))
_NAMES_OF_SPLITS = ("train", "training", "test", "testing")  # a class is hardly called so

Cells = dict[str, str]


@dataclass(frozen=True)
class ImageRow:
    """One image of a set, or a part of one."""

    sample: str
    """The id: path relative to the set's folder, with '/' on every system, and what tells several samples of a file apart."""
    path: Path
    label: str
    split: str
    """ "" where none is given."""
    patient: str | None
    slide: str | None = None
    """The slide it was cut from, where that is known."""
    item: int | None = None
    """Its number in a file that holds many (.h5, .npy)."""
    box: tuple[int, int, int, int] | None = None
    """Left, top, width, height in px: the part of the image that is meant; None: all of it."""
    mask: Path | None = None
    """A file of the same extent that says the class of every pixel; `item` and `box` count for it too."""


def read_image_rows(source: Path, *, label: str = "label", has_masks: bool = False) -> tuple[list[ImageRow], str]:
    """The images of a folder or manifest, in its order, and a note on columns that were not used.

    `label` is the column that holds the classes. With `has_masks` every row has a mask, and an absent column "label" gives the
    label "". Raises BadInput (exit code 2) that lists the first ten wrong cells with line, column and value: a missing label, an
    unknown split, a missing or empty file, a path given twice or leading out of the folder.
    """
    source = _manifest_of(Path(source))
    if source.is_dir():
        if label != "label":
            raise BadInput(f"{source}: class folders have no column {label!r}; the labels are the folders' names")
        lines = list(_pair_lines(source) if has_masks else _folder_lines(source))
        return _judge(source, source, lines, {}, needs_label=not has_masks), ""
    try:
        lines = list(_parquet_lines(source) if source.suffix == ".parquet" else _csv_lines(source))
    except (UnicodeDecodeError, csv.Error, pa.ArrowInvalid) as error:
        raise BadInput(f"{source}: expected a CSV in UTF-8 or a Parquet file ({error})") from None
    called = _names_of_columns(source, lines, label, has_masks)
    extra = sorted({column for _, cells in lines for column in cells} - set(called.values()))
    lines = [(number, {name: cells.get(column, "") for name, column in called.items()}) for number, cells in lines]
    rows = _judge(source, source.parent, lines, called, needs_label="label" in called)
    return rows, f"columns not used: {', '.join(extra)}" if extra else ""


def _manifest_of(source: Path) -> Path:
    """The manifest inside a folder, if it has one; else what was given."""
    if not source.exists():
        raise BadInput(
            f"{source}: there is no such folder or manifest; expected class folders or a {MANIFEST_NAMES[0]}"
        )
    found = [source / name for name in MANIFEST_NAMES if (source / name).is_file()]
    return found[0] if found else source


def _folder_lines(folder: Path) -> Iterator[tuple[int, Cells]]:
    """Class folders, or split folders that hold class folders, as the cells of a manifest."""
    number = 0
    for split, home in _homes(folder):
        for class_folder in _folders_in(home):
            for path in sorted(p for p in class_folder.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES):
                if not is_hidden(path, below=class_folder):
                    number += 1
                    relative = path.relative_to(folder).as_posix()
                    yield number, {"path": relative, "label": class_folder.name, "split": split}
    if not number:
        raise BadInput(
            f"{folder}: no images; expected one folder per class with files ending in {', '.join(IMAGE_SUFFIXES)}, "
            f"or a {MANIFEST_NAMES[0]} with the columns path,label"
        )


def _pair_lines(folder: Path) -> Iterator[tuple[int, Cells]]:
    """images/ and masks/, or split folders that hold both, as the cells of a manifest."""
    number = 0
    for split, home in _homes(folder):
        images, masks = (_by_stem(home / name, suffixes) for name, suffixes in _PAIR)
        lonely = [str(path) for path in (images | masks).values() if path.stem not in images.keys() & masks.keys()]
        if lonely or not images:
            raise BadInput(
                f"{home}: {len(lonely)} images without a mask or masks without an image ({', '.join(lonely[:MAX_SHOWN])}) of"
                f" {len(images)} images and {len(masks)} masks; expected images/ and masks/ with files of equal stems"
            )
        for stem, image in images.items():
            number += 1
            relative = [path.relative_to(folder).as_posix() for path in (image, masks[stem])]
            yield number, {"path": relative[0], "mask": relative[1], "label": "", "split": split}


def _by_stem(folder: Path, suffixes: Sequence[str]) -> dict[str, Path]:
    found = sorted(path for path in folder.glob("*") if path.suffix.lower() in suffixes and not is_hidden(path))
    stems = {path.stem: path for path in found}
    if len(stems) < len(found):
        twice = sorted(path.name for path in found if stems[path.stem] != path)
        raise BadInput(f"{folder}: {', '.join(twice[:MAX_SHOWN])}: another file has the same stem; keep one of them")
    return stems


def _homes(folder: Path) -> list[tuple[str, Path]]:
    """The split folders with their names; a folder that has none is its own.

    Raises BadInput where splits have other names or other folders beside them (taken for classes they would be learned as such),
    and for a folder around the set.
    """
    top = [path.name for path in _folders_in(folder)]
    if top and set(top) <= set(SPLITS):
        return [(split, folder / split) for split in top]
    if any(name.lower() in _NAMES_OF_SPLITS for name in top):
        raise BadInput(
            f"{folder}: the folders {', '.join(top[:MAX_SHOWN])}: splits or classes? Expected {', '.join(SPLITS)} and nothing else"
            " (rename valid to val, say, and move others away), or one folder per class"
        )
    if len(top) == 1 and len(_folders_in(folder / top[0])) > 1:
        raise BadInput(
            f"{folder}: has only the folder {top[0]}; if that one holds the classes, name it: {folder / top[0]}"
        )
    return [("", folder)]


def _folders_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not is_hidden(path))


def _csv_lines(path: Path) -> Iterator[tuple[int, Cells]]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file, restkey="(beyond the header)")
        if reader.fieldnames is None:
            raise BadInput(f"{path}: the file is empty; expected a header line path,label[,split][,patient]")
        twice = sorted(name for name, count in Counter(reader.fieldnames).items() if count > 1)
        if twice:
            raise BadInput(f"{path}: line 1: the column {twice[0]!r} is there twice; keep one of them")
        for row in reader:
            yield reader.line_num, {column: _text(value) for column, value in row.items()}


def _parquet_lines(path: Path) -> Iterator[tuple[int, Cells]]:
    for number, row in enumerate(pq.read_table(path).to_pylist(), start=1):
        yield number, {column: _text(value) for column, value in row.items()}


def _text(value: object) -> str:
    """A cell as text, "" for every way to write an empty one."""
    text = ",".join(value) if isinstance(value, list) else "" if value is None else str(value).strip()
    return "" if text.lower() in MISSING else text


def _names_of_columns(source: Path, lines: Sequence[tuple[int, Cells]], label: str, has_masks: bool) -> dict[str, str]:
    """What this manifest calls each of COLUMNS, and the mask; where masks have the classes, a label that is absent is left out."""
    if not lines:
        raise BadInput(f"{source}: no images below the header; expected lines path,label[,split][,patient]")
    columns = list(lines[0][1])
    plain = {column.strip().lower(): column for column in columns}
    is_optional = has_masks and label == "label"
    label, split, patient = (plain.get(name, name) if name in COLUMNS else name for name in (label, "split", "patient"))
    path = plain.get("path") or plain.get("image", "path")
    masks = [column for column in columns if column.strip().lower().startswith("mask")] if has_masks else []
    if len(masks) > 1:
        raise BadInput(
            f"{source}: line 1: {' and '.join(masks)} all begin with mask; expected one such column: rename the others"
        )
    needed = [path, *([] if is_optional else [label]), *((masks or ["mask"]) if has_masks else [])]
    absent = [column for column in needed if column not in columns]
    if absent:
        hint = _label_hint(columns) if absent == ["label"] else ""
        hint = "; separate the columns with commas" if len(columns) == 1 and ";" in columns[0] else hint
        raise BadInput(f"{source}: line 1: no column {' and '.join(absent)} among {', '.join(columns)}{hint}")
    called = dict(zip(COLUMNS, (path, label, split, patient), strict=True))
    if masks:
        called["mask"] = masks[0]
    if is_optional and label not in columns:
        del called["label"]
    return called


def _label_hint(columns: Sequence[str]) -> str:
    """How to name a column that may hold the classes instead; nothing where every column is something else."""
    others = [c for c in columns if c not in (*COLUMNS, "image") and not c.lower().startswith("mask")]
    if not others:
        return ""
    named = " or ".join(others)
    return f"; name the column of the classes: {named} (benchmark.label={others[0]}, or in a pool ?label={others[0]})"


def _judge(
    source: Path, root: Path, lines: list[tuple[int, Cells]], called: Cells, *, needs_label: bool
) -> list[ImageRow]:
    """Every row, or one BadInput for all that are wrong; `called` says what the columns are called there."""
    faults: list[str] = []
    rows: list[ImageRow] = []
    first_line: dict[str, int] = {}
    needs_split = any(cells.get("split") for _, cells in lines)
    resolved_root = root.resolve()
    for number, cells in lines:
        sample = PurePosixPath(cells["path"]).as_posix()
        wrong = list(_wrong_cells(cells, resolved_root, needs_split, needs_label))
        if cells["path"] and sample in first_line:
            wrong.append(("path", f"already on line {first_line[sample]}; every image once"))
        first_line.setdefault(sample, number)
        for column, text in wrong:
            faults.append(f"line {number}, column {called.get(column, column)}: {cells.get(column, '')!r}: {text}")
        if not wrong:
            patient = cells.get("patient") or None
            mask = root / cells["mask"] if "mask" in cells else None
            label = cells.get("label", "")
            rows.append(ImageRow(sample, root / sample, label, cells.get("split", ""), patient, mask=mask))
    if faults:
        more = [f"... and {len(faults) - MAX_SHOWN} more"] if len(faults) > MAX_SHOWN else []
        raise BadInput("\n".join([f"{source}: {len(faults)} thing(s) to mend", *faults[:MAX_SHOWN], *more]))
    return rows


def _wrong_cells(cells: Cells, root: Path, needs_split: bool, needs_label: bool) -> Iterator[tuple[str, str]]:
    """(column, what was expected) for every cell of a row that cannot be used."""
    if needs_label and not cells["label"]:
        yield "label", "expected a class name; label the image or leave its line out"
    split = cells.get("split", "")
    if split and split not in SPLITS:
        yield "split", f"expected one of {', '.join(SPLITS)}"
    elif needs_split and not split:
        yield "split", "expected a split, since other lines have one; fill all of them or none"
    for column in ("path", "mask"):
        wrong_path = _wrong_path(cells[column], root) if column in cells else None
        if wrong_path:
            yield column, wrong_path


def _wrong_path(text: str, root: Path) -> str | None:
    if not text or "\0" in text:
        return "expected the path of an image, relative to the manifest"
    path = (root / text).resolve()
    if not path.is_relative_to(root):
        return f"leads out of {root}; put the image (or its link's target) below that folder"
    if not path.is_file():
        remedy = "write / for \\" if "\\" in text else "correct the path or leave the line out"
        return f"there is no such file ({path}); {remedy}"
    if path.stat().st_size == 0:
        return "the file is empty; restore it or leave the line out"
    return None
