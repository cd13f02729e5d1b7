"""What multi-task pretraining adds to ImageNet, task by task: the differences, and the second paper's bar charts of them.

One decision: the numbers are made first (`deltas`) and drawn after, so that a chart can be checked. Error bars are twice sigma
(RECIPES 2.4, 2.5): for features (FE) the multi-task sigma, because the features of ImageNet weights are the same each time; for
fine-tuning (FT) the larger of the two. A sigma that is not known gives no error bar, and the picture says so. Whether a
difference is significant is asked of a rule that is passed in. What it costs: nothing.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from matplotlib.figure import Figure
from matplotlib.patches import Patch

from raypath.study.figures import ACCENT, FAINT, INK, PALE, SOFT
from raypath.study.published.gaps import mark_gap
from raypath.study.published.results import METRICS, NETWORKS, Result, by_place, tasks_of

Rule = Callable[[float, float, float, float], bool]
"""is_significant(mean_a, sigma_a, mean_b, sigma_b), all in one unit."""
Transfer = Literal["fe", "ft"]
_TITLES = {"fe": "feature extraction", "ft": "fine-tuning"}
_SAME_EACH_TIME = "fe_imagenet"


@dataclass(frozen=True, kw_only=True)
class Delta:
    """Multi-task minus ImageNet on one task, in points."""

    task: str
    metric: str
    difference: float | None
    """None: one of the two is not known."""
    sigma: float | None
    """Of which the error bar is twice; None: not known."""
    is_significant: bool | None
    """None: no rule, or a sigma that it needs is not known."""


def deltas(
    results: Sequence[Result],
    network: str,
    transfer: Transfer,
    *,
    tasks: Sequence[str] | None = None,
    rule: Rule | None = None,
) -> list[Delta]:
    """One for each task, in the order of `tasks` (None: as they first come in `results`)."""
    places, found = by_place(results), []
    for task in tasks_of(results) if tasks is None else tasks:
        multitask, imagenet = (places.get((task, network, f"{transfer}_{s}")) for s in ("multitask", "imagenet"))
        metric = next((own.metric for own in (multitask, imagenet) if own), "")
        is_whole = multitask is not None and imagenet is not None
        found.append(
            Delta(
                task=task,
                metric=metric,
                difference=multitask.mean - imagenet.mean if is_whole else None,
                sigma=_sigma(multitask, imagenet, transfer) if is_whole else None,
                is_significant=judged(rule, multitask, imagenet) if is_whole else None,
            )
        )
    return found


def judged(rule: Rule | None, one: Result, other: Result) -> bool | None:
    """What the rule says of two results; None without a rule or where a sigma is not known."""
    sigmas = [_known_sigma(one), _known_sigma(other)]
    if rule is None or None in sigmas:
        return None
    return bool(rule(one.mean, sigmas[0], other.mean, sigmas[1]))


def _known_sigma(result: Result) -> float | None:
    return 0.0 if result.sigma is None and result.method == _SAME_EACH_TIME else result.sigma


def _sigma(multitask: Result, imagenet: Result, transfer: Transfer) -> float | None:
    if transfer == "fe":
        return multitask.sigma
    sigmas = (multitask.sigma, imagenet.sigma)
    return None if None in sigmas else max(sigmas)


def delta_figure(found: Sequence[Delta], network: str, transfer: Transfer) -> Figure:
    """The bars from top to bottom, metric by metric, each with its number.

    Significant ones are dark and their number is bold; what could not be judged is pale, what is not known hatched.
    """
    figure = Figure(figsize=(6.4, 1.3 + 0.36 * len(found)), layout="constrained")
    axes = figure.subplots()
    reach = [abs(d.difference) + 2 * (d.sigma or 0) for d in found if d.difference is not None]
    room = max(reach, default=1.0) or 1.0
    is_judged = any(delta.is_significant is not None for delta in found)
    colours = {True: ACCENT, False: FAINT, None: PALE if is_judged else FAINT}
    for place, delta in enumerate(found):
        if delta.difference is None:
            mark_gap(axes, place - 0.36, place + 0.36, along="y")
            continue
        axes.barh(place, delta.difference, height=0.72, color=colours[delta.is_significant])
        if delta.sigma is not None:
            error = 2 * delta.sigma
            axes.errorbar(delta.difference, place, xerr=error, color=INK, linewidth=1.2, capsize=3)
        words = f"{delta.difference:+.2f}".replace("-", "\u2212") + ("" if delta.sigma is not None else " (no sigma)")
        side = 1 if delta.difference >= 0 else -1
        end = delta.difference + side * (2 * (delta.sigma or 0) + 0.02 * room)
        align, weight = "left" if side > 0 else "right", "bold" if delta.is_significant else "normal"
        axes.text(end, place, words, ha=align, va="center", fontsize=8, color=INK, weight=weight)
    for place, (above, below) in enumerate(pairwise(found)):
        if above.metric != below.metric:
            axes.axhline(place + 0.5, color=SOFT, linewidth=0.6, linestyle=":")
    axes.axvline(0, color=INK, linewidth=0.8)
    axes.set_yticks(range(len(found)), [_named(delta) for delta in found])
    axes.set_ylim(len(found) - 0.4, -0.6)
    axes.set_xlim(-1.35 * room, 1.35 * room)
    axes.set_xlabel("multi-task minus ImageNet, points; error bars: 2 sigma")
    axes.set_title(f"{NETWORKS.get(network, network)}, {_TITLES[transfer]}", fontsize=10)
    axes.tick_params(axis="y", length=0)
    axes.spines[["top", "right", "left"]].set_visible(False)
    words = {True: "significant", False: "not significant", None: "not judged: no sigma"}
    drawn = {delta.is_significant for delta in found if delta.difference is not None}
    if is_judged:
        handles = [Patch(color=colours[key], label=word) for key, word in words.items() if key in drawn]
        figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False, fontsize=8)
    return figure


def _named(delta: Delta) -> str:
    short = {"acc": "acc", "auc": "AUC"}.get(delta.metric, METRICS.get(delta.metric, delta.metric))
    return f"{delta.task} ({short})" if short else delta.task
