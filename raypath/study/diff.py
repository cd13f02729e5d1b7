"""What differs between two runs, and whether their scores differ by more than noise.

A run is a folder: `runs/ID` of a pretraining, a fine-tuning or a sweep, or a cell of a study (`cells/KEY`).

One decision: three questions, in this order. What was asked (config, field by field), what it was asked of (hashes of data,
weights, start, commit), and what came out: predictions on the same samples are compared by the paired interval and the
permutation test, all fits (or repeats) of one run against all of the other, so there is one answer; where there are none, nothing
is concluded.

What it costs: a second for predictions of a thousand samples.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raypath.config import flatten
from raypath.errors import BadInput
from raypath.study.cells import Said, load_said
from raypath.study.permutation import permutation_p
from raypath.study.statistics import Difference, paired_difference

_RECORDS = ("run.json", "cell.json")
_FACTS = (
    "data_hash",
    "index_hash",
    "start_hash",
    "weights",
    "config_hash",
    "commit",
    "step",
    "left_out",
    "seeds",
    "state",
)
_PATTERNS = ("*.test.parquet", "*.repeat-*.parquet", "seed-*.parquet")
_NUMBER = re.compile(r"(seed|repeat)-(\d+)")


@dataclass(frozen=True)
class Scores:
    """One set of predictions that both runs have: of one fit, or of all with another seed."""

    first: str
    second: str
    num_fits: tuple[int, int]
    metric: str
    difference: Difference
    p_value: float

    @property
    def words(self) -> str:
        """For people."""
        own, unit = self.difference, "patients" if self.difference.level == "patient" else "images"
        is_noise = not own.is_clear or self.p_value >= 0.05
        verdict = "no more than noise" if is_noise else "more than noise"
        sides = zip(("first", "second"), (self.first, self.second), self.num_fits)
        names = [f"{side} run ({f'{num} ' if num > 1 else ''}{name})" for side, name, num in sides]
        return (
            f"{' minus '.join(names)}, {self.metric}: {own.estimate:+.3f} [{own.low:.3f}, {own.high:.3f}],"
            f" {own.num_patients} {unit}, p = {self.p_value:.3g}: {verdict}"
        )


@dataclass(frozen=True)
class RunDiff:
    """What differs."""

    settings: list[str]
    facts: list[str]
    scores: list[Scores]
    notes: list[str]


def diff_runs(first: Path, second: Path) -> RunDiff:
    """Compare two folders. Raises BadInput for one that is no run."""
    a, b = _read(Path(first)), _read(Path(second))
    settings = _differences(flatten(a["config"]), flatten(b["config"]))
    facts = _differences(*({key: one["record"][key] for key in _FACTS if key in one["record"]} for one in (a, b)))
    said_a, said_b = _predictions(Path(first)), _predictions(Path(second))
    shared = [(name, name) for name in said_a if name in said_b]
    if len(said_a) == len(said_b) == 1:
        shared = list(zip(said_a, said_b))
    notes = [] if shared else [_nothing_shared(said_a, said_b)]
    scores = []
    for name_a, name_b in shared:
        try:
            scores.append(_compared(name_a, said_a[name_a], name_b, said_b[name_b], a, b))
        except BadInput as error:
            notes.append(f"{name_a} and {name_b}: {error}")
    return RunDiff(settings, facts, scores, notes)


def _nothing_shared(a: dict[str, list[Said]], b: dict[str, list[Said]]) -> str:
    if not a or not b:
        return "no predictions in both: nothing is said about scores"
    return f"predictions of {', '.join(a)} and of {', '.join(b)}: no set in both, nothing is said about scores"


def _read(folder: Path) -> dict[str, Any]:
    records = [folder / name for name in _RECORDS if (folder / name).is_file()]
    config = folder / "config.json"
    if not records and not config.is_file():
        raise BadInput(f"{folder}: no run here (no config.json, no cell.json); expected runs/ID or a study's cells/KEY")
    record = _json(records[0]) if records else {}
    own = _json(config) if config.is_file() else record.get("config", {})
    return {"record": record, "config": own}


def _json(place: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(place.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise BadInput(f"{place}: cannot be read ({error}); expected a JSON object") from None


def _differences(a: dict[str, Any], b: dict[str, Any]) -> list[str]:
    """Every key that one of them lacks, or that has two values."""
    keys = dict.fromkeys([*a, *b])
    return [
        f"{key}: {_value(a, key)} -> {_value(b, key)}"
        for key in keys
        if (key in a, a.get(key)) != (key in b, b.get(key))
    ]


def _value(values: dict[str, Any], key: str) -> str:
    return repr(values[key]) if key in values else "not there"


def _in_turn(place: Path) -> tuple[str, list[int]]:
    """seed-2 before seed-10: fits have the draws of the folds in turn."""
    return _NUMBER.sub("", place.stem), [int(number) for _, number in _NUMBER.findall(place.stem)]


def _predictions(folder: Path) -> dict[str, list[Said]]:
    """What was said of a test, by its name; fits that differ in their seed, or repeats of folds, stand together."""
    found: dict[str, list[Said]] = {}
    places = {place for pattern in _PATTERNS for place in folder.glob(pattern)}
    for place in sorted(places, key=_in_turn):
        found.setdefault(_NUMBER.sub(r"\1s", place.stem), []).append(load_said(place))
    return found


def _num_draws(name: str, said: list[Said], of: dict) -> int:
    """Draws of the folds that these fits have in turn; a repeat is one."""
    return of["record"].get("num_draws", len(said) if name.endswith("repeats") else 1)


def _compared(name_a: str, a: list[Said], name_b: str, b: list[Said], of_a: dict, of_b: dict) -> Scores:
    metrics = {one["record"].get("metric") for one in (of_a, of_b)} - {None}
    default = "miou_macro" if hasattr(a[0], "confusion") else "balanced_accuracy"
    metric = metrics.pop() if len(metrics) == 1 else default
    draws = {_num_draws(name_a, a, of_a), _num_draws(name_b, b, of_b)}
    difference = paired_difference([a], [b], metric, num_draws=draws.pop() if len(draws) == 1 else 1)
    p_value = permutation_p([a], [b], metric)
    return Scores(name_a, name_b, (len(a), len(b)), metric, difference, p_value)
