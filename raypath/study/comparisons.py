"""Every encoder against the reference and against colour, on every benchmark: differences, p-values, verdicts.

One decision: the family is what a reader reads together. Holm's correction runs over all comparisons with the reference under one
protocol and one share of labels; a comparison with `colour` is a condition of the word "better" and not a claim of its own.

The same rule finds what equal compute says: where a budget is set, a pretrained encoder is taken at its last checkpoint within the
smallest budget of all of them (`at_budget`).

What it costs: two intervals and one permutation test for each place, about a second where there are hundreds of patients.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from raypath.study.permutation import holm, permutation_p
from raypath.study.results import Place, StudyResults
from raypath.study.settings import COLOUR
from raypath.study.statistics import Difference, Population, paired_difference
from raypath.study.verdict import Verdict, points, verdict


@dataclass(frozen=True, eq=False)
class Comparison:
    """One encoder against the reference on one benchmark."""

    place: Place
    to_reference: Difference
    to_colour: Difference | None
    p_value: float
    adjusted_p: float
    verdict: Verdict


def comparisons(results: StudyResults, protocol: str, fraction: float = 1.0) -> list[Comparison]:
    """All of one protocol and share of labels, in the study's order; places without a reference beside them are left out."""
    found = []
    for place in results.places:
        if (place.protocol, place.fraction) != (protocol, fraction) or place.encoder == results.config.reference:
            continue
        reference = results.place(results.config.reference, place.benchmark, protocol, fraction)
        if reference is not None:
            settings = {"num_permutations": results.config.num_permutations, "seed": results.config.seed}
            p = permutation_p(place.said, reference.said, place.metric, **settings)
            found.append((place, difference(results, place, reference), to_colour(results, place), p))
    p_values = np.array([p for *_, p in found])
    adjusted = np.full(len(found), np.nan)
    is_known = np.isfinite(p_values)
    adjusted[is_known] = holm(p_values[is_known])
    return [
        Comparison(place, own, colour, p, float(corrected), _verdict(results, place, own, colour, float(corrected)))
        for (place, own, colour, p), corrected in zip(found, adjusted)
    ]


def difference(results: StudyResults, a: Place, b: Place) -> Difference:
    """The paired difference of two places, by the study's method."""
    population: Population = "recipe" if "recipe" in (a.population, b.population) else "checkpoint"
    if {len(a.scored), len(b.scored)} & {2}:
        population = "checkpoint"  # two seeds are too few to be drawn again
    settings = {
        "method": results.config.method,
        "num_resamples": results.config.num_resamples,
        "seed": results.config.seed,
    }
    return paired_difference(a.said, b.said, a.metric, population=population, **settings)


def to_colour(results: StudyResults, place: Place) -> Difference | None:
    """Against the colour numbers; None where there are none, or the place is theirs."""
    name = colour_name(results)
    colour = results.place(name, place.benchmark, place.protocol, place.fraction) if name else None
    return None if colour is None or place.encoder == name else difference(results, place, colour)


def colour_name(results: StudyResults) -> str | None:
    """What the study calls the colour encoder."""
    return next((entry.name for entry in results.config.encoders if entry.source == COLOUR), None)


def _verdict(
    results: StudyResults, place: Place, own: Difference, colour: Difference | None, adjusted: float
) -> Verdict:
    name = colour_name(results) or COLOUR
    return verdict(place.encoder, results.config.reference, own, colour, adjusted_p=adjusted, colour=name)


def summary(results: StudyResults, found: Iterable[Comparison]) -> list[str]:
    """One sentence for each encoder: on which benchmarks it is better, worse or not separable, with the differences in points."""
    by_encoder: dict[str, list[Comparison]] = {}
    for one in found:
        by_encoder.setdefault(one.place.encoder, []).append(one)
    lines = []
    for encoder, own in by_encoder.items():
        better = [one for one in own if one.verdict.is_better]
        worse = [one for one in own if one.verdict.is_worse]
        neither = [one for one in own if not (one.verdict.is_better or one.verdict.is_worse)]
        groups = [("better on", better), ("worse on", worse), ("not separable, or no verdict, on", neither)]
        told = [f"{words} {len(group)} ({'; '.join(map(_short, group))})" for words, group in groups if group]
        told = told if better else ["better on none", *told]
        population = next(iter({one.verdict.population for one in own}), "")
        head = f"{encoder} against {results.config.reference}, {len(own)} benchmark{'' if len(own) == 1 else 's'}"
        lines.append(f"{head}: {', '.join(told)}. {population[:1].upper()}{population[1:]}.")
    return lines


def _short(one: Comparison) -> str:
    return f"{one.place.benchmark} {points(one.to_reference)}, n = {one.to_reference.num_patients}"


def at_budget(results: StudyResults) -> tuple[str, list[Place]]:
    """(what was held equal, the places at it): pretrained encoders at the last checkpoint within the smallest budget of all."""
    what = {"tiles": "tiles_seen", "hours": "cpu_hours"}[results.config.budget]
    recipes = {entry.name for entry in results.config.encoders if entry.recipe}
    if what == "cpu_hours" and any(_spent(place, "gpu_hours") for place in results.places if place.encoder in recipes):
        what = "gpu_hours"
    own = [place for place in results.places if place.encoder in recipes]
    most = min((_spent(place, what) for place in own), default=0)
    chosen = [place for place in results.places if place.encoder not in recipes]
    for place in own:
        points = [
            p for p in (*results.on_the_way, place) if _name(p) == _name(place) and _spent(p, what) <= most * 1.001
        ]
        if points:
            chosen.append(max(points, key=lambda p: _spent(p, what)))
    unit = f"{most:,} tiles" if what == "tiles_seen" else f"{most:.3g} {what.replace('_', ' ')}"
    return f"at most {unit} of pretraining", chosen


def _name(place: Place) -> tuple:
    return place.encoder, place.benchmark, place.protocol, place.fraction


def _spent(place: Place, what: str) -> float:
    """Of the pretraining of one checkpoint, the mean over seeds."""
    return float(np.mean([one.record["pretraining_cost"][what] for one in place.scored]))
