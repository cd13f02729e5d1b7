"""A study as a config: which encoders are compared on which benchmarks, how, and what is allowed.

One decision: a study is one value, read from a TOML file or made by a function of `experiments/recipes/studies.py`, and
`key=value` changes it like any other config. What only says how the work is carried out is not part of a cell's key, so a study
may grow (another benchmark, another encoder) and keeps every cell that is finished.
"""

import json
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from raypath.config import from_dict, setting
from raypath.data.alterations import parse_alteration
from raypath.errors import BadInput

COLOUR = "colour"


@dataclass(frozen=True, kw_only=True)
class EncoderEntry:
    """One encoder of a study: weights that are there, or a recipe that the study pretrains."""

    name: str
    """What people call it; the report speaks of it by this name."""
    source: str = ""
    """Weights that are there (`protocols.encoders`): runs/ID, imagenet:ARCHITECTURE, random:LIKE, colour, ARCHITECTURE@FILE."""
    recipe: str = ""
    """Or a recipe of `experiments/recipes`, pretrained by the study; stages that follow each other are one encoder."""
    settings: tuple[str, ...] = ()
    """`key=value` changes of the recipe."""
    num_seeds: int = 1
    """Pretrainings (or draws of random weights) with seeds of their own; 3 or more make a verdict about the recipe."""
    curve_points: int = 0
    """Saved checkpoints on the way that are scored as well, for the figure of score against tiles seen.

    They are kept while it is pretrained: where the curve is asked for later, it is pretrained once more.
    """
    leave_out: bool = False
    """Whether its pool is that of the study without the left-out set of the benchmark it is scored on."""
    transductive: bool = False
    """Whether it may be pretrained on the unlabelled slides of a benchmark's val and test, as the first paper's rows are."""
    released: bool = False
    """Whether it is a multi-task model whose pool holds none of the benchmarks, as the second paper's released ones: that is what
    the paper's tables take it for."""
    batch_norm: Literal["keep", "adapt", "recalibrate"] = "keep"
    """As in a transfer; recalibrate makes random weights a fairer baseline."""
    corpora: tuple[str, ...] | None = None
    """For weights from elsewhere: the public collections they were trained on, e.g. ["TCGA"]; []: no pathology; null: unknown."""
    uses_labels: bool = False
    """For weights from elsewhere: whether labels had a say in their training."""
    protocols: tuple[str, ...] = ()
    """The protocols it takes part in; empty: all of the study."""

    def __post_init__(self):
        if bool(self.source) == bool(self.recipe):
            raise ValueError(f"name={self.name!r}: expected source or recipe, one of the two")
        if self.num_seeds < 1 or self.curve_points < 0:
            raise ValueError(
                f"num_seeds={self.num_seeds}, curve_points={self.curve_points}: expected 1 or more, 0 or more"
            )
        if self.source and self.num_seeds > 1 and not self.source.startswith("random"):
            raise ValueError(
                f"name={self.name!r}: num_seeds={self.num_seeds} of weights that are there are the same weights so many times; give"
                " each run an entry of its own, or a recipe that is trained with several seeds"
            )
        if self.source and (self.leave_out or self.settings or self.curve_points):
            raise ValueError(
                f"name={self.name!r}: settings, leave_out and curve_points belong to a recipe, not to weights that are there"
            )


@dataclass(frozen=True, kw_only=True)
class BenchmarkEntry:
    """One labelled set of a study."""

    path: str = ""
    """A folder or a manifest; what it is, is recognised as by `raypath audit`."""
    kind: str = ""
    """The kind of benchmark, where it is not to be recognised."""
    name: str = ""
    """What people call it; empty: as the set calls itself."""
    settings: tuple[str, ...] = ()
    """`key=value` of the benchmark's settings, e.g. 'drop_classes=["basophil"]'."""
    sites: str = ""
    """A CSV file with the columns `name` (of a sample, a patient or a slide), `site`, and any others (scanner ...): of each is
    asked whether features tell it. Empty: barcodes of TCGA, if any."""
    leave_site_out: bool = False
    """Whether each site is the test once, instead of folds of patients."""
    pool: str = ""
    """The same set as a task of a pool (`data.pool_spec`), where encoders are trained with tasks left out, or scored by their own
    heads."""


@dataclass(frozen=True, kw_only=True)
class LeaveOutSettings:
    """Leave-one-task-out (second paper, RECIPES 2.4): which tasks are left out together, what is trained, how it is selected."""

    together: tuple[tuple[str, ...], ...] = ()
    """Benchmarks that leave the pool together (same slides, same patients)."""
    also: tuple[str, ...] = ()
    """Sets that are in every pool and are never scored."""
    grid: dict[str, list[Any]] = field(default_factory=dict)
    """Settings of the recipe -> values: the combinations among which is selected; empty: the recipe as it is."""
    protocol: str = "mormont_svm"
    """The transfer score that selects: this protocol on val of the left-out tasks. The test is not touched by it."""


