"""Four ways to a classifier side by side: from scratch, features, fine-tuning, joint training (the second paper's bars).

One decision: a bar begins at the foot of the axis and not at zero, because the differences would drown; the axis says where it
begins. A method that was not run is a hatched place with words in it. What it costs: nothing.
"""

from collections.abc import Mapping, Sequence
from math import floor

from matplotlib.figure import Figure
from matplotlib.patches import Patch

from raypath.study.figures import ACCENT, FAINT, INK, PALE, SOFT
from raypath.study.published.gaps import mark_gap
from raypath.study.published.results import METHODS, METRICS, NETWORKS, Result, by_place, tasks_of

BARS: Mapping[str, str] = {"scratch": PALE, "fe_multitask": FAINT, "ft_multitask": ACCENT, "joint": SOFT}
"""The paper's four methods and their colours."""
_FOOT_STEP = 10  # points


def methods_figure(
    results: Sequence[Result], network: str, *, tasks: Sequence[str] | None = None, methods: Mapping[str, str] = BARS
) -> Figure:
    """A group of bars for each task, one for each method (name -> colour), in percent; error bars are twice sigma."""
    places = by_place(results)
    shown = tasks_of(results) if tasks is None else tuple(tasks)
    found = {(task, m): places.get((task, network, m)) for task in shown for m in methods}
    lowest = min((own.mean - 2 * (own.sigma or 0) for own in found.values() if own), default=0.0)
    foot = max(0, floor(lowest / _FOOT_STEP) * _FOOT_STEP)
    figure = Figure(figsize=(max(5, 2 + 1.05 * len(shown)), 4.2), layout="constrained")
    axes = figure.subplots()
    width = 0.84 / len(methods)
    for number, (method, colour) in enumerate(methods.items()):
        for group, task in enumerate(shown):
            left = group - 0.42 + number * width
            own = found[task, method]
            if own is None:
                mark_gap(axes, left, left + width, rotation=90)
                continue
            error = None if own.sigma is None else 2 * own.sigma
            axes.bar(
                left + width / 2, own.mean - foot, width, bottom=foot, color=colour, edgecolor="white", linewidth=0.5
            )
            if error is not None:
                axes.errorbar(left + width / 2, own.mean, yerr=error, color=INK, linewidth=1, capsize=2)
    axes.set_xticks(range(len(shown)), [_named(task, network, places) for task in shown], fontsize=8)
    axes.set(ylim=(foot, 101), xlim=(-0.6, len(shown) - 0.4), ylabel=f"percent (the axis begins at {foot})")
    axes.set_title(f"{NETWORKS.get(network, network)}; error bars: 2 sigma", fontsize=10)
    axes.tick_params(axis="x", length=0)
    axes.spines[["top", "right"]].set_visible(False)
    handles = [Patch(color=colour, label=METHODS.get(method, method)) for method, colour in methods.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=min(4, len(methods)), frameon=False, fontsize=8)
    return figure


def _named(task: str, network: str, places: Mapping) -> str:
    """The task on a line of its own, broken where a new word begins, and its metric below."""
    parts = "".join(f"\n{c}" if c.isupper() and k and task[k - 1].islower() else c for k, c in enumerate(task))
    metric = next((own.metric for (name, net, _), own in places.items() if (name, net) == (task, network)), "")
    short = {"acc": "accuracy", "auc": "AUC"}.get(metric, METRICS.get(metric, metric))
    return f"{parts}\n{short}"
