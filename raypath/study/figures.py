"""Pictures of results: what a reader looks at before the numbers.

One decision: every figure is a function from saved values to a matplotlib figure, so that it can be made again without the images.
"""

import json
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from raypath.benchmarks import Predictions, score

INK, ACCENT, PALE = "#23303b", "#8b3a78", "#d8c3d6"


def confusion_figure(predictions: Predictions, title: str) -> Figure:
    """The confusion matrix: rows are labels, each row adds up to its number of samples."""
    confusion = score(predictions)["confusion"]
    share = confusion / np.maximum(1, confusion.sum(axis=1, keepdims=True))
    figure = Figure(figsize=(1.6 + 0.9 * len(confusion), 1.2 + 0.8 * len(confusion)), layout="constrained")
    axes = figure.subplots()
    axes.imshow(share, cmap="Purples", vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(confusion):
        axes.text(
            column, row, f"{count}", ha="center", va="center", color="white" if share[row, column] > 0.55 else INK
        )
    axes.set_xticks(range(len(predictions.classes)), predictions.classes, rotation=30, ha="right")
    axes.set_yticks(range(len(predictions.classes)), predictions.classes)
    axes.set(xlabel="predicted", ylabel="label", title=title)
    return figure


def loss_figure(metrics: Path) -> Figure:
    """The training loss by step, from a run's metrics.jsonl, with a running mean."""
    lines = [json.loads(line) for line in metrics.read_text().splitlines()]
    steps = np.array([line["step"] for line in lines])
    losses = np.array([line["metrics"]["loss"] for line in lines], dtype=float)
    figure = Figure(figsize=(6, 3.2), layout="constrained")
    axes = figure.subplots()
    axes.plot(steps, losses, color=PALE, linewidth=1)
    width = max(1, len(losses) // 20)
    smooth = np.convolve(losses, np.ones(width) / width, mode="valid")
    axes.plot(steps[width - 1 :], smooth, color=ACCENT, linewidth=2)
    axes.set(xlabel="step", ylabel="loss")
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def score_figure(rows: list[tuple[str, float, float, float]], metric: str, chance: float) -> Figure:
    """Scores with their intervals: (name, estimate, low, high) from top to bottom; chance is a dotted line."""
    figure = Figure(figsize=(6, 0.8 + 0.5 * len(rows)), layout="constrained")
    axes = figure.subplots()
    for place, (_, estimate, low, high) in enumerate(rows):
        axes.plot([low, high], [place, place], color=ACCENT, linewidth=3, solid_capstyle="round")
        axes.plot(estimate, place, "o", color=INK, markersize=8)
    axes.axvline(chance, color=INK, linestyle=":", linewidth=1)
    axes.annotate("chance", (chance, len(rows) - 0.45), ha="center", fontsize=8)
    axes.set_yticks(range(len(rows)), [name for name, *_ in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set(xlabel=f"{metric} on test, 95 % interval", xlim=(0, 1))
    axes.spines[["top", "right"]].set_visible(False)
    return figure
