"""The parts of a report that show how its encoders came about: the loss of each pretraining, and what a grid has selected.

One decision: losses of different objectives are not compared, so every encoder has a panel of its own.
"""

import json
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from raypath.study.figures import SOFT
from raypath.study.results import StudyResults
from raypath.study.section import Section
from raypath.study.study_figures import colour_of
from raypath.study.tables import Table

_COLUMNS = 3


def losses(results: StudyResults) -> Section | None:
    """Loss by step of every pretraining, smoothed, a panel for each encoder."""
    known = results.read("losses.json", [])
    if not known:
        return None
    caption = "Loss by step, a running mean; a line for each seed and left-out set. A lower loss is no better encoder."
    return Section(title="How they were trained", pictures=(("Loss", caption, losses_figure(results, known)),))


def losses_figure(results: StudyResults, known: list[dict[str, Any]]) -> Figure:
    """`known`: encoder, seed, left_out, points [(step, loss), ...] of each pretraining."""
    encoders = list(dict.fromkeys(one["encoder"] for one in known))
    columns = min(_COLUMNS, len(encoders))
    rows = -(-len(encoders) // columns)
    figure = Figure(figsize=(3.8 * columns + 0.4, 2.6 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for spare in panels[len(encoders) :]:
        spare.set_axis_off()
    for axes, encoder in zip(panels, encoders):
        for one in (one for one in known if one["encoder"] == encoder):
            steps, values = np.array(one["points"], dtype=float).reshape(-1, 2).T
            width = max(1, len(values) // 15)
            smooth = np.convolve(values, np.ones(width) / width, mode="valid")
            axes.plot(steps[width - 1 :], smooth, color=colour_of(results, encoder), linewidth=1, alpha=0.7)
        axes.set_title(encoder, fontsize=9)
        axes.set_xlabel("step", fontsize=8)
        axes.tick_params(labelsize=8, colors=SOFT)
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def selection(results: StudyResults) -> Section | None:
    """What leave-one-task-out has selected for each benchmark, and the transfer scores that it was selected by."""
    tables = []
    for place in sorted((results.folder / "selection").glob("*.json")):
        known = json.loads(place.read_text(encoding="utf-8"))
        rows = tuple(
            (place.stem, name, *(f"{value:.3f}" for value in values))
            for name, values in zip(known["combinations"], known["scores"])
        )
        chosen = (place.stem, "reported with", *(json.dumps(known["chosen"][task]) for task in known["tasks"]))
        tables.append(Table(columns=("encoder", "combination", *known["tasks"]), rows=(*rows, chosen)))
    if not tables:
        return None
    words = (
        "Transfer scores on val, the mean over seeds, of encoders that have not seen the task. A task is reported with the"
        " combination of the best mean rank over the other tasks (arXiv 2005.02561)."
    )
    return Section(title="What was selected", words=(words,), tables=tuple(tables))
