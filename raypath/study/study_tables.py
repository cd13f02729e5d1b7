"""The tables of a study: the matrix, the verdicts, what was altered.

One decision: a table holds values (`tables`), and a remark stands at the cell that it is about: image-level, few patients,
transductive, waived, pretraining seeds that are missing. The CSV has every column; a page says once what is the same in all rows.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import product
from math import isnan

from raypath.study.comparisons import Comparison, colour_name
from raypath.study.draws import FEWEST_DRAWS
from raypath.study.places import Place, Scored
from raypath.study.results import StudyResults
from raypath.study.statistics import Interval
from raypath.study.study_figures import METRIC_WORDS, point_score
from raypath.study.tables import Cell, Noted, Range, Spread, Table
from raypath.study.verdict import FEW_PATIENTS, FEWEST_PATIENTS

_OWN_HEAD = "head"
_OF_COLOUR = "Colour has no weights: whatever the protocol does to the others, it is scored by the frozen one of its kind (probe)."
_OF_RECIPES = (
    "Intervals of recipes of few pretraining seeds are too wide rather than too narrow: those of two recipes of 3 seeds held the"
    " truth in 97 to 99 % of simulated studies."
)


def matrix_table(results: StudyResults, found: Iterable[Comparison]) -> Table:
    """Every place: score with interval, patients, seeds, its null, and what is said of it against the reference."""
    of_place = {id(one.place): one for one in found}
    is_scored = {(p.benchmark, p.encoder, p.protocol, f"{p.fraction:.0%}"): p for p in results.places}
    rows = [_scored_row(results, place, of_place.get(id(place))) for place in results.places]
    rows += [_absent_row(results, *name) for name in absent(results)]
    order = {name: number for number, name in enumerate(results.benchmarks)}
    rows.sort(
        key=lambda row: (order.get(row[0], len(order)), row[0] if row[0] not in order else "", row[:4] not in is_scored)
    )
    reference = results.config.reference
    return Table(
        columns=(
            *("benchmark", "encoder", "protocol", "labels", "metric", "test [95 %]", "n", "pretraining seeds", "fits"),
            *("null", f"minus {reference}", f"against {reference}"),
        ),
        rows=tuple(rows),
        caption=results.config.question,
        missing="not scored, or not compared",
        footnotes=(
            "n: patients, or images where no patient is known. fits: of each pretraining seed, with fresh seeds, on the draws of"
            " nested folds in turn. null: the score when fitted on shuffled labels, over patients and shuffles. Intervals: 95 %,"
            f" {results.config.method} over patients unless a mark says otherwise (AUROC: closed form), and over draws of the"
            f" folds from {FEWEST_DRAWS} on; differences paired, on the draws that both have; 0.01 is one point.",
            *((_OF_COLOUR,) if len(results.protocols) > 1 and colour_name(results) else ()),
        ),
    )


def _scored_row(results: StudyResults, place: Place, comparison: Comparison | None) -> tuple[Cell, ...]:
    interval = results.interval(place)
    score = Range(interval.estimate, interval.low, interval.high)
    notes = notes_of(results, place, interval)
    is_reference = place.encoder == results.config.reference
    return (
        place.benchmark,
        place.encoder,
        place.protocol,
        f"{place.fraction:.0%}",
        METRIC_WORDS[place.metric],
        Noted(score, notes) if notes else score,
        interval.num_patients,
        interval.num_checkpoints,
        interval.num_seeds,
        _null_of(results, place),
        _range_of(comparison),
        comparison.word if comparison else "reference" if is_reference else None,
    )


def _null_of(results: StudyResults, place: Place) -> Range | None:
    interval = results.null_interval(place)
    return Range(interval.estimate, interval.low, interval.high) if interval else None


def _absent_row(
    results: StudyResults, encoder: str, benchmark: str, protocol: str, fraction: float
) -> tuple[Cell, ...]:
    state = "failed" if _is_failed(results.failures, encoder, benchmark, protocol, fraction) else "not scored"
    return (benchmark, encoder, protocol, f"{fraction:.0%}", None, state, *[None] * 6)


def _is_failed(failures: Iterable[str], encoder: str, benchmark: str, protocol: str, fraction: float) -> bool:
    """Whether a cell of the place failed, all of its encoder on the benchmark, or the encoder itself; failures by their names."""
    share = "" if fraction == 1 else f", {fraction:.0%} of labels"
    return any(
        name == encoder
        or (name.startswith(f"{encoder} (seed ") and name.endswith(f" on {benchmark}, {protocol}{share}"))
        or (name.startswith(f"{encoder}, seed ") and name.endswith(f" on {benchmark}"))
        for name in failures
    )


def without_constants(table: Table, columns: Sequence[str]) -> tuple[Table, str]:
    """(the table without those of these columns that say the same in every row, a sentence that says it once)."""
    said = []
    for name in columns:
        values = {row[table.columns.index(name)] for row in table.rows}
        if len(values) == 1:
            table = without_column(table, name)
            said.append(f"{name} {values.pop()}")
    return table, f"In every row: {', '.join(said)}." if said else ""


def without_column(table: Table, name: str) -> Table:
    """The table without a column."""
    gone = table.columns.index(name)
    rows = tuple(row[:gone] + row[gone + 1 :] for row in table.rows)
    return replace(table, columns=table.columns[:gone] + table.columns[gone + 1 :], rows=rows)


def absent(results: StudyResults) -> list[tuple[str, str, str, float]]:
    """Places that were asked for and are not there: encoder, benchmark, protocol, share of labels."""
    config = results.config
    asked = product(config.encoders, results.benchmarks.items(), config.protocols, config.fractions)
    return [
        (entry.name, benchmark, protocol, fraction)
        for entry, (benchmark, facts), protocol, fraction in asked
        if protocol in (entry.protocols or config.protocols)
        and protocol in facts.get("protocols", config.protocols)
        and not (protocol == _OWN_HEAD and fraction < 1)  # a head was trained on all labels
        and results.place(entry.name, benchmark, protocol, fraction) is None
    ]


def notes_of(results: StudyResults, place: Place, interval: Interval) -> tuple[str, ...]:
    """What must be known beside a score."""
    notes = []
    expected = results.config.entry(place.encoder).num_seeds
    if len(place.scored) < expected:
        notes.append(f"{len(place.scored)} of {expected} pretraining seeds")
    if interval.level == "image":
        notes.append(
            "image-level: no patients are known, and the interval is too narrow where images of one patient are many"
        )
    elif interval.num_patients < FEWEST_PATIENTS:
        notes.append(f"too few patients (below {FEWEST_PATIENTS})")
    elif interval.num_patients < FEW_PATIENTS:
        notes.append(f"few patients (below {FEW_PATIENTS})")
    notes += [interval.remark] if interval.remark else []
    if place.metric == "auroc" and any(_lacks_folds(one) for one in place.scored):
        notes.append("scored before folds were told apart: samples of different folds are compared as well")
    statuses = {one.record["contamination"]["status"] for one in place.scored} - {"clean"}
    notes += [f"pretraining and test: {status}" for status in sorted(statuses)]
    waived = results.benchmarks.get(place.benchmark, {}).get("tags", {}).get("raypath.waived")
    notes += [f"split: waived {waived}"] if waived else []
    return tuple(notes)


def _lacks_folds(one: Scored) -> bool:
    return one.record.get("num_folds", 1) > 1 and any(said.fold is None for said in one.said)


def three(value: float | None) -> Spread | None:
    """A number with three decimals; None for what is not known."""
    return None if value is None or isnan(value) else Spread(value, digits=3)


def _range_of(comparison: Comparison | None) -> Cell:
    own = comparison and comparison.to_reference
    if not own:
        return None
    found = Range(own.estimate, own.low, own.high)
    return Noted(found, (own.remark,)) if own.remark else found


def verdict_table(found: list[Comparison]) -> Table:
    """Every comparison in words, with its p-values."""
    return Table(
        columns=("benchmark", "verdict", "p", "p (Holm)", "2 sigma"),
        rows=tuple(
            (one.place.benchmark, one.verdict.words, _p(one.p_value), _p(one.adjusted_p), _beyond(one)) for one in found
        ),
        missing="not defined: a score of one class, or one score without a sigma",
        footnotes=(
            "In points (hundredths of the score). p: paired permutation test over patients of these checkpoints; Holm: corrected"
            " for all comparisons at this share of labels. 2 sigma: the rule of arXiv 2005.02561, that means over seeds differ by"
            " more than twice the larger standard deviation; it knows nothing of patients and decides nothing here.",
            *((_OF_RECIPES,) if any(one.to_reference.population == "recipe" for one in found) else ()),
        ),
    )


def _beyond(comparison: Comparison) -> str | None:
    beyond = comparison.is_beyond_two_sigma
    return None if beyond is None else "beyond" if beyond else "within"


def _p(value: float) -> Spread | None:
    return None if isnan(value) else Spread(value, digits=4)


def altered_table(results: StudyResults) -> Table | None:
    """Scores on altered test images beside those on the images as they are, by the first fit of each checkpoint."""
    names = sorted({name for place in results.places for one in place.scored for name in one.altered})
    names = [name for name in names if name in results.config.alterations]
    if not names:
        return None
    rows = []
    for place in results.places:
        as_is = _mean([point_score(one.said[0], place.metric) for one in place.scored])
        altered = [
            _mean([point_score(one.altered[name], place.metric) for one in place.scored if name in one.altered])
            for name in names
        ]
        row = (place.benchmark, place.encoder, place.protocol, f"{place.fraction:.0%}", three(as_is))
        rows.append((*row, *(three(value) for value in altered)))
    return Table(
        columns=("benchmark", "encoder", "protocol", "labels", "as they are", *names),
        rows=tuple(rows),
        missing="not scored",
        footnotes=(
            "grey: luminance alone; hed: stain jitter of that strength. Fitted on images as they are; all by the first fit of each"
            " checkpoint.",
        ),
    )


def _mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None
