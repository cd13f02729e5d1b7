"""All parts of a study's report, in the order of reading: what was found, what it depends on, why to believe it, what it took.

One decision: a part says nothing where there is nothing to say, and is then left out with its heading.
"""

from raypath.study.comparisons import Comparison
from raypath.study.published.breakhis import breakhis
from raypath.study.results import StudyResults
from raypath.study.section import Section
from raypath.study.sections_curves import altered, equal_compute, label_curve, robustness, scale_curve
from raypath.study.sections_draws import draws
from raypath.study.sections_looks import looks
from raypath.study.sections_scores import matrix, power, ranks, verdicts
from raypath.study.sections_training import losses, selection
from raypath.study.sections_trust import confounders, costs, failed, leakage, lineage
from raypath.study.tables import Table

Found = dict[tuple[str, float], list[Comparison]]
"""Comparisons by protocol and share of labels."""


def all_sections(results: StudyResults, found: Found, table: Table) -> list[Section]:
    """Everything below the verdict."""
    parts = [
        matrix(results, table),
        failed(results),
        *(verdicts(results, protocol, fraction, own) for (protocol, fraction), own in found.items()),
        *(ranks(results, protocol) for protocol in results.protocols),
        draws(results),
        breakhis(results),
        power(results),
        selection(results),
        losses(results),
        label_curve(results),
        scale_curve(results),
        equal_compute(results),
        altered(results),
        robustness(results),
        looks(results),
        confounders(results),
        leakage(results),
        costs(results),
        lineage(results),
    ]
    return [part for part in parts if part is not None]
