"""The parts of a report that answer the question: scores, verdicts, ranks, and what could be seen at all.

One decision: ranks are one test over benchmarks, made where there are ten or more; where there are fewer a line says so, because an
absent section looks like an omission. Whether ranks hold when patients are drawn again is told for any number of benchmarks, as a
description.
"""

import numpy as np
from scipy.stats import rankdata

from raypath.study.comparisons import Comparison
from raypath.study.places import Place
from raypath.study.rank_figures import rank_figure
from raypath.study.ranks import (
    FEWEST_BENCHMARKS,
    FEWEST_ENCODERS,
    RankTest,
    mean_ranks,
    rank_stability,
    rank_test,
    resampled_scores,
)
from raypath.study.results import StudyResults
from raypath.study.section import Section
from raypath.study.statistics import Interval
from raypath.study.study_figures import METRIC_WORDS, colour_of, matrix_figure
from raypath.study.study_tables import verdict_table, without_column, without_constants
from raypath.study.tables import Spread, Table


def matrix(results: StudyResults, table: Table) -> Section:
    """Scores with intervals: a picture for each protocol, and the table."""
    pictures = []
    for protocol in results.protocols:
        rows: dict[str, list[tuple[Place, Interval]]] = {}
        for place in results.places:
            if (place.protocol, place.fraction) == (protocol, results.full):
                rows.setdefault(place.benchmark, []).append((place, results.interval(place)))
        if rows:
            nulls = "; hollow: fitted on shuffled labels" if results.config.num_nulls else ""
            caption = f"{protocol}, {results.full:.0%} of labels: scores on test with 95 % intervals{nulls}."
            pictures.append(("Scores", caption, matrix_figure(results, rows)))
    shown, words = without_constants(without_column(table, "metric"), ("protocol", "labels"))
    lines = tuple(line for line in (_metric_words(results), words) if line)
    return Section(title="Scores", words=lines, pictures=tuple(pictures), tables=(shown,))


def _metric_words(results: StudyResults) -> str:
    """Every metric once, with the benchmarks that are scored by it."""
    scored_by: dict[str, dict[str, None]] = {}
    for place in results.places:
        scored_by.setdefault(METRIC_WORDS[place.metric], {})[place.benchmark] = None
    if len(scored_by) == 1:
        return f"Metric: {next(iter(scored_by))}."
    return "Metrics: " + "; ".join(f"{metric} on {', '.join(names)}" for metric, names in scored_by.items()) + "."


def verdicts(results: StudyResults, protocol: str, fraction: float, found: list[Comparison]) -> Section | None:
    """Every comparison with the reference in words."""
    if not found:
        return None
    title = f"Against {results.config.reference}"
    if len(results.protocols) > 1:
        title += f", {protocol}"
    if len(results.config.fractions) > 1:
        title += f", {fraction:.0%} of labels"
    return Section(title=title, tables=(verdict_table(found),))


def ranks(results: StudyResults, protocol: str) -> Section | None:
    """Friedman's test with the critical-difference diagram, or why there is none."""
    title = "Ranks over benchmarks" + (f", {protocol}" if len(results.protocols) > 1 else "")
    names, kept, scores = _complete_scores(results, protocol)
    left_out = [name for name in results.benchmarks if name not in kept]
    words = (f"Left out, not scored for every encoder: {', '.join(left_out)}.",) if left_out else ()
    tables = (stability_table(results, protocol, names, kept, scores),)
    tables = tables if len(names) > 1 and len(kept) and np.isfinite(scores).all() else ()
    if len(kept) < FEWEST_BENCHMARKS or len(names) < FEWEST_ENCODERS or not np.isfinite(scores).all():
        why = (
            f"No test over benchmarks: it needs {FEWEST_BENCHMARKS} of them and {FEWEST_ENCODERS} encoders, each with a score"
            f" on all of them; here are {len(kept)} and {len(names)}. See the verdicts on each."
        )
        return Section(title=title, words=(why, *words), tables=tables)
    test = rank_test(scores)
    caption = "Benchmarks are the sample here and count alike; whether a difference holds on one of them is said above."
    colours = {name: colour_of(results, name) for name in names}
    pictures = (("Critical differences", caption, rank_figure(names, test, colours)),)
    return Section(title=title, words=(_rank_words(names, test), *words), pictures=pictures, tables=tables)


def stability_table(
    results: StudyResults, protocol: str, names: list[str], kept: list[str], scores: np.ndarray
) -> Table:
    """How often each encoder is first and keeps its rank over the benchmarks in `kept` when their patients are drawn again.

    `scores`: [B, E], as they are.
    """
    drawn = []
    for name in kept:
        places = [results.place(encoder, name, protocol, results.full) for encoder in names]
        how = {"num_resamples": results.config.num_resamples, "seed": results.config.seed + len(drawn)}
        drawn.append(resampled_scores([place.said for place in places], places[0].metric, **how))
    drawn_RBE = np.stack(drawn, axis=1)
    shares = rank_stability(drawn_RBE[np.isfinite(drawn_RBE).all(axis=(1, 2))])
    means = mean_ranks(scores)
    ranks = rankdata(means, method="min").astype(int)
    rows = [
        (names[e], Spread(means[e], digits=2), int(ranks[e]), f"{shares[e, 0]:.0%}", f"{shares[e, ranks[e] - 1]:.0%}")
        for e in np.argsort(means, kind="stable")
    ]
    return Table(
        columns=("encoder", "mean rank", "rank", "first in", "keeps its rank in"),
        rows=tuple(rows),
        footnotes=(
            f"A description, no test: share of {results.config.num_resamples:,} draws of the patients of {len(kept)}"
            f" benchmark{'s' if len(kept) > 1 else ''}, on each the same for all encoders; equal mean ranks share a rank.",
        ),
    )


def _complete_scores(results: StudyResults, protocol: str) -> tuple[list[str], list[str], np.ndarray]:
    """(encoders, benchmarks, scores [B, E]) on all labels; a benchmark that lacks an encoder is left out."""
    own = {(p.benchmark, p.encoder): p for p in results.places if (p.protocol, p.fraction) == (protocol, results.full)}
    scored = {encoder for _, encoder in own}
    encoders = [entry.name for entry in results.config.encoders if entry.name in scored]
    kept = [name for name in results.benchmarks if all((name, encoder) in own for encoder in encoders)]
    scores = [[results.interval(own[name, encoder]).estimate for encoder in encoders] for name in kept]
    return encoders, kept, np.array(scores).reshape(len(kept), len(encoders))


def _rank_words(names: list[str], test: RankTest) -> str:
    ranked = sorted(zip(test.mean_ranks, names))
    told = ", ".join(f"{name} {rank:.2f}" for rank, name in ranked)
    finding = "encoders differ" if test.friedman_p < 0.05 else "no encoder is shown to differ"
    return (
        f"{test.num_benchmarks} benchmarks, Friedman's test p = {test.friedman_p:.2g}: {finding}. Mean ranks (1 is best): {told}."
        f" Those farther apart than {test.critical_difference:.2f} differ (Nemenyi, 5 %)."
    )


def power(results: StudyResults) -> Section | None:
    """What could be seen at all, as said before any test was opened."""
    lines = tuple(
        f"{name}: {facts['power'].replace(facts['metric'], METRIC_WORDS[facts['metric']])}"
        for name, facts in results.benchmarks.items()
    )
    return Section(title="What could be seen (said before a test was opened)", words=lines) if lines else None
