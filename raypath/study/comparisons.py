"""Every encoder against the reference and against colour, on every benchmark: differences, p-values, verdicts.

One decision: the family is what a reader reads together. Holm's correction runs over all comparisons with the reference at one
share of labels, under all protocols; a comparison with `colour` is a condition of the word "better" and not a claim of its own.

The same rule finds what equal compute says: where a budget is set, a pretrained encoder is taken at its last checkpoint within the
smallest budget of all of them (`at_budget`).

What it costs: two intervals and one permutation test for each place, about a second where there are hundreds of patients.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from raypath.study.cells import Said
from raypath.study.permutation import holm, permutation_p
from raypath.study.places import Place
from raypath.study.results import StudyResults
from raypath.study.settings import COLOUR, StudyConfig
from raypath.study.statistics import Difference, Population, paired_difference
from raypath.study.study_figures import point_score
from raypath.study.two_sigma import two_sigma
from raypath.study.verdict import FEWEST_PATIENTS, Verdict, points, verdict

PERMUTATIONS_EACH = 100
MAX_TOLD = 3  # benchmarks without a finding that stand in a sentence with their differences


@dataclass(frozen=True, eq=False)
class Comparison:
    """One encoder against the reference on one benchmark."""

    place: Place
    to_reference: Difference
    to_colour: Difference | None
    p_value: float
    adjusted_p: float
    is_beyond_two_sigma: bool | None
    """By the second paper's rule, a named alternative; None: one score each."""
    verdict: Verdict

    @property
    def word(self) -> str:
        """The verdict in a word or two; "no verdict" where a difference is clear and something else withholds the word."""
        if self.verdict.is_better or self.verdict.is_worse:
            return "better" if self.verdict.is_better else "worse"
        own = self.to_reference
        is_withheld = own.is_clear or own.num_patients < FEWEST_PATIENTS or np.isnan(own.estimate)
        return "no verdict" if is_withheld else "not separable"


def comparisons(results: StudyResults, protocol: str, fraction: float = 1.0) -> list[Comparison]:
    """All of one protocol and share of labels, in the study's order; places without a reference beside them are left out."""
    return [
        _compared(results, place, reference, p, adjusted)
        for place, reference, p, adjusted in _family(results, fraction)
        if place.protocol == protocol
    ]


def size_of_family(config: StudyConfig, protocols: Iterable[Iterable[str]]) -> int:
    """Comparisons with the reference at one share of labels, if nothing fails; `protocols` of each benchmark."""
    kinds = [set(own) for own in protocols]
    taking_part = [set(entry.protocols or config.protocols) for entry in config.encoders]
    reference = set(config.entry(config.reference).protocols or config.protocols)
    return sum(len(own & one & reference) for own in kinds for one in taking_part) - sum(
        len(own & reference) for own in kinds
    )


@lru_cache(maxsize=64)
def _family(results: StudyResults, fraction: float) -> tuple[tuple[Place, Place, float, float], ...]:
    """(place, reference, p, p corrected) of every comparison at a share of labels, under all protocols."""
    pairs = []
    for place in results.places:
        reference = results.place(results.config.reference, place.benchmark, place.protocol, fraction)
        if place.fraction == fraction and reference not in (None, place):
            pairs.append((place, reference))
    # with fewer, no p-value of this family could be below 0.05 once it is corrected
    num_permutations = max(results.config.num_permutations, PERMUTATIONS_EACH * len(pairs))
    settings = {"num_permutations": num_permutations, "seed": results.config.seed}
    p_values = np.array([permutation_p(*on_common_draws(a, b)[:2], a.metric, **settings) for a, b in pairs])
    adjusted = np.full(len(pairs), np.nan)
    is_known = np.isfinite(p_values)
    adjusted[is_known] = holm(p_values[is_known])
    return tuple((*pair, float(p), float(q)) for pair, p, q in zip(pairs, p_values, adjusted))


