"""The rows of the second paper's tables and figures from a study of ours, so that the same code draws both.

One decision: what an encoder is to the paper is told by `roles`. Scores are the paper's (accuracy, for two classes the area under
the ROC curve), one for each pretraining seed or fit; the folds of BreaKHis are summed up on their own (`breakhis`).

What it costs: nothing; classifications alone have such rows.
"""

import csv
import json
from pathlib import Path

import numpy as np

from raypath.benchmarks import Predictions, score
from raypath.study.published.breakhis import fold_of, rates_of
from raypath.study.published.results import Result, Trial, summarised
from raypath.study.published.roles import of_paper
from raypath.study.results import StudyResults

RESULTS, BREAKHIS, TRIALS = "paper-results.csv", "paper-breakhis.csv", "paper-trials.csv"


def write_rows(results: StudyResults) -> list[Path]:
    """Write the three files into a study's folder, where it has such rows; returns what was written."""
    trials = trials_of(results)
    written = []
    columns = ("task", "network", "method", "metric", "num_images", "mean", "sigma", "num_repeats")
    for name, found in ((RESULTS, results_of(results)), (BREAKHIS, rates_of(results))):
        if found:
            written.append(_write(results.folder / name, columns, found))
    if trials:
        columns = ("network", "task", "rate", "tau", "is_warm", "seed", "score")
        written.append(_write(results.folder / TRIALS, columns, trials))
    return written


def _write(place: Path, columns: tuple[str, ...], rows: list) -> Path:
    with place.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        for row in rows:
            values = [getattr(row, column) for column in columns]
            writer.writerow([str(v).lower() if isinstance(v, bool) else "" if v is None else v for v in values])
    return place


def results_of(results: StudyResults) -> list[Result]:
    """A row for each place that the paper has a name for, on all labels."""
    rows = []
    for method, place in of_paper(results):
        if not isinstance(place.said[0][0], Predictions) or fold_of(place) is not None:
            continue
        facts = results.benchmarks[place.benchmark]
        is_binary = len(facts["classes"]) == 2
        name = "auroc" if is_binary else "accuracy"
        scores = [100 * float(np.mean([score(said)[name] for said in own])) for own in place.by_seed]
        network = place.scored[0].record.get("architecture") or "not known"
        counts = {split: sum(facts["counts"][split].values()) for split in ("train", "val")}
        num_images = sum(counts.values())
        where = {"task": place.benchmark, "network": network, "method": method}
        rows.append(summarised(scores, metric="auc" if is_binary else "acc", num_images=num_images, **where))
    return rows


def trials_of(results: StudyResults) -> list[Trial]:
    """The transfer scores of the grid, where one was searched over learning rates."""
    trials = []
    for place in sorted((results.folder / "selection").glob("*.json")):
        known = json.loads(place.read_text(encoding="utf-8"))
        for text, tasks in zip(known["combinations"], known["by_seed"]):
            own = json.loads(text)
            if "optim.lr" not in own:
                continue
            for task, seeds in zip(known["tasks"], tasks):
                for seed, value in enumerate(seeds):
                    trials.append(
                        Trial(
                            network=place.stem,
                            task=task,
                            rate=f"{own['optim.lr']:g}",
                            tau=f"{own.get('objective.tau', 1):g}",
                            is_warm=own.get("objective.warmup_share", 0) > 0,
                            seed=seed,
                            score=100 * value,
                        )
                    )
    return trials
