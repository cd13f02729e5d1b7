"""The second paper's tables: scores of every method on every task for one network, and BreakHis.

One decision: the table says only what the rows say. Whether a difference is significant is asked of a rule that is passed in, and
where a sigma is not known the rule is not asked. What it costs: nothing.
"""

from collections.abc import Sequence

from raypath.study.published.golden import NUM_FOLDS
from raypath.study.published.results import METHODS, METRICS, NETWORKS, Place, Result, by_place, tasks_of
from raypath.study.published.transfer_deltas import Rule, judged
from raypath.study.tables import Cell, Noted, Spread, Table

_SOURCES = {
    "imagenet": "ImageNet",
    "multitask": "multi-task",
    "spanhol2017": "Spanhol et al. 2017",
    "song2017": "Song et al. 2017",
}
_TRANSFERS = {"fe": "feature extraction", "ft": "fine-tuning"}


def network_table(
    results: Sequence[Result], network: str, *, tasks: Sequence[str] | None = None, rule: Rule | None = None
) -> Table:
    """A line for each task and a column for each of METHODS, in percent, mean and sigma over the repeats.

    `tasks`: the lines and their order (None: as they first come in `results`). With a rule, a multi-task score that differs
    significantly from the one with ImageNet says so.
    """
    places = by_place(results)
    rows = []
    for task in tasks_of(results) if tasks is None else tasks:
        known = [places[task, network, method] for method in METHODS if (task, network, method) in places]
        metric = next((METRICS.get(result.metric, result.metric) for result in known if result.metric), None)
        num_images = next((result.num_images for result in known if result.num_images is not None), None)
        cells = [_judged_cell(places, (task, network, method), rule) for method in METHODS]
        rows.append((task, metric, num_images, *cells))
    repeats = sorted(
        {result.num_repeats for result in results if result.network == network and result.sigma is not None}
    )
    over = " or ".join(map(str, repeats))
    return Table(
        columns=("task", "metric", "train and val images", *METHODS.values()),
        rows=tuple(rows),
        caption=f"{NETWORKS.get(network, network)}: scores in percent",
        footnotes=(f"mean +- sigma over {over} repeats" if repeats else "no sigma is known",),
    )


def _judged_cell(places: dict[Place, Result], place: Place, rule: Rule | None) -> Cell:
    """A score; a multi-task one with a remark where the rule finds a difference to ImageNet."""
    result = places.get(place)
    if result is None:
        return None
    cell = Spread(result.mean, result.sigma)
    task, network, method = place
    transfer, _, source = method.partition("_")
    other = places.get((task, network, f"{transfer}_imagenet"))
    if source != "multitask" or other is None or not judged(rule, result, other):
        return cell
    word = "better" if result.mean > other.mean else "worse"
    return Noted(cell, (f"significantly {word} than ImageNet with the same transfer",))


def breakhis_table(
    results: Sequence[Result], *, magnifications: Sequence[str], lines: Sequence[tuple[str, str]] | None = None
) -> Table:
    """A line for each transfer, network and source, and a column for each magnification: accuracy in percent.

    `lines`: (method, network) of each, known or not (None: those of `results`). What is over fewer folds than five says so.
    """
    places = by_place(results)
    rows = []
    for method, network in dict.fromkeys((one.method, one.network) for one in results) if lines is None else lines:
        transfer, _, source = method.partition("_")
        own = [places.get((task, network, method)) for task in magnifications]
        cells = [None if result is None else _of_folds(result) for result in own]
        words = (_TRANSFERS.get(transfer, transfer), NETWORKS.get(network, network), _SOURCES.get(source, source))
        rows.append((*words, *cells))
    return Table(
        columns=("transfer", "network", "source", *magnifications),
        rows=tuple(rows),
        caption="BreakHis: accuracy by patient, in percent",
        footnotes=("mean +- sigma over the folds",),
    )


def _of_folds(result: Result) -> Cell:
    cell, num = Spread(result.mean, result.sigma), result.num_repeats
    return cell if num == NUM_FOLDS else Noted(cell, (f"of {num} of the {NUM_FOLDS} folds alone",))
