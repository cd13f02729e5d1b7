"""Making an index: a Ray Data job, one task per slide (several from 2,000 slides on).

One decision: a task does everything for its slide and leaves a part on shared storage; only a line of counts comes back. The
job can be killed at any moment and run again: a part is taken as it is when path, size, modification time, mpp and tile
specification are unchanged. A slide that cannot be used ends in `quarantine.jsonl` with its reason, never in silence.

Costs per slide: opening it in a child (0.4 s), a thumbnail, one sha256 of the file.
"""

import json
import os
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import ray.data
from ray.util.annotations import RayDeprecationWarning

from raypath.data.index import SCHEMA, Index, IndexHash
from raypath.data.manifest import SlideRow, write_manifest
from raypath.data.quiet import quiet_ray_data
from raypath.data.staging import local_path, stamp_of
from raypath.errors import BadInput, SlideError, SlideUnreadable, SlideUnsupported
from raypath.hashing import file_sha256
from raypath.slides import Slide, TileGrid, TileSpec, check_slide, tissue_fractions, tissue_mask
from raypath.slides.tissue import THUMBNAIL_MPP, TISSUE_VERSION

NO_TISSUE = "no tile that fits the slide has enough tissue"
_SLIDES_PER_ROW_GROUP = 64
_MAX_BLOCKS = 2_000  # Ray Data needs 3 s to start 2,000 tasks and 30 s for 20,000


@dataclass(frozen=True)
class Outcome:
    """What indexing one slide came to; `reason` is None for a sound slide."""

    slide: str
    path: str
    num_tiles: int
    reason: str | None = None
    message: str | None = None
    is_unchanged: bool = False
    """Whether the part of an earlier run was taken as it is."""


def make_index(
    rows: list[SlideRow],
    spec: TileSpec,
    folder: Path,
    *,
    progress: Callable[[int, int, Outcome], None] = lambda done, total, outcome: None,
) -> tuple[Index, list[Outcome]]:
    """Index `rows` into `folder`; `progress(done, total, outcome)` is called after every slide.

    Raises BadInput when no slide has a tile.
    """
    parts = folder / "slides"
    parts.mkdir(parents=True, exist_ok=True)
    write_manifest(rows, folder / "manifest.csv")
    outcomes = []
    for outcome in _run(rows, spec, parts):
        outcomes.append(outcome)
        progress(len(outcomes), len(rows), outcome)
    outcomes.sort(key=lambda o: o.slide)
    write_quarantine(outcomes, folder / "quarantine.jsonl")
    sound = [parts / f"{o.slide}.parquet" for o in outcomes if o.reason is None]
    if not any(o.num_tiles for o in outcomes):
        raise BadInput(_nothing_found(folder, outcomes))
    join_parts(sound, spec, folder)
    return Index(folder), outcomes


def _run(rows: list[SlideRow], spec: TileSpec, parts: Path) -> Iterator[Outcome]:
    job = ray.data.from_items([asdict(row) for row in rows], override_num_blocks=min(len(rows), _MAX_BLOCKS))
    with warnings.catch_warnings():  # Ray has no named parameter for max_retries, and its default is to retry for ever
        warnings.simplefilter("ignore", RayDeprecationWarning)
        job = job.map(_index_row, fn_args=(spec, str(parts)), num_cpus=1, max_retries=1)
    job.context.enable_progress_bars = False
    job.context.print_on_execution_start = False
    with quiet_ray_data():
        for row in job.iter_rows():
            yield Outcome(**row)


def _index_row(row: dict, spec: TileSpec, parts: str) -> dict:
    return asdict(index_slide(SlideRow(**row), spec, Path(parts)))


def index_slide(row: SlideRow, spec: TileSpec, parts: Path) -> Outcome:
    """Check one slide, find its tissue and its tiles, and write its part."""
    part = parts / f"{row.slide}.parquet"
    try:
        stamp = stamp_of(row.path)
        key = json.dumps([TISSUE_VERSION, asdict(row), stamp, asdict(spec), SCHEMA.names])
        num_tiles = _unchanged(part, key)
        if num_tiles is not None:
            return Outcome(row.slide, row.path, num_tiles, is_unchanged=True)
        return Outcome(row.slide, row.path, _write_part(row, stamp, spec, part, key))
    except SlideError as error:
        reason, message = type(error).__name__, str(error)
    except (OSError, ValueError, MemoryError) as error:  # sound by its child, and still not to be read here
        kind = SlideUnreadable if isinstance(error, OSError) else SlideUnsupported
        reason, message = kind.__name__, f"{row.path}: {type(error).__name__}: {error}"
    part.unlink(missing_ok=True)
    return Outcome(row.slide, row.path, 0, reason, message)