def _compared(results: StudyResults, place: Place, reference: Place, p: float, adjusted: float) -> Comparison:
    """A place beside the reference, with its verdict."""
    own, colour = difference(results, place, reference), to_colour(results, place)
    name = colour_name(results) or COLOUR
    found = verdict(place.encoder, reference.encoder, own, colour, adjusted_p=adjusted, colour=name)
    return Comparison(place, own, colour, p, adjusted, papers_rule(place, reference), found)


def difference(results: StudyResults, a: Place, b: Place) -> Difference:
    """The paired difference of two places, by the study's method."""
    population: Population = "recipe" if "recipe" in (a.population, b.population) else "checkpoint"
    if {len(a.scored), len(b.scored)} & {2}:
        population = "checkpoint"  # two seeds are too few to be drawn again
    ours, theirs, num_draws = on_common_draws(a, b)
    settings = {
        "num_draws": num_draws,
        "method": results.config.method,
        "num_resamples": results.config.num_resamples,
        "seed": results.config.seed,
    }
    return paired_difference(ours, theirs, a.metric, population=population, **settings)


def on_common_draws(a: Place, b: Place) -> tuple[tuple[tuple[Said, ...], ...], tuple[tuple[Said, ...], ...], int]:
    """What two places say on the draws of the folds that both have, and how many these are."""
    num = min(a.num_draws, b.num_draws)
    return a.on_first_draws(num), b.on_first_draws(num), num


def papers_rule(a: Place, b: Place) -> bool | None:
    """Whether the second paper's 2-sigma rule calls two places different; None where neither has repeats, so no sigma."""
    values = [
        [float(np.mean([point_score(said, place.metric) for said in own])) for own in place.by_seed] for place in (a, b)
    ]
    if max(map(len, values)) < 2:
        return None
    means, sigmas = zip(*((np.mean(own), np.std(own, ddof=1) if len(own) > 1 else 0.0) for own in values))
    return bool(two_sigma(means[0], sigmas[0], means[1], sigmas[1]).is_significant[0])


def to_colour(results: StudyResults, place: Place) -> Difference | None:
    """Against the colour numbers; None where there are none, or the place is theirs."""
    name = colour_name(results)
    colour = results.place(name, place.benchmark, place.protocol, place.fraction) if name else None
    return None if colour is None or place.encoder == name else difference(results, place, colour)


def colour_name(results: StudyResults) -> str | None:
    """What the study calls the colour encoder."""
    return next((entry.name for entry in results.config.encoders if entry.source == COLOUR), None)


def summary(results: StudyResults, found: Iterable[Comparison]) -> list[str]:
    """One sentence for each encoder: on which benchmarks it is better, worse or not separable, with the differences in points."""
    by_encoder: dict[str, list[Comparison]] = {}
    for one in found:
        by_encoder.setdefault(one.place.encoder, []).append(one)
    lines = []
    for encoder, own in by_encoder.items():
        groups = {
            word: [one for one in own if one.word == word]
            for word in ("better", "worse", "not separable", "no verdict")
        }
        told = [_told(word, group) for word, group in groups.items() if group]
        told = told if groups["better"] else ["better on none", *told]
        populations = _populations(own)
        number = "1 benchmark" if len(own) == 1 else f"{len(own)} benchmarks"
        lines.append(
            f"{encoder} against {results.config.reference}, {number}: {'; '.join(told)}."
            f" {populations[:1].upper()}{populations[1:]}.{_fits(own)}"
        )
    return lines


def _populations(own: list[Comparison]) -> str:
    """Of whom verdicts are true; where some are of patients and some of images, once for both."""
    told = list(dict.fromkeys(one.verdict.population for one in own))
    as_images = {words.replace("patients", "images") for words in told}
    both = len(told) == 2 and len(as_images) == 1
    return as_images.pop().replace("images", "patients (or images)") if both else "; ".join(told)


