"""What an encoder of a study has seen of a benchmark's test, as the study declares and waives it.

    STUDY/contamination/KEY.json     looked for once for the same weights, data, declarations and waivers

One decision: it belongs to the study and not to a cell, because another study may declare or waive something else for the same
cell. Where there are weights for each fold, each is held against its own fold, and the gravest finding counts.

Costs the reading of the benchmark's files, and for a pool the search for near-duplicates: seconds for a few thousand images.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scoring import refuse_monitored
from study_benchmarks import Loaded

from raypath.benchmarks import Benchmark
from raypath.benchmarks.splits.near_duplicate_record import VERSION
from raypath.config import canonical_json
from raypath.errors import BadInput
from raypath.study.cells import Cell, write_json
from raypath.study.contamination import check_contamination, contamination_of
from raypath.study.contamination_rules import SeenTile
from raypath.study.seen import Seen, seen_by

_GRAVITY = ("clean", "waived", "transductive", "unknown", "dirty")


@dataclass(frozen=True, kw_only=True)
class Declared:
    """What a study says of an encoder beyond what its runs know."""

    waive: tuple[str, ...] = ()
    """Rules that pass."""
    seen: Seen | None = None
    """What its pretraining saw; None: what the runs behind its weights say."""


def seen_or_fail(cell: Cell, one: Loaded, declared: Declared, folder: Path) -> dict[str, Any]:
    """status, line, tag, and `refused`: whether it forbids a score. Raises BadInput for a benchmark that was a monitor."""
    by_fold = cell.checkpoint.by_fold
    asked = [
        VERSION,
        cell.checkpoint.weights,
        cell.data_hash,
        one.is_nested,
        sorted(declared.waive),
        str(declared.seen),
    ]
    asked += [tile.words for tile in one.seen_tiles]
    place = folder / "contamination" / f"{hashlib.sha256(canonical_json(asked).encode()).hexdigest()[:24]}.json"
    if not place.exists():
        met = zip(by_fold, one.folds[: len(by_fold)], strict=True) if by_fold else [(cell.checkpoint, one.benchmark)]
        is_all_test = one.is_nested and not by_fold
        found = [_found(declared, point.source, test, one.seen_tiles, is_all_test=is_all_test) for point, test in met]
        write_json(place, max(found, key=lambda own: _GRAVITY.index(own["status"])))
    return json.loads(place.read_text())


def _found(
    declared: Declared, source: str, benchmark: Benchmark, tiles: Sequence[SeenTile], *, is_all_test: bool
) -> dict[str, Any]:
    refuse_monitored(source, benchmark)
    seen = declared.seen or seen_by(source)
    found = contamination_of(seen, benchmark, is_nested=is_all_test, waive=declared.waive, tiles=tiles)
    try:
        check_contamination(found)
    except BadInput as error:
        return {"status": found.status, "line": str(error), "tag": found.tag, "refused": True}
    return {"status": found.status, "line": found.line, "tag": found.tag, "refused": False}