def _write_part(row: SlideRow, stamp: str | None, spec: TileSpec, part: Path, key: str) -> int:
    """`key` is everything a part depends on: one with an equal key can be taken as it is."""
    path = local_path(row.path, stamp)
    facts = check_slide(path, row.mpp)
    upsample = spec.require_fine(row.path, facts.mpp)
    with Slide.open(path, row.mpp) as slide:
        mask = tissue_mask(slide.thumbnail(THUMBNAIL_MPP), THUMBNAIL_MPP)
    grid = TileGrid.of(facts.size_l0, facts.mpp, spec)
    fractions = tissue_fractions(mask, grid).reshape(-1)
    cells = grid.morton_order(np.flatnonzero(fractions >= max(spec.min_tissue, 1e-6)))
    values = {
        **{name: getattr(row, name) for name in ("slide", "path", "patient", "site", "label", "split")},
        "size_bytes": facts.size_bytes,
        "mtime_ns": facts.mtime_ns,
        "stamp": stamp if "://" in row.path else None,
        "sha256": file_sha256(path),
        "vendor": facts.vendor,
        "width_l0": facts.size_l0[0],
        "height_l0": facts.size_l0[1],
        "mpp": facts.mpp,
        "mpp_source": facts.mpp_source,
        "upsample": upsample,
        "num_tiles": len(cells),
        "cells": cells,
        "tissue": fractions[cells].astype(np.float16),
    }
    table = pa.Table.from_pylist([values], schema=SCHEMA.with_metadata({"key": key}))
    draft = part.with_name(f".{part.name}.{os.getpid()}")
    pq.write_table(table, draft)
    draft.rename(part)
    return len(cells)


def _unchanged(part: Path, key: str) -> int | None:
    """The number of tiles of a part that fits its slide still; None if it has to be made."""
    try:
        schema = pq.read_schema(part)
        if (schema.metadata or {}).get(b"key", b"").decode() != key:
            return None
        return pq.read_table(part, columns=["num_tiles"])["num_tiles"][0].as_py()
    except (OSError, pa.ArrowInvalid):
        return None


def join_parts(parts: list[Path], spec: TileSpec, folder: Path) -> None:
    """Write index.parquet from the parts, one at a time, and then index.json, whose presence says that all is there."""
    draft = folder / ".index.parquet"
    tables = (pq.read_table(part).replace_schema_metadata(None) for part in parts)
    num_tiles, content = 0, IndexHash(spec)
    with pq.ParquetWriter(draft, SCHEMA) as writer:
        for group in _grouped(tables, _SLIDES_PER_ROW_GROUP):
            writer.write_table(group, row_group_size=_SLIDES_PER_ROW_GROUP)
            content.add(group)
            num_tiles += sum(group["num_tiles"].to_pylist())
    about = {
        "spec": asdict(spec),
        "hash": content.hex(),
        "num_slides": len(parts),
        "num_tiles": num_tiles,
        "made": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }
    (folder / "index.json").unlink(missing_ok=True)  # never the tiles of one run with the hash of another
    draft.replace(folder / "index.parquet")
    about_draft = folder / ".index.json"
    about_draft.write_text(json.dumps(about, indent=1) + "\n")
    about_draft.replace(folder / "index.json")


def _grouped(tables: Iterator[pa.Table], size: int) -> Iterator[pa.Table]:
    waiting: list[pa.Table] = []
    for table in tables:
        waiting.append(table)
        if len(waiting) == size:
            yield pa.concat_tables(waiting)
            waiting = []
    if waiting:
        yield pa.concat_tables(waiting)


def write_quarantine(outcomes: list[Outcome], path: Path) -> None:
    """One line of JSON for every slide set aside or without a tile."""
    bad = [o for o in outcomes if o.reason is not None]
    empty = [o for o in outcomes if o.reason is None and o.num_tiles == 0]
    lines = [{"slide": o.slide, "path": o.path, "reason": o.reason, "message": o.message} for o in bad]
    lines += [{"slide": o.slide, "path": o.path, "reason": "no_tissue", "message": NO_TISSUE} for o in empty]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def _nothing_found(folder: Path, outcomes: list[Outcome]) -> str:
    first = next((f"; the first: {o.message}" for o in outcomes if o.message), "")
    return (
        f"{folder}: 0 tiles in {len(outcomes)} slides ({_tally(outcomes)}){first}; all: {folder / 'quarantine.jsonl'}"
    )


def _tally(outcomes: list[Outcome]) -> str:
    reasons = Counter(o.reason or "no_tissue" for o in outcomes if not o.num_tiles)
    return ", ".join(f"{reason}: {count}" for reason, count in reasons.most_common())
