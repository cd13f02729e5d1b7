"""Refusing a pretraining that would wait for ever.

One decision: what counts is single nodes and the worst placement. Train workers hold their CPUs to the end; a reading task needs
its CPUs on *one* node, and if the workers can be placed so that none has them left, Ray Data waits without a word.
"""

import math
from collections.abc import Mapping, Sequence

import ray

from raypath.errors import BadInput
from raypath.training.settings import WorkerSettings

_ROUNDING = 1e-6  # 3 * 0.1 is a little more than 0.3


def nodes_of_cluster() -> list[Mapping[str, float]]:
    """The resources of every node that is alive."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def refuse_starvation(workers: WorkerSettings, read_cpus: float, nodes: Sequence[Mapping[str, float]]) -> None:
    """Raise BadInput unless the nodes have room for all workers and, however those are placed, for a reading task."""
    cpus, gpus = (sum(node.get(kind, 0.0) for node in nodes) for kind in ("CPU", "GPU"))
    if workers.use_gpu and gpus < workers.num_workers:
        remedy = f"workers.num_workers={gpus:g}" if gpus >= 1 else "workers.use_gpu=false"
        raise BadInput(f"{workers.num_workers} workers want a GPU each, the cluster has {gpus:g}: set {remedy}")
    if leaves_room(workers, workers.cpus_per_worker, read_cpus, nodes):
        return
    if max((node.get("CPU", 0.0) for node in nodes), default=0.0) < read_cpus:
        largest = max((node.get("CPU", 0.0) for node in nodes), default=0.0)
        raise BadInput(
            f"a reading task wants {read_cpus:g} CPUs, the largest node has {largest:g}: set stream.read_cpus lower"
        )
    hundredths = range(math.ceil(100 * workers.cpus_per_worker) - 1, 0, -1)
    room = next((n / 100 for n in hundredths if leaves_room(workers, n / 100, read_cpus, nodes)), None)
    remedy = "stream.read_cpus or workers.num_workers lower"
    if room:
        remedy = f"workers.cpus_per_worker to at most {room:g}, or {remedy}"
    taken = workers.num_workers * workers.cpus_per_worker
    where = "" if len(nodes) == 1 else f" on {len(nodes)} nodes"
    raise BadInput(
        f"{workers.num_workers} workers with {workers.cpus_per_worker:g} CPUs each take {taken:g} of the cluster's {cpus:g}{where};"
        f" reading tiles needs {read_cpus:g} more on one node, and without it training would wait for ever: set"
        f" {remedy}"
    )


def leaves_room(
    workers: WorkerSettings, cpus_per_worker: float, read_cpus: float, nodes: Sequence[Mapping[str, float]]
) -> bool:
    """Whether all workers fit, and fewer of them than there are could take the room to read away from every node."""
    fits = [_at_most(node, cpus_per_worker, workers.use_gpu) for node in nodes]
    blocking = [_to_block(node, cpus_per_worker, read_cpus) for node in nodes]
    can_block = sum(blocking) <= workers.num_workers and all(few <= many for few, many in zip(blocking, fits))
    return sum(fits) >= workers.num_workers and not can_block


def _at_most(node: Mapping[str, float], cpus_per_worker: float, use_gpu: bool) -> float:
    """The number of workers that a node can hold."""
    by_cpu = math.floor(node.get("CPU", 0.0) / cpus_per_worker + _ROUNDING) if cpus_per_worker else math.inf
    return min(by_cpu, math.floor(node.get("GPU", 0.0))) if use_gpu else by_cpu


def _to_block(node: Mapping[str, float], cpus_per_worker: float, read_cpus: float) -> float:
    """The number of workers after which a reading task has no room on a node."""
    spare = node.get("CPU", 0.0) - read_cpus
    if spare < -_ROUNDING:
        return 0
    return math.floor(spare / cpus_per_worker + _ROUNDING) + 1 if cpus_per_worker else math.inf
