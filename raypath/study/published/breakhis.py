"""BreaKHis as the second paper sums it up: for each magnification the mean and sigma over the authors' five folds.

One decision: the score of a fold is the patient recognition rate (Spanhol et al. 2016: the share of a patient's images that are
right, its mean over patients), computed from the predictions that the study kept, and not the study's own metric. A fold that was
not scored is not made up for: the summary says over how many it is. What it costs: nothing.
"""

from collections import defaultdict
from collections.abc import Iterable
from itertools import product

import numpy as np

from raypath.benchmarks import Predictions, recognition_rates
from raypath.benchmarks.published.breakhis import BreaKHisSettings, magnification_of
from raypath.study.places import Place
from raypath.study.published.golden import MAGNIFICATIONS
from raypath.study.published.results import Result, summarised
from raypath.study.published.roles import of_paper
from raypath.study.published.transfer_tables import breakhis_table
from raypath.study.results import StudyResults
from raypath.study.section import Section


def fold_of(place: Place) -> int | None:
    """Which of the authors' folds a place is scored on; None for any other set and division."""
    config = place.scored[0].record["config"]
    benchmark = config["benchmark"]
    is_whole = config.get("evaluation") != "nested" and benchmark.get("target") == "malignancy"
    return benchmark.get("published_fold") if benchmark["kind"] == BreaKHisSettings().kind and is_whole else None


def rates_of(results: StudyResults) -> list[Result]:
    """A row for each magnification, network and method: the recognition rate in percent over folds, on all labels.

    Of several checkpoints or fits on a fold the mean is its score.
    """
    by_fold: dict[tuple[str, str, str], dict[int, float]] = defaultdict(dict)
    for method, place in of_paper(results):
        fold = fold_of(place)
        if fold is None:
            continue
        network = place.scored[0].record.get("architecture") or "not known"
        for magnification, rate in _rates(place).items():
            by_fold[magnification, network, method][fold] = rate
    return [
        summarised(list(folds.values()), task=task, network=network, method=method, metric="acc")
        for (task, network, method), folds in by_fold.items()
    ]


def _rates(place: Place) -> dict[str, float]:
    """By magnification, in percent."""
    every: dict[str, list[float]] = defaultdict(list)
    for said in (said for own in place.said for said in own if isinstance(said, Predictions)):
        for name, found in recognition_rates(said, lambda sample: f"{magnification_of(sample)}x").items():
            every[name].append(100 * found.rate)
    return {name: float(np.mean(rates)) for name, rates in every.items()}


def breakhis_lines(networks: Iterable[str]) -> list[tuple[str, str]]:
    """The (method, network) that the paper has a line for, in its order."""
    lines = product(("fe", "ft"), networks, ("imagenet", "multitask"))
    return [(f"{transfer}_{source}", network) for transfer, network, source in lines]


def breakhis(results: StudyResults) -> Section | None:
    """The part of a report with the paper's table; None where no fold of BreaKHis was scored."""
    rates = rates_of(results)
    if not rates:
        return None
    lines = breakhis_lines(dict.fromkeys(rate.network for rate in rates))
    table = breakhis_table(rates, magnifications=MAGNIFICATIONS, lines=lines)
    words = (
        "The patient recognition rate (Spanhol et al. 2016), as arXiv 2005.02561 reports it; sigma is between folds."
    )
    return Section(title="BreaKHis by patient", words=(words,), tables=(table,))
