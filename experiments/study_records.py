"""A cell's record: its folds made one, and what was done written down.

One decision: predictions are pooled draw by draw, so that each file holds every sample once, said by the fold that was not fitted
on it; the record comes last, and a cell without one is not done.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from study_fits import place_of_cell
from study_lineage import versions_here

from raypath.benchmarks import Benchmark
from raypath.benchmarks.splits.folds import pool
from raypath.config import config_hash, to_dict
from raypath.protocols.encoders import open_encoder
from raypath.study.cells import Cell, CellFolder, Cost, facts_of, load_said, save_said


def finish(
    cell: Cell, benchmark: Benchmark, tests: list[dict[str, str]], contamination: dict[str, Any], embedding: Cost
) -> None:
    """Pool the folds of a cell and write its record; `tests`: what was opened for it, fold by fold."""
    folder, num_draws, vals = place_of_cell(cell), cell.config.num_repeats or 1, {}
    places = [folder.fold(number) for number in range(len(tests))]
    done = [json.loads((place / "done.json").read_text()) for place in places]
    per_draw = len(tests) // num_draws
    for start in range(0, len(tests), per_draw):
        pool_draw(folder, places[start : start + per_draw], benchmark)
        vals |= mean_vals(done[start : start + per_draw])
    encoder = open_encoder(cell.config.encoder, seed=cell.config.seed)
    cost = sum((Cost(**one["cost"]) for one in done), embedding)
    versions = versions_here()
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
        "num_folds": per_draw,
        "num_draws": num_draws,
        "tests": tests,
        "commit": versions["commit"],
        "versions": versions,
    }
    folder.finish(record)


def pool_draw(folder: CellFolder, places: Sequence[Path], benchmark: Benchmark) -> None:
    """Make one file of what the folds of a draw say, for each fit that was made on it; of a given split there is one fold."""
    said = [{path.relative_to(place).with_suffix("") for path in place.rglob("*.parquet")} for place in places]
    for name in sorted(set.intersection(*said)):  # a null that masks of one fold do not allow is none
        target = folder.path / f"{name}.parquet"
        target.parent.mkdir(exist_ok=True)
        parts = [load_said(place / f"{name}.parquet") for place in places]
        save_said(pool(parts, benchmark)[0] if len(parts) > 1 else parts[0], target)


def mean_vals(done: Sequence[dict[str, Any]]) -> dict[str, float]:
    """The val scores of each fit, over the folds of its draw."""
    fits = set.intersection(*(set(one["val"]) for one in done))
    return {name: float(np.mean([one["val"][name] for one in done])) for name in sorted(fits)}
