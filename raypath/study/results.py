"""What a study has found, read from its folder alone: no image, no encoder and no cluster is needed.

    STUDY/study.json, cells.json, benchmarks.json      what was asked, and of what
    STUDY/failures.json, openings.json                 what went wrong, which tests were opened
    STUDY/cells/KEY/                                   what was said (`cells`)

One decision: a study may be unfinished, or of another version, and is read all the same; what is missing is known by name.

What it costs: all predictions of a study in memory, 4 K bytes per sample and fit.
"""

import json
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from raypath.config import from_older
from raypath.errors import BadInput
from raypath.study.cells import CellFolder, words_of
from raypath.study.places import Place, Scored
from raypath.study.seeds import FEWEST_CHECKPOINTS
from raypath.study.settings import StudyConfig
from raypath.study.statistics import Interval, score_interval


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
    of_another_version: list[str] = field(default_factory=list)
    """Settings that this version does not know, and passed over."""

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

    @property
    def full(self) -> float:
        """The largest share of labels that was asked for: verdicts at the top are about it."""
        return max(self.config.fractions)

    def read(self, name: str, otherwise: Any) -> Any:
        """A further JSON file of the folder (pictures.json ...); `otherwise`, a list or a dict, where there is none."""
        return _read(self.folder / name, otherwise)

    def with_places(self, places: Iterable[Place]) -> "StudyResults":
        """The same study, as if only these places had been scored."""
        return replace(self, places=tuple(places))

    def null_interval(self, place: Place) -> Interval | None:
        """The score on shuffled labels, of patients and, from three of them on, of shuffles; None where there is none."""
        nulls = [[null] for one in place.scored for null in one.nulls]
        if not nulls:
            return None
        population = "recipe" if len(nulls) >= FEWEST_CHECKPOINTS else "checkpoint"
        settings = {"num_resamples": self.config.num_resamples, "seed": self.config.seed}
        return score_interval(nulls, place.metric, population=population, method=self.config.method, **settings)

    def interval(self, place: Place) -> Interval:
        """The score of a place, by the study's method; computed once."""
        if id(place) not in self._intervals:
            settings = {"num_resamples": self.config.num_resamples, "seed": self.config.seed}
            settings |= {"population": place.population, "num_draws": place.num_draws, "method": self.config.method}
            self._intervals[id(place)] = score_interval(place.said, place.metric, **settings)
        return self._intervals[id(place)]

    @cached_property
    def _intervals(self) -> dict[int, Interval]:
        return {}


def load_results(folder: Path) -> StudyResults:
    """A study's folder. Raises BadInput for a folder that is none, or holds a file that cannot be read."""
    folder = Path(folder)
    if not (folder / "study.json").is_file():
        raise BadInput(f"{folder}: no study here (no study.json); expected a folder like runs/studies/NAME")
    config, of_another_version = from_older(StudyConfig, _read(folder / "study.json", {}))
    benchmarks, cells = _read(folder / "benchmarks.json", {}), _asked_cells(folder, config)
    done = [(cell, record) for cell, record in cells if record["state"] == "done"]
    order = _order(config, list(benchmarks))
    return StudyResults(
        folder=folder,
        config=config,
        benchmarks=benchmarks,
        places=_places([one for one in done if one[1]["step"] is None], order),
        on_the_way=_places([one for one in done if one[1]["step"] is not None], order),
        failures=_failures(_read(folder / "failures.json", {}), [record for _, record in cells]),
        openings=_read(folder / "openings.json", []),
        of_another_version=of_another_version,
    )


def _read(place: Path, otherwise: Any) -> Any:
    """A JSON file that holds what `otherwise` is, a list or a dict; `otherwise` where there is none."""
    try:
        value = json.loads(place.read_text(encoding="utf-8")) if place.exists() else otherwise
        if not isinstance(value, type(otherwise)):
            raise ValueError(f"expected a {type(otherwise).__name__}")
    except ValueError as error:
        raise BadInput(
            f"{place}: cannot be read ({error}); run the study's command again, it is written anew"
        ) from None
    return value


def _asked_cells(folder: Path, config: StudyConfig) -> list[tuple[CellFolder, dict[str, Any]]]:
    """The cells of this study that have ended, each with its record under the names that this study uses."""
    encoders, found = {entry.name for entry in config.encoders}, []
    seen = _read(folder / "contamination.json", {})  # as this study declares and waives
    for key, names in sorted(_read(folder / "cells.json", {}).items()):
        cell = CellFolder(folder / "cells" / key)
        record = cell.record
        for facts in names if record else []:
            if facts["encoder"] in encoders and facts["protocol"] in config.protocols:
                found.append((cell, record | facts | ({"contamination": seen[key]} if key in seen else {})))
    return found


def _failures(told: dict[str, str], records: list[dict[str, Any]]) -> dict[str, str]:
    """What went wrong, by what: cells, and pieces of the work that failed before they came to cells."""
    of_cells = {words_of(record): record["reason"] for record in records if record["state"] == "failed"}
    failures = {}
    for name, text in told.items():
        rest = text
        for words, reason in of_cells.items():
            rest = rest.replace(f"{words}: {reason}", "")
        if rest.strip("; "):  # more than its cells say
            failures[name] = text
    return failures | of_cells


def _order(config: StudyConfig, benchmarks: list[str]):
    """A function from (encoder, benchmark, protocol, fraction, step) to its place in the order of reading.

    What is to be compared stands together: benchmark, protocol, share of labels, and then encoders as the study has them.
    """
    encoders = [entry.name for entry in config.encoders]

    def place(key: tuple) -> tuple:
        encoder, benchmark, protocol, fraction, step = key
        known = benchmarks.index(benchmark) if benchmark in benchmarks else len(benchmarks)
        return known, benchmark, config.protocols.index(protocol), -fraction, encoders.index(encoder), step or 0

    return place


def _places(cells: list[tuple[CellFolder, dict[str, Any]]], order) -> tuple[Place, ...]:
    """Cells that differ only in the pretraining seed as one place."""
    grouped: dict[tuple, list[Scored]] = defaultdict(list)
    for folder, record in cells:
        key = tuple(record[name] for name in ("encoder", "benchmark", "protocol", "fraction", "step"))
        grouped[key].append(_scored(folder, record))
    by_seed = {key: tuple(sorted(own, key=lambda one: one.record["pretraining_seed"])) for key, own in grouped.items()}
    return tuple(Place(*key[:4], by_seed[key][0].record["metric"], by_seed[key]) for key in sorted(by_seed, key=order))


def _scored(folder: CellFolder, record: dict[str, Any]) -> Scored:
    said = tuple(folder.said(f"seed-{seed}") for seed in record["seeds"])
    if None in said:
        raise BadInput(
            f"{folder.path}: not all of seeds {record['seeds']} are there; remove the folder and run the study's command again"
        )
    altered = {
        path.stem: folder.said(f"altered/{path.stem}") for path in sorted((folder.path / "altered").glob("*.parquet"))
    }
    nulls = tuple(folder.said(path.stem) for path in sorted(folder.path.glob("null*.parquet")))
    return Scored(record, said, nulls, altered)
