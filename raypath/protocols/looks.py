"""A look at val while a protocol trains: what whoever reports, keeps weights or stops a trial is told."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from raypath.benchmarks import PixelPredictions, Predictions


@dataclass(frozen=True, eq=False)
class Look:
    """The state after an epoch, or after some updates."""

    number: int
    """From 1."""
    metrics: dict[str, float]
    """train_loss since the look before, val_loss, and the benchmark's metric on val."""
    model: nn.Module
    """As it is now; it goes on training."""
    val: Predictions | PixelPredictions
    is_best: bool
    """Whether no look before had a better metric (a smaller loss among equals)."""


Report = Callable[[Look], None]


def report_nothing(look: Look) -> None:
    """For those who wait for the end."""
