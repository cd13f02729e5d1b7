"""What a study has found, read from its folder alone: no image, no encoder and no cluster is needed.

    STUDY/study.json, benchmarks.json, failures.json, openings.json     what was asked, what failed, which tests were opened
    STUDY/cells/KEY/                                                    what was said (`cells`)

One decision: a *place* of the matrix (encoder, benchmark, protocol, share of labels) holds all its checkpoints and fit seeds, and
every number of the report is a function of places.

What it costs: all predictions of a study in memory, 4 K bytes per sample and fit.
"""

import json
from collections import defaultdict
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from raypath.benchmarks.benchmark import Primary
from raypath.config import from_dict
from raypath.errors import BadInput
from raypath.study.cells import CellFolder, Cost, Said
from raypath.study.settings import StudyConfig
from raypath.study.statistics import Interval, Population, score_interval

FEWEST_CHECKPOINTS = 3


@dataclass(frozen=True, eq=False)
class Scored:
    """A finished cell."""

    record: dict[str, Any]
    said: tuple[Said, ...]
    """One per fit seed."""
    null: Said | None
    altered: dict[str, Said]

    @property
    def cost(self) -> Cost:
        """Pretraining, tuning and fits together."""
        return Cost(**self.record["cost"]) + Cost(**self.record["pretraining_cost"])


@dataclass(frozen=True, eq=False)
class Place:
    """One place of the matrix; `scored` in the order of pretraining seeds."""

    encoder: str
    benchmark: str
    protocol: str
    fraction: float
    metric: Primary
    scored: tuple[Scored, ...]

    @property
    def said(self) -> tuple[tuple[Said, ...], ...]:
        """Checkpoints x fit seeds."""
        return tuple(one.said for one in self.scored)

    @property
    def population(self) -> Population:
        """What a verdict is about: the recipe where there are three pretraining seeds or more."""
        return "recipe" if len(self.scored) >= FEWEST_CHECKPOINTS else "checkpoint"

    @property
    def cost(self) -> Cost:
        """Of all its checkpoints and fits."""
        return sum((one.cost for one in self.scored), Cost())


@dataclass(frozen=True, eq=False)
class StudyResults:
    """Everything a report is made of."""

    folder: Path
    config: StudyConfig
    benchmarks: dict[str, dict[str, Any]]
    """Facts of each, by name."""
    places: tuple[Place, ...]
    on_the_way: tuple[Place, ...]
    """Places of checkpoints before the last one."""
    failures: dict[str, str]
    openings: list[dict[str, Any]] = field(default_factory=list)

    def place(self, encoder: str, benchmark: str, protocol: str, fraction: float = 1.0) -> Place | None:
        """The place of that name; None where nothing was scored."""
        return self._by_name.get((encoder, benchmark, protocol, fraction))

    @cached_property
    def _by_name(self) -> dict[tuple[str, str, str, float], Place]:
        return {(p.encoder, p.benchmark, p.protocol, p.fraction): p for p in self.places}

    @property
    def protocols(self) -> list[str]:
        """Those that scored anything, in the study's order."""
        return [p for p in self.config.protocols if any(place.protocol == p for place in self.places)]

    def interval(self, place: Place) -> Interval:
        """The score of a place, by the study's method."""
        settings = {"method": self.config.method, "num_resamples": self.config.num_resamples, "seed": self.config.seed}
        return score_interval(place.said, place.metric, population=place.population, **settings)


def load_results(folder: Path) -> StudyResults:
    """A study's folder. Raises BadInput for a folder that is none, or holds a file that cannot be read."""
    folder = Path(folder)
    if not (folder / "study.json").is_file():
        raise BadInput(f"{folder}: no study here (no study.json); expected a folder like runs/studies/NAME")
    config = from_dict(StudyConfig, _read(folder / "study.json", {}))
    asked = set(_read(folder / "cells.json", []))
    cells = [CellFolder(path) for path in sorted((folder / "cells").glob("*")) if path.name in asked]
    records = [(cell, cell.record) for cell in cells if cell.record]
    failures = _read(folder / "failures.json", {})
    for _, record in records:
        if record["state"] == "failed":
            name = f"{record['encoder']} (seed {record['pretraining_seed']}) on {record['benchmark']}, {record['protocol']}"
            failures[name] = record["reason"]
    done = [(cell, record) for cell, record in records if record["state"] == "done"]
    return StudyResults(
        folder=folder,
        config=config,
        benchmarks=_read(folder / "benchmarks.json", {}),
        places=_places(config, [one for one in done if one[1]["step"] is None]),
        on_the_way=_places(config, [one for one in done if one[1]["step"] is not None]),
        failures=failures,
        openings=_read(folder / "openings.json", []),
    )


def _read(place: Path, otherwise: Any) -> Any:
    try:
        return json.loads(place.read_text(encoding="utf-8")) if place.exists() else otherwise
    except ValueError as error:
        raise BadInput(
            f"{place}: cannot be read ({error}); run the study's command again, it is written anew"
        ) from None


def _places(config: StudyConfig, cells: list[tuple[CellFolder, dict[str, Any]]]) -> tuple[Place, ...]:
    """Cells that differ only in the pretraining seed (and, on the way, in nothing else) as one place, in the study's order."""
    grouped: dict[tuple, list[Scored]] = defaultdict(list)
    metrics: dict[tuple, str] = {}
    for folder, record in cells:
        step = record["step"]
        key = (record["encoder"], record["benchmark"], record["protocol"], record["fraction"], step)
        said = tuple(folder.said(f"seed-{seed}") for seed in record["seeds"])
        altered = {
            path.stem: folder.said(f"altered/{path.stem}") for path in (folder.path / "altered").glob("*.parquet")
        }
        grouped[key].append(Scored(record, said, folder.said("null"), altered))
        metrics[key] = record["metric"]
    order = {entry.name: number for number, entry in enumerate(config.encoders)}
    keys = sorted(
        grouped, key=lambda k: (order.get(k[0], len(order)), k[1], config.protocols.index(k[2]), -k[3], k[4] or 0)
    )
    return tuple(
        Place(*key[:4], metrics[key], tuple(sorted(grouped[key], key=lambda one: one.record["pretraining_seed"])))
        for key in keys
    )
