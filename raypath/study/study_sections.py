"""The parts of a study's report, from the verdicts down to the lineage.

One decision: a part is a function of the results that says nothing where there is nothing to say; the order below is the order of
reading.
"""

import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from markupsafe import Markup

from raypath.study.comparisons import Comparison, at_budget
from raypath.study.figures import confusion_figure
from raypath.study.results import Place, StudyResults
from raypath.study.statistics import Interval
from raypath.study.study_figures import curve_figure, map_figure, matrix_figure
from raypath.study.study_tables import altered_table, cost_table, verdict_table
from raypath.study.tables import Table

MAX_CONFUSIONS = 6


@dataclass(frozen=True, kw_only=True)
class Section:
    """A part of the report, with a heading, words, tables and pictures."""

    title: str
    words: tuple[str, ...] = ()
    tables: tuple[Markup, ...] = ()
    pictures: tuple[tuple[str, str, Any], ...] = ()
    """(title, caption, path | matplotlib figure | PIL image)."""
    texts: tuple[tuple[str, str], ...] = field(default=())
    """(name, long text that is folded away)."""


def all_sections(results: StudyResults, found: dict[str, list[Comparison]], table: Table) -> list[Section]:
    """Everything below the verdict, in the order of reading."""
    parts = [
        matrix(results, table),
        *(verdicts(results, protocol, own, is_only=len(found) == 1) for protocol, own in found.items()),
        power(results),
        label_curve(results),
        scale_curve(results),
        equal_compute(results),
        altered(results),
        robustness(results),
        looks(results),
        confounders(results),
        leakage(results),
        costs(results),
        failed(results),
        lineage(results),
    ]
    return [part for part in parts if part is not None]


def matrix(results: StudyResults, table: Table) -> Section:
    """Scores with intervals: a picture and the table."""
    pictures = []
    for protocol in results.protocols:
        rows: dict[str, list[tuple[Place, Interval]]] = {}
        for place in results.places:
            if place.protocol == protocol and place.fraction == 1:
                rows.setdefault(place.benchmark, []).append((place, results.interval(place)))
        if rows:
            caption = f"{protocol}: scores on test with 95 % intervals; hollow: fitted on shuffled labels."
            pictures.append(("Scores", caption, matrix_figure(results, rows)))
    return Section(title="Scores", pictures=tuple(pictures), tables=(table.html(),))


def verdicts(results: StudyResults, protocol: str, found: list[Comparison], *, is_only: bool) -> Section | None:
    """Every comparison with the reference in words."""
    if not found:
        return None
    title = f"Against {results.config.reference}" + ("" if is_only else f", {protocol}")
    return Section(title=title, tables=(verdict_table(found).html(),))


def power(results: StudyResults) -> Section | None:
    """What could be seen at all, as said before any test was opened."""
    lines = tuple(f"{name}: {facts['power']}" for name, facts in results.benchmarks.items())
    return Section(title="What could be seen (said before a test was opened)", words=lines) if lines else None


def label_curve(results: StudyResults) -> Section | None:
    """Score against the share of labels."""
    if len(results.config.fractions) < 2:
        return None
    pictures = []
    for protocol in results.protocols:
        curves: dict[str, dict[str, list]] = {}
        for place in sorted(results.places, key=lambda p: p.fraction):
            if place.protocol == protocol:
                own = curves.setdefault(place.benchmark, {}).setdefault(place.encoder, [])
                own.append((100 * place.fraction, results.interval(place)))
        picture = curve_figure(results, curves, label="% of the training labels", is_log=True)
        pictures.append(
            (f"Labels, {protocol}", "Bands are 95 % intervals; smaller shares are parts of larger ones.", picture)
        )
    return Section(title="How many labels", pictures=tuple(pictures))