@dataclass(frozen=True, kw_only=True)
class StudyConfig:
    """Everything that decides what a study computes and says."""

    name: str = setting("study", identity=False)
    question: str = setting("Does pretraining on pathology help on these benchmarks?", identity=False)
    encoders: tuple[EncoderEntry, ...] = ()
    benchmarks: tuple[BenchmarkEntry, ...] = ()
    baseline: str = ""
    """The encoder that every other one is compared with; empty: the first one. All are compared with `colour` too."""
    protocols: tuple[str, ...] = ("probe",)
    """Names as `experiments/sweep.py --list` prints them."""
    fractions: tuple[float, ...] = (1.0,)
    """Shares of the training labels: smaller ones are parts of larger ones."""
    num_seeds: int = 3
    """Fits of the chosen configuration with fresh seeds; a protocol without chance (`probe`, `knn`, `svm`) has one for each draw of
    nested folds. Fits take the draws in turn."""
    seed: int = 0
    """Of splits, folds and tuning; the fresh seeds come after it."""
    pretraining: tuple[str, ...] = ()
    """`key=value` for every recipe that the study pretrains: index=DIR, pool=sets.txt, loop.num_steps=150 ..."""
    transfer: tuple[str, ...] = ()
    """`key=value` for every transfer: extent_px=112, evaluation=given, num_folds=3 ..., and `PROTOCOL.key=value` for one protocol:
    finetune.sweep.num_trials=16, finetune.protocol.epochs=30.

    Nested folds are drawn five times (num_repeats), since another draw is another score; once where a fold costs a training: of
    weights, or of a recipe that must not see the slides that the fold tests."""
    leave_out: LeaveOutSettings = field(default_factory=LeaveOutSettings)
    alterations: tuple[str, ...] = ("grey", "hed=0.05")
    """Test images are scored as they are, and altered in these ways."""
    num_nulls: int = 3
    """Fits on shuffled labels beside every cell, shuffled anew for each (one where weights are trained); 0: none."""
    has_robustness: bool = False
    """Whether curves under stain, blur, JPEG and um per px are made, on all labels, by the first protocol that suits a set."""
    budget: Literal["none", "tiles", "hours"] = "none"
    """Equal compute: the checkpoints are those at the fewest tiles (or hours) that all pretrained encoders have seen."""
    waive: tuple[str, ...] = ()
    """Rules of contamination that pass, each with a tag: content, slide, patient, case, near_duplicate, corpus, corpus_part."""
    method: Literal["bootstrap-t", "percentile", "image"] = "bootstrap-t"
    num_resamples: int = 2000
    num_permutations: int = 10_000
    max_concurrent: int = setting(0, identity=False)
    """Encoders on benchmarks that are scored at once; 0: one per CPU of the cluster."""

    def __post_init__(self):
        names = [entry.name for entry in self.encoders]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"encoders: {', '.join(twice)} more than once; every encoder needs a name of its own")
        if self.baseline and self.baseline not in names:
            raise ValueError(f"baseline={self.baseline!r}: expected one of {', '.join(names)}")
        for name, least in (
            ("num_seeds", 1),
            ("num_resamples", 100),
            ("num_permutations", 100),
            ("max_concurrent", 0),
            ("num_nulls", 0),
        ):
            if getattr(self, name) < least:
                raise ValueError(f"{name}={getattr(self, name)}: expected {least} or more")
        for fraction in self.fractions:
            if not 0 < fraction <= 1:
                raise ValueError(f"fractions: {fraction}: expected more than 0 and at most 1")
        for what in ("protocols", "fractions"):
            if not getattr(self, what) or len(set(getattr(self, what))) < len(getattr(self, what)):
                raise ValueError(f"{what}={list(getattr(self, what))}: expected one at least, and none twice")
        for text in self.alterations:
            _check_alteration(text)

    @property
    def reference(self) -> str:
        """The name of the encoder that others are compared with."""
        return self.baseline or self.encoders[0].name

    def entry(self, name: str) -> EncoderEntry:
        """The encoder of that name."""
        return next(entry for entry in self.encoders if entry.name == name)


def _check_alteration(text: str) -> None:
    try:
        if parse_alteration(text) is None:
            raise BadInput("alterations: an empty text; images as they are are always scored")
    except BadInput as error:
        raise ValueError(str(error)) from None  # told together with what else is wrong


def read_study(path: Path) -> StudyConfig:
    """A study from a TOML file, or from the `study.json` of one that was carried out.

    Relative places in it are relative to where the command is run. Raises BadInput for a file that is neither, and for keys and
    values that are none, all at once.
    """
    read, kind = (json.loads, "JSON") if path.suffix == ".json" else (tomllib.loads, "TOML")
    try:
        values = dict(read(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise BadInput(f"{path}: expected a study as a {kind} file ({error})") from None
    try:
        return from_dict(StudyConfig, {"name": path.stem} | values)
    except BadInput as error:
        raise BadInput("\n".join(f"{path}: {line}" for line in str(error).splitlines())) from None


def check_study(config: StudyConfig) -> None:
    """Raise BadInput for a study that has nothing to compare."""
    if not config.encoders or not config.benchmarks:
        raise BadInput(
            f"{config.name}: {len(config.encoders)} encoders and {len(config.benchmarks)} benchmarks; a study needs one of each at"
            " least: name a study or a TOML file (--list), or set encoders=... and benchmarks=..."
        )
    if not any(entry.source == COLOUR for entry in config.encoders):
        raise BadInput(
            f"{config.name}: no encoder with source={COLOUR}: without it nothing can be called better (colour ties many"
            " encoders on H&E); add it to the encoders"
        )
