"""The near-duplicates of a set, searched for once and written down, with a sheet for eyes to judge.

    near_duplicates/DATA_HASH.splits.json, .png      between the splits as they are
    near_duplicates/DATA_HASH.groups.json, .png      between any two patients: what outer folds need, whose splits come later

One decision: a record belongs to the data hash of its benchmark, so whoever asks about the same contents, patients and split gets
the answer of then, and a set that changed is searched anew. What it costs: the search of `near_duplicates`, once; the sheet reads
the pictures of MAX_DRAWN pairs again.
"""

import json
import os
from pathlib import Path
from typing import Any

from raypath.benchmarks.benchmark import Benchmark
from raypath.benchmarks.splits.folds import undivided_groups
from raypath.benchmarks.splits.near_duplicate_sheet import sheet
from raypath.benchmarks.splits.near_duplicates import LEAST_CORRELATION, Pair, Progress, find
from raypath.errors import BadInput

MAX_DRAWN = 40
VERSION = 2  # raised by hand when equal pictures give other pairs
_LAID = ("correlation", "turn_deg", "is_mirrored", "magnification")


def recorded(
    benchmark: Benchmark, folder: Path, *, between_groups: bool = False, progress: Progress | None = None
) -> tuple[list[Pair], Path | None]:
    """The near-duplicates of a benchmark, best first, and their sheet (None where there is no pair), from `folder` if known there.

    `between_groups`: between any two patients (else slides, else images), whatever their splits; else between the splits. Raises
    BadInput for a picture that cannot be read and for a record that is none.
    """
    path = Path(folder) / f"{benchmark.data_hash}.{'groups' if between_groups else 'splits'}.json"
    picture = path.with_suffix(".png")
    found = _read(path)
    if found is None:
        groups = undivided_groups(benchmark.table) if between_groups else None
        pairs = list(find(benchmark.table, groups=groups, progress=progress).pairs)
        path.parent.mkdir(parents=True, exist_ok=True)
        if pairs:
            number = f"{len(pairs):,} pairs" + (f", the first {MAX_DRAWN}" if len(pairs) > MAX_DRAWN else "")
            title = f"{benchmark.name}: near-duplicates across {'patients' if between_groups else 'splits'}: {number}"
            sheet(pairs[:MAX_DRAWN], title=title).save(picture)
        _write(path, pairs)
        return pairs, picture if pairs else None
    row_of = {row["sample"]: row for row in benchmark.table.to_pylist()} if found else {}
    pairs = [Pair(row_of[p["first"]], row_of[p["second"]], *(p[name] for name in _LAID)) for p in found]
    return pairs, picture if pairs else None


def _read(path: Path) -> list[dict[str, Any]] | None:
    """What was written down; None where nothing was, or by other rules."""
    if not path.is_file():
        return None
    try:
        record = json.loads(path.read_text())
        return record["pairs"] if record["rules"] == [VERSION, LEAST_CORRELATION] else None
    except (ValueError, KeyError, TypeError) as error:
        raise BadInput(f"{path}: no record of near-duplicates ({error}); delete it, they are searched anew") from None


def _write(path: Path, pairs: list[Pair]) -> None:
    """Whole or not at all, and after the sheet."""
    listed = [
        {"first": pair.first["sample"], "second": pair.second["sample"]} | {name: getattr(pair, name) for name in _LAID}
        for pair in pairs
    ]
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.write_text(json.dumps({"rules": [VERSION, LEAST_CORRELATION], "pairs": listed}, indent=1) + "\n")
    draft.replace(path)
