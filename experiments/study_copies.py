"""Near-duplicates by features, looked for before a test is opened: within each benchmark, and between it and slides pretrained on.

    runs/near_duplicates/DATA.by-WEIGHTS.json     found once for the same data, encoder and extent
    STUDY/kept_together.json                      who proposed and which pairs made the folds, for as long as the study lives
    STUDY/copies.json                             what was found, for the report

One decision: one encoder proposes for the whole study, the first one that has weights before the study trains its own, and stays
the one when the study grows: other folds would be other tests. Pixels decide (`raypath.study.feature_near_duplicates`). A pair
within a benchmark is treated as one that the rings of `copies` find: kept in one fold, an error across a split that is given, and
let pass by `split.waive`. A tile of a slide that shows a test sample counts as seen (`contamination`) by whoever is pretrained on
that slide; looked for are the indexes of the study's own recipes.

What it costs: the encoder once over each benchmark, which its own cells need anyway, and over MAX_TILES tiles of each index.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import astuple, dataclass, replace
from pathlib import Path

import launch
import numpy as np
import pyarrow as pa
from copies import RULE
from launch import say
from recipes import PRETRAINING
from scoring import features_root
from stages import stages_from_recipe
from study_benchmarks import Loaded, divided

from raypath.benchmarks import PhantomsSettings
from raypath.benchmarks.benchmark import TILE_SCHEMA, with_contents
from raypath.benchmarks.splits.making import MAX_LISTED
from raypath.benchmarks.splits.near_duplicates import LEAST_CORRELATION
from raypath.data.joined_index import AnyIndex, load_index
from raypath.errors import BadInput
from raypath.protocols.encoders import COLOUR, FILE, RANDOM, RANDOM_BN, read_as, weights_id
from raypath.protocols.fitting import embedder_of
from raypath.protocols.frozen import Embedder
from raypath.protocols.probe import ProbeSettings
from raypath.protocols.transfer import feeding
from raypath.run_folder import RunFolder, runs_root
from raypath.study.cells import write_json
from raypath.study.contamination_rules import SeenTile
from raypath.study.feature_near_duplicates import VERSION, FeaturePair, near_duplicates_by_features
from raypath.study.settings import StudyConfig

TAG, MAX_TILES = "raypath.near_duplicates_by_features", 2_000
_UNTRAINED = (COLOUR, FILE, RANDOM, RANDOM_BN)


def look_by_features(config: StudyConfig, benchmarks: Sequence[Loaded], extent_px: int, folder: Path) -> list[Loaded]:
    """The benchmarks with what was found in their tags, and in their folds. Raises BadInput for a pair across a given split."""
    sources = (entry.source for entry in config.encoders if not entry.recipe)
    source = next((source for source in sources if source.partition(":")[0] not in _UNTRAINED), None)
    known = RunFolder(folder).read("kept_together.json") or {"source": source, "pairs": {}}
    source, found, lines = known["source"], [], []
    for one in benchmarks:
        if one.benchmark.kind != "classification":
            found.append(one)
            continue
        why_not = _why_not(one, source)
        looked, words = (one, [why_not]) if why_not else _looked(config, one, source, extent_px, known["pairs"])
        found.append(replace(looked, found=looked.found | {TAG: words[0]}))
        lines.append({"benchmark": one.name, "encoder": source or "", "words": words[0], "listed": words[1:]})
    write_json(folder / "kept_together.json", known)
    write_json(folder / "copies.json", lines)
    return found


def _why_not(one: Loaded, source: str | None) -> str:
    transfer, num = next(iter(one.transfers.values())), len(one.benchmark.table)
    if source is None:
        return "not searched: no encoder of the study has weights before it is pretrained"
    if isinstance(transfer.benchmark, PhantomsSettings):
        return "not searched (phantoms)"
    is_large = num > transfer.max_near_duplicate_samples
    return (
        f"not searched: {num:,} samples, max_near_duplicate_samples={transfer.max_near_duplicate_samples}"
        if is_large
        else ""
    )


def _looked(
    config: StudyConfig, one: Loaded, source: str, extent_px: int, known: dict[str, list[list]]
) -> tuple[Loaded, list[str]]:
    """(the benchmark as it is then scored, a sentence and the first pairs); `known`: pairs of each data hash, filled."""
    search = _Search(one, source, extent_px)
    pairs = [FeaturePair(*pair) for pair in known.setdefault(one.benchmark.data_hash, search.within())]
    names = [(pair.first, pair.second) for pair in pairs]
    apart = divided(one, names)
    listed = [str(pair) for pair, name in zip(pairs, names, strict=True) if name in apart][:MAX_LISTED]
    words = f"{len(pairs)} pairs"
    if pairs:
        words += f", {len(apart)} of them not kept together by the search before"
    if apart:
        one, words = _kept_together(one, names, listed, words)
        say(f"{one.name}: near-duplicates by the features of {source}: {words}")
    tiles = tuple(SeenTile(**tile) for index in _indexes(config) for tile in search.between(index))
    if tiles:
        say(f"{one.name}: tiles of pretraining slides show its samples {len(tiles)} times; the first: {tiles[0].words}")
    return replace(one, seen_tiles=tiles), [words, *listed]


def _kept_together(one: Loaded, pairs: list[tuple[str, str]], listed: list[str], words: str) -> tuple[Loaded, str]:
    """The benchmark with folds that divide none of the pairs. Raises BadInput where its split is given, or made by site, unless
    it is waived.
    """
    split = getattr(next(iter(one.transfers.values())).benchmark, "split", None)
    if split and RULE in split.waive:
        waived = tuple(dict.fromkeys((*one.benchmark.waived, RULE)))
        return replace(one, benchmark=replace(one.benchmark, waived=waived)), f"{words}, waived"
    if not one.is_nested or one.leaves_site_out:
        raise BadInput(
            f"{one.name}: {len(divided(one, pairs))} pairs of near-duplicates by features stand on both sides of its split:"
            f" {'; '.join(listed)}; look at them, mend the set, or let them pass by name: split.waive=['{RULE}']"
        )
    one = replace(one, together=(*one.together, *pairs), by_features=tuple(pairs))  # all: new folds are drawn
    one.folds  # noqa: B018 - can it still be divided?
    return one, f"{words}, kept together now"


def _indexes(config: StudyConfig) -> list[str]:
    """The indexes that recipes of the study are pretrained on."""
    recipes = (entry for entry in config.encoders if entry.recipe)
    stages = (stages_from_recipe(PRETRAINING, e.recipe, [*config.pretraining, *e.settings]) for e in recipes)
    return list(dict.fromkeys(stage.index for own in stages for stage in own if stage.index and not stage.pool))


@dataclass(frozen=True)
class _Search:
    """One benchmark by the features of one encoder; what was found is kept."""

    one: Loaded
    source: str
    extent_px: int

    @property
    def fed_px(self) -> int:
        """The extent at which the cells of the benchmark are fed, so that they find these features."""
        return next(iter(self.one.transfers.values())).extent_px or self.extent_px

    @property
    def embedder(self) -> Embedder:
        """The encoder; it is fed with whole samples, whatever a px is."""
        base, benchmark = next(iter(self.one.transfers.values())), self.one.benchmark
        config = replace(base, encoder=self.source, protocol=ProbeSettings(), extent_px=self.fed_px, scale="resize")
        config = replace(config, batch_norm="keep", per_class_train=0, fraction_train=1.0)
        progress = launch.counter(f"{self.one.name}: samples embedded")
        return embedder_of(config, benchmark, feeding(config, benchmark), features_root(), progress)

    def within(self) -> list[list]:
        """The pairs of a benchmark: first, second, cosine, correlation."""
        return self._kept("", self._search_within)

    def between(self, index: str) -> list[dict]:
        """Samples that tiles of an index show, each once for a slide with its most alike tile."""
        opened = load_index(index)
        return self._kept(f".{opened.hash[:16]}", lambda: self._search_between(opened))

    def _kept(self, what: str, search: Callable[[], list]) -> list:
        who = "-".join(filter(None, (weights_id(self.source, seed=0), read_as(self.source), str(self.fed_px)))).replace(
            "/", "-"
        )
        place = runs_root() / "near_duplicates" / f"{self.one.benchmark.data_hash}{what}.by-{who}.json"
        known = json.loads(place.read_text()) if place.exists() else {}
        if known.get("version") != VERSION:
            known = {"version": VERSION, "found": search()}
            write_json(place, known)
        return known["found"]

    def _search_within(self) -> list[list]:
        rows = self.one.benchmark.table
        values = self.embedder.features(self.one.benchmark, rows).values
        return [list(astuple(pair)) for pair in near_duplicates_by_features(rows, values, rows, values)]

    def _search_between(self, index: AnyIndex) -> list[dict]:
        rows, tiles, embedder = self.one.benchmark.table, tiles_of(index), self.embedder
        values = embedder.features(self.one.benchmark, rows).values
        frame = replace(embedder.feeding.frame, side_px=None)  # all of a tile
        of_tiles = replace(embedder, feeding=replace(embedder.feeding, frame=frame)).features(self.one.benchmark, tiles)
        least = {"least_correlation": LEAST_CORRELATION}  # tiles and samples are millions of pairs
        slide_of = dict(zip(tiles["sample"].to_pylist(), tiles["slide"].to_pylist(), strict=True))
        best: dict[tuple[str, str], FeaturePair] = {}  # of each slide: one may be held back, another one trained on
        for pair in near_duplicates_by_features(rows, values, tiles, of_tiles.values, **least):
            best.setdefault((pair.first, slide_of[pair.second]), pair)
        return [{"sample": s, "slide": slide, "words": str(pair)} for (s, slide), pair in sorted(best.items())]


def tiles_of(index: AnyIndex, most: int = MAX_TILES) -> pa.Table:
    """At most so many tiles of an index, evenly over all of them, as rows of a benchmark without a label."""
    num = int(index.num_tiles.sum())
    chosen = np.unique(np.linspace(0, num - 1, min(most, num)).astype(np.int64))
    first = np.concatenate([[0], np.cumsum(index.num_tiles)])
    slides = np.searchsorted(first, chosen, side="right") - 1
    rows = [
        row
        for slide in np.unique(slides).tolist()
        for row in _rows(index, slide, chosen[slides == slide] - first[slide])
    ]
    sha256_of = dict(zip(index.column("path").tolist(), index.column("sha256").tolist(), strict=True))
    return with_contents(pa.Table.from_pylist(rows, schema=TILE_SCHEMA), sha256_of)  # so that their features are kept


def _rows(index: AnyIndex, slide: int, tiles: np.ndarray) -> Iterable[dict]:
    about, extent_l0 = index.row(slide), int(index.grid(slide).extent_l0)
    common = {
        "label": 0,
        "patient": about["patient"],
        "split": "train",
        "slide": about["path"],
        "slide_mpp": about["mpp"],
    }
    for x, y in zip(*(corner.tolist() for corner in index.corners(slide, tiles)), strict=True):
        yield common | {"sample": f"{about['slide']} at {x}, {y}", "x_l0": x, "y_l0": y, "extent_l0": extent_l0}
