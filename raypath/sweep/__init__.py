"""Searching the settings of a protocol with Ray Tune, every trial a run in MLflow."""

from raypath.sweep.search import Winner, sweep
from raypath.sweep.space import check_sweep, num_trials
from raypath.sweep.trial_log import TrialLog, trial_name

__all__ = ["TrialLog", "Winner", "check_sweep", "num_trials", "sweep", "trial_name"]
