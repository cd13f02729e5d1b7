"""Every trial of a sweep as a child run in MLflow, written by the driver.

One decision: a trial that is stopped early runs no more code of its own, so it cannot close its run. Tune's driver knows how each
trial ended and is the one writer: FINISHED for a whole training, KILLED for one that was stopped early, FAILED with the reason.
Which run belongs to which trial is kept in a file, so that a restored sweep goes on in the same runs.
"""

import json
import logging
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ray import tune

from raypath.config import config_hash, from_dict, override, to_dict
from raypath.errors import BadInput
from raypath.protocols import FinetuneSettings, SegmentSettings
from raypath.protocols.transfer import TransferConfig
from raypath.sweep.trial import FAILURE
from raypath.tracking import Tracker, open_tracking

log = logging.getLogger(__name__)

_HIDDEN = (
    "time_",
    "timestamp",
    "iterations_",
    "node_ip",
    "hostname",
    "pid",
    "date",
    "trial_id",
    "done",
    "config",
    "selection",
)


class TrialLog(tune.Callback):
    """Starts, fills and ends the child runs of one sweep; survives pickling, as Tune's state on disk asks.

    `show` is told a line for each trial that ended, in a restored sweep as well: a function of a module, found again by its name.
    """

    def __init__(
        self,
        config: TransferConfig,
        *,
        uri: str,
        experiment: str,
        parent: str,
        folder: Path,
        tags: dict[str, Any],
        show: Callable[[str], None] | None = None,
    ):
        self.show, self.num_ended = show or _show_nothing, 0
        self.config, self.uri, self.experiment, self.parent, self.tags = to_dict(config), uri, experiment, parent, tags
        self.known = folder / "trials.json"
        self._tracker: Tracker | None = None

    def __getstate__(self) -> dict:
        return vars(self) | {"_tracker": None}

    def get_state(self) -> dict:
        """What a restored sweep goes on from: how many trials were told of."""
        return {"num_ended": self.num_ended}

    def set_state(self, state: dict) -> None:
        """Go on counting."""
        self.num_ended = state["num_ended"]

    @property
    def tracker(self) -> Tracker:
        """The tracking store, opened when first used."""
        self._tracker = self._tracker or open_tracking(self.uri, self.experiment)
        return self._tracker

    def on_trial_start(self, iteration, trials, trial, **info) -> None:
        """Create the child run, or go on with the one of before."""
        runs, config = self._runs(), self._config_of(trial)
        try:
            runs[trial.trial_id] = self.tracker.start_run(
                trial_name(trial.config),
                parent=self.parent,
                tags=self.tags | {"raypath.trial": trial.trial_id, "config_hash": config_hash(config)},
                params=to_dict(config),
                resume=runs.get(trial.trial_id),
            )
        except BadInput as error:  # an error here would end the whole sweep
            log.warning("trial %s is not recorded: %s", trial.trial_id, error)
            return
        draft = self.known.with_suffix(".draft")
        draft.write_text(json.dumps(runs))
        draft.replace(self.known)

    def on_trial_result(self, iteration, trials, trial, result, **info) -> None:
        """Log one look at val, or why there are no more of them."""
        run_id = self._runs().get(trial.trial_id)
        if run_id is None:
            return
        if FAILURE in result:
            reasons = {"raypath.error": result[FAILURE][:500], "raypath.traceback": result["traceback"]}
            self.tracker.set_tags(run_id, reasons)
            return
        numbers = {k: v for k, v in result.items() if isinstance(v, int | float) and not k.startswith(_HIDDEN)}
        numbers = {k: float(v) for k, v in numbers.items() if not isinstance(v, bool) and math.isfinite(v)}
        numbers.pop("training_iteration", None)
        self.tracker.log_metrics(run_id, numbers, step=int(result.get("look", 0)))

    def on_trial_complete(self, iteration, trials, trial, **info) -> None:
        """Close the run: finished, stopped early, or failed."""
        result, protocol = trial.last_result or {}, self._config_of(trial).protocol
        look, run_id = result.get("look", 0), self._runs().get(trial.trial_id)
        self.num_ended += 1
        self.show(f"  trial {self.num_ended}: {trial_name(trial.config)}  {_outcome(result, protocol)}")
        if run_id is None:
            return
        if FAILURE in result:
            self.tracker.end_run(run_id, "FAILED")
            return
        is_whole = look >= protocol.num_looks
        if not is_whole:
            self.tracker.set_tags(run_id, {"raypath.stopped": f"early, after {protocol.place_of(look)}"})
        self.tracker.end_run(run_id, "FINISHED" if is_whole else "KILLED")

    def on_trial_error(self, iteration, trials, trial, **info) -> None:
        """Close the run of a trial whose workers were lost too often, with the reason."""
        reason = Path(trial.error_file).read_text().strip().splitlines()[-1] if trial.error_file else "unknown"
        self.num_ended += 1
        self.show(f"  trial {self.num_ended}: {trial_name(trial.config)}  lost: {reason}")
        run_id = self._runs().get(trial.trial_id)
        if run_id is None:
            return
        self.tracker.set_tags(run_id, {"raypath.error": reason[:500]})
        self.tracker.end_run(run_id, "FAILED")

    def mark_winner(self, trial_id: str) -> None:
        """Tag the run of the trial that was chosen."""
        run_id = self._runs().get(trial_id)
        if run_id is not None:
            self.tracker.set_tags(run_id, {"raypath.winner": "true"})

    def end_open_runs(self) -> None:
        """Close what is still open when a sweep ends in whatever way: trials that were cut off, or that a crash forgot."""
        for run_id in self._runs().values():
            if self.tracker.is_running(run_id):
                self.tracker.end_run(run_id, "KILLED")

    def _config_of(self, trial) -> TransferConfig:
        return override(from_dict(TransferConfig, self.config), trial.config)

    def _runs(self) -> dict[str, str]:
        return json.loads(self.known.read_text()) if self.known.exists() else {}


def _outcome(result: dict[str, Any], protocol: FinetuneSettings | SegmentSettings) -> str:
    """How a trial ended, for people."""
    if FAILURE in result:
        return f"failed: {result[FAILURE]}"
    scores = "  ".join(f"{k} {v:.3f}" for k, v in result.items() if k.startswith("val_") and k != "val_loss")
    look = result.get("look", 0)
    early = "" if look >= protocol.num_looks else f", stopped early after {protocol.place_of(look)}"
    return f"last look: {scores}{early}"


def _show_nothing(line: str) -> None:
    """For a log with nobody to show things to."""


def trial_name(params: dict[str, Any]) -> str:
    """The searched settings, short: lr=0.0012 weight_decay=3e-05."""
    values = {k.rpartition(".")[2]: f"{v:.2g}" if isinstance(v, float) else str(v) for k, v in params.items()}
    return " ".join(f"{k}={v}" for k, v in values.items())
