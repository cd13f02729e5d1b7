"""What the hyper-parameters of multi-task pretraining do to transfer: box-plots by learning rate, bars by tau and warm-up.

After the second paper's figures: a box holds the scores of every training with that rate on one network and task; the bars are
means over seeds at one rate, with twice the sample standard deviation. The paper drew twenty of each and printed no numbers, so
without runs of our own every place is hatched.

One decision: few points are shown as points. A box over less than ten scores says more than it knows, so they are drawn on top.
What it costs: nothing.
"""

from collections.abc import Sequence
from math import ceil
from textwrap import fill

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from raypath.errors import BadInput
from raypath.study.figures import ACCENT, FAINT, INK, PALE, SOFT
from raypath.study.published.gaps import mark_gap
from raypath.study.published.results import NETWORKS, Trial

_FEW = 10
_COLUMNS = 5
_TITLE_CHARACTERS = 30  # for each panel of a row


def rates_figure(trials: Sequence[Trial], network: str, tasks: Sequence[str], rates: Sequence[str]) -> Figure:
    """A panel for each task, a box for each learning rate: transfer scores in percent over tau, warm-up and seeds."""
    own = [trial for trial in trials if trial.network == network]
    _check_known(own, "rate", rates)
    figure, panels = _panels(len(tasks), f"{NETWORKS.get(network, network)}: transfer score by learning rate, percent")
    for task, axes in zip(tasks, panels):
        scores = [[trial.score for trial in own if (trial.task, trial.rate) == (task, rate)] for rate in rates]
        _draw_boxes(axes, scores)
        axes.set_xticks(range(len(rates)), rates, fontsize=7)
        axes.set_title(task, fontsize=8)
    return figure


def _draw_boxes(axes: Axes, scores: Sequence[Sequence[float]]) -> None:
    axes.set_xlim(-0.6, len(scores) - 0.4)
    if not any(scores):
        mark_gap(axes, -0.5, len(scores) - 0.5)
        axes.set_yticks([])
        return
    style = {"patch_artist": True, "medianprops": {"color": INK}, "boxprops": {"facecolor": PALE, "edgecolor": SOFT}}
    for place, values in enumerate(scores):
        if not values:
            mark_gap(axes, place - 0.4, place + 0.4, rotation=90)
            continue
        axes.boxplot([values], positions=[place], widths=0.6, flierprops={"markersize": 3}, **style)
        if len(values) < _FEW:
            axes.plot([place] * len(values), values, "o", color=ACCENT, markersize=2.5, zorder=3)


def tau_figure(trials: Sequence[Trial], network: str, tasks: Sequence[str], taus: Sequence[str], rate: str) -> Figure:
    """A panel for each task: for every tau a bar without and one with warm-up, at one learning rate; error bars are twice sigma.

    A bar of one seed has no error bar. The axes do not begin at zero; each says where.
    """
    own = [trial for trial in trials if (trial.network, trial.rate) == (network, rate)]
    _check_known(own, "tau", taus)
    title = (
        f"{NETWORKS.get(network, network)}, learning rate {rate}: transfer score by tau, percent; error bars: 2 sigma"
    )
    figure, panels = _panels(len(tasks), title)
    for task, axes in zip(tasks, panels):
        groups = {
            (tau, is_warm): [t.score for t in own if (t.task, t.tau, t.is_warm) == (task, tau, is_warm)]
            for tau in taus
            for is_warm in (False, True)
        }
        _draw_pairs(axes, groups, taus)
        axes.set_xticks(range(len(taus)), [f"tau {tau}" for tau in taus], fontsize=7)
        axes.set_title(task, fontsize=8)
    handles = [Patch(color=FAINT, label="without warm-up"), Patch(color=ACCENT, label="with warm-up")]
    figure.legend(handles=handles, loc="outside lower center", ncols=2, frameon=False, fontsize=8)
    return figure


def _draw_pairs(axes: Axes, groups: dict[tuple[str, bool], list[float]], taus: Sequence[str]) -> None:
    axes.set_xlim(-0.6, len(taus) - 0.4)
    known = {place: (float(np.mean(v)), _two_sigma(v)) for place, v in groups.items() if v}
    if not known:
        mark_gap(axes, -0.5, len(taus) - 0.5)
        axes.set_yticks([])
        return
    low = min(mean - (error or 0) for mean, error in known.values())
    high = max(mean + (error or 0) for mean, error in known.values())
    foot = max(0.0, low - 0.5 * max(high - low, 1.0))
    for number, tau in enumerate(taus):
        for is_warm in (False, True):
            left = number + (0 if is_warm else -0.4)
            if (tau, is_warm) not in known:
                mark_gap(axes, left, left + 0.4, rotation=90)
                continue
            mean, error = known[tau, is_warm]
            axes.bar(left + 0.2, mean - foot, 0.4, bottom=foot, color=ACCENT if is_warm else FAINT, edgecolor="white")
            if error is not None:
                axes.errorbar(left + 0.2, mean, yerr=error, color=INK, linewidth=1, capsize=2)
    axes.set_ylim(foot, high + 0.1 * (high - foot))


def _two_sigma(scores: Sequence[float]) -> float | None:
    return 2 * float(np.std(scores, ddof=1)) if len(scores) > 1 else None


def _panels(num: int, title: str) -> tuple[Figure, list[Axes]]:
    """A figure with at least `num` panels, at most five in a row; those that are not needed are off."""
    columns = min(_COLUMNS, num)
    lines = ceil(num / columns)
    figure = Figure(figsize=(0.6 + 2.1 * columns, 0.8 + 1.9 * lines), layout="constrained")
    panels = figure.subplots(lines, columns, squeeze=False).ravel()
    for axes in panels:
        axes.tick_params(labelsize=7)
        axes.spines[["top", "right"]].set_visible(False)
    for axes in panels[num:]:
        axes.set_axis_off()
    figure.suptitle(fill(title, _TITLE_CHARACTERS * columns), fontsize=10)
    return figure, list(panels[:num])


def _check_known(trials: Sequence[Trial], name: str, values: Sequence[str]) -> None:
    """What is not drawn would be left out in silence."""
    unknown = sorted({getattr(trial, name) for trial in trials} - set(values))
    if unknown:
        raise BadInput(f"{name}={', '.join(unknown)}: no place in the figure, which has {', '.join(values)}")
