"""What is put into a study's folder so that its report needs nothing else: facts of benchmarks, finished cells, openings, pictures.

One decision: everything that needs images, features or runs is made here and kept; `raypath report` only reads the folder, on any
machine.
"""

import json
from pathlib import Path

from launch import say
from scoring import LEDGER
from study_benchmarks import Loaded
from study_mlflow import StudyRuns
from study_pictures import draw_pictures
from study_sites import record_confounders

from raypath.protocols.transfer import TransferConfig
from raypath.run_folder import runs_root
from raypath.study.cells import CellFolder, write_json
from raypath.study.comparisons import size_of_family
from raypath.study.power import METRICS_WITH_POWER, in_deviations, smallest_detectable
from raypath.study.published.from_study import write_rows
from raypath.study.results import load_results
from raypath.study.settings import StudyConfig
from raypath.study.study_report import write_report

NUM_POINTS = 200


def facts_of_benchmarks(config: StudyConfig, benchmarks: list[Loaded]) -> dict[str, dict]:
    """Facts of every benchmark, and the smallest difference that it can show: said before any test is opened."""
    facts = {}
    family = {"num_comparisons": size_of_family(config, (one.transfers for one in benchmarks))}
    for one in benchmarks:
        benchmark, transfer = one.benchmark, next(iter(one.transfers.values()))
        table = benchmark.table
        tested = table if transfer.evaluation == "nested" else table.filter(_is_test(table))
        patient, power = tested["patient"].to_pylist(), None
        if benchmark.primary in METRICS_WITH_POWER:
            power = smallest_detectable(tested["label"].to_numpy(), patient, benchmark.primary, **family)
        words = power.words if power else in_deviations(patient, benchmark.primary, **family)
        say(f"  {one.name}: {words}")
        facts[one.name] = {
            "kind": benchmark.kind,
            "protocols": list(one.transfers),
            "metric": benchmark.primary,
            "classes": list(benchmark.classes),
            "num_samples": len(table),
            "num_tested": len(tested),
            "num_patients": len(set(tested["patient"].to_pylist()) - {None}),
            "has_patients": benchmark.has_patients,
            "counts": benchmark.counts(),
            "mpp": benchmark.mpp,
            "evaluation": {name: _evaluation(own) for name, own in one.transfers.items()},
            "split_note": benchmark.split_note,
            "data_hash": benchmark.data_hash,
            "tags": one.found | benchmark.tags,
            "smallest_detectable": power and power.difference,
            "smallest_detectable_corrected": power and power.corrected,
            "power": words,
        }
    return facts


def _is_test(table):
    return [split == "test" for split in table["split"].to_pylist()]


def _evaluation(transfer: TransferConfig) -> str:
    if transfer.evaluation != "nested":
        return "the split's own test"
    draws = f", drawn {transfer.num_repeats} times" if transfer.num_repeats > 1 else ""
    return f"nested, {transfer.num_folds} folds{draws}"


def record_finished(folder: Path) -> None:
    """Copy the cells of a study that have ended into its folder, with the openings of their tests and the losses behind them."""
    keys = json.loads((folder / "cells.json").read_text())
    cells = [cell for cell in (CellFolder(runs_root() / "cells" / key) for key in keys) if cell.record]
    for cell in cells:
        cell.copy_to(folder / "cells")
    write_json(folder / "openings.json", openings_of(folder, cells))
    write_json(folder / "losses.json", losses_of(cells))


def record_study(folder: Path, config: StudyConfig, benchmarks: list[Loaded], runs: StudyRuns) -> Path:
    """Draw the pictures of what is finished, write the report; returns its path."""
    say("pictures, maps and confounders ...")
    draw_pictures(folder, benchmarks)
    record_confounders(folder, benchmarks)
    for place in write_rows(load_results(folder)):
        say(f"for the paper's tables and figures: {place}")
    report = write_report(folder)
    for path in [report, *sorted(folder.glob("table.*")), folder / "study.json"]:
        runs.tracker.log_artifact(runs.study, path, "report")
    return report


def openings_of(folder: Path, cells: list[CellFolder]) -> list[dict]:
    """The lines of the ledger for all tests that these cells were scored on, by whichever study, and all of this one."""
    ledger = runs_root() / LEDGER
    lines = [json.loads(line) for line in ledger.read_text().splitlines()] if ledger.exists() else []
    tests = [test for cell in cells if cell.is_done for test in cell.record.get("tests", [])]
    wanted = {(test["data_hash"], test["encoder"]) for test in tests}
    mine = f"study {folder.name},"
    wanted |= {(line["data_hash"], line["encoder"]) for line in lines if line["reason"].startswith(mine)}
    return [line for line in lines if (line["data_hash"], line["encoder"]) in wanted]


def losses_of(cells: list[CellFolder]) -> list[dict]:
    """The loss by step of every pretraining behind these cells, some hundred points of each."""
    found = {}
    for record in (cell.record for cell in cells if cell.is_done):
        metrics = Path(record["source"]).parents[2] / "metrics.jsonl" if record["source"].count("/") > 3 else Path()
        if not metrics.is_file() or str(metrics) in found:
            continue
        lines = [json.loads(line) for line in metrics.read_text().splitlines() if line.endswith("}")]
        points = [(line["step"], line["metrics"]["loss"]) for line in lines if "loss" in line["metrics"]]
        kept = points[:: max(1, len(points) // NUM_POINTS)]
        facts = {"encoder": record["encoder"], "seed": record["pretraining_seed"], "left_out": record["left_out"]}
        found[str(metrics)] = facts | {"points": kept}
    return list(found.values())
