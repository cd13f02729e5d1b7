"""What may be said of a training that has ended, from what was measured while it ran.

One decision: "healthy" is said only where somebody looked. Rules that had too little to judge by, and a monitor that came down,
are said instead; a run without a monitor is judged by its health alone.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from raypath.run_folder import RunFolder
from raypath.training.alarms import ALARMS
from raypath.training.health import PREFIX

ENOUGH_LOOKS = 3
"""Looks at the health of a run, that before the first step included, below which nothing can be said of it."""


def verdict(run: RunFolder) -> list[str]:
    """A line each on the alarms of a run and on its monitor, from its own files; nothing on a monitor that never looked."""
    num_alarms, metrics = len(run.read_lines(ALARMS)), metrics_by_step(run)
    monitor = monitor_verdict(metrics)
    num_looks = sum(f"{PREFIX}feature_std" in numbers for numbers in metrics)
    if num_alarms:
        health = f"{num_alarms} alarm(s): {run.path / ALARMS}"
    elif num_looks < ENOUGH_LOOKS:
        health = f"0 alarm(s); health was looked at {num_looks} time(s): too short to judge"
    else:
        health = "0 alarm(s)" if monitor else "0 alarm(s); the training looks healthy"
    return [health, *([monitor] if monitor else [])]


def monitor_verdict(metrics: Sequence[Mapping[str, float]]) -> str | None:
    """What is wrong with the monitor's curve; None if it did not end below its start nor below colour, or if there is none.

    `metrics`: the numbers of every step, in order.
    """
    looks = [numbers for numbers in metrics if "monitor/knn" in numbers]
    if not looks:
        return None
    start, end, colour = looks[0]["monitor/knn"], looks[-1]["monitor/knn"], looks[-1]["monitor/colour"]
    numbers = f"{end:.3f} at the end, {start:.3f} at the start, colour {colour:.3f}"
    if not end >= start:  # NaN counts as fallen
        return f"the monitor fell: {numbers}"
    return f"the monitor is below colour: {numbers}" if end < colour else None


def metrics_by_step(run: RunFolder) -> list[dict[str, float]]:
    """The numbers of every step in the order of the steps; of a step that was done again, those of the last time."""
    lines: dict[int, dict[str, Any]] = {line["step"]: line["metrics"] for line in run.read_lines(run.metrics.name)}
    return [{name: float(value) for name, value in lines[step].items()} for step in sorted(lines)]
