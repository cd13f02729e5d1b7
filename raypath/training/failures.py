"""Lost workers, written down: a run that survives them must not hide them.

One decision: Ray Train's controller appends each failure to the run's folder, from where the progress lines and the final error
take it; nothing else has to be told.
"""

import json
import time
from typing import Any

import ray.train

from raypath.run_folder import RunFolder

FAILURES = "failures.jsonl"


class FailureLog(ray.train.UserCallback):
    """Called by Ray Train when workers have failed, before it starts a new group."""

    def __init__(self, run: RunFolder):
        self.run = run

    def after_exception(self, run_context, worker_exceptions: dict[int, Exception]) -> None:
        """Append one line: which ranks, why, when."""
        reasons = {str(rank): _reason(error) for rank, error in worker_exceptions.items()}
        line = {"time": time.strftime("%Y-%m-%dT%H:%M:%S"), "ranks": sorted(worker_exceptions), "reasons": reasons}
        with (self.run.path / FAILURES).open("a") as file:
            file.write(json.dumps(line) + "\n")


def read_failures(run: RunFolder) -> list[dict[str, Any]]:
    """The failures of a run so far, oldest first."""
    path = run.path / FAILURES
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    return [
        json.loads(line) for line in lines if line.endswith("}\n")
    ]  # a torn one is of a driver that died writing it


def _reason(error: Exception) -> str:
    lines = [line for line in str(error).strip().splitlines() if line.strip()]
    return lines[-1][:500] if lines else type(error).__name__
