"""The weights of a study: from a point of its plan to a file, and what that file has cost.

One decision: random weights are a file too, so that the seed of a fit changes nothing about the encoder, and a test is opened for
weights that somebody can look at.
"""

import hashlib
from dataclasses import dataclass, field, replace
from pathlib import Path

from entrants import absolute_source
from study_plan import Point, architecture_of
from study_pretraining import checkpoints_of, cost_of

from raypath.config import config_hash
from raypath.errors import BadInput
from raypath.models import build_encoder
from raypath.models.weights import save_encoder
from raypath.protocols.encoders import RANDOM, RANDOM_BN, open_encoder, read_as, weights_id
from raypath.run_folder import RunFolder
from raypath.study.cells import Checkpoint, Cost
from raypath.study.seen import Seen, seen_by
from raypath.study.settings import EncoderEntry, StudyConfig
from raypath.training.checkpoint import ENCODER, read_step


def training_of(point: Point) -> str:
    """The name of a point's pretraining in the graph."""
    return f"pretrain {point.name}"


def declared_of(entry: EncoderEntry) -> Seen | None:
    """What an encoder has seen as far as the study says it; None for a recipe, whose runs know it."""
    if entry.recipe:
        return None
    is_drawn = entry.source.partition(":")[0] in (RANDOM, RANDOM_BN)
    source = entry.source if is_drawn else absolute_source(entry.source)
    return seen_by(source, corpora=entry.corpora, uses_labels=entry.uses_labels)


@dataclass
class Weights:
    """Where the weights of every point are."""

    config: StudyConfig
    folder: Path
    """The study's."""
    trained: dict[str, Path] = field(default_factory=dict)
    """The run of each pretraining that has ended."""

    def source_of(self, point: Point) -> str:
        """The source of an entry; bare `random` is like the first encoder that has an architecture."""
        source = point.entry.source
        if source not in (RANDOM, RANDOM_BN):
            return absolute_source(source)
        settings = architecture_of(self.config)
        if settings is None:
            raise BadInput(f"{point.entry.name}: random weights of which architecture? write random:ARCHITECTURE")
        return source

    def checkpoint(self, point: Point, step: int | None) -> Checkpoint:
        """The weights of a point, now that they are there. Raises BadInput for a checkpoint on the way that was not kept."""
        entry = point.entry
        if not entry.recipe:
            source = self.materialised(point)
            return Checkpoint(
                encoder=entry.name,
                seed=point.seed,
                source=source,
                weights=weights_id(source, seed=point.seed),
                read_as=read_as(source),
            )
        if point.num_folds:
            return self.checkpoint_by_fold(point, step)
        run = RunFolder(self.trained[training_of(point)])
        places = checkpoints_of(run, entry.curve_points)
        if step is not None and step >= len(places) - 1:
            raise BadInput(
                f"curve_points={entry.curve_points}, and {len(places) - 1} checkpoints before the last were kept: {run.path}"
            )
        place = places[-1 if step is None else step]
        return Checkpoint(
            encoder=entry.name,
            seed=point.seed,
            source=str(place / ENCODER),
            weights=weights_id(str(place / ENCODER), seed=point.seed),
            step=None if step is None else read_step(place),
            left_out=point.left_out,
            cost=cost_of(run, place),
            deviations=", ".join(run.read("run.json").get("deviations", [])),
        )

    def checkpoint_by_fold(self, point: Point, step: int | None) -> Checkpoint:
        """Those of all outer folds as one."""
        parts = [self.checkpoint(training, step) for training in point.trainings]
        weights = hashlib.sha256(" ".join(part.weights for part in parts).encode()).hexdigest()[:12]
        cost = sum((part.cost for part in parts), Cost())
        return replace(parts[0], weights=weights, cost=cost, num_trainings=len(parts), by_fold=tuple(parts))

    def materialised(self, point: Point) -> str:
        """The source; random weights as a file, so that the seed of a fit does not change them."""
        source = self.source_of(point)
        kind, _, like = source.partition(":")
        if kind not in (RANDOM, RANDOM_BN):
            return source
        settings = open_encoder(source, seed=0).settings if like else architecture_of(self.config)
        name = f"{RANDOM}-{settings.architecture}-{config_hash(settings)[:8]}-seed{point.seed}.safetensors"
        place = self.folder / "encoders" / name
        if not place.exists():
            place.parent.mkdir(parents=True, exist_ok=True)
            draft = place.with_suffix(".draft")
            save_encoder(build_encoder(settings, seed=point.seed), draft)
            draft.rename(place)
        return str(place)
