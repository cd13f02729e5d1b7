"""The picture of confounders: what a probe reads of site, scanner and patient, beside what it reads of shuffled ones.

One decision: chance differs from row to row (it is one over the number of groups), so each row has its own mark of it; the dots
are all shuffles, so a reader sees whether a score stands apart without a test.
"""

from collections.abc import Sequence
from textwrap import fill

import numpy as np
from matplotlib.figure import Figure

from raypath.study.confounders import Confounder
from raypath.study.figures import ACCENT, FAINT, INK, SOFT

_NAME_CHARACTERS = 28


def confounder_figure(rows: Sequence[tuple[str, Confounder]]) -> Figure:
    """(name of the encoder, what it says of one confounder) from top to bottom; what cannot be asked is said in its row."""
    figure = Figure(figsize=(6.4, 1.1 + 0.55 * len(rows)), layout="constrained")
    axes = figure.subplots()
    for place, (_, found) in enumerate(rows):
        if found.read is None:
            axes.text(0.02, place, "cannot be asked", va="center", fontsize=8, color=SOFT)
            continue
        colour = ACCENT if found.is_read else SOFT
        spread = place + 0.24 * np.linspace(-1, 1, len(found.shuffled))
        axes.plot(found.shuffled, spread, "o", color=FAINT, markersize=2.5, alpha=0.7)
        axes.plot([found.chance] * 2, [place - 0.3, place + 0.3], color=SOFT, linestyle=":", linewidth=1.2)
        axes.plot([found.read.low, found.read.high], [place, place], color=colour, linewidth=3, solid_capstyle="round")
        axes.plot(found.read.estimate, place, "o", color=INK, markersize=7)
        text = f"{found.read.estimate:.2f}"
        axes.annotate(text, (found.read.estimate, place - 0.18), ha="center", va="bottom", fontsize=8, color=INK)
    labels = [fill(f"{encoder}: {found.name} ({found.num_groups})", _NAME_CHARACTERS) for encoder, found in rows]
    axes.set_yticks(range(len(rows)), labels, fontsize=9)
    axes.set_ylim(len(rows) - 0.5, -0.65)
    axes.set(xlabel="balanced accuracy of reading it (number of groups), 95 % interval", xlim=(0, 1.02))
    axes.set_title("dots: shuffled groups; dotted: chance", fontsize=8, color=SOFT)
    axes.spines[["top", "right"]].set_visible(False)
    return figure
