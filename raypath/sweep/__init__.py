"""Searching the settings of a protocol with Ray Tune, every trial a run in MLflow."""

from raypath.sweep.search import Winner, sweep
from raypath.sweep.trial_log import TrialLog

__all__ = ["TrialLog", "Winner", "sweep"]
