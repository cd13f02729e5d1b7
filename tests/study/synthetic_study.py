"""A study's folder in its real format, with predictions that are drawn: what is true of every encoder is known."""

import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from raypath.benchmarks import PixelPredictions, Predictions
from raypath.benchmarks.settings import ImagesSettings
from raypath.config import config_hash, to_dict
from raypath.protocols.probe import ProbeSettings
from raypath.protocols.transfer import TransferConfig
from raypath.study.cells import Cell, CellFolder, Checkpoint, Cost, Said, asked_of, facts_of, write_json
from raypath.study.comparisons import size_of_family
from raypath.study.power import METRICS_WITH_POWER, in_deviations, smallest_detectable
from raypath.study.settings import BenchmarkEntry, EncoderEntry, StudyConfig

COST = Cost(tiles_seen=500, cpu_hours=0.25, num_trials=8)


@dataclass(frozen=True)
class Set:
    """A benchmark, and how often (as a share) each encoder is right on it, by name; "" stands for all others."""

    name: str
    num_patients: int
    skills: dict[str, float]
    metric: str = "balanced_accuracy"
    has_patients: bool = True
    images_each: int = 8

    def labels(self) -> tuple[np.ndarray, list[str | None]]:
        rng = np.random.default_rng(zlib.crc32(self.name.encode()))
        label = rng.permutation(np.arange(self.num_patients * self.images_each) % 2)
        names = [f"{self.name}-p{row // self.images_each}" for row in range(len(label))]
        return label, names if self.has_patients else [None] * len(label)

    def said(self, encoder: str, *what) -> Said:
        """What a fit says; `what` tells fits apart. Patients are hard or easy for all encoders alike."""
        label, patient = self.labels()
        rng = np.random.default_rng(zlib.crc32(repr((self.name, encoder, *what)).encode()))
        hard = np.random.default_rng(zlib.crc32(self.name.encode())).normal(0, 0.05, self.num_patients)
        skill = 0.5 if any("null" in str(part) for part in what) else self.skills.get(encoder, self.skills[""])
        skill -= 0.1 * ("grey" in what) + 0.1 * (0.25 in what)
        is_right = rng.random(len(label)) < skill + np.repeat(hard, self.images_each)
        sample = [f"{self.name}/{row}.png" for row in range(len(label))]
        if self.metric == "miou_macro":
            error = np.where(is_right, 10, 60)
            confusion = np.stack([[[100 - e, e], [e, 100 - e]] for e in error])
            return PixelPredictions(sample, patient, confusion, ("stroma", "gland"))
        sure = rng.uniform(0.55, 1, len(label))
        of_label = np.where(is_right, sure, 1 - sure)
        probability = np.where(np.arange(2) == label[:, None], of_label[:, None], 1 - of_label[:, None])
        return Predictions(sample, patient, label, probability, ("benign", "tumour"))


SETS = (
    Set("gains", 30, {"ours": 0.9, "other": 0.72, "": 0.7}),
    Set("even", 25, {"": 0.75}),
    Set("few", 6, {"ours": 0.95, "": 0.6}),
    Set("images", 60, {"": 0.75}, metric="auroc", has_patients=False, images_each=1),
    Set("glands", 20, {"": 0.8}, metric="miou_macro"),
)
CONFIG = StudyConfig(
    name="synthetic",
    question="Does it help <here> & there?",
    encoders=(
        EncoderEntry(name="ours", recipe="simclr_small", num_seeds=3, curve_points=1),
        EncoderEntry(name="other", recipe="mocov2_small", curve_points=2),
        EncoderEntry(name="random", source="random"),
        EncoderEntry(name="colour", source="colour"),
    ),
    benchmarks=tuple(BenchmarkEntry(path=f"data/{one.name}") for one in SETS),
    baseline="random",
    fractions=(0.25, 1.0),
    num_seeds=2,
    alterations=("grey", "hed=0.05"),
    has_robustness=True,
    budget="tiles",
    num_resamples=200,
    num_permutations=1000,
)
TILES = {"ours": {10: 1_000, None: 2_000}, "other": {10: 2_000, 20: 4_000, None: 6_000}}
"""Tiles seen by pretraining step."""
FAILED = ("other", "images", 0.25)
ROBUST = ("blur=1", "blur=2")


def write_study(folder: Path, config: StudyConfig = CONFIG, sets: Sequence[Set] = SETS) -> Path:
    """The folder of a finished study."""
    cells = [cell for one in sets for cell in cells_of(config, one)]
    by_name = {one.name: one for one in sets}
    failures = {}
    for cell in cells:
        one = by_name[cell.benchmark]
        if (cell.checkpoint.encoder, cell.benchmark, cell.fraction) == FAILED:
            record = facts_of(cell) | {"state": "failed", "reason": "Diverged: loss is NaN"}
            CellFolder(folder / "cells" / cell.key).finish(record)
            failures["other, seed 0 on images"] = f"{cell.words}: Diverged: loss is NaN"
        else:
            write_cell(folder, cell, one)
    write_json(folder / "study.json", to_dict(config))
    write_json(folder / "benchmarks.json", {one.name: facts(one, config) for one in sets})
    write_json(folder / "cells.json", asked_of(cells))
    write_json(folder / "failures.json", failures)
    write_json(folder / "openings.json", openings(config, sets))
    write_commands(folder)
    return folder


