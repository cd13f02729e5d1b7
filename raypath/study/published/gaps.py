"""How a figure shows what is not known: a hatched band with words in it.

One decision: never a zero and never a blank. A bar that is not there looks like a score of nothing, and an empty place like one
that was never meant to be filled. What it costs: nothing.
"""

from typing import Literal

from matplotlib.axes import Axes
from matplotlib.transforms import blended_transform_factory

from raypath.study.figures import PALE, SOFT

NOT_KNOWN = "not known"


def mark_gap(
    axes: Axes,
    low: float,
    high: float,
    words: str = NOT_KNOWN,
    *,
    along: Literal["x", "y"] = "x",
    rotation: float = 0,
) -> None:
    """Hatch the band from `low` to `high` of one axis over all of the other, with the words in its middle."""
    span = axes.axvspan if along == "x" else axes.axhspan
    span(low, high, facecolor="none", edgecolor=PALE, hatch="////", linewidth=0, zorder=0)
    middle = (low + high) / 2
    data, share = axes.transData, axes.transAxes
    transform = blended_transform_factory(data, share) if along == "x" else blended_transform_factory(share, data)
    place = (middle, 0.5) if along == "x" else (0.5, middle)
    box = {"facecolor": "white", "edgecolor": "none", "pad": 1}
    style = {"ha": "center", "va": "center", "rotation": rotation, "fontsize": 7, "color": SOFT}
    axes.text(*place, words, transform=transform, bbox=box, **style)
