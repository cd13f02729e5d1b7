"""The tables of a study: the matrix, the verdicts, what was altered, what it cost.

One decision: a table holds values (`tables`), and a remark stands at the cell that it is about: image-level, few patients,
transductive, waived, one pretraining seed.
"""

from itertools import product

from raypath.study.cells import Cost
from raypath.study.comparisons import Comparison
from raypath.study.results import Place, StudyResults
from raypath.study.statistics import Interval
from raypath.study.study_figures import null_of, point_score
from raypath.study.tables import Noted, Range, Table
from raypath.study.verdict import FEW_PATIENTS, FEWEST_PATIENTS


def matrix_table(results: StudyResults, found: dict[str, list[Comparison]]) -> Table:
    """Every place: score with interval, patients, seeds, its null, and what is said of it against the reference."""
    of_place = {id(one.place): one for own in found.values() for one in own}
    rows = []
    for place in results.places:
        interval, comparison = results.interval(place), of_place.get(id(place))
        rows.append(
            (
                place.benchmark,
                place.encoder,
                place.protocol,
                f"{place.fraction:.0%}",
                place.metric.replace("_", " "),
                _noted(Range(interval.estimate, interval.low, interval.high), notes_of(results, place, interval)),
                interval.num_patients,
                interval.num_checkpoints,
                interval.num_seeds,
                _three(null_of(place)),
                _range_of(comparison),
                _word_of(results, place, comparison),
            )
        )
    rows += [
        (benchmark, encoder, protocol, f"{fraction:.0%}", None, "failed", *[None] * 6)
        for encoder, benchmark, protocol, fraction in absent(results)
    ]
    reference = results.config.reference
    return Table(
        columns=(
            "benchmark",
            "encoder",
            "protocol",
            "labels",
            "metric",
            "test [95 %]",
            "n",
            "pretraining seeds",
            "fits",
            "null",
            f"minus {reference}",
            f"against {reference}",
        ),
        rows=tuple(rows),
        caption=results.config.question,
        missing="not scored, or not compared",
        footnotes=(
            "n: patients, or images where no patient is known. null: the score when fitted on shuffled labels. Intervals: 95 %, "
            f"{results.config.method} over patients (AUROC: closed form), differences paired.",
        ),
    )


def absent(results: StudyResults) -> list[tuple[str, str, str, float]]:
    """Places that were asked for and are not there: encoder, benchmark, protocol, share of labels."""
    config = results.config
    asked = product(config.encoders, results.benchmarks.items(), config.protocols, config.fractions)
    return [
        (entry.name, benchmark, protocol, fraction)
        for entry, (benchmark, facts), protocol, fraction in asked
        if protocol in (entry.protocols or config.protocols)
        and protocol in facts.get("protocols", config.protocols)
        and results.place(entry.name, benchmark, protocol, fraction) is None
    ]


def notes_of(results: StudyResults, place: Place, interval: Interval) -> tuple[str, ...]:
    """What must be known beside a score."""
    notes = []
    if interval.level == "image":
        notes.append(
            "image-level: no patients are known, and the interval is too narrow where images of one patient are many"
        )
    elif interval.num_patients < FEWEST_PATIENTS:
        notes.append(f"too few patients (below {FEWEST_PATIENTS})")
    elif interval.num_patients < FEW_PATIENTS:
        notes.append(f"few patients (below {FEW_PATIENTS})")
    statuses = {one.record["contamination"]["status"] for one in place.scored} - {"clean"}
    notes += [f"pretraining and test: {status}" for status in sorted(statuses)]
    waived = results.benchmarks.get(place.benchmark, {}).get("tags", {}).get("raypath.waived")
    notes += [f"split: waived {waived}"] if waived else []
    return tuple(notes)


def _noted(cell: Range, notes: tuple[str, ...]):
    return Noted(cell, notes) if notes else cell


def _three(value: float | None) -> str | None:
    return None if value is None else f"{value:.3f}"


def _range_of(comparison: Comparison | None) -> Range | None:
    own = comparison and comparison.to_reference
    return Range(own.estimate, own.low, own.high) if own else None


def _word_of(results: StudyResults, place: Place, comparison: Comparison | None) -> str | None:
    if comparison is None:
        return "reference" if place.encoder == results.config.reference else None
    own = comparison.verdict
    return "better" if own.is_better else "worse" if own.is_worse else "not separable"


def verdict_table(found: list[Comparison]) -> Table:
    """Every comparison in words, with its p-values."""
    return Table(
        columns=("benchmark", "verdict", "p", "p (Holm)"),
        rows=tuple(
            (one.place.benchmark, one.verdict.words, f"{one.p_value:.3g}", f"{one.adjusted_p:.3g}") for one in found
        ),
        footnotes=("p: paired permutation test over patients; Holm: corrected for all comparisons of this table.",),
    )


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
        row = (place.benchmark, place.encoder, place.protocol, f"{place.fraction:.0%}", _three(as_is))
        rows.append((*row, *(_three(value) for value in altered)))
    return Table(
        columns=("benchmark", "encoder", "protocol", "labels", "as they are", *names),
        rows=tuple(rows),
        missing="not scored",
        footnotes=("grey: luminance alone; hed: stain jitter of that strength. Fitted on images as they are.",),
    )


def _mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None


def cost_table(results: StudyResults) -> Table:
    """What each place took: pretraining and, beside it, tuning with fits."""
    rows = []
    for place in results.places:
        training = sum((Cost(**one.record["pretraining_cost"]) for one in place.scored), Cost())
        fitting = sum((Cost(**one.record["cost"]) for one in place.scored), Cost())
        rows.append(
            (
                place.encoder,
                place.benchmark,
                place.protocol,
                f"{place.fraction:.0%}",
                f"{training.tiles_seen:,}",
                f"{training.cpu_hours:.3f}",
                f"{training.gpu_hours:.3f}",
                f"{fitting.tiles_seen:,}",
                f"{fitting.cpu_hours:.3f}",
                f"{fitting.gpu_hours:.3f}",
                fitting.num_trials,
            )
        )
    return Table(
        columns=(
            "encoder",
            "benchmark",
            "protocol",
            "labels",
            "pretraining: tiles seen",
            "CPU h",
            "GPU h",
            "tuning and fits: images seen",
            "CPU h ",
            "GPU h ",
            "trials",
        ),
        rows=tuple(rows),
        footnotes=(
            "All seeds together; hours are those of the processors that were held. A pretraining that several benchmarks share is"
            " counted with each.",
        ),
    )
