"""The benchmarks of a study: read, searched for near-duplicates, with their folds and a transfer for each protocol.

One decision: everything that can be wrong with a benchmark is found here, before anything is trained: one that cannot be read or
divided, a protocol that is none for it, a file of sites that does not fit.
"""

import hashlib
import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import pyarrow as pa
from copies import look_for_copies
from nested import outer_folds
from recipes.transfers import TRANSFERS
from transfer_words import asked_for

from raypath.benchmarks import Benchmark
from raypath.config import canonical_json
from raypath.data.csv_files import csv_lines, csv_table
from raypath.data.pool_spec import parse_pool
from raypath.errors import BadInput
from raypath.protocols.transfer import OF_PIXELS, TransferConfig, evaluated
from raypath.study.barcodes import find_barcode
from raypath.study.confounder_probe import PATIENT
from raypath.study.contamination_rules import SeenTile
from raypath.study.settings import StudyConfig
from raypath.study.site_folds import leave_site_out

SITE = "site"
NUM_DRAWS = 5  # of three, Student's t makes twice the spread of an interval that it makes of five
_NAMES = ("sample", "patient", "slide")


@dataclass(frozen=True, eq=False)
class Loaded:
    """A benchmark of the study, read and searched for near-duplicates, with a transfer for each protocol that suits it."""

    name: str
    benchmark: Benchmark
    pool: str
    transfers: dict[str, TransferConfig]
    together: tuple[tuple[str, str], ...] = ()
    found: dict[str, str] = field(default_factory=dict)
    """Tags of what was found."""
    groups: dict[str, dict[str, str]] = field(default_factory=dict)
    """What a file says of samples, patients or slides: column (site, scanner ...) -> name -> value."""
    leaves_site_out: bool = False
    by_features: tuple[tuple[str, str], ...] = ()
    """Those of `together` that the features of an encoder of this study have found."""
    seen_tiles: tuple[SeenTile, ...] = ()
    """Samples that tiles of slides show on which the study pretrains."""
    num_draws_by_fold: int = 1
    """Draws of the folds for an encoder that is pretrained for each fold: one, unless somebody says otherwise."""

    @property
    def site_of(self) -> dict[str, str]:
        """The site of a sample, patient or slide."""
        return self.groups.get(SITE, {})

    def values_of(self, column: str, rows: pa.Table) -> list[str | None]:
        """What is said of every row in a column of `groups`; None where nobody knows."""
        known = self.groups.get(column, {})
        names = zip(*(rows[name].to_pylist() for name in _NAMES), strict=True)
        return [next((known[name] for name in own if name in known), None) for own in names]

    @property
    def folds_hash(self) -> str:
        """What the data of a cell are known by: the set with its split, and what makes its folds others than for all studies."""
        if not (self.leaves_site_out or self.by_features):
            return self.benchmark.data_hash
        site_of = self.site_of if self.leaves_site_out else {}
        made_of = [self.benchmark.data_hash, site_of, *([self.by_features] if self.by_features else [])]
        return hashlib.sha256(canonical_json(made_of).encode()).hexdigest()

    @property
    def task(self) -> str:
        """What it is called as a task of a pool; empty: it is none."""
        return parse_pool(self.pool)[0].name if self.pool else ""

    @property
    def is_nested(self) -> bool:
        """Whether it is scored by outer folds; the same for all protocols."""
        return next(iter(self.transfers.values())).evaluation == "nested"

    @cached_property
    def folds(self) -> list[Benchmark]:
        """The outer folds, draw after draw, or those by site, or the benchmark as it is divided.

        Raises BadInput where it cannot be divided.
        """
        transfer = max(self.transfers.values(), key=lambda own: own.num_repeats or 1)
        if self.leaves_site_out:
            return leave_site_out(self.benchmark, self.site_of, seed=transfer.seed)
        return outer_folds(transfer, self.benchmark, self.together) if self.is_nested else [self.benchmark]

    @property
    def folds_per_draw(self) -> int:
        """Of each draw, every sample is tested by one."""
        return len(self.folds) // max(own.num_repeats or 1 for own in self.transfers.values())

    def folds_of(self, transfer: TransferConfig) -> list[Benchmark]:
        """Those by which a transfer is scored: of the first draws as many as it asks for."""
        return self.folds[: self.folds_per_draw * (transfer.num_repeats or 1)]


