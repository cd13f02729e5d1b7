"""The one door to the test rows.

One decision: a test set that is asked twice is no test set. Every opening is one line in a ledger (who, on what, why, which
time), written under a file lock before the rows are handed out; a second opening for the same data and encoder is refused unless
it is asked for by name, and is then counted. What it costs: the ledger must be one file that all processes of a study can lock
(a local disk, or a network file system with working locks); it stops nobody who edits it, it only makes honesty easy.
"""

import fcntl
import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

import pyarrow as pa
import pyarrow.compute as pc

from raypath.benchmarks.benchmark import Benchmark
from raypath.errors import BadInput


def open_test(
    benchmark: Benchmark, encoder: str, reason: str, *, ledger: Path, reopen: bool = False, unless: str | None = None
) -> pa.Table:
    """The test rows of a benchmark, after writing the opening into `ledger` (JSON lines).

    `encoder`: name or hash of what is tested; `reason`: a few words for the reader of the ledger. Raises BadInput for an empty
    encoder or reason, for a damaged ledger, and for a second opening of the same data and encoder without `reopen=True`. Openings
    with the reason `unless` do not count against it: a run that died between opening and scoring goes on, which is written down as
    the same opening, resumed.
    """
    for what, text in (("encoder", encoder), ("reason", reason)):
        if not text.strip():
            raise BadInput(f"open_test({benchmark.name}): {what} is empty; expected some words for the ledger {ledger}")
    ledger = Path(ledger)
    ledger.parent.mkdir(parents=True, exist_ok=True)
    with ledger.open("a+", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # released when the file is closed, also by the death of the process
        earlier = _openings(file, benchmark, encoder, ledger)
        if any(entry["reason"] != unless for entry in earlier) and not reopen:
            raise _already_opened(benchmark, encoder, earlier[0], ledger)
        mine = [entry["opening"] for entry in earlier if entry["reason"] == unless]
        entry = {
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
            "benchmark": benchmark.name,
            "data_hash": benchmark.data_hash,
            "encoder": encoder,
            "reason": reason,
            "opening": mine[-1] if mine else 1 + max((entry["opening"] for entry in earlier), default=0),
        } | ({"resumed": True} if mine else {})
        file.write(json.dumps(entry) + "\n")
        file.flush()
        os.fsync(file.fileno())
    return benchmark.table.filter(pc.equal(benchmark.table["split"], "test"))


def check_unopened(benchmark: Benchmark, encoder: str, *, ledger: Path, unless: str | None = None) -> None:
    """Raise the BadInput that `open_test` would raise, before any work is spent on an encoder whose test is used up."""
    if Path(ledger).is_file():
        with Path(ledger).open(encoding="utf-8") as file:
            earlier = _openings(file, benchmark, encoder, Path(ledger))
        if any(entry["reason"] != unless for entry in earlier):
            raise _already_opened(benchmark, encoder, earlier[0], Path(ledger))


def _openings(file: IO[str], benchmark: Benchmark, encoder: str, ledger: Path) -> list[dict]:
    wanted = (benchmark.data_hash, encoder)
    return [entry for entry in _read(file, ledger) if (entry["data_hash"], entry["encoder"]) == wanted]


def _already_opened(benchmark: Benchmark, encoder: str, first: dict, ledger: Path) -> BadInput:
    return BadInput(
        f"{benchmark.name}: its test was already opened for encoder {encoder!r} at {first['time']} "
        f"({first['reason']}); ledger {ledger}. Use the scores of then, or pass reopen=true (a study: reopen='why'): it is counted"
    )


def _read(file: IO[str], ledger: Path) -> list[dict]:
    file.seek(0)
    entries = []
    for number, line in enumerate(file, start=1):
        try:
            entry = json.loads(line)
            kept = {key: entry[key] for key in ("time", "data_hash", "encoder", "reason")}
            entries.append(kept | {"opening": int(entry.get("opening", 1))})
        except (ValueError, KeyError, TypeError):
            raise BadInput(
                f"{ledger}: line {number} is no opening: {line[:80]!r}; expected a JSON object; mend or remove the line"
            ) from None
    return entries
