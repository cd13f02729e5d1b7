"""One encoder of a study on one benchmark: every protocol and share of labels tuned, then the test opened once for them all.

One decision: the order of things is the seal. In each fold (or on the given split) all that is chosen is chosen first, on val;
then the test is opened, once; then the chosen configurations are fitted with fresh seeds, which choose nothing but their best look
at val, and say what they say of the test. A cell is written down when all its folds are, and is never run again.

A cell that fails is written down as failed, with its reason, and takes nothing else with it.
"""

import json
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import launch
import numpy as np
import ray
from launch import say
from scoring import LEDGER, features_root, refuse_monitored, scores_of
from study_benchmarks import Loaded
from study_fits import Tracked, choose, is_embedded_once, place_of_cell, say_all

from raypath.benchmarks import Benchmark, open_test
from raypath.benchmarks.splits.folds import pool
from raypath.config import config_hash, to_dict
from raypath.protocols.encoders import encoder_id, open_encoder
from raypath.protocols.fitting import embedder_of
from raypath.protocols.transfer import TransferConfig, feeding
from raypath.run_folder import runs_root
from raypath.study.cells import Cell, Cost, facts_of, load_said, save_said
from raypath.study.contamination import check_contamination, contamination_of
from raypath.study.seen import Seen, seen_by
from raypath.tracking import git_tags, open_tracking


@dataclass(frozen=True, kw_only=True)
class Pair:
    """An encoder's checkpoint on a benchmark, with all the cells that are asked of it."""

    cells: tuple[Cell, ...]
    folder: Path
    """The study's."""
    reason: str
    """What the ledger says."""
    reopen: bool
    waive: tuple[str, ...]
    seen: Seen | None
    """What its pretraining saw, where that is declared; None: what the runs behind its weights say."""
    tracked: Tracked
    """With the MLflow run of the encoder on the benchmark."""

    @property
    def name(self) -> str:
        """For files and people."""
        point = self.cells[0].checkpoint
        step = "" if point.step is None else f" step {point.step}"
        return f"{point.encoder} seed {point.seed}{step} on {self.cells[0].benchmark}"


def score_pair(pair: Pair, one: Loaded) -> list[str]:
    """Everything that is asked of the pair and is not done; returns the reasons of the cells that failed."""
    todo = [cell for cell in pair.cells if place_of_cell(cell).record is None]
    if not todo:
        return []
    benchmark, failed, embedding = one.benchmark, {}, {}
    contamination = seen_or_fail(pair, benchmark)
    folds = one.folds(todo[0].config)
    started = time.monotonic()
    with failing_apart(todo, failed):
        embedding = embed_once(todo, benchmark)
    for number, fold in enumerate(folds):
        with failing_apart(todo, failed) as alive:
            score_fold(pair, alive, fold, number, len(folds), failed)
    for cell in todo:
        if cell.key in failed:
            record = facts_of(cell) | {"state": "failed", "reason": failed[cell.key]}
            place_of_cell(cell).finish(record)
        else:
            finish(cell, benchmark, len(folds), contamination, embedding.get(cell.key, Cost()))
    say(f"{pair.name}: {len(todo) - len(failed)} cells in {time.monotonic() - started:.0f} s, {len(failed)} failed")
    return [f"{cell.words}: {failed[cell.key]}" for cell in todo if cell.key in failed]


def seen_or_fail(pair: Pair, benchmark: Benchmark) -> dict[str, Any]:
    """What the pretraining has seen of the benchmark, for every record. Raises BadInput where that forbids a score."""
    source = pair.cells[0].checkpoint.source
    refuse_monitored(source, benchmark)
    is_nested = pair.cells[0].config.evaluation == "nested"
    found = contamination_of(pair.seen or seen_by(source), benchmark, is_nested=is_nested, waive=pair.waive)
    open_tracking(pair.tracked.tracking, launch.PROJECT).set_tags(pair.tracked.run_id, found.tag)
    check_contamination(found)
    return {"status": found.status, "line": found.line}


def embed_once(cells: list[Cell], benchmark: Benchmark) -> dict[str, Cost]:
    """All samples through a frozen encoder, once as they are and once for each alteration; what it took, shared by the cells.

    Folds then find them in the cache. Pixels alone: no label is looked at, and what is tested stays sealed.
    """
    frozen = [cell for cell in cells if is_embedded_once(cell.config)]
    if not frozen:
        return {}
    config, progress, started = frozen[0].config, launch.counter("samples embedded"), time.monotonic()
    alterations = dict.fromkeys(("", *(one for cell in frozen for one in cell.alterations)))
    for alteration in alterations:
        fed = feeding(config, benchmark).altered(alteration)
        embedder_of(config, benchmark, fed, features_root(), progress).features(benchmark, benchmark.table)
    hours, resources = (time.monotonic() - started) / 3600 / len(frozen), ray.cluster_resources()
    cost = Cost(
        tiles_seen=len(benchmark.table) * len(alterations) // len(frozen),
        cpu_hours=hours * resources.get("CPU", 1),
        gpu_hours=hours * resources.get("GPU", 0),
    )
    return {cell.key: cost for cell in frozen}


