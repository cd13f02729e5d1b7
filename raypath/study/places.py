"""A place of a study's matrix: an encoder on a benchmark, by a protocol, on a share of labels, with all that was said there.

One decision: a place holds all its checkpoints and fits, in the order of their seeds, and knows which fit had which draw of the
folds; every number of a report is a function of places.
"""

from dataclasses import dataclass
from typing import Any

from raypath.benchmarks.benchmark import Primary
from raypath.study.cells import Cost, Said
from raypath.study.seeds import FEWEST_CHECKPOINTS
from raypath.study.statistics import Population


@dataclass(frozen=True, eq=False)
class Scored:
    """A finished cell."""

    record: dict[str, Any]
    said: tuple[Said, ...]
    """One per fit seed."""
    nulls: tuple[Said, ...]
    """Fitted on shuffled labels, each on another shuffle."""
    altered: dict[str, Said]

    @property
    def pretraining(self) -> Cost:
        """What all its pretrainings took: one, or one for each outer fold."""
        return Cost(**self.record["pretraining_cost"])

    @property
    def fitting(self) -> Cost:
        """What tuning and fits took."""
        return Cost(**self.record["cost"])

    def spent(self, what: str) -> float:
        """A part of the cost of *one* pretraining, the mean over folds: no fold's weights have seen the tiles of another's."""
        return getattr(self.pretraining, what) / self.record.get("num_trainings", 1)


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
    def by_seed(self) -> tuple[tuple[Said, ...], ...]:
        """What belongs to each seed, for a sigma over seeds: a fit, or of several draws of the folds all fits of a checkpoint."""
        return self.said if self.num_draws > 1 else tuple((said,) for own in self.said for said in own)

    def on_first_draws(self, num: int) -> tuple[tuple[Said, ...], ...]:
        """Checkpoints x the fits that had one of the first `num` draws of the folds."""
        return tuple(tuple(s for k, s in enumerate(own) if k % self.num_draws < num) for own in self.said)

    @property
    def num_draws(self) -> int:
        """Draws of nested folds that its fits have in turn; 1 for a split that is given."""
        return min(one.record.get("num_draws", 1) for one in self.scored)

    @property
    def pretraining(self) -> Cost:
        """Of all its checkpoints."""
        return sum((one.pretraining for one in self.scored), Cost())

    @property
    def fitting(self) -> Cost:
        """Of tuning and fits on all its checkpoints."""
        return sum((one.fitting for one in self.scored), Cost())

    def spent(self, what: str) -> float:
        """A part of the cost (`tiles_seen`, `cpu_hours`, `gpu_hours`) of one pretraining, the mean over folds and seeds."""
        return sum(one.spent(what) for one in self.scored) / len(self.scored)
