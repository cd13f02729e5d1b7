"""Pictures of results: what a reader looks at before the numbers.

One decision: every figure is a function from saved values to a matplotlib figure, so that it can be made again without the images.
"""

import json
from pathlib import Path
from textwrap import fill

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from raypath.benchmarks import PixelPredictions, Predictions, score

INK, ACCENT, FAINT, PALE, SOFT = "#23303b", "#8b3a78", "#b48bb0", "#d8c3d6", "#5c6b77"
_NAME_CHARACTERS = 22  # of a label beside an axis, before it is wrapped


def confusion_figure(predictions: Predictions | PixelPredictions, title: str) -> Figure:
    """The confusion matrix: counts (of pixels, where those have classes), and below each its share of the row, which is a label."""
    is_dense = isinstance(predictions, PixelPredictions)
    confusion = predictions.confusion.sum(axis=0) if is_dense else score(predictions)["confusion"]
    share = confusion / np.maximum(1, confusion.sum(axis=1, keepdims=True))
    names = [fill(name, _NAME_CHARACTERS) for name in predictions.classes]
    figure = Figure(figsize=(1.9 + 0.9 * len(confusion), 1.4 + 0.8 * len(confusion)), layout="constrained")
    axes = figure.subplots()
    axes.imshow(share, cmap="Purples", vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(confusion):
        colour = "white" if share[row, column] > 0.55 else INK
        axes.text(column, row - 0.08, f"{count:,}", ha="center", va="center", color=colour)
        axes.text(column, row + 0.22, f"{share[row, column]:.0%}", ha="center", va="center", color=colour, fontsize=7)
    axes.set_xticks(range(len(names)), names, rotation=30, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(names)), names)
    axes.set(xlabel="predicted", ylabel="label")
    axes.set_title(title, fontsize=10)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return figure


def loss_figure(metrics: Path) -> Figure:
    """The training loss by step, from a run's metrics.jsonl, with a running mean; lines without a loss are passed over.

    Where the run logged `uninformed_loss`, the loss of who knows nothing, that is a dashed line.
    """
    lines = [json.loads(line) for line in metrics.read_text().splitlines() if line.endswith("}")]
    steps, losses = _curve(lines, "loss")
    figure = Figure(figsize=(6, 3.2), layout="constrained")
    axes = figure.subplots()
    width = max(1, len(losses) // 20)
    alone = {"color": ACCENT, "marker": "o", "markersize": 3}  # few steps: their own line is the one to see
    axes.plot(steps, losses, linewidth=1, label="each step", **({"color": FAINT} if width > 1 else alone))
    if width > 1:
        smooth = np.convolve(losses, np.ones(width) / width, mode="valid")
        axes.plot(steps[width - 1 :], smooth, color=ACCENT, linewidth=2, label=f"mean of {width} steps")
    known_at, uninformed = _curve(lines, "uninformed_loss")
    if len(known_at):
        axes.plot(known_at, uninformed, color=SOFT, linewidth=1, linestyle="--", label="of who knows nothing")
    if len(axes.lines) > 1:
        axes.legend(frameon=False, fontsize=8)
    axes.set(xlabel="step", ylabel="loss")
    axes.set_title("Loss by step", fontsize=10)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def _curve(lines: list[dict], name: str) -> tuple[np.ndarray, np.ndarray]:
    """(steps, values) of one metric, where it was logged."""
    points = [(line["step"], line["metrics"][name]) for line in lines if name in line["metrics"]]
    return tuple(np.array(points, dtype=float).reshape(-1, 2).T)


def score_figure(rows: list[tuple[str, float, float, float]], metric: str, chance: float) -> Figure:
    """Scores with their intervals: (name, estimate, low, high) from top to bottom; chance is a dotted line."""
    figure = Figure(figsize=(6, 1.1 + 0.55 * len(rows)), layout="constrained")
    axes = figure.subplots()
    for place, (_, estimate, low, high) in enumerate(rows):
        axes.plot([low, high], [place, place], color=SOFT if place else ACCENT, linewidth=3, solid_capstyle="round")
        axes.plot(estimate, place, "o", color=INK, markersize=7)
        axes.annotate(f"{estimate:.3f}", (estimate, place - 0.18), ha="center", va="bottom", fontsize=8, color=INK)
    axes.axvline(chance, color=SOFT, linestyle=":", linewidth=1)
    above = axes.get_xaxis_transform()  # x in the data, y as a share of the axes
    axes.text(chance, 1.01, "chance", transform=above, ha="center", va="bottom", fontsize=8, color=SOFT)
    axes.set_yticks(range(len(rows)), [fill(name, _NAME_CHARACTERS) for name, *_ in rows])
    axes.set_ylim(len(rows) - 0.5, -0.65)
    axes.set(xlabel=f"{metric.replace('_', ' ')} on test, 95 % interval", xlim=(0, 1))
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def segmentation_figure(rows: list[tuple[str, np.ndarray, np.ndarray, np.ndarray]], classes: tuple[str, ...]) -> Figure:
    """Images beside their classes: (name, image uint8 [H, W, 3], truth [H, W], prediction [H, W]) from top to bottom."""
    figure = Figure(figsize=(8.4, 0.5 + 2.4 * len(rows)), layout="constrained")
    colours = colormaps["tab10" if len(classes) <= 10 else "tab20"]
    shown = ListedColormap([PALE, *(colours(k) for k in range(len(classes) - 1))])
    for (name, *pictures), line in zip(rows, figure.subplots(len(rows), 3, squeeze=False)):
        for picture, axes in zip(pictures, line):
            is_image = picture.ndim == 3
            axes.imshow(picture, **({} if is_image else {"cmap": shown, "vmin": -0.5, "vmax": len(classes) - 0.5}))
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
        line[0].set_ylabel(fill(name, _NAME_CHARACTERS), fontsize=7)
        line[2].set_xlabel(f"{np.mean(pictures[1] == pictures[2]):.0%} of pixels right", fontsize=7)
    for title, axes in zip(("image", "truth", "prediction"), figure.axes):
        axes.set_title(title, fontsize=9)
    patches = [Patch(color=shown(k), label=name) for k, name in enumerate(classes)]
    figure.legend(handles=patches, loc="outside lower center", ncols=min(6, len(classes)), frameon=False, fontsize=8)
    return figure