@contextmanager
def failing_apart(cells: list[Cell], failed: dict[str, str]) -> Iterator[list[Cell]]:
    """The cells that have not failed; what is raised inside fails all of these."""
    alive = [cell for cell in cells if cell.key not in failed]
    try:
        yield alive
    except Exception as error:
        say(traceback.format_exc())
        failed.update({cell.key: _line(error) for cell in alive})


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else 'no message'}"


def score_fold(
    pair: Pair, cells: list[Cell], fold: Benchmark, number: int, num_folds: int, failed: dict[str, str]
) -> None:
    """One fold of all cells: choose on val, open the test once, fit and say."""
    todo = [cell for cell in cells if not (place_of_cell(cell).fold(number) / "done.json").exists()]
    chosen: dict[str, tuple[TransferConfig, Cost]] = {}
    for cell in todo:
        with failing_apart([cell], failed):
            chosen[cell.key] = choose(pair.tracked, cell, fold, number)
    todo = [cell for cell in todo if cell.key in chosen]
    if not todo:
        return
    who = encoder_id(todo[0].checkpoint.source, seed=todo[0].config.seed)
    place = f", outer fold {number + 1} of {num_folds}" if num_folds > 1 else ""
    reason = f"{pair.reason}{place}"
    rows = open_test(fold, who, reason, ledger=runs_root() / LEDGER, reopen=pair.reopen, unless=reason)
    for cell in todo:
        with failing_apart([cell], failed):
            config, tuning = chosen[cell.key]
            note(pair, "started", cell, number)
            say_all(cell, config, fold, rows, place_of_cell(cell).fold(number), tuning)
            note(pair, "finished", cell, number)


def finish(cell: Cell, benchmark: Benchmark, num_folds: int, contamination: dict[str, Any], embedding: Cost) -> None:
    """Pool the folds of a cell and write its record."""
    folder = place_of_cell(cell)
    places = [folder.fold(number) for number in range(num_folds)]
    names = [path.relative_to(places[0]).with_suffix("") for path in sorted(places[0].rglob("*.parquet"))]
    for name in names:
        target = folder.path / f"{name}.parquet"
        target.parent.mkdir(exist_ok=True)
        parts = [load_said(place / f"{name}.parquet") for place in places]
        save_said(pool(parts, benchmark)[0] if num_folds > 1 else parts[0], target)
    encoder = open_encoder(cell.config.encoder, seed=cell.config.seed)
    done = [json.loads((place / "done.json").read_text()) for place in places]
    cost = sum((Cost(**one["cost"]) for one in done), embedding)
    vals = {name: float(np.mean([one["val"][name] for one in done])) for name in done[0]["val"]}
    record = facts_of(cell) | {
        "state": "done",
        "metric": benchmark.primary,
        "how": sorted({one["how"] for one in done}),
        "val": vals,
        "cost": asdict(cost),
        "contamination": contamination,
        "config_hash": config_hash(cell.config),
        "architecture": getattr(getattr(encoder, "settings", None), "architecture", None),
        "config": to_dict(cell.config),
        "chosen": [one["params"]["protocol"] for one in done],
        "num_folds": num_folds,
        "commit": git_tags(Path(__file__).parent).get("mlflow.source.git.commit", ""),
    }
    folder.finish(record)


def note(pair: Pair, what: str, cell: Cell, fold: int) -> None:
    """A line in the study's journal: nothing that is finished may be started again."""
    line = {"time": round(time.time(), 3), "what": what, "cell": cell.key, "fold": fold, "words": cell.words}
    with (pair.folder / "journal.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def log_pair(pair: Pair) -> None:
    """The scores of all cells of a pair, into its MLflow run."""
    tracker = open_tracking(pair.tracked.tracking, launch.PROJECT)
    for cell in pair.cells:
        folder = place_of_cell(cell)
        if folder.is_done:
            said = folder.said(f"seed-{cell.seeds[0]}")
            share = "" if cell.fraction == 1 else f"/{cell.fraction:.0%}".replace("%", "pct")
            scores = {f"{cell.protocol}{share}/{n}": v for n, v in scores_of("test", said).items() if np.isfinite(v)}
            tracker.log_metrics(pair.tracked.run_id, scores)
