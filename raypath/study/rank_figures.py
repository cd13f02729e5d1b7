"""The critical-difference diagram: encoders along an axis of mean ranks, bars below join those that cannot be told apart.

One decision: it is the diagram of Demšar, Journal of Machine Learning Research 7 (2006) 1, figure 1, turned so that names are read
from the best down: a bar joins the longest runs of encoders whose mean ranks lie within Nemenyi's critical difference, and a bar of
that length stands above for comparison.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from raypath.study.figures import INK, SOFT
from raypath.study.ranks import RankTest


def rank_figure(names: Sequence[str], test: RankTest, colours: Mapping[str, Any]) -> Figure:
    """Mean ranks of the named encoders, in the order of `test.mean_ranks`; `colours` by name."""
    order = np.argsort(test.mean_ranks, kind="stable")
    runs = joined(test.mean_ranks[order], test.critical_difference)
    height = 0.3 * (len(names) + len(runs)) + 1.3
    figure = Figure(figsize=(6.4, height), layout="constrained")
    axes = figure.subplots()
    axes.plot([1, 1 + test.critical_difference], [-1, -1], color=SOFT, linewidth=2, solid_capstyle="butt")
    axes.text(1, -1.25, f"critical difference {test.critical_difference:.2f}", fontsize=8, color=SOFT, va="bottom")
    for line, number in enumerate(order):
        rank, name = test.mean_ranks[number], names[number]
        axes.plot(rank, line, "o", color=colours[name], markersize=7)
        place = {"xytext": (9, 0), "textcoords": "offset points", "va": "center"}
        axes.annotate(f"{name}  {rank:.2f}", (rank, line), fontsize=8, color=INK, **place)
    for line, (first, last) in enumerate(runs):
        ends = test.mean_ranks[order[[first, last]]]
        axes.plot(ends, [len(names) + line] * 2, color=INK, linewidth=3, solid_capstyle="round")
    axes.set(xlim=(0.8, len(names) + 0.8), ylim=(len(names) + len(runs) - 0.4, -1.9), yticks=[])
    axes.set_xticks(range(1, len(names) + 1))
    label = f"mean rank over {test.num_benchmarks} benchmarks (1 is best); a bar joins what cannot be told apart"
    axes.set_xlabel(label, fontsize=8)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(labelsize=8)
    return figure


def joined(ranks: Sequence[float], difference: float) -> list[tuple[int, int]]:
    """(first, last) of the longest runs of ascending ranks that lie within a difference; a run of one is none."""
    runs: list[tuple[int, int]] = []
    for first in range(len(ranks)):
        last = max(place for place in range(first, len(ranks)) if ranks[place] - ranks[first] <= difference)
        if last > first and (not runs or last > runs[-1][1]):
            runs.append((first, last))
    return runs
