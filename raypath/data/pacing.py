"""Ray Data's scheduler, kept from taking half a core beside every training worker.

One decision: a pause in each turn of its loop. A rank's dataset is executed inside its training worker, and while blocks wait to be
consumed Ray Data 2.60 turns that loop without waiting for anything: 0.5 of a core and the GIL (py-spy, two ranks on two cores:
98 tiles/s with it, 190 without). A pause costs a block at most that much delay, and blocks are read ahead.
"""

import time

from ray.data import DataContext
from ray.data._internal.execution.execution_callback import ExecutionCallback

_PAUSE_S = 0.02


class Pause(ExecutionCallback):
    """Sleeps a moment after each turn of the scheduler."""

    def on_execution_step(self, executor) -> None:
        """Called by Ray Data in the thread of its scheduler."""
        time.sleep(_PAUSE_S)


def pace(context: DataContext) -> None:
    """Let datasets of this context take it slowly."""
    context.custom_execution_callback_classes = [*context.custom_execution_callback_classes, Pause]
