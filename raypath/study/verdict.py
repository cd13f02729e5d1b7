"""The answer in words, from numbers: better, worse, or not separable.

One decision: the word is earned. "Better" needs a paired interval that leaves out zero, the same against `colour` (an encoder that
sees mean colours only: what does not beat it has not shown that it sees tissue), 8 patients at least, and where many comparisons
were made an adjusted p-value below 0.05. Whatever is withheld is said, with its number, and every verdict ends with the
population it speaks of. An interval that was not had as asked says how. "Points" are hundredths of the score.

What it costs: nothing.
"""

from dataclasses import dataclass

import numpy as np

from raypath.study.statistics import Difference

FEWEST_PATIENTS = 8  # below it an interval by resampling is a guess
FEW_PATIENTS = 20
LARGEST_P = 0.05


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What can be said of a candidate against a baseline."""

    words: str
    is_better: bool
    is_worse: bool
    is_image_level: bool
    population: str
    """Of whom it is true, in words."""


def verdict(
    candidate: str,
    baseline: str,
    to_baseline: Difference,
    to_colour: Difference | None,
    *,
    adjusted_p: float | None = None,
    colour: str = "colour",
) -> Verdict:
    """Candidate against baseline.

    `to_baseline`, `to_colour`: the candidate's score minus theirs. `to_colour` is None where the baseline (or the candidate) is
    `colour` itself, and where colour was not scored, which withholds "better". `adjusted_p`: by `holm`, over the comparisons of the
    study; None: there is one comparison only.
    """
    is_enough = to_baseline.num_patients >= FEWEST_PATIENTS
    is_sure = adjusted_p is None or adjusted_p < LARGEST_P  # which NaN is not
    is_apart = to_baseline.is_clear and is_enough and is_sure
    is_ahead = is_apart and to_baseline.estimate > 0
    is_better = is_ahead and (colour in (baseline, candidate) or _is_above(to_colour))
    is_worse = is_apart and to_baseline.estimate < 0
    population = population_of(to_baseline)
    parts = [
        _main_words(candidate, baseline, to_baseline, is_better, is_worse),
        _patients_words(to_baseline),
        _p_words(to_baseline, adjusted_p) if is_enough else "",
        "" if colour in (baseline, candidate) else _colour_words(to_colour, is_ahead),
        population,
    ]
    return Verdict(
        words="; ".join(part for part in parts if part),
        is_better=is_better,
        is_worse=is_worse,
        is_image_level=to_baseline.level == "image",
        population=population,
    )


def population_of(difference: Difference) -> str:
    """Of whom a difference is true."""
    unit = "patients" if difference.level == "patient" else "images"
    numbers = {difference.num_checkpoints, difference.num_checkpoints_b} - {1}
    if difference.population == "recipe":
        seeds = " and ".join(str(number) for number in sorted(numbers, reverse=True))
        return f"this recipe ({seeds} pretraining seeds; seeds and {unit} resampled)"
    if numbers:
        return f"these checkpoints ({max(numbers)} pretraining seeds, not resampled; {unit} resampled)"
    return f"this checkpoint (one pretraining seed; {unit} resampled)"


def points(difference: Difference, *, signed: bool = True) -> str:
    """+3.1 [1.2, 4.9]: in hundredths; unsigned turns a negative difference round."""
    estimate, low, high = (100 * value for value in (difference.estimate, difference.low, difference.high))
    if not signed and estimate < 0:
        estimate, low, high = -estimate, -high, -low
    return f"{estimate:{'+' if signed else ''}.1f} [{low:.1f}, {high:.1f}]"


def _main_words(candidate: str, baseline: str, difference: Difference, is_better: bool, is_worse: bool) -> str:
    if np.isnan(difference.estimate):
        return f"{candidate} against {baseline}: no score (a class alone has none)"
    if is_better or is_worse:
        word = "better" if is_better else "worse"
        estimate, interval = points(difference, signed=False).split(" ", 1)
        return f"{candidate} {word} than {baseline} by {estimate} points {interval}"
    if difference.is_clear:  # something else withholds the word
        return f"{candidate} minus {baseline} {points(difference)} points, no verdict"
    return f"{candidate} not separable from {baseline} ({points(difference)})"


def _patients_words(difference: Difference) -> str:
    number = difference.num_patients
    unit = "patients" if difference.level == "patient" else "images"
    words = f"n = {number} {unit}"
    if difference.num_seeds > 1:
        words += f", {difference.num_seeds} fits"
    if number < FEWEST_PATIENTS:
        words += f", too few {unit} for a verdict ({number})"
    elif number < FEW_PATIENTS:
        words += f", few {unit} ({number})"
    words += f", {difference.remark}" if difference.remark else ""
    return words + (", image-level" if difference.level == "image" else "")


def _p_words(difference: Difference, adjusted_p: float | None) -> str:
    if adjusted_p is None or not difference.is_clear:
        return ""
    if adjusted_p < LARGEST_P:
        return f"adjusted p = {adjusted_p:.2g}"
    return f"withheld: adjusted p = {adjusted_p:.2g} over all comparisons, {LARGEST_P} or more"


def _colour_words(to_colour: Difference | None, is_ahead: bool) -> str:
    """Where it stands to colour, whatever the main words are."""
    if to_colour is None:
        return "not compared with colour, which withholds the word better" if is_ahead else ""
    if _is_above(to_colour):
        return f"better than colour by {points(to_colour, signed=False)}"
    word = "worse than colour" if to_colour.is_clear else "not separable from colour"
    return f"{word} ({points(to_colour)})"


def _is_above(difference: Difference | None) -> bool:
    return difference is not None and difference.is_clear and difference.estimate > 0
