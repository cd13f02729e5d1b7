"""The CPUs and GPUs of a trial that was stopped early, given back by Tune's driver.

One decision: a trial that Tune stops ends without a word to the workers of Ray Train that it waits for, and Ray gives their
resources back only when a helper of Train notices, by the dashboard's API; where no dashboard runs, never (ray 2.60, measured: the
next trial waits for ever). So each report of such a trial names the placement group of its workers, and the driver removes it.
"""

from ray import tune
from ray._raylet import PlacementGroupID
from ray.util.placement_group import PlacementGroup, remove_placement_group

PLACEMENT_GROUP = "placement_group"  # hexadecimal; in the reports of trials on several workers


class FreedWorkers(tune.Callback):
    """Removes the workers of trials that have ended."""

    def __init__(self):
        self.freed: set[str] = set()

    def on_step_end(self, iteration: int, trials: list, **info) -> None:
        """Called by Tune after each event; a trial's own end is scheduled by then, and what its workers still say is not heard."""
        for trial in trials:
            group = (trial.last_result or {}).get(PLACEMENT_GROUP)
            if group and trial.is_finished() and group not in self.freed:
                self.freed.add(group)
                remove_placement_group(PlacementGroup(PlacementGroupID(bytes.fromhex(group))))
