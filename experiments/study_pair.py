"""One encoder of a study on one benchmark: every protocol and share of labels tuned, then the test opened once for them all.

One decision: the order of things is the seal. In each fold (or on the given split) all that is chosen is chosen first, on val;
then the test is opened, once; then the chosen configurations are fitted with fresh seeds, which choose nothing but their best look
at val, and say what they say of the test. A cell is written down when all its folds are, and is never run again.

A cell that fails is written down as failed, with its reason, and takes nothing else with it.
"""

import fcntl
import json
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import launch
import ray
from launch import say
from scoring import LEDGER, features_root
from study_benchmarks import Loaded
from study_contamination import Declared, seen_or_fail
from study_fits import Tracked, choose, is_embedded_once, place_of_cell, say_all
from study_records import finish

from raypath.benchmarks import Benchmark, check_unopened, open_test
from raypath.errors import BadInput
from raypath.protocols.encoders import encoder_id
from raypath.protocols.fitting import embedder_of
from raypath.protocols.transfer import TransferConfig, batch_norm_rule, feeding
from raypath.run_folder import runs_root
from raypath.study.cells import Cell, Cost, facts_of
from raypath.tracking import open_tracking


@dataclass(frozen=True, kw_only=True)
class Pair:
    """An encoder's checkpoint on a benchmark, with all the cells that are asked of it."""

    cells: tuple[Cell, ...]
    folder: Path
    """The study's."""
    reason: str
    """What the ledger says."""
    reopen: bool
    declared: Declared
    tracked: Tracked
    """With the MLflow run of the encoder on the benchmark."""
    share: float = 1.0
    """Of the cluster's processors, while other pairs run beside it; for the cost."""

    @property
    def name(self) -> str:
        """For files and people."""
        point = self.cells[0].checkpoint
        step = "" if point.step is None else f" step {point.step}"
        return f"{point.encoder} seed {point.seed}{step} on {self.cells[0].benchmark}"


def score_pair(pair: Pair, one: Loaded) -> dict[str, Any]:
    """Everything that is asked of the pair and is not done: why cells failed, and what the pretraining has seen of the test.

    Another study that asks for the same at the same time waits, and finds it done.
    """
    contamination = seen_or_fail(pair.cells[0], one, pair.declared, pair.folder)
    open_tracking(pair.tracked.tracking, launch.PROJECT).set_tags(pair.tracked.run_id, contamination.pop("tag"))
    if contamination.pop("refused"):
        raise BadInput(contamination["line"])
    with locked(pair):
        # cells that come to the same (colour on a given split under a probe, and where others are fine-tuned) are one
        todo = list({cell.key: cell for cell in pair.cells if place_of_cell(cell).record is None}.values())
        check_sealed(pair, todo, one)  # before hours of tuning; no record of a cell, which others may be allowed to run
        failed = score_cells(pair, todo, one, contamination) if todo else []
    return {"failed": failed, "contamination": contamination}


@contextmanager
def locked(pair: Pair) -> Iterator[None]:
    """Nobody else scores these weights on this benchmark meanwhile; released by the death of the process too."""
    cell = pair.cells[0]
    place = runs_root() / "cells" / ".locks" / f"{cell.checkpoint.weights}-{cell.data_hash[:16]}".replace("/", "-")
    place.parent.mkdir(parents=True, exist_ok=True)
    with place.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def score_cells(pair: Pair, todo: list[Cell], one: Loaded, contamination: dict[str, Any]) -> list[str]:
    """Cells that are not done: fold by fold, then written down; the reasons of those that failed."""
    benchmark, failed, embedding = one.benchmark, {}, {}
    started = time.monotonic()
    with failing_apart(todo, failed):
        embedding = embed_once(todo, benchmark, pair.share)
    for number, fold in enumerate(one.folds):
        with failing_apart([cell for cell in todo if number < len(one.folds_of(cell.config))], failed) as alive:
            score_fold(pair, alive, fold, number, one.folds_per_draw, failed)
    for cell in todo:
        with failing_apart([cell], failed) as alive:
            if alive:
                tests = [
                    {"data_hash": fold.data_hash, "encoder": tested_as(in_fold(cell, number))}
                    for number, fold in enumerate(one.folds_of(cell.config))
                ]
                finish(cell, benchmark, tests, contamination, embedding.get(cell.key, Cost()))
        if cell.key in failed:
            place_of_cell(cell).fail(facts_of(cell) | {"state": "failed", "reason": failed[cell.key]})
    say(f"{pair.name}: {len(todo) - len(failed)} cells in {time.monotonic() - started:.0f} s, {len(failed)} failed")
    return [f"{cell.words}: {failed[cell.key]}" for cell in todo if cell.key in failed]


