"""Step metrics on disk first, at the tracking server later.

Training must never wait for a server. So a step's metrics are appended to `metrics.jsonl` in the run's folder (one JSON object
per line: step, time, metrics), and one background thread carries finished lines to the server in batches of at most 1,000
points, remembering how far it got in `metrics.sent` beside the spool.

One decision: exactly once = at least once + points that are equal when sent again. A point's time is written into the spool, so
a batch sent twice (killed between sending and remembering, an answer that got lost) carries the same name, step, time and
value, which is MLflow's primary key for a metric. A run that is resumed and redoes steps does not write them again.

What it costs: within one name the steps only ever rise; a step at or below the last one of its name is taken for redone and
skipped. Nothing is fsynced: a killed process loses nothing, a power cut may lose the last seconds.
"""

import json
import logging
import posixpath
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, NamedTuple

from raypath.errors import BadInput
from raypath.redaction import redact_text

MAX_POINTS_PER_CALL = 1000  # mlflow.utils.validation.MAX_METRICS_PER_BATCH
METRIC_NAME = re.compile(r"[/\w.\- ]{1,250}")  # mlflow.utils.validation.validate_param_and_metric_name
CLOSING_PAUSE_S = 0.2  # between attempts while `close` waits

log = logging.getLogger(__name__)


class Point(NamedTuple):
    """One value of one metric."""

    name: str
    value: float
    time_ms: int
    """Milliseconds since the epoch, as first written into the spool."""
    step: int


class MetricSpool:
    """The append-only `metrics.jsonl` of one run; safe to use from several threads of one process.

    On opening, a torn last line (a crash in the middle of a write) is cut off, and the last step of every name is read back.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        _cut_torn_line(self.path)
        self._last_step = _read_progress(_sent_path(self.path))["last_step"]
        with self.path.open("rb") as file:
            for line in file:
                _raise_last_steps(self._last_step, _parse(line, self.path))
        self._lock = threading.Lock()
        self._file = self.path.open("a", encoding="utf-8", buffering=1)

    def append(self, metrics: Mapping[str, float], step: int) -> int:
        """Write one step; returns how many values were new (0 when a resumed run redoes the step).

        Raises BadInput for a metric name that MLflow would refuse: here it is one clear line, later it would block the queue.
        """
        for name in metrics:
            _check_name(name, self.path)
        with self._lock:
            new = {n: _encode(v) for n, v in metrics.items() if step > self._last_step.get(n, -1)}
            if new:
                line = {"step": step, "time": time.time_ns() // 1_000_000, "metrics": new}
                self._file.write(json.dumps(line) + "\n")
                self._last_step.update(dict.fromkeys(new, step))
        return len(new)

    def last_step(self, name: str) -> int:
        """The last step written for a name, -1 if there is none."""
        return self._last_step.get(name, -1)

    def close(self) -> None:
        """Close the file; a sender may still be reading it."""
        self._file.close()

    def __enter__(self) -> "MetricSpool":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class SpoolSender:
    """The one writer of a run: a daemon thread that carries a spool's finished lines to `send`.

    `send(points)` may raise anything: the thread backs off (doubling, at most `max_backoff_s`) and tries the same points again.
    """

    def __init__(
        self,
        path: Path,
        send: Callable[[list[Point]], None],
        *,
        interval_s: float = 2.0,
        max_backoff_s: float = 60.0,
    ) -> None:
        self.path = Path(path)
        self._send = send
        self._interval_s, self._max_backoff_s = interval_s, max_backoff_s
        self._progress = _read_progress(_sent_path(self.path))
        if self.path.exists():  # after a power cut the file may be shorter than what was sent of it
            self._progress["offset"] = min(self._progress["offset"], self.path.stat().st_size)
        self._closing = threading.Event()
        self._deadline_s = float("inf")
        self._thread = threading.Thread(target=self._run, name=f"send {self.path}", daemon=True)
        self._thread.start()

    def close(self, timeout_s: float = 30.0) -> int:
        """Send what is left, for at most `timeout_s`; returns (and logs) how many points are still unsent.

        Unsent points stay in the spool: the next sender on it goes on from there.
        """
        self._deadline_s = time.monotonic() + timeout_s
        self._closing.set()
        self._thread.join(timeout_s)
        num_unsent = self.num_unsent()
        if num_unsent:
            log.warning("%s: %d points are not sent yet; they stay in the spool", self.path, num_unsent)
        return num_unsent

    def num_unsent(self) -> int:
        """Points in the spool that the server has not confirmed."""
        return sum(len(points) for points, _ in _read_lines(self.path, self._progress["offset"]))

    def _run(self) -> None:
        failures = 0
        while True:
            is_closing = self._closing.is_set()  # asked first: what was appended before `close` is then seen below
            try:
                num_sent = self._send_next()
                failures = 0
            except Exception as error:  # whatever the server does, training goes on
                failures += 1
                num_sent = None
                if failures == 1:
                    reason = redact_text(str(error))
                    log.warning("%s: sending metrics failed, trying again in the background: %s", self.path, reason)
            if is_closing and (num_sent == 0 or time.monotonic() >= self._deadline_s):
                return
            if not num_sent:
                self._pause(failures, is_closing)

    def _pause(self, failures: int, is_closing: bool) -> None:
        if is_closing:
            time.sleep(CLOSING_PAUSE_S)
        else:
            self._closing.wait(min(self._interval_s * 2 ** min(failures, 20), self._max_backoff_s))

    def _send_next(self) -> int:
        """Send about one call's worth of whole lines; returns how many points that were."""
        points, offset = [], self._progress["offset"]
        for line_points, end in _read_lines(self.path, offset):
            if points and len(points) + len(line_points) > MAX_POINTS_PER_CALL:
                break
            points, offset = points + line_points, end
        for start in range(0, len(points), MAX_POINTS_PER_CALL):
            self._send(points[start : start + MAX_POINTS_PER_CALL])
        if offset > self._progress["offset"]:
            _raise_last_steps(self._progress["last_step"], points)
            self._progress["offset"] = offset
            _write_progress(_sent_path(self.path), self._progress)
        return len(points)


