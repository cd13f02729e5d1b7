"""The cells of a study on disk: one folder for each, found again by what it is made of.

    cells/KEY/cell.json                what it is, how it was reached, what it cost; written last: with it the cell is finished
    cells/KEY/seed-3.parquet           what the fit with seed 3 says of the test (all folds pooled)
    cells/KEY/null-1.parquet           the same, fitted on labels that were shuffled
    cells/KEY/altered/grey.parquet     the first fit on altered test images
    cells/KEY/fold-00/                 of a fold that is done, until all are

One decision: the key is a sha256 over the config, the data (with split), the weights and PROTOCOL_VERSION, which is raised by hand
when equal inputs give another score. Names, places and the commit are recorded and no part of it, so a cell is never run again
because something was renamed, and never taken for another one. What a study calls its cells is therefore written down with the
study (`asked_of`), not read from a record that another study may have written.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from raypath.benchmarks import PixelPredictions, Predictions
from raypath.config import canonical_json, identity
from raypath.errors import BadInput
from raypath.protocols.transfer import TransferConfig

PROTOCOL_VERSION = 3
Said = Predictions | PixelPredictions
_RECORD = "cell.json"


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a piece of work took; hours are those of the processors that were reserved for it, whether busy or not.

    Of a pretraining: its workers' and those of one reading task for each, from its first step to its last, steps that were done
    twice too. Of tuning: its trials'. Of fits: a trial's, one core where features are known, or the share of the cluster that the
    encoder has. Of fits and embeddings that a kill cut off only what was done afterwards counts.
    """

    tiles_seen: int = 0
    """Tiles or images that went through the encoder, tuning included."""
    cpu_hours: float = 0.0
    gpu_hours: float = 0.0
    num_trials: int = 0

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(**{name: value + getattr(other, name) for name, value in asdict(self).items()})


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """Weights of an encoder of a study."""

    encoder: str
    """The entry's name."""
    seed: int
    """Of the pretraining, or of random weights."""
    source: str
    """As `protocols.encoders` reads it."""
    weights: str
    """What decides its features (`weights_id`)."""
    read_as: str = ""
    """What decides them beside the weights (`protocols.encoders.read_as`)."""
    step: int | None = None
    """Where on the way it was saved; None: the end."""
    left_out: tuple[str, ...] = ()
    """Benchmarks that were left out of its pool."""
    cost: Cost = field(default_factory=Cost)
    """Of all its pretrainings up to here."""
    num_trainings: int = 1
    """How many these are: one, or one for each outer fold."""
    by_fold: tuple["Checkpoint", ...] = ()
    """One for each outer fold, pretrained without the slides that it tests; `source` is then the first one's."""
    deviations: str = ""
    """In what its pretraining is not as in the paper that its recipe stands for."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One number of the matrix, with all its seeds."""

    checkpoint: Checkpoint
    benchmark: str
    protocol: str
    fraction: float
    config: TransferConfig
    seeds: tuple[int, ...]
    alterations: tuple[str, ...] = ()
    num_nulls: int = 3
    data_hash: str = ""

    @property
    def key(self) -> str:
        """What it is found again by."""
        made_of = {
            "version": PROTOCOL_VERSION,
            "config": identity(self.config),
            "weights": [self.checkpoint.weights, self.checkpoint.read_as, self.checkpoint.seed],
            "data": self.data_hash,
            "seeds": self.seeds,
            "alterations": self.alterations,
            "nulls": self.num_nulls,
        }
        return hashlib.sha256(canonical_json(made_of).encode()).hexdigest()[:24]

    @property
    def words(self) -> str:
        """For people: encoder (seed), benchmark, protocol, share of labels."""
        return words_of(facts_of(self))