def scale_curve(results: StudyResults) -> Section | None:
    """Score against tiles seen, from checkpoints on the way."""
    if not results.on_the_way:
        return None
    curves: dict[str, dict[str, list]] = {}
    names = {(p.encoder, p.benchmark) for p in results.on_the_way}
    protocol = results.protocols[0]
    for place in (*results.on_the_way, *results.places):
        if (place.encoder, place.benchmark) in names and (place.protocol, place.fraction) == (protocol, 1):
            tiles = place.scored[0].record["pretraining_cost"]["tiles_seen"]
            curves.setdefault(place.benchmark, {}).setdefault(place.encoder, []).append(
                (tiles, results.interval(place))
            )
    for lines in curves.values():
        for points in lines.values():
            points.sort(key=lambda point: point[0])
    picture = curve_figure(results, curves, label="tiles seen in pretraining")
    caption = f"{protocol}, saved checkpoints of each pretraining."
    return Section(title="How much pretraining", pictures=(("Scale", caption, picture),))


def equal_compute(results: StudyResults) -> Section | None:
    """The matrix at the smallest budget of all pretrainings."""
    if results.config.budget == "none":
        return None
    what, places = at_budget(results)
    rows = []
    for place in places:
        own = results.interval(place)
        step = place.scored[0].record["step"]
        tiles = place.scored[0].record["pretraining_cost"]["tiles_seen"]
        where = "the end" if step is None else f"step {step:,}"
        score = f"{own.estimate:.3f} [{own.low:.3f}, {own.high:.3f}]"
        rows.append(
            (place.benchmark, place.encoder, place.protocol, f"{place.fraction:.0%}", where, f"{tiles:,}", score)
        )
    columns = ("benchmark", "encoder", "protocol", "labels", "checkpoint", "tiles seen", "test [95 %]")
    return Section(title="Equal compute", words=(what,), tables=(Table(columns=columns, rows=tuple(rows)).html(),))


def altered(results: StudyResults) -> Section | None:
    """Grey and stain-jittered test images."""
    table = altered_table(results)
    return table and Section(title="Altered test images", tables=(table.html(),))


def robustness(results: StudyResults) -> Section | None:
    """Curves under stain, blur, JPEG and um per px."""
    if not results.config.has_robustness:
        return None
    from raypath.study.robustness import curves_of
    from raypath.study.robustness_figures import robustness_figure

    pictures = []
    for benchmark in results.benchmarks:
        own = curves_of([p for p in results.places if p.benchmark == benchmark and p.protocol == results.protocols[0]])
        if own:
            pictures.append((benchmark, "Score on shifted test images, 95 % bands.", robustness_figure(own)))
    return Section(title="Robustness", pictures=tuple(pictures)) if pictures else None


def looks(results: StudyResults) -> Section | None:
    """Confusion, sheets of samples, and maps: what people look at."""
    pictures: list[tuple[str, str, Any]] = []
    sheets = _read(results, "pictures.json", [])
    for benchmark in list(results.benchmarks)[:MAX_CONFUSIONS]:
        places = [p for p in results.places if p.benchmark == benchmark and p.fraction == 1]
        best = max(places, key=lambda p: results.interval(p).estimate, default=None)
        if best is not None:
            title = f"Confusion: {benchmark}"
            figure = confusion_figure(best.said[0][0], f"{best.encoder} on {benchmark}")
            pictures.append((title, f"{best.encoder}, {best.protocol}, first fit: the best score here.", figure))
    for sheet in sheets:
        if (results.folder / sheet["file"]).exists():
            pictures.append((sheet["title"], sheet["caption"], results.folder / sheet["file"]))
    for known in _read(results, "maps.json", []):
        caption = (
            f"t-SNE of the features of {known['encoder']}: an illustration. Distances and sizes of groups mean little."
        )
        pictures.append((f"Map: {known['benchmark']}", caption, map_figure(known)))
    return Section(title="To look at", pictures=tuple(pictures)) if pictures else None


def confounders(results: StudyResults) -> Section | None:
    """What a probe reads from features beside the label."""
    rows = [(one["benchmark"], one["encoder"], one["words"]) for one in _read(results, "confounders.json", [])]
    if not rows:
        return None
    columns = ("benchmark", "encoder", "what a probe finds")
    words = (
        "Whether site, scanner or patient can be read from the features. Above chance, a split must keep them apart.",
    )
    return Section(title="Confounders", words=words, tables=(Table(columns=columns, rows=tuple(rows)).html(),))


