"""What a person sees while a run trains: a line with step, loss, speed, waiting and the time left, and one for every look of the
monitor and at val rows.

One decision: the line is made from the run's own `metrics.jsonl`, by the driver, so it shows the same in a terminal and in the log
of a job, and costs the workers nothing.
"""

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path

from raypath.run_folder import RunFolder
from raypath.training.alarms import ALARMS
from raypath.training.checkpoint import newest_valid, read_step
from raypath.training.failures import read_failures

_SHOWN = {"loss", "step_s", "waiting_share", "tiles_per_s"}
_OVERDUE_S = 30.0
_TAIL_BYTES = 1 << 16


class ProgressLines:
    """Calls `show(line)` every `every_s` while steps come in; a context manager."""

    def __init__(self, run: RunFolder, num_steps: int, show: Callable[[str], None], every_s: float = 5.0):
        self.run, self.metrics, self.num_steps, self.show, self.every_s = run, run.metrics, num_steps, show, every_s
        self._offset = self.metrics.stat().st_size if self.metrics.exists() else 0
        self._num_failures = len(read_failures(run))
        self._num_alarms = len(run.read_lines(ALARMS))
        self._again = steps_to_repeat(run)  # steps up to this one have their line; done again they get no second one
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name="progress")

    def __enter__(self) -> "ProgressLines":
        self._started_s, self._first_step = time.monotonic(), None
        self._thread.start()
        return self

    def __exit__(self, *_exception) -> None:
        self._done.set()
        self._thread.join()
        self._show_new()

    def _run(self) -> None:
        while not self._done.wait(self.every_s):
            self._show_new()

    def _show_new(self) -> None:
        for failure in read_failures(self.run)[self._num_failures :]:
            self._num_failures += 1
            self._again = steps_to_repeat(self.run)
            reasons = "; ".join(sorted(set(failure["reasons"].values())))
            self.show(
                f"lost rank {', '.join(map(str, failure['ranks']))}: {reasons}; starting again from the last checkpoint"
            )
        alarms = self.run.read_lines(ALARMS)
        for line in alarms[self._num_alarms :]:
            self.show(f"ALARM {line['alarm']}")
        self._num_alarms = len(alarms)
        lines = self._new_lines()
        if not lines:
            self._show_waiting()
            return
        self._last_s, self._again = time.monotonic(), 0
        if self._first_step is None:
            self._first_step = lines[0]["step"]
        for line in filter(None, map(look_line, lines)):
            self.show(line)
        self.show(progress_line(lines, self.num_steps))

    def _show_waiting(self) -> None:
        """Say that nothing happens: while workers start, and when a step is long overdue."""
        now = time.monotonic()
        again = f", then the steps up to {self._again} that no checkpoint holds, again" if self._again else ""
        if self._first_step is None:
            self.show(f"starting workers{again} ({now - self._started_s:.0f} s)")
        elif self._again or now - self._last_s > _OVERDUE_S:
            self.show(f"no new step for {now - self._last_s:.0f} s: waiting for workers or data{again}")

    def _new_lines(self) -> list[dict]:
        if not self.metrics.exists():
            return []
        with self.metrics.open() as file:
            file.seek(self._offset)
            text = file.read()
        whole = text[: text.rfind("\n") + 1]
        self._offset += len(whole.encode())
        return [line for line in map(_parse, whole.splitlines()) if line]


def steps_to_repeat(run: RunFolder) -> int:
    """The last step that was done and that the newest valid checkpoint does not hold; 0 if it holds all of them."""
    checkpoint, done = newest_valid(run.checkpoints), last_step(run.metrics)
    return done if done > (read_step(checkpoint) if checkpoint else 0) else 0


def last_step(metrics: Path) -> int:
    """The last step that metrics.jsonl has a whole line of; 0 if there is none."""
    if not metrics.exists():
        return 0
    with metrics.open("rb") as file:
        file.seek(max(0, metrics.stat().st_size - _TAIL_BYTES))
        lines = [line for line in map(_parse, file.read().decode(errors="replace").splitlines()) if line]
    return lines[-1]["step"] if lines else 0


def _parse(line: str) -> dict | None:
    """A line of a whole step, its numbers as floats (NaN is written as text); None for any other."""
    try:
        values = json.loads(line)
        metrics = {name: float(value) for name, value in values["metrics"].items()}
        return values | {"metrics": metrics} if metrics.keys() >= _SHOWN else None
    except (ValueError, KeyError, TypeError, AttributeError):
        return None  # damaged by a crash: progress is no reason to end a run


def look_line(line: dict) -> str | None:
    """What the monitor and the val rows said at a step, a line of metrics.jsonl; None if nobody looked."""
    values, said = line["metrics"], []
    if "monitor/knn" in values:
        said.append(f"monitor/knn {values['monitor/knn']:.3f} (monitor/colour {values['monitor/colour']:.3f})")
    if "val/mean" in values:
        said.append(f"val/mean {values['val/mean']:.3f}")
    return f"step {line['step']}: {', '.join(said)}" if said else None


def progress_line(lines: list[dict], num_steps: int) -> str:
    """One line for the steps since the last one; `lines` are those of metrics.jsonl."""
    values = [line["metrics"] for line in lines]
    took_s = sum(v["step_s"] for v in values)
    waited_s = sum(v["step_s"] * v["waiting_share"] for v in values)
    tiles = sum(v["step_s"] * v["tiles_per_s"] for v in values)
    step = lines[-1]["step"]
    left_s = (num_steps - step) * took_s / len(values)
    return (
        f"step {step}/{num_steps}  loss {values[-1]['loss']:.3f}  {tiles / took_s:.0f} tiles/s"
        f"  waiting for data {waited_s / took_s:.0%}  {left_s // 60:.0f}:{left_s % 60:02.0f} left"
    )