def divided(one: Loaded, pairs: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """Those of some pairs of samples that stand on two sides of the split, or are tested by two folds."""
    sides_of: dict[str, list[int | str]] = defaultdict(list)
    for number, fold in enumerate(one.folds):
        for sample, split in zip(fold.table["sample"].to_pylist(), fold.table["split"].to_pylist(), strict=True):
            if not one.is_nested or split == "test":
                sides_of[sample].append(number if one.is_nested else split)
    # a sample of no known site is tested by no fold, and trained on by all
    return [pair for pair in pairs if sides_of[pair[0]] != sides_of[pair[1]]]


def load_benchmarks(config: StudyConfig) -> list[Loaded]:
    """All benchmarks, read. Raises BadInput for one that cannot be, for two of a name, and for near-duplicates across a split."""
    loaded = [_load(config, number) for number in range(len(config.benchmarks))]
    names = [one.name for one in loaded]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise BadInput(
            f"{config.name}: two benchmarks are called {', '.join(twice)}; give one a name of its own: name="
        )
    return loaded


def _load(config: StudyConfig, number: int) -> Loaded:
    entry = config.benchmarks[number]
    # messages write them with `benchmark.`, a study may leave it out
    settings = [f"benchmark.{one.removeprefix('benchmark.')}" for one in entry.settings]
    words = [entry.path] if entry.path else []
    if entry.kind:  # said, not recognised
        settings += [f"benchmark.kind={entry.kind}", *(f"benchmark.path={json.dumps(word)}" for word in words)]
        words = []
    transfers, benchmark, num_asked = {}, None, []
    for protocol in config.protocols:
        asked = asked_for([*words, protocol, *settings, *settings_for(protocol, config.transfer)])
        transfer = replace(asked.config(), seed=config.seed)
        benchmark = benchmark or transfer.benchmark.load(config.seed)
        if isinstance(transfer.protocol, OF_PIXELS) == (benchmark.kind == "segmentation"):
            transfers[protocol] = evaluated(transfer, benchmark, num_repeats=NUM_DRAWS)
            num_asked += [transfer.num_repeats] if transfer.num_repeats else []
    if config.method == "percentile" and benchmark.primary == "auroc":
        raise BadInput(
            f"{benchmark.name}: method=percentile knows no AUROC, its primary metric; use bootstrap-t or image"
        )
    if len({(own.evaluation, own.evaluation == "nested" and own.num_folds) for own in transfers.values()}) > 1:
        raise BadInput(
            f"{benchmark.name}: its protocols ask for different evaluations or num_folds; a test is opened once for them all, so"
            " set them for all, without a protocol's name in front"
        )
    if not transfers:
        raise BadInput(
            f"{benchmark.name} is a {benchmark.kind}: none of the protocols {', '.join(config.protocols)} is for it"
        )
    name = entry.name or benchmark.name
    benchmark = replace(benchmark, name=name)
    if entry.leave_site_out:
        transfers = {protocol: replace(own, evaluation="nested", num_repeats=1) for protocol, own in transfers.items()}
    first = next(iter(transfers.values()))
    looked = look_for_copies(first, benchmark)
    groups = groups_in(entry.sites, looked.benchmark)
    one = Loaded(
        name,
        looked.benchmark,
        entry.pool,
        transfers,
        looked.together,
        looked.tags,
        groups,
        entry.leave_site_out,
        num_draws_by_fold=1 if entry.leave_site_out else max(num_asked, default=1),
    )
    apart = divided(one, one.together)  # of its folds: can it be divided so? before anything is trained
    if apart:
        raise BadInput(
            f"{name}: {len(apart)} pairs of near-duplicates stand at two sites, the first {' and '.join(apart[0])}: mend the set or"
            " its sites, or let them pass by name: split.waive=['near_duplicate']"
        )
    return one


def groups_in(place: str, benchmark: Benchmark) -> dict[str, dict[str, str]]:
    """Column -> name -> value of a file with a column `name`, else the sites of TCGA barcodes; empty cells are not known.

    Raises BadInput for a file that is none, and for a column that is called `patient`: those are the benchmark's own.
    """
    if not place:
        names = {name for column in _NAMES for name in benchmark.table[column].to_pylist() if name}
        found = {name: find_barcode(name) for name in names}
        return {SITE: {name: code.site for name, code in sorted(found.items()) if code}}
    header = [cell.lower() for cell in (csv_lines(Path(place)) or [(1, [])])[0][1]]
    columns = [cell for cell in header if cell and cell != "name"]
    if not columns or PATIENT in columns or len(set(columns)) < len(columns):
        raise BadInput(
            f"{place}: line 1: {', '.join(header)}; expected name and, each once, {SITE} or what else is to be asked, not"
            f" {PATIENT}, which the benchmark knows"
        )
    lines = csv_table(Path(place), ("name", *columns))
    return {column: {cells["name"]: cells[column] for _, cells in lines if cells[column]} for column in columns}


def settings_for(protocol: str, transfer: Sequence[str]) -> list[str]:
    """Those of all transfers, and those that begin with the name of this protocol."""
    own = []
    for setting in transfer:
        name, _, rest = setting.partition(".")
        if name not in TRANSFERS:
            own.append(setting)
        elif name == protocol:
            own.append(rest)
    return own