def _told(word: str, group: list[Comparison]) -> str:
    """A verdict, and the benchmarks that have it; with many that are not separable, their differences stand below only."""
    is_short = len(group) > MAX_TOLD and word not in ("better", "worse")
    names = "; ".join(_short(one, with_points=not is_short) for one in group)
    return f"{word} on {len(group)} ({names})"


def _short(one: Comparison, *, with_points: bool) -> str:
    """Benchmark, difference and on how many; where the word is "better", the difference to colour as well."""
    own = one.to_reference
    unit = "patients" if own.level == "patient" else "images"
    said = [f"{points(own)} points"] if with_points else []
    said += [f"against colour {points(one.to_colour)}"] if one.verdict.is_better and one.to_colour is not None else []
    said += [f"n = {own.num_patients} {unit}", *([own.remark] if own.remark else [])]
    return f"{one.place.benchmark}{' ' if with_points else ', '}{', '.join(said)}"


def _fits(group: list[Comparison]) -> str:
    """How many fits stand behind the scores, where it is more than one."""
    numbers = sorted({one.to_reference.num_seeds for one in group})
    if numbers[-1] == 1:
        return ""
    return f" {' to '.join(map(str, dict.fromkeys((numbers[0], numbers[-1]))))} fits of each."


def at_budget(results: StudyResults) -> tuple[str, list[Place]]:
    """(what was held equal, the places at it): pretrained encoders at the last checkpoint within the smallest budget of all.

    An encoder that has no checkpoint within the budget is named in the words, and has no place. Where some were pretrained on
    GPUs and some were not, hours are not one unit: the words say so, and there are no places.
    """
    what = {"tiles": "tiles_seen", "hours": "cpu_hours"}[results.config.budget]
    recipes = {entry.name for entry in results.config.encoders if entry.recipe}
    own = [place for place in results.places if place.encoder in recipes]
    if what == "cpu_hours" and (on_gpus := _trained(own, on_gpus=True)):
        if others := _trained(own, on_gpus=False):
            names = f"{', '.join(on_gpus)} had GPUs in pretraining, {', '.join(others)} had none"
            return f'Hours cannot be held equal: {names}; budget = "tiles" can.', []
        what = "gpu_hours"
    most = min((place.spent(what) for place in own), default=0)
    at_it = {id(place): _last_within(results, place, what, most) if place in own else place for place in results.places}
    without = dict.fromkeys(_told_place(results, place) for place in own if at_it[id(place)] is None)
    unit = f"{most:,.0f} tiles" if what == "tiles_seen" else f"{most:.3g} {_HOURS[what]}"
    words = f"Every pretrained encoder at its last checkpoint within {unit} of pretraining."
    if without:
        words += f" No checkpoint as early was kept of {', '.join(without)}."
    return words, [place for place in at_it.values() if place is not None]


_HOURS = {"cpu_hours": "CPU hours", "gpu_hours": "GPU hours"}


def _trained(own: list[Place], *, on_gpus: bool) -> dict[str, None]:
    """The encoders of which some weights were pretrained on GPUs, or without."""
    scored = ((place.encoder, one) for place in own for one in place.scored)
    return dict.fromkeys(encoder for encoder, one in scored if (one.spent("gpu_hours") > 0) == on_gpus)


def _told_place(results: StudyResults, place: Place) -> str:
    """An encoder, with its share of labels where there are several."""
    return place.encoder if len(results.config.fractions) == 1 else f"{place.encoder} ({place.fraction:.0%} of labels)"


def _last_within(results: StudyResults, place: Place, what: str, most: float) -> Place | None:
    """A place, or the same at an earlier checkpoint, so that it has spent `most` at most (and what rounding adds)."""
    points = [one for one in (*results.on_the_way, place) if _name(one) == _name(place)]
    within = [one for one in points if one.spent(what) <= most * 1.001]
    return max(within, key=lambda one: one.spent(what), default=None)


def _name(place: Place) -> tuple:
    return place.encoder, place.benchmark, place.protocol, place.fraction
