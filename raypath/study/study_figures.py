"""The pictures of a study: the matrix with its intervals, curves over labels, tiles seen and shifts, the map.

One decision: a picture takes places (saved predictions) or values, never images, so the report can be made again anywhere. What
is missing is a gap.
"""

from collections.abc import Sequence
from textwrap import fill
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from raypath.benchmarks import Predictions, score
from raypath.benchmarks.benchmark import Primary
from raypath.benchmarks.metrics.pixels import score_pixels
from raypath.study.cells import Said
from raypath.study.figures import ACCENT, FAINT, INK, SOFT
from raypath.study.places import Place
from raypath.study.results import StudyResults
from raypath.study.statistics import Interval

_COLOURS = [colormaps["tab10"](k) for k in range(10) if k != 6]  # without pink, which is like the reference's
_COLUMNS = 3


METRIC_WORDS: dict[Primary, str] = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "auroc": "AUROC",
    "quadratic_kappa": "quadratic kappa",
    "miou_macro": "mIoU (macro)",
    "dice_macro": "Dice (macro)",
}


def colour_of(results: StudyResults, encoder: str):
    """The same colour for an encoder in every picture; after nine they come round."""
    names = [entry.name for entry in results.config.encoders if entry.name != results.config.reference]
    return ACCENT if encoder == results.config.reference else _COLOURS[names.index(encoder) % len(_COLOURS)]


def matrix_figure(results: StudyResults, rows: dict[str, list[tuple[Place, Interval]]]) -> Figure:
    """A panel for each benchmark: every encoder with its interval, its null as a hollow mark; `rows` by benchmark."""
    figure, panels = _panels(len(rows), height=1.0 + 0.34 * max(map(len, rows.values())))
    for axes, (benchmark, own) in zip(panels, rows.items()):
        for height, (place, interval) in enumerate(own):
            colour = colour_of(results, place.encoder)
            axes.plot([interval.low, interval.high], [height] * 2, color=colour, linewidth=2.5, solid_capstyle="round")
            axes.plot(interval.estimate, height, "o", color=colour, markersize=6)
            null = null_of(place)
            if null is not None:
                axes.plot(null, height, "o", markerfacecolor="white", markeredgecolor=SOFT, markersize=5)
        axes.set_yticks(range(len(own)), [fill(place.encoder, 20) for place, _ in own], fontsize=8)
        axes.set_ylim(len(own) - 0.5, -0.5)
        axes.set_title(f"{benchmark}, {METRIC_WORDS[own[0][0].metric]}", fontsize=9, color=INK)
        _plain(axes)
    return figure


def null_of(place: Place) -> float | None:
    """The score on shuffled labels, the mean over shuffles and checkpoints; None where there is none."""
    values = [point_score(null, place.metric) for one in place.scored for null in one.nulls]
    return float(np.mean(values)) if values else None


def point_score(said: Said, metric: str) -> float:
    """One score of one prediction."""
    return float((score(said) if isinstance(said, Predictions) else score_pixels(said))[metric])


def curve_figure(
    results: StudyResults,
    curves: dict[str, dict[str, list[tuple[float, Interval]]]],
    *,
    label: str,
    is_log: bool = False,
) -> Figure:
    """A panel for each benchmark, a line with its band for each encoder; `curves[benchmark][encoder]`: (x, interval)."""
    figure, panels = _panels(len(curves), height=2.5)
    for axes, (benchmark, lines) in zip(panels, curves.items()):
        for encoder, points in lines.items():
            colour = colour_of(results, encoder)
            x = [place for place, _ in points]
            axes.fill_between(
                x, [i.low for _, i in points], [i.high for _, i in points], color=colour, alpha=0.13, linewidth=0
            )
            axes.plot(
                x, [i.estimate for _, i in points], "o-", color=colour, markersize=4, linewidth=1.6, label=encoder
            )
        if is_log:
            _asked_only(axes, [x for points in lines.values() for x, _ in points])
        axes.set_title(benchmark, fontsize=9, color=INK)
        axes.set_xlabel(label, fontsize=8)
        _plain(axes)
    handles = {text: handle for axes in panels for handle, text in zip(*axes.get_legend_handles_labels())}
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=4, frameon=False, fontsize=8)
    return figure


def _asked_only(axes, values: list[float]) -> None:
    """A logarithmic axis whose only marks are the values that there are."""
    axes.set_xscale("log")
    axes.set_xticks(sorted(set(values)), [f"{x:g}" for x in sorted(set(values))])
    axes.minorticks_off()


def map_figure(known: dict[str, Any]) -> Figure:
    """Positions of samples by t-SNE, coloured by class and beside it by site, or where no two are known by patient."""
    points = np.array(known["points"])
    beside = (("site", known.get("site", [])), ("patient", known["group"]))  # a folder may be older than its sites
    several = [(what, values) for what, values in beside if len(set(values) - {None}) > 1]
    shown = [("class", known["label"]), *several[:1]]
    figure = Figure(figsize=(4.2 * len(shown), 4.2), layout="constrained")
    for axes, (what, values) in zip(figure.subplots(1, len(shown), squeeze=False)[0], shown):
        named = ["not known" if value is None else value for value in values]
        names = sorted(set(named))
        palette = colormaps["tab10" if len(names) <= 10 else "gist_rainbow"]
        for number, name in enumerate(names):
            own = points[[value == name for value in named]]
            shade = palette(number if len(names) <= 10 else number / len(names))
            axes.scatter(own[:, 0], own[:, 1], s=7, color=shade, linewidths=0, label=name)
        num = len(set(values) - {None})
        axes.set_title("class" if what == "class" else f"{num} {what}s", fontsize=9, color=INK)
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_color(FAINT)
        if len(names) <= 10:
            axes.legend(frameon=False, fontsize=7, markerscale=2, loc="upper left", bbox_to_anchor=(0, -0.01), ncols=3)
    figure.suptitle("an illustration, not a finding", fontsize=8, color=SOFT)
    return figure


def _panels(num: int, *, height: float) -> tuple[Figure, Sequence[Any]]:
    columns = min(_COLUMNS, num)
    rows = -(-num // columns)
    figure = Figure(figsize=(3.6 * columns + 0.6, height * rows + 0.5), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for spare in axes[num:]:
        spare.set_axis_off()
    return figure, axes[:num]


def _plain(axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)
    axes.xaxis.set_major_locator(MaxNLocator(5)) if axes.get_xscale() == "linear" else None
