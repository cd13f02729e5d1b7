"""The rows of the second paper's tables and figures from a study of ours, so that the same code draws both.

One decision: what an encoder is to the paper follows from its entry, not from its name: trained with the task left out is
"multi-task", ImageNet's weights are "ImageNet", random weights that are fine-tuned are "scratch", and a recipe that saw all tasks
is "joint". Scores are the paper's (accuracy, for two classes the area under the ROC curve), one for each pretraining seed or fit.

What it costs: nothing; classifications alone have such rows.
"""

import csv
import json
from pathlib import Path

from raypath.benchmarks import Predictions, score
from raypath.study.published.results import Result, Trial, summarised
from raypath.study.results import Place, StudyResults
from raypath.study.settings import EncoderEntry

RESULTS, TRIALS = "paper-results.csv", "paper-trials.csv"
_FINETUNED = "finetune"


def write_rows(results: StudyResults) -> list[Path]:
    """Write both files into a study's folder, where it has such rows; returns what was written."""
    found, trials = results_of(results), trials_of(results)
    written = []
    if found:
        columns = ("task", "network", "method", "metric", "num_images", "mean", "sigma", "num_repeats")
        written.append(_write(results.folder / RESULTS, columns, found))
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
    for place in results.places:
        method = _method(results.config.entry(place.encoder), place)
        if method is None or place.fraction != 1 or not isinstance(place.said[0][0], Predictions):
            continue
        facts = results.benchmarks[place.benchmark]
        is_binary = len(facts["classes"]) == 2
        name = "auroc" if is_binary else "accuracy"
        scores = [100 * float(score(said)[name]) for own in place.said for said in own]
        network = place.scored[0].record.get("architecture") or "not known"
        counts = {split: sum(facts["counts"][split].values()) for split in ("train", "val")}
        num_images = sum(counts.values())
        where = {"task": place.benchmark, "network": network, "method": method}
        rows.append(summarised(scores, metric="auc" if is_binary else "acc", num_images=num_images, **where))
    return rows


def _method(entry: EncoderEntry, place: Place) -> str | None:
    """What the paper calls it; None for what it does not have."""
    is_finetuned = place.scored[0].record["config"]["protocol"]["kind"] == _FINETUNED
    kind = entry.source.partition(":")[0]
    if kind.startswith("random"):
        return "scratch" if is_finetuned else None
    prefix = "ft" if is_finetuned else "fe"
    if kind == "imagenet":
        return f"{prefix}_imagenet"
    if entry.leave_out:
        return f"{prefix}_multitask"
    saw_pool = entry.recipe.startswith(("multitask", "mormont"))
    return "joint" if saw_pool and not is_finetuned else None


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
