"""Pictures of robustness: the score of each encoder under each kind of alteration.

One decision: places on an axis are the alterations that were asked, evenly spaced, and none is interpolated as a scale would
suggest; the images as they are stand at their own place among them, so a line that is flat there and falls to one side says which.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from raypath.data.alterations import Kind
from raypath.study.figures import ACCENT, FAINT, INK, PALE, SOFT
from raypath.study.robustness import TITLES, Curve, by_strength
from raypath.study.study_figures import METRIC_WORDS

_COLOURS = (ACCENT, INK, SOFT, FAINT)
_MARKERS = "osD^vPX*"
_SPREAD = 0.36  # of the distance of two places, over which encoders stand beside each other
_LEAST_PLACES = 3  # a panel is not narrower than for so many


def robustness_figure(
    curves: Mapping[str, Sequence[Curve]], chance: float | None = None, colours: Mapping[str, Any] | None = None
) -> Figure:
    """Score with interval against strength: a panel for each kind, a line for each encoder (by its name), chance dotted.

    `colours`: that of each encoder, where it has one in other pictures too.

    A kind that an encoder was not asked about is missing from its line. Raises ValueError where there is no curve at all.
    """
    kinds = [kind for kind in TITLES if any(curve.kind == kind for own in curves.values() for curve in own)]
    if not kinds:
        raise ValueError("robustness_figure: no curves")
    labels = {kind: _labels(kind, curves) for kind in kinds}
    widths = [max(_LEAST_PLACES, len(labels[kind])) for kind in kinds]
    styles = {name: _style(number) | _own(colours, name) for number, name in enumerate(curves)}
    figure = Figure(figsize=(1.2 + 0.62 * sum(widths), 3.6), layout="constrained")
    panels = figure.subplots(1, len(kinds), sharey=True, squeeze=False, width_ratios=widths)[0]
    for kind, axes in zip(kinds, panels):
        _draw_panel(axes, kind, labels[kind], curves, styles)
        if chance is not None:
            axes.axhline(chance, color=SOFT, linestyle=":", linewidth=1)
    metric = next(curve.metric for own in curves.values() for curve in own)
    panels[0].set_ylabel(f"{METRIC_WORDS[metric]}, 95 % interval")
    handles = [Line2D([], [], label=name, **style) for name, style in styles.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=min(4, len(handles)), frameon=False, fontsize=8)
    return figure


def _own(colours: Mapping[str, Any] | None, name: str) -> dict:
    return {"color": colours[name]} if colours else {}


def _draw_panel(
    axes: Axes, kind: Kind, labels: Sequence[str], curves: Mapping[str, Sequence[Curve]], styles: Mapping[str, dict]
) -> None:
    offsets = np.linspace(-_SPREAD / 2, _SPREAD / 2, len(curves)) if len(curves) > 1 else [0.0]
    axes.axvspan(labels.index("as is") - 0.4, labels.index("as is") + 0.4, color=PALE, alpha=0.35, linewidth=0)
    for number, (name, own) in enumerate(curves.items()):
        for curve in own:
            if curve.kind != kind:
                continue
            places = np.array([labels.index(point.label) for point in curve.points]) + offsets[number]
            scores = [point.score for point in curve.points]
            axes.vlines(places, [s.low for s in scores], [s.high for s in scores], color=styles[name]["color"])
            axes.plot(places, [s.estimate for s in scores], **styles[name])
    axes.set_xticks(range(len(labels)), labels, fontsize=8)
    axes.set_xlim(-0.6, max(_LEAST_PLACES, len(labels)) - 0.4)
    axes.set_title(TITLES[kind], fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)


def _labels(kind: Kind, curves: Mapping[str, Sequence[Curve]]) -> list[str]:
    """What stands below the axis: all alterations of one kind that any encoder was asked about."""
    asked = [point for own in curves.values() for curve in own if curve.kind == kind for point in curve.points]
    return [point.label for point in by_strength({point.label: point for point in asked}.values(), kind)]


def _style(number: int) -> dict:
    """How the line of an encoder looks: colours come round, and with each round the markers change."""
    return {
        "color": _COLOURS[number % len(_COLOURS)],
        "marker": _MARKERS[number % len(_MARKERS)],
        "linewidth": 1.5,
        "linestyle": ("-", "--")[number // len(_COLOURS) % 2],
        "markersize": 5,
    }