def leakage(results: StudyResults) -> Section:
    """Within each benchmark, between pretraining and benchmark, and which tests were opened how often."""
    within = tuple(
        (
            name,
            facts["tags"].get("raypath.near_duplicates", "not searched"),
            facts["tags"].get("raypath.waived", "none"),
            facts["split_note"],
        )
        for name, facts in results.benchmarks.items()
    )
    between: dict[tuple[str, str], Counter] = {}
    lines: dict[tuple[str, str], str] = {}
    for place in results.places:
        for one in place.scored:
            key = (place.encoder, place.benchmark)
            between.setdefault(key, Counter())[one.record["contamination"]["status"]] += 1
            lines[key] = one.record["contamination"]["line"]
    rows = tuple((encoder, name, ", ".join(found), lines[encoder, name]) for (encoder, name), found in between.items())
    times = Counter((line["benchmark"], line["encoder"], line["data_hash"]) for line in results.openings)
    again = [f"{name}: opened {num} times for {encoder}" for (name, encoder, _), num in times.items() if num > 1]
    again += [
        f"  {line['time']} {line['benchmark']}, {line['encoder']}: {line['reason']}"
        for line in results.openings
        if line["opening"] > 1
    ]
    words = (
        (f"{len(times)} tests (a fold has its own) were opened, each once for an encoder.",)
        if not again
        else (f"{len(times)} tests were opened; more than once:", *again)
    )
    return Section(
        title="Leakage, contamination and the seal of the tests",
        words=words,
        tables=(
            Table(columns=("benchmark", "near-duplicates", "waived", "split"), rows=within).html(),
            Table(columns=("encoder", "benchmark", "status", "what its pretraining saw of the test"), rows=rows).html(),
        ),
    )


def costs(results: StudyResults) -> Section:
    """What it took."""
    return Section(title="Cost", tables=(cost_table(results).html(),))


def failed(results: StudyResults) -> Section | None:
    """What did not come to an end."""
    lines = tuple(f"{name}: {reason}" for name, reason in sorted(results.failures.items()))
    return Section(title=f"Failed: {len(lines)}", words=lines) if lines else None


def lineage(results: StudyResults) -> Section:
    """Everything that is needed to do it again, and to check it."""
    rows = [
        (
            "command",
            (results.folder / "command.txt").read_text().strip() if (results.folder / "command.txt").exists() else None,
        )
    ]
    versions = _read(results, "versions.json", {})
    rows += [(name, str(value)) for name, value in versions.items()]
    rows += [(f"data of {name}", facts["data_hash"]) for name, facts in results.benchmarks.items()]
    weights = {(p.encoder, one.record["pretraining_seed"]): one.record for p in results.places for one in p.scored}
    rows += [(f"weights of {encoder}, seed {seed}", _weights(record)) for (encoder, seed), record in weights.items()]
    cells = {one.record["config_hash"] for place in results.places for one in place.scored}
    rows.append(("configs of cells", f"{len(cells)} different, each in cells/KEY/cell.json"))
    study = (results.folder / "study.json").read_text()
    table = Table(columns=("what", "value"), rows=tuple(rows), missing="not written down")
    return Section(title="Lineage", tables=(table.html(),), texts=(("the study's config", study),))


def _weights(record: dict[str, Any]) -> str:
    left_out = f", without {' and '.join(record['left_out'])}" if record["left_out"] else ""
    deviations = f", not as in the paper: {record['deviations']}" if record.get("deviations") else ""
    return f"{record['weights']}{left_out}{deviations} ({Path(record['source']).as_posix()})"


def _read(results: StudyResults, name: str, otherwise: Any) -> Any:
    place = results.folder / name
    return json.loads(place.read_text(encoding="utf-8")) if place.exists() else otherwise
