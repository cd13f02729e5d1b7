"""Robustness: how a score changes when the test images come from another stain, focus, file or scanner.

One decision: what is fitted stays, and only the test images are altered (`raypath.data.alterations`), so every point of a curve is
a paired comparison with the same samples as they are: its difference has an interval over patients that is far narrower than that
of the score. A prediction that was not made is not a point; nothing lies between points.

A curve says how a score bends, not whether one of many points is beyond chance: the intervals are 95 % each, not together. It is
of this fit on this test, and says nothing about other fits. Costs one interval and one paired difference for each alteration.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from raypath.benchmarks import PixelPredictions, Predictions
from raypath.benchmarks.benchmark import Primary
from raypath.data.alterations import KINDS, Kind, parse_alteration
from raypath.errors import BadInput
from raypath.study.statistics import Difference, Interval, paired_difference, score_interval

P = TypeVar("P", Predictions, PixelPredictions)
AS_IS = ""
"""The alteration of images that are as they are."""
SHIFTS: dict[Kind, tuple[str, ...]] = {
    "grey": ("grey",),
    "hed": ("hed=0.02", "hed=0.05", "hed=0.1", "hed=0.2"),
    "blur": ("blur=0.5", "blur=1", "blur=2", "blur=4"),
    "jpeg": ("jpeg=90", "jpeg=70", "jpeg=50", "jpeg=30", "jpeg=10"),
    "mpp": ("mpp=0.5", "mpp=0.67", "mpp=0.8", "mpp=1.25", "mpp=1.5", "mpp=2"),
}
"""The curves of a study by default."""
TITLES: dict[Kind, str] = {
    "grey": "colour",
    "hed": "stain jitter, strength",
    "blur": "blur, sigma in px",
    "jpeg": "JPEG, quality",
    "mpp": "um per px, factor",
}
_AS_IS_AT: dict[Kind, float] = {"grey": -1.0, "hed": 0.0, "blur": 0.0, "jpeg": float("inf"), "mpp": 1.0}
"""Where images as they are stand among the strengths; grey has none, and counts as 0."""


@dataclass(frozen=True, kw_only=True)
class Point:
    """The score under one alteration."""

    alteration: str
    """`hed=0.05`; empty: as they are."""
    score: Interval
    difference: Difference | None
    """Score here minus score of the images as they are; None for those themselves."""

    @property
    def label(self) -> str:
        """What stands below it on an axis: the strength, or `as is`."""
        return self.alteration.partition("=")[2] or self.alteration or "as is"


@dataclass(frozen=True, kw_only=True)
class Curve:
    """The score under alterations of one kind, the images as they are among them."""

    kind: Kind
    metric: Primary
    points: tuple[Point, ...]
    """By strength; of JPEG from the best quality down."""

    @property
    def as_is(self) -> Point:
        """The images as they are."""
        return next(point for point in self.points if point.difference is None)

    @property
    def worst(self) -> Point:
        """The alteration that costs most."""
        return min((p for p in self.points if p.difference is not None), key=lambda point: point.difference.estimate)

    def __str__(self) -> str:
        at, change = self.worst, self.worst.difference
        told = "" if change.is_clear else ", not separable from none"
        return (
            f"{TITLES[self.kind].partition(',')[0]}: {self.metric.replace('_', ' ')} {self.as_is.score.estimate:.3f} as is,"
            f" {at.score.estimate:.3f} at {at.alteration} ({100 * change.estimate:+.1f} points"
            f" [{100 * change.low:+.1f}, {100 * change.high:+.1f}]{told})"
        )


def curves(predictions: Mapping[str, P], metric: Primary, *, num_resamples: int = 2000, seed: int = 0) -> list[Curve]:
    """The curves of predictions by their alteration (text; `AS_IS` among them): one for each kind that is there.

    All are of one fit on the same samples. Raises BadInput where the images as they are were not asked about, for a text that is
    no alteration, and what `score_interval` and `paired_difference` raise.
    """
    parsed = {text: parse_alteration(text) for text in predictions}
    if AS_IS not in parsed:
        raise BadInput("robustness: no predictions of the images as they are; expected them under the empty text")
    how = {"num_resamples": num_resamples, "seed": seed}
    as_is = predictions[AS_IS]
    start = Point(alteration=AS_IS, score=score_interval(as_is, metric, **how), difference=None)
    made = []
    for kind in KINDS:
        points = [
            Point(
                alteration=str(alteration),
                score=score_interval(predictions[text], metric, **how),
                difference=paired_difference(predictions[text], as_is, metric, **how),
            )
            for text, alteration in parsed.items()
            if alteration is not None and alteration.kind == kind
        ]
        if points:
            made.append(Curve(kind=kind, metric=metric, points=tuple(by_strength([start, *points], kind))))
    return made


def by_strength(points: Iterable[Point], kind: Kind) -> list[Point]:
    """The points of a curve of one kind in the order of an axis."""

    def place(point: Point) -> float:
        change = parse_alteration(point.alteration)
        strength = _AS_IS_AT[kind] if change is None else change.strength or 0.0
        return -strength if kind == "jpeg" else strength

    return sorted(points, key=place)