@dataclass(frozen=True)
class CellFolder:
    """Where a cell lies."""

    path: Path

    @property
    def record(self) -> dict[str, Any] | None:
        """What is known of a cell that has ended; None before. Raises BadInput for a record that cannot be read."""
        place = self.path / _RECORD
        if not place.exists():
            return None
        try:
            record = json.loads(place.read_text(encoding="utf-8"))
            if not isinstance(record, dict) or record.get("state") not in ("done", "failed"):
                raise ValueError("no state")
            return record
        except ValueError as error:
            raise BadInput(
                f"{place}: no record of a cell ({error}); remove the folder, the cell is run again"
            ) from None

    @property
    def is_done(self) -> bool:
        """Whether it has ended well."""
        record = self.record
        return record is not None and record["state"] == "done"

    def fold(self, number: int) -> Path:
        """What belongs to one fold until all are done."""
        place = self.path / f"fold-{number:02}"
        place.mkdir(parents=True, exist_ok=True)
        return place

    def finish(self, record: dict[str, Any]) -> None:
        """Write the record, whole or not at all, and drop what was kept for each fold."""
        self.path.mkdir(parents=True, exist_ok=True)
        write_json(self.path / _RECORD, record)
        for place in self.path.glob("fold-*"):
            shutil.rmtree(place, ignore_errors=True)

    def fail(self, record: dict[str, Any]) -> None:
        """Write that it failed, and keep the folds that are done for another try; never over a cell that is done."""
        if not self.is_done:
            write_json(self.path / _RECORD, record)

    def said(self, name: str) -> Said | None:
        """What was kept under a name (`seed-3`, `null`, `altered/grey`); None if there is nothing."""
        place = self.path / f"{name}.parquet"
        return load_said(place) if place.exists() else None

    def keep(self, name: str, said: Said) -> None:
        """Keep what was said under a name."""
        save_said(said, self.path / f"{name}.parquet")

    def copy_to(self, root: Path) -> None:
        """Put a copy of what is finished under `root`, whole or not at all; a study's folder can then be carried elsewhere."""
        target, draft = root / self.path.name, root / f".{self.path.name}.{os.getpid()}.draft"
        if CellFolder(target).record == self.record:
            return
        ignored = shutil.ignore_patterns("fold-*", "tuned*", "*.draft")
        shutil.copytree(self.path, draft, ignore=ignored, dirs_exist_ok=True)
        shutil.rmtree(target, ignore_errors=True)
        draft.rename(target)


def save_said(said: Said, place: Path) -> None:
    """Write predictions whole or not at all."""
    draft = place.with_name(f"{place.name}.{os.getpid()}.draft")
    said.save(draft)
    draft.rename(place)


def load_said(place: Path) -> Said:
    """Predictions of either kind. Raises BadInput for a file that is neither."""
    for kind in (Predictions, PixelPredictions):
        try:
            return kind.load(place)
        except BadInput as error:
            reason = error
    raise BadInput(
        f"{place}: no predictions of labels and none of pixels; remove its folder, the cell is run again ({reason})"
    )


def write_json(place: Path, value: Any) -> None:
    """Write a file whole or not at all."""
    place.parent.mkdir(parents=True, exist_ok=True)
    draft = place.with_name(f".{place.name}.{os.getpid()}.draft")
    draft.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
    draft.replace(place)


def facts_of(cell: Cell) -> dict[str, Any]:
    """What a reader of a record wants to know of a cell, whatever became of it."""
    return {
        "encoder": cell.checkpoint.encoder,
        "pretraining_seed": cell.checkpoint.seed,
        "source": cell.checkpoint.source,
        "weights": cell.checkpoint.weights,
        "step": cell.checkpoint.step,
        "left_out": list(cell.checkpoint.left_out),
        "deviations": cell.checkpoint.deviations,
        "pretraining_cost": asdict(cell.checkpoint.cost),
        "num_trainings": cell.checkpoint.num_trainings,
        "benchmark": cell.benchmark,
        "protocol": cell.protocol,
        "fraction": cell.fraction,
        "seeds": list(cell.seeds),
        "data_hash": cell.data_hash,
    }


def keys_of(cells: Sequence[Cell]) -> str:
    """A short name for a set of cells: what an opening of a test was for."""
    return hashlib.sha256(" ".join(sorted(cell.key for cell in cells)).encode()).hexdigest()[:8]


def words_of(facts: dict[str, Any]) -> str:
    """A cell for people, from its facts."""
    step = "" if facts["step"] is None else f" at step {facts['step']:,}"
    share = "" if facts["fraction"] == 1 else f", {facts['fraction']:.0%} of labels"
    encoder = f"{facts['encoder']} (seed {facts['pretraining_seed']})"
    return f"{encoder}{step} on {facts['benchmark']}, {facts['protocol']}{share}"


def asked_of(cells: Sequence[Cell]) -> dict[str, list[dict[str, Any]]]:
    """The cells of a study by key, with what this study calls each; two encoders with equal weights have one cell and two names."""
    asked: dict[str, list[dict[str, Any]]] = {}
    for cell in cells:
        facts = facts_of(cell)
        if facts not in asked.setdefault(cell.key, []):
            asked[cell.key].append(facts)
    return asked