def embed_once(cells: list[Cell], benchmark: Benchmark, share: float) -> dict[str, Cost]:
    """All samples through a frozen encoder, once as they are and once for each alteration; what it took, shared by the cells.

    Folds then find them in the cache. Pixels alone: no label is looked at, and what is tested stays sealed.
    """
    frozen = [cell for cell in cells if is_embedded_once(cell)]
    progress, started, num_embedded = launch.counter("samples embedded"), time.monotonic(), 0
    fed_alike = {(cell.config.extent_px, cell.config.scale): cell.config for cell in frozen}
    alterations = dict.fromkeys(("", *(one for cell in frozen for one in cell.alterations)))
    for config, alteration in product(fed_alike.values(), alterations):
        fed = feeding(config, benchmark).altered(alteration)
        embedder_of(config, benchmark, fed, features_root(), progress).features(benchmark, benchmark.table)
        num_embedded += len(benchmark.table)
    hours, resources = (time.monotonic() - started) / 3600 / max(1, len(frozen)), ray.cluster_resources()
    cost = Cost(
        tiles_seen=num_embedded // max(1, len(frozen)),
        cpu_hours=hours * resources.get("CPU", 1) * share,
        gpu_hours=hours * resources.get("GPU", 0) * share,
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
    pair: Pair, cells: list[Cell], fold: Benchmark, number: int, per_draw: int, failed: dict[str, str]
) -> None:
    """One fold of all cells: choose on val, open the test once, fit and say; `number` goes through all draws of the folds."""
    todo = [in_fold(cell, number) for cell in cells]
    todo = [cell for cell in todo if not (place_of_cell(cell).fold(number) / "done.json").exists()]
    chosen: dict[str, tuple[TransferConfig, Cost]] = {}
    for cell in todo:
        with failing_apart([cell], failed):
            chosen[cell.key] = choose(pair.tracked, cell, fold, number)
    todo = [cell for cell in todo if cell.key in chosen]
    if not todo:
        return
    for who, reason in dict.fromkeys(opened_as(pair, cell, number, per_draw) for cell in todo):
        rows = open_test(fold, who, reason, ledger=runs_root() / LEDGER, reopen=pair.reopen, unless=reason)
    for cell in todo:
        with failing_apart([cell], failed):
            config, tuning = chosen[cell.key]
            note(pair, "started", cell, number)
            own = replace(cell, config=config)
            say_all(own, fold, rows, place_of_cell(cell).fold(number), tuning, pair.share, draw=number // per_draw)
            note(pair, "finished", cell, number)


def check_sealed(pair: Pair, todo: Sequence[Cell], one: Loaded) -> None:
    """Raises BadInput where the test of a fold was opened for another reason before, unless the study opens tests again."""
    for cell in todo if not pair.reopen else ():
        for number, fold in enumerate(one.folds_of(cell.config)):
            who, reason = opened_as(pair, cell, number, one.folds_per_draw)
            check_unopened(fold, who, ledger=runs_root() / LEDGER, unless=reason)


def opened_as(pair: Pair, cell: Cell, number: int, per_draw: int) -> tuple[str, str]:
    """(encoder, reason) as the ledger has them; cells of a pair differ where their batch norm is treated otherwise."""
    draw, fold = divmod(number, per_draw)
    place = f", outer fold {fold + 1} of {per_draw}" if per_draw > 1 else ""
    place += f", draw {draw + 1}" if draw else ""
    return tested_as(in_fold(cell, number)), f"{pair.reason}{place}"


def in_fold(cell: Cell, number: int) -> Cell:
    """The cell with the encoder that was pretrained for a fold, where there is one for each; its key stays."""
    by_fold = cell.checkpoint.by_fold
    return replace(cell, config=replace(cell.config, encoder=by_fold[number].source)) if by_fold else cell


def tested_as(cell: Cell) -> str:
    """What a test is opened for: the weights, and what was done to their batch norm; `cell` is in its fold."""
    rule = batch_norm_rule(cell.config)
    who = encoder_id(cell.config.encoder, seed=cell.config.seed)
    return who if rule == "keep" else f"{who}, batch norm {rule}"


def note(pair: Pair, what: str, cell: Cell, fold: int) -> None:
    """A line in the study's journal: nothing that is finished may be started again."""
    line = {"time": round(time.time(), 3), "what": what, "cell": cell.key, "fold": fold, "words": cell.words}
    with (pair.folder / "journal.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
