"""What every experiment does before and after: Ray, MLflow, signals, exit codes.

One decision: an experiment is `python experiments/SCRIPT.py [NAME] [key=value ...]` (or `--key value`: `command_line`), the same at
a desk and as a Ray job, and ends with 0 or with one clear line and the exit code of its error (2 bad input, 3 too much quarantined,
4 diverged, 75 stopped and resumable).
"""

import logging
import os
import signal
import sys
import time
import warnings
from collections.abc import Callable
from contextlib import contextmanager

os.environ.setdefault("RAY_TRAIN_ENABLE_PRINT_PATCH", "0")  # else each line of a worker comes twice
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")

import ray
from command_line import as_settings
from rich.console import Console

from raypath.cluster import join_or_start
from raypath.errors import EXIT_PREEMPTED, BadInput, RaypathError
from raypath.run_folder import RunFolder, runs_root
from raypath.tracking import Tracker, open_tracking

console = Console(highlight=False, soft_wrap=True)
if not console.is_terminal and "COLUMNS" not in os.environ:
    console.width = 120  # a log: 80 would cut the encoders' names in a table
PROJECT = "raypath"


def say(text: str) -> None:
    """A line for the person who waits."""
    console.print(text, markup=False)


def counter(what: str, *, every_s: float = 5.0) -> Callable[[int, int], None]:
    """`progress(done, total)` that says so every few seconds, and never for what takes less."""
    last = [time.monotonic()]

    def progress(done: int, total: int) -> None:
        if time.monotonic() - last[0] >= every_s:
            last[0] = time.monotonic()
            say(f"{what}: {done:,} of {total:,}")

    return progress


def run(experiment: Callable[[list[str]], None]) -> None:
    """Run an experiment with the command line's arguments and exit as its errors say."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    warnings.filterwarnings("ignore", category=FutureWarning)
    try:
        experiment(as_settings(sys.argv[1:]))
    except RaypathError as error:
        Console(stderr=True, highlight=False, soft_wrap=True).print(f"{type(error).__name__}: {error}", markup=False)
        sys.exit(error.exit_code)
    except OSError as error:
        Console(stderr=True, highlight=False, soft_wrap=True).print(f"{type(error).__name__}: {error}", markup=False)
        sys.exit(1)
    except KeyboardInterrupt:
        Console(stderr=True).print("interrupted")
        sys.exit(130)


def list_recipes(recipes: dict[str, Callable]) -> None:
    """Print every recipe with the first line of its docstring."""
    for name, recipe in recipes.items():
        say(f"{name:24} {(recipe.__doc__ or '').strip().splitlines()[0]}")


def start_ray() -> None:
    """Join the cluster of RAY_ADDRESS (a Ray job has it set), else start a local instance. SIGTERM then means what Ctrl-C means.

    Raises BadInput on a cluster of several nodes without RAYPATH_RUNS: a worker could not see the run's folder.
    """
    join_or_start(say)
    # Ray's own handler ends in a stack trace of C++, or in an abort
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if num_nodes() > 1 and not os.environ.get("RAYPATH_RUNS"):
        raise BadInput(
            f"{num_nodes()} nodes and no RAYPATH_RUNS: runs must lie on storage that every node sees, e.g."
            ' --runtime-env-json \'{"env_vars": {"RAYPATH_RUNS": "/shared/runs"}}\''
        )


def num_nodes() -> int:
    """How many nodes of the cluster are alive; 1 without a cluster."""
    return sum(node["Alive"] for node in ray.nodes()) if ray.is_initialized() else 1


def start_tracking() -> Tracker:
    """MLflow where MLFLOW_TRACKING_URI says, else a sqlite file among the runs."""
    default = f"sqlite:///{runs_root() / 'mlflow.db'}"
    return open_tracking(os.environ.get("MLFLOW_TRACKING_URI") or default, PROJECT, num_nodes=num_nodes())


@contextmanager
def stopping_on_signals(folder: RunFolder):
    """While inside, SIGTERM or Ctrl-C asks the run to checkpoint at its next step and stop; a second one ends all at once."""
    asked: list[int] = []

    def stop(signum, frame) -> None:
        if asked:
            os._exit(128 + signum)
        asked.append(signum)
        folder.stop.touch()
        name = signal.Signals(signum).name
        say(f"{name}: a checkpoint at the next step, then exit {EXIT_PREEMPTED}; go on with resume={folder.path}")

    before = {signum: signal.signal(signum, stop) for signum in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