def cells_of(config: StudyConfig, one: Set) -> list[Cell]:
    """All cells of a benchmark."""
    made = []
    for entry in config.encoders:
        for seed in range(entry.num_seeds):
            for step, tiles in TILES.get(entry.name, {None: 0}).items():
                point = Checkpoint(
                    encoder=entry.name,
                    seed=seed,
                    source=f"runs/{entry.name}-{seed}",
                    weights=f"{entry.name}{seed}{step}",
                    step=step,
                    cost=Cost(tiles_seen=tiles, cpu_hours=tiles / 1000),
                )
                for fraction in config.fractions if step is None else (1.0,):
                    made.append(cell_of(config, one, point, fraction))
    return made


def cell_of(config: StudyConfig, one: Set, point: Checkpoint, fraction: float) -> Cell:
    transfer = TransferConfig(
        encoder=point.source,
        benchmark=ImagesSettings(path=f"data/{one.name}"),
        protocol=ProbeSettings(),
        fraction_train=fraction,
    )
    is_dense = one.metric == "miou_macro"
    return Cell(
        checkpoint=point,
        benchmark=one.name,
        protocol=config.protocols[0],
        fraction=fraction,
        config=transfer,
        seeds=tuple(range(1, 1 + config.num_seeds)),
        alterations=() if is_dense else config.alterations,
        num_nulls=0 if is_dense else 3,
        data_hash=f"hash of {one.name}",
    )


def write_cell(folder: Path, cell: Cell, one: Set) -> None:
    """What a cell says, and its record."""
    place, point = CellFolder(folder / "cells" / cell.key), cell.checkpoint
    who = (point.encoder, point.seed, point.step, cell.fraction)
    for seed in cell.seeds:
        place.keep(f"seed-{seed}", one.said(*who, seed))
    for number in range(cell.num_nulls):
        place.keep(f"null-{number + 1}", one.said(*who, f"null {number}"))
    robust = ROBUST if cell.alterations and one.name == "gains" and cell.fraction == 1 else ()
    for alteration in (*cell.alterations, *robust):
        place.keep(f"altered/{alteration}", one.said(*who, alteration))
    line = f"{one.name}: pretraining saw 3 unlabelled slides of its test"
    contamination = (
        {"status": "transductive", "line": line} if point.encoder == "other" else {"status": "clean", "line": "clean"}
    )
    place.finish(
        facts_of(cell)
        | {
            "state": "done",
            "metric": one.metric,
            "cost": to_dict(COST),
            "contamination": contamination,
            "config": to_dict(cell.config),
            "config_hash": config_hash(cell.config),
            "versions": {"commit": "c1" if point.encoder == "colour" else "c2", "torch": "2.x"},
        }
    )


def write_commands(folder: Path) -> None:
    """Two commands, of two commits."""
    for number in (1, 2):
        line = {"time": f"2026-11-2{number}T10:00:00+00:00", "folder": "/home/me", "versions": {"commit": f"c{number}"}}
        command = "RAYPATH_RUNS=/runs python experiments/study.py"
        line |= {"command": f"{command} my.toml", "repeat": f"{command} /runs/studies/synthetic/study.json"}
        with (folder / "commands.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")


def facts(one: Set, config: StudyConfig) -> dict:
    """What `benchmarks.json` says of a benchmark."""
    label, patient = one.labels()
    has_power = one.metric in METRICS_WITH_POWER
    family = {"num_comparisons": size_of_family(config, [config.protocols] * len(config.benchmarks))}
    power = (
        smallest_detectable(label, patient, one.metric, **family).words
        if has_power
        else in_deviations(patient, one.metric, **family)
    )
    tags = {"raypath.near_duplicates": "2 pairs, kept together"}
    return {
        "metric": one.metric,
        "protocols": list(config.protocols),
        "power": power,
        "data_hash": f"hash of {one.name}",
        "split_note": "made here",
        "tags": tags | ({"raypath.waived": "patient"} if one.name == "even" else {}),
    }


def openings(config: StudyConfig, sets: Sequence[Set]) -> list[dict]:
    """Every test once for every encoder, and one of them again."""
    lines = [
        {
            "time": "2026-11-22T10:00:00+00:00",
            "benchmark": one.name,
            "data_hash": f"hash of {one.name}",
            "encoder": entry.name,
            "reason": "study synthetic, 2 cells",
            "opening": 1,
        }
        for one in sets
        for entry in config.encoders
    ]
    return [*lines, lines[0] | {"opening": 2, "reason": "study synthetic, again: labels were mended"}]


def rank_study() -> tuple[StudyConfig, tuple[Set, ...]]:
    """Ten small benchmarks, on which `first` is best, `random` worst and `colour` between."""
    names = [f"set {number:02}" for number in range(10)]
    sets = tuple(Set(name, 12, {"first": 0.95, "random": 0.55, "": 0.78}, images_each=6) for name in names)
    encoders = (EncoderEntry(name="first", source="runs/first"), *CONFIG.encoders[2:])
    config = replace(CONFIG, encoders=encoders, fractions=(1.0,), num_seeds=1, has_robustness=False, budget="none")
    return replace(config, benchmarks=tuple(BenchmarkEntry(path=f"data/{name}") for name in names)), sets


def rewrite(folder: Path, name: str, change) -> None:
    """Change a JSON file of a study."""
    place = folder / name
    place.write_text(json.dumps(change(json.loads(place.read_text()))))