def _check_name(name: str, path: Path) -> None:
    if not METRIC_NAME.fullmatch(name) or posixpath.normpath(name) != name or name.startswith(("/", "..")):
        raise BadInput(
            f"{path}: metric name {name!r}: expected letters, digits, _ . - / and spaces, "
            "e.g. 'train/loss'; rename the metric"
        )


def _cut_torn_line(path: Path) -> None:
    with path.open("ab+") as file:
        end = _end_of_last_line(file)
        if end < file.seek(0, 2):
            log.warning("%s: the last line is torn (a crash while writing) and was dropped", path)
            file.truncate(end)


def _end_of_last_line(file: IO[bytes], block_bytes: int = 65536) -> int:
    """The offset just after the last newline, found from the end."""
    end = file.seek(0, 2)
    while end > 0:
        start = max(0, end - block_bytes)
        file.seek(start)
        newline = file.read(end - start).rfind(b"\n")
        if newline >= 0:
            return start + newline + 1
        end = start
    return 0


def _read_lines(path: Path, offset: int) -> Iterator[tuple[list[Point], int]]:
    """The points of every finished line from a byte offset on, each with the offset after it."""
    if not path.exists():
        return
    with path.open("rb") as file:
        file.seek(offset)
        for line in file:
            if not line.endswith(b"\n"):
                return
            offset += len(line)
            yield _parse(line, path), offset


def _parse(line: bytes, path: Path) -> list[Point]:
    """A line's points; a damaged line has none (it must not hold up those behind it)."""
    try:
        row = json.loads(line)
        return [Point(name, float(value), row["time"], row["step"]) for name, value in row["metrics"].items()]
    except (ValueError, TypeError, KeyError, AttributeError):
        log.warning("%s: skipped a damaged line: %r", path, line[:80])
        return []


def _encode(value: float) -> float | str:
    """JSON has no NaN: non-finite values are written as text that `float` reads back."""
    number = float(value)
    return number if number - number == 0 else str(number)


def _raise_last_steps(last_step: dict[str, int], points: list[Point]) -> None:
    for point in points:
        last_step[point.name] = max(point.step, last_step.get(point.name, -1))


def _sent_path(path: Path) -> Path:
    return path.with_suffix(".sent")


def _read_progress(path: Path) -> dict:
    """How far the sender got: byte offset, and the last step of every name (a power cut can lose spool lines that were sent)."""
    if path.exists():
        return json.loads(path.read_text(encoding="utf-8"))
    return {"offset": 0, "last_step": {}}


def _write_progress(path: Path, progress: dict) -> None:
    temporary = path.with_suffix(".sent.tmp")
    temporary.write_text(json.dumps(progress), encoding="utf-8")
    temporary.replace(path)
