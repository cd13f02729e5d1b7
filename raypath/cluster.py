"""Joining a Ray cluster, or starting one on this machine.

One decision: RAY_ADDRESS decides (a Ray job has it set); without it work stays on this machine. An instance that runs in this
process is taken as it is.
"""

import os
import signal
import socket
from collections.abc import Callable
from contextlib import contextmanager

import ray

from raypath.errors import BadInput

_PATIENCE_S = 10  # Ray itself would try for minutes
# Read at start by Ray's own processes. A machine with few cores has more workers (training, its controller) than Ray keeps warm, so
# it would end a reading process a second after its last task, and the next segment's would import everything anew (52 processes
# in one demo).
_ONE_MACHINE = {
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",  # notice starts and ends sooner
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_idle_worker_killing_time_threshold_ms": "120000",
}


def join_or_start(say: Callable[[str], None]) -> None:
    """Initialise Ray, quietly; raises BadInput if nothing answers at RAY_ADDRESS."""
    if ray.is_initialized():
        return
    address = os.environ.get("RAY_ADDRESS")
    if not address:
        for name, value in _ONE_MACHINE.items():
            os.environ.setdefault(name, value)
        say("starting Ray on this machine ...")
        with _sigterm_held_back():
            ray.init(address="local", include_dashboard=False, logging_level="ERROR", log_to_driver=False)
        return
    host, _, port = address.rpartition(":")
    if port.isdigit() and "://" not in address:
        try:
            socket.create_connection((host, int(port)), timeout=_PATIENCE_S).close()
        except OSError as error:
            remedy = "start the cluster, or unset RAY_ADDRESS to work on this machine"
            raise BadInput(f"RAY_ADDRESS={address}: nothing answers there ({error}); {remedy}") from None
    try:
        ray.init(address=address, logging_level="ERROR", log_to_driver=False)
    except (ConnectionError, ValueError, RuntimeError) as error:
        reason = str(error).partition("\n")[0][:200]
        raise BadInput(
            f"RAY_ADDRESS={address}: Ray cannot join it ({reason}); expected HOST:PORT of a running"
            " head, or leave it unset (a dashboard's http:// address is for `ray job submit --address`)"
        ) from None


@contextmanager
def _sigterm_held_back():
    """Processes started inside do not see SIGTERM (a mask is inherited).

    Slurm, systemd and `timeout` send it to the whole process group: Ray would be gone before the run it carries could write its
    checkpoint. They still end with the driver, by SIGKILL.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
