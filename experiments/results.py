"""What a comparison says: a score with its interval for each encoder, and the paired differences to the first.

One decision: differences are paired, over the same patients (or images) of the test, and so narrower than two intervals side by
side would suggest.
"""

from dataclasses import dataclass

import numpy as np
from launch import console, say
from rich.table import Table
from scoring import text_of

from raypath.benchmarks import Benchmark
from raypath.protocols.trained import Said
from raypath.study.statistics import Difference, Interval, paired_difference


@dataclass(frozen=True, eq=False)
class Scored:
    """One encoder's result: what it says of test, the score with its interval, and how it was reached."""

    encoder: str
    val: Said | None
    """None where every fold has a val of its own."""
    test: Said
    """Of nested folds: every sample once, as the first repeat says."""
    interval: Interval
    how: str
    mlflow_run_id: str
    val_score: float
    """The primary metric on val, the mean over folds where there are several."""
    repeats: tuple[float, ...] = ()
    """The primary metric in every repeat of nested folds."""


def table_of(results: list[Scored], benchmark: Benchmark) -> Table:
    """Scores and paired differences to the first encoder, for people."""
    first = results[0]
    unit = f"{first.interval.num_patients} {'patients' if first.interval.level == 'patient' else 'images'}"
    is_nested = bool(first.repeats)
    tested = f"{first.interval.num_samples} samples"
    tested = f"nested folds, each of {tested} tested once" if is_nested else f"test of {tested}"
    table = Table(title=f"{benchmark.name}: {benchmark.primary}, {tested}, {unit}")
    has_repeats = len(first.repeats) > 1
    repeats = [f"mean of {len(first.repeats)} repeats"] if has_repeats else []
    for column in ("encoder", "val", "test [95 %]", *repeats, "first minus it [95 %]"):
        table.add_column(column, justify="left" if column == "encoder" else "right", no_wrap=column != "encoder")
    for result in results:
        difference = "" if result is first else text_of(difference_of(first, result, benchmark), signed=True)
        mean = [f"{np.mean(result.repeats):.3f}"] if has_repeats else []
        table.add_row(result.encoder, f"{result.val_score:.3f}", text_of(result.interval), *mean, difference)
    return table


def show_table(results: list[Scored], benchmark: Benchmark) -> None:
    """The table, and under it how each score was reached."""
    console.print(table_of(results, benchmark))
    for result in results:
        say(f"  {result.encoder}: {result.how}")


def difference_of(first: Scored, second: Scored, benchmark: Benchmark) -> Difference:
    """The paired difference on test."""
    return paired_difference(first.test, second.test, benchmark.primary)
