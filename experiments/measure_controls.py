"""Controls of a study, from its saved predictions: seeds must not be separable, shuffled labels must cover chance.

    python experiments/measure_controls.py STUDY [better=ENCODER,THAN,BENCHMARK ...]

    python experiments/measure_controls.py runs/studies/real better=ImageNet,random,crc_polyp5

Negative controls: every two pretrainings of one encoder that differ in their seed alone, on every benchmark; the score of every
fit on shuffled labels. Positive control: an encoder that must be better than another one, by the verdict of `raypath.study`.
"""

from dataclasses import replace
from itertools import combinations
from pathlib import Path

import launch
from command_line import pick, words_and_settings
from launch import say

from raypath.errors import BadInput
from raypath.study.comparisons import difference, to_colour
from raypath.study.permutation import permutation_p
from raypath.study.results import StudyResults, load_results
from raypath.study.statistics import paired_difference
from raypath.study.verdict import verdict


def main(arguments: list[str]) -> None:
    """Print all controls of one study."""
    words, settings = words_and_settings(arguments)
    if len(words) != 1 or "--help" in words:
        say(__doc__)
        return
    results = load_results(Path(words[0]))
    seeds(results)
    recipes(results)
    nulls(results)
    wanted, _ = pick(settings, "better")
    if wanted:
        better(results, *wanted.split(","))


def seeds(results: StudyResults) -> None:
    """Two seeds of one recipe, as single checkpoints."""
    found = []
    for place in results.places:
        for a, b in combinations(place.scored, 2):
            how = {"num_draws": place.num_draws, "num_resamples": results.config.num_resamples}
            own = paired_difference([a.said], [b.said], place.metric, **how)
            p = permutation_p([a.said], [b.said], place.metric, num_permutations=results.config.num_permutations)
            found.append((place.encoder, place.benchmark, own, p))
    for encoder in dict.fromkeys(encoder for encoder, *_ in found):
        own = [one for one in found if one[0] == encoder]
        apart = [one for one in own if one[2].is_clear and one[3] < 0.05]
        say(f"{encoder}: two seeds not separable in {len(own) - len(apart)} of {len(own)}")
        for _, benchmark, one, p in apart:
            say(f"  {benchmark}: {one.estimate:+.3f} [{one.low:.3f}, {one.high:.3f}], p = {p:.3g}")


def nulls(results: StudyResults) -> None:
    """Fits on shuffled labels: of every place, over patients and shuffles."""
    num, missed = 0, []
    for place in results.places:
        facts, own = results.benchmarks[place.benchmark], results.null_interval(place)
        if own is None or place.metric not in ("balanced_accuracy", "auroc"):
            continue
        chance, num = 0.5 if place.metric == "auroc" else 1 / len(facts["classes"]), num + 1
        if not own.low <= chance <= own.high:
            score = f"{own.estimate:.3f} [{own.low:.3f}, {own.high:.3f}], chance {chance:.3f}"
            missed.append(f"  {place.encoder} on {place.benchmark}: {score}")
    say(f"shuffled labels: chance is covered in {num - len(missed)} of {num}")
    for line in missed:
        say(line)


def recipes(results: StudyResults) -> None:
    """Two recipes that are one: the seeds of an encoder with six or more, three against three, by the verdict's own interval."""
    found = []
    for place in results.places:
        groups = [replace(place, scored=place.scored[k : k + 3]) for k in range(0, len(place.scored) - 2, 3)]
        for a, b in combinations(groups, 2):
            own = difference(results, a, b)
            settings = {"num_permutations": results.config.num_permutations}
            found.append((place, own, permutation_p(a.said, b.said, place.metric, **settings)))
    if found:
        apart = [one for one in found if one[1].is_clear and one[2] < 0.05]
        say(f"one recipe against itself, 3 seeds each: not separable in {len(found) - len(apart)} of {len(found)}")
        for place, own, p in apart:
            say(
                f"  {place.encoder} on {place.benchmark}: {own.estimate:+.3f} [{own.low:.3f}, {own.high:.3f}], p = {p:.3g}"
            )


def better(results: StudyResults, encoder: str, than: str, benchmark: str) -> None:
    """The verdict on one pair, alone."""
    protocol = results.protocols[0]
    a, b = (results.place(name, benchmark, protocol) for name in (encoder, than))
    if a is None or b is None:
        raise BadInput(f"better={encoder},{than},{benchmark}: not scored by {protocol} in {results.folder}")
    found = verdict(encoder, than, difference(results, a, b), to_colour(results, a))
    say(f"{'as it must be' if found.is_better else 'NOT BETTER'}: {found.words}")


if __name__ == "__main__":
    launch.run(main)
