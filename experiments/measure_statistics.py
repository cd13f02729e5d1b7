"""Measure what the statistics promise: how often intervals hold the truth, and how often tests see what is not there.

    python experiments/measure_statistics.py                      all tables, 1,000 studies each (10 to 20 minutes on one core)
    python experiments/measure_statistics.py coverage num=200     one of coverage, few_errors, folds, draws, recipe,
                                                                  false_positives; fewer studies

One decision: simulated studies whose truth is known. Patients have unevenly many images (log-normal) and difficulties of their own,
shared by the two encoders in part, so images of one patient resemble each other; checkpoints differ in skill, and in which
patients they find hard. The truth is the score over endlessly many patients (and checkpoints). All numbers repeat with the seed.
"""

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from measure import Rows, show
from scipy.special import expit
from scipy.stats import norm

from raypath.benchmarks import Predictions
from raypath.study.permutation import permutation_p
from raypath.study.statistics import paired_difference, score_interval

METHODS = ("bootstrap-t", "percentile", "image")
PATIENTS = (5, 8, 16, 20, 44, 100)
NUM_RESAMPLES = 600


@dataclass(frozen=True, kw_only=True)
class World:
    """Where simulated studies come from; effects are in log-odds of an image being right."""

    skill: tuple[float, float] = (1.2, 0.6)
    """Of the two encoders."""
    images: float = 10.0
    """Images per patient, the median."""
    spread: float = 0.8
    """Of the logarithm of images per patient."""
    difficulty: float = 1.0
    """Standard deviation between patients, shared by all encoders."""
    taste: float = 0.5
    """The same of each encoder by itself."""
    luck: float = 0.0
    """Standard deviation between checkpoints of one encoder."""
    quirk: float = 0.0
    """Standard deviation between patients of each checkpoint by itself."""
    draw: float = 0.0
    """Standard deviation between draws of the folds, for each encoder by itself."""

    def true_scores(self) -> np.ndarray:
        """The score of each encoder over endlessly many patients and checkpoints, by integration over the normal effects [2]."""
        nodes, weights = np.polynomial.hermite_e.hermegauss(80)
        width = np.sqrt(self.difficulty**2 + self.taste**2 + self.luck**2 + self.quirk**2 + self.draw**2)
        return np.array([weights @ expit(skill + width * nodes) for skill in self.skill]) / weights.sum()

    def images_of(self, num_patients: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """(patient, label) of every image; of both classes as many, give or take one."""
        sizes = np.maximum(1, np.rint(self.images * np.exp(self.spread * rng.normal(size=num_patients)))).astype(int)
        patient = np.repeat(np.arange(num_patients), sizes)
        return patient, rng.permutation(len(patient)) % 2

    def study(
        self, num_patients: int, num_checkpoints: int, rng: np.random.Generator, num_draws: int = 1
    ) -> list[list[list[Predictions]]]:
        """Two encoders x checkpoints x a fit for each draw of the folds."""
        patient, label = self.images_of(num_patients, rng)
        names = ([f"s{n}" for n in range(len(patient))], [f"p{n}" for n in patient])
        shared = rng.normal(0, self.difficulty, num_patients)
        study = []
        for skill in self.skill:
            own = shared + rng.normal(0, self.taste, num_patients)
            shifts = rng.normal(0, self.draw, num_draws) if self.draw else np.zeros(num_draws)
            study.append([])
            for _ in range(num_checkpoints):
                effect = own + rng.normal(0, self.luck) + rng.normal(0, self.quirk, num_patients)
                luck = rng.random(len(patient))  # of an image, whatever the draw
                right = [luck < expit(skill + effect + shift)[patient] for shift in shifts]
                said = [np.eye(2)[np.where(is_right, label, 1 - label)] for is_right in right]
                study[-1].append([Predictions(*names, label, one, ("a", "b")) for one in said])
        return study


def coverage_row(num_patients: int, num_studies: int) -> dict[str, tuple[float, float]]:
    """{method: coverage of the score, of the paired difference} of 95 % intervals of balanced accuracy."""
    world, rng = World(), np.random.default_rng(num_patients)
    truth = world.true_scores()
    hits = {method: np.zeros(2) for method in METHODS}
    for number in range(num_studies):
        a, b = world.study(num_patients, 1, rng)
        for method in METHODS:
            options = {"method": method, "num_resamples": NUM_RESAMPLES, "seed": number}
            hits[method] += [
                holds(score_interval(a, **options), truth[0]),
                holds(paired_difference(a, b, **options), truth[0] - truth[1]),
            ]
    return {method: tuple(values / num_studies) for method, values in hits.items()}


def few_errors_row(skill: float, num_patients: int, num_studies: int) -> dict[str, float]:
    """The true accuracy, the share of scores that got exact bounds, coverages of score and difference, and of percentiles."""
    world, rng = World(skill=(skill, skill - 0.5)), np.random.default_rng(num_patients)
    truth = world.true_scores()
    found = dict.fromkeys(("exact", "score", "score where exact", "diff", "percentile"), 0)
    for number in range(num_studies):
        a, b = world.study(num_patients, 1, rng)
        options = {"num_resamples": NUM_RESAMPLES, "seed": number}
        one = score_interval(a, **options)
        is_exact = one.method == "clopper-pearson"
        found["exact"] += is_exact
        found["score"] += holds(one, truth[0])
        found["score where exact"] += is_exact and holds(one, truth[0])
        found["diff"] += holds(paired_difference(a, b, **options), truth[0] - truth[1])
        found["percentile"] += holds(score_interval(a, method="percentile", **options), truth[0])
    where_exact = found["score where exact"] / max(1, found["exact"])
    shares = {name: count / num_studies for name, count in found.items()}
    return {"accuracy": float(truth[0])} | shares | {"score where exact": where_exact}


def fold_row(num_patients: int, is_label_of_patient: bool, num_studies: int) -> dict[str, tuple[float, float]]:
    """{who is compared: coverage of the AUROC, of the paired difference}, five folds, each on a scale of its own.

    A score is normal within a class and shifted for a patient; of patients that have one label each, 35 % are positive.
    """
    world, rng = World(difficulty=0.6, taste=0.3), np.random.default_rng(num_patients)
    noise = np.sqrt(2 * (1 + world.difficulty**2 + world.taste**2))
    truth = norm.cdf(np.array(world.skill) / noise)
    hits = {"within a fold": np.zeros(2), "all": np.zeros(2)}
    for _ in range(num_studies):
        a, b = _folded(world, num_patients, is_label_of_patient, rng)
        for who in hits:
            one, other = (each if who == "within a fold" else replace(each, fold=None) for each in (a, b))
            hits[who] += [
                holds(score_interval(one, "auroc"), truth[0]),
                holds(paired_difference(one, other, "auroc"), truth[0] - truth[1]),
            ]
    return {who: tuple(values / num_studies) for who, values in hits.items()}


def _folded(world: World, num_patients: int, is_label_of_patient: bool, rng: np.random.Generator) -> list[Predictions]:
    """What two encoders say of all patients, each in its fold."""
    patient, of_image = world.images_of(num_patients, rng)
    of_patient = np.arange(num_patients) < 0.35 * num_patients
    label = of_patient[patient].astype(int) if is_label_of_patient else of_image
    names = ([f"s{n}" for n in range(len(patient))], [f"p{n}" for n in patient])
    fold, shared, found = patient % 5, rng.normal(0, world.difficulty, num_patients), []
    for skill in world.skill:
        value = (
            skill * label + (shared + rng.normal(0, world.taste, num_patients))[patient] + rng.normal(size=len(patient))
        )
        middle, slope = rng.normal(0, 2, 5), 10 ** rng.uniform(-1, 0.5, 5)
        positive = expit(middle[fold] + slope[fold] * value)
        found.append(Predictions(*names, label, np.stack([1 - positive, positive], axis=1), ("a", "b"), fold))
    return found


def recipe_row(
    num_patients: int, num_checkpoints: int, luck: float, num_studies: int
) -> dict[str, tuple[float, float]]:
    """{population: coverage of the recipe's score, of the difference of two recipes}."""
    world, rng = World(luck=luck, quirk=0.3), np.random.default_rng(num_patients * num_checkpoints)
    truth = world.true_scores()
    hits = {population: np.zeros(2) for population in ("checkpoint", "recipe")}
    for number in range(num_studies):
        a, b = world.study(num_patients, num_checkpoints, rng)
        for population in hits:
            options = {"population": population, "num_resamples": 400, "seed": number}
            hits[population] += [
                holds(score_interval(a, **options), truth[0]),
                holds(paired_difference(a, b, **options), truth[0] - truth[1]),
            ]
    return {population: tuple(values / num_studies) for population, values in hits.items()}


def draw_row(num_patients: int, num_draws: int, spread: float, num_studies: int) -> dict[str, tuple[float, float]]:
    """{what an interval holds: coverage of the score over all draws of the folds, of the paired difference}."""
    world, rng = World(draw=spread), np.random.default_rng(num_patients * num_draws)
    truth = world.true_scores()
    hits = {"patients": np.zeros(2), "draws too": np.zeros(2)}
    for number in range(num_studies):
        a, b = world.study(num_patients, 1, rng, num_draws)
        for what in hits:
            options = {"num_draws": num_draws if what == "draws too" else 1, "num_resamples": 400, "seed": number}
            hits[what] += [
                holds(score_interval(a, **options), truth[0]),
                holds(paired_difference(a, b, **options), truth[0] - truth[1]),
            ]
    return {what: tuple(values / num_studies) for what, values in hits.items()}


def false_positive_row(num_patients: int, num_studies: int) -> dict[str, float]:
    """{test: share of studies of two equal encoders in which it sees a difference}."""
    world, rng = World(skill=(1.0, 1.0)), np.random.default_rng(num_patients)
    seen = {"permutation": 0, "bootstrap-t": 0, "image": 0}
    for number in range(num_studies):
        a, b = world.study(num_patients, 1, rng)
        seen["permutation"] += permutation_p(a, b, num_permutations=999, seed=number) <= 0.05
        for method in ("bootstrap-t", "image"):
            seen[method] += paired_difference(a, b, method=method, num_resamples=NUM_RESAMPLES, seed=number).is_clear
    return {test: count / num_studies for test, count in seen.items()}


def holds(interval, truth: float) -> bool:
    """Whether the truth lies in the interval."""
    return bool(interval.low <= truth <= interval.high)


def measure_coverage(num_studies: int) -> None:
    """Each method, by number of patients."""
    rows: Rows = []
    for num_patients in PATIENTS:
        found = coverage_row(num_patients, num_studies)
        rows.append([str(num_patients), *(f"{100 * value:.1f}" for method in METHODS for value in found[method])])
    columns = [f"{method}: {what}" for method in ("b-t", "pct", "image") for what in ("score", "diff")]
    show(f"coverage in % of 95 % intervals, {num_studies} studies", ["patients", *columns], rows)


def measure_few_errors(num_studies: int) -> None:
    """Where errors are few: bootstrap-t with what it gives way to."""
    rows: Rows = []
    for skill, num_patients in [(skill, n) for skill in (3.2, 4.0, 5.0) for n in (20, 44)]:
        found = few_errors_row(skill, num_patients, num_studies)
        rows.append([str(num_patients), *(f"{100 * value:.1f}" for value in found.values())])
    columns = ["accuracy", "gave way", "score", "score where it did", "difference", "score by percentiles"]
    show(f"coverage in % where errors are few, {num_studies} studies", ["patients", *columns], rows)


def measure_folds(num_studies: int) -> None:
    """The area under the ROC curve of nested folds: pairs within a fold, and all pairs as if one classifier had said it."""
    rows: Rows = []
    for num_patients, of_what in [(n, what) for what in ("image", "patient") for n in (20, 44, 100)]:
        found = fold_row(num_patients, of_what == "patient", num_studies)
        rows.append([str(num_patients), of_what, *(f"{100 * value:.1f}" for who in found for value in found[who])])
    columns = [f"{who}: {what}" for who in ("within", "all") for what in ("score", "diff")]
    show(
        f"coverage in % of AUROCs of five folds on scales of their own, {num_studies} studies",
        ["patients", "label of", *columns],
        rows,
    )


def measure_draws(num_studies: int) -> None:
    """Several draws of the folds that matter little and much, by number of patients and draws."""
    rows: Rows = []
    for num_patients, num_draws, spread in [(p, d, x) for p in (20, 44) for d in (3, 5, 10) for x in (0.05, 0.15)]:
        found = draw_row(num_patients, num_draws, spread, num_studies)
        numbers = [f"{100 * value:.1f}" for what in found for value in found[what]]
        rows.append([str(num_patients), str(num_draws), str(spread), *numbers])
    columns = [f"{who}: {what}" for who in ("patients", "draws too") for what in ("score", "diff")]
    show(
        f"coverage in % where folds are drawn several times, {num_studies} studies",
        ["patients", "draws", "spread", *columns],
        rows,
    )


def measure_recipe(num_studies: int) -> None:
    """Both populations, where seeds matter little and much, by number of patients and checkpoints; half as many studies."""
    rows: Rows = []
    num_studies = max(1, num_studies // 2)
    for num_patients, num_checkpoints, luck in [(p, c, x) for p in (20, 44) for c in (3, 5) for x in (0.1, 0.5)]:
        found = recipe_row(num_patients, num_checkpoints, luck, num_studies)
        numbers = [f"{100 * value:.1f}" for population in found for value in found[population]]
        rows.append([str(num_patients), str(num_checkpoints), str(luck), *numbers])
    columns = [f"{population}: {what}" for population in ("chkpt", "recipe") for what in ("score", "diff")]
    show(
        f"coverage in % of the recipe's truth, {num_studies} studies",
        ["patients", "checkpoints", "luck", *columns],
        rows,
    )


def measure_false_positives(num_studies: int) -> None:
    """Tests at 5 %, by number of patients; twice as many studies."""
    rows: Rows = []
    for num_patients in (8, 20, 44, 100):
        found = false_positive_row(num_patients, 2 * num_studies)
        rows.append([str(num_patients), *(f"{100 * value:.1f}" for value in found.values())])
    columns = ["permutation", "bootstrap-t interval", "image interval"]
    show(f"false positives in %, {2 * num_studies} studies of equal encoders", ["patients", *columns], rows)


MEASUREMENTS: dict[str, Callable[[int], None]] = {
    "coverage": measure_coverage,
    "few_errors": measure_few_errors,
    "folds": measure_folds,
    "draws": measure_draws,
    "recipe": measure_recipe,
    "false_positives": measure_false_positives,
}

if __name__ == "__main__":
    num = [word.removeprefix("num=") for word in sys.argv[1:] if word.startswith("num=")]
    names = [word for word in sys.argv[1:] if not word.startswith("num=")] or list(MEASUREMENTS)
    if not set(names) <= set(MEASUREMENTS) or not all(text.isdigit() and int(text) for text in num):
        print(__doc__)
        sys.exit(0 if {"-h", "--help"} & set(names) else 2)
    started = time.perf_counter()
    for name in names:
        MEASUREMENTS[name](int(num[-1]) if num else 1000)
    print(f"{time.perf_counter() - started:.0f} s")
