"""What is searched and how: the space in Tune's words, the number of trials, and how many run at once.

One decision: what cannot be searched is refused before anything starts. Every value of a list and both ends of a range are put into
the config once, so an unknown setting or a wrong type is an error of the command and not of a trial.
"""

import itertools
import math
from collections.abc import Mapping
from typing import Any

from ray import tune
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler
from ray.tune.search import ConcurrencyLimiter, SearchAlgorithm, Searcher
from ray.tune.search.basic_variant import BasicVariantGenerator
from ray.tune.search.optuna import OptunaSearch

from raypath.config import override
from raypath.errors import BadInput
from raypath.protocols.trained import TRAINED
from raypath.protocols.transfer import SweepSettings, TransferConfig


def num_trials(settings: SweepSettings) -> int:
    """How many trials a sweep has: a grid has one for each of its cells, since all trials share a seed."""
    return math.prod(map(len, settings.space.values())) if settings.search == "grid" else settings.num_trials


def check_sweep(config: TransferConfig) -> None:
    """Raise BadInput for numbers that no sweep can work with, before anything is started."""
    settings = config.sweep
    if not isinstance(config.protocol, TRAINED):
        raise BadInput(
            f"protocol.kind={config.protocol.kind}: a sweep tunes what is trained, finetune and segment (a probe tries its own"
            " penalties): use experiments/finetune.py for it"
        )
    for name, low in (("num_trials", 1), ("grace_looks", 1), ("gpus_per_trial", 0), ("workers_per_trial", 1)):
        if getattr(settings, name) < low:
            raise BadInput(f"sweep.{name}={getattr(settings, name)}: expected {low} or more")
    if settings.cpus_per_trial <= 0:
        raise BadInput(f"sweep.cpus_per_trial={settings.cpus_per_trial:g}: expected more than 0")
    gpus, workers = settings.gpus_per_trial, settings.workers_per_trial
    if workers > 1 and gpus and gpus != workers:
        raise BadInput(
            f"sweep.gpus_per_trial={gpus:g} with sweep.workers_per_trial={workers}: expected one GPU for each worker, or none"
        )


def param_space(config: TransferConfig) -> dict[str, Any]:
    """The search space as Tune wants it; raises BadInput for a key that is no setting or a range that is none."""
    space = {}
    for key, spec in config.sweep.space.items():
        if not key.startswith("protocol.") or key == "protocol.kind":
            raise BadInput(
                f"sweep.space: {key}: only settings of the protocol are searched, e.g. protocol.lr (data, encoder and seed are the"
                " same in all trials of a comparison)"
            )
        choices, domain = _domain(key, spec, is_grid=config.sweep.search == "grid")
        for value in choices:
            try:
                override(config, {key: value})
            except BadInput as error:
                remedy = " (whole numbers: give a list of choices)" if isinstance(spec, dict) else ""
                raise BadInput(f"sweep.space: {error}{remedy}") from None
        space[key] = domain
    return space


def concurrency(settings: SweepSettings, cluster: Mapping[str, float]) -> int:
    """How many trials fit the cluster at once; raises BadInput if not even one does."""
    fits = [math.floor(cluster.get("CPU", 0) / settings.cpus_per_trial)]
    if settings.gpus_per_trial:
        fits.append(math.floor(cluster.get("GPU", 0) / settings.gpus_per_trial))
    if min(fits) < 1:
        raise BadInput(
            f"a trial wants {settings.cpus_per_trial:g} CPUs and {settings.gpus_per_trial:g} GPUs, the cluster has"
            f" {cluster.get('CPU', 0):g} and {cluster.get('GPU', 0):g}: lower sweep.cpus_per_trial or sweep.gpus_per_trial"
        )
    return min(fits)


def search_of(config: TransferConfig, num_at_once: int) -> SearchAlgorithm | Searcher:
    """Tune's search; its draws follow from the config's seed."""
    if config.sweep.search == "optuna":
        return ConcurrencyLimiter(OptunaSearch(seed=config.seed), max_concurrent=num_at_once)
    return BasicVariantGenerator(max_concurrent=num_at_once, random_state=config.seed)


def scheduler_of(config: TransferConfig) -> TrialScheduler:
    """Who is stopped early: the worse half at 1, 2, 4 ... times the grace, by looks at val; nobody in a grid."""
    settings = config.sweep
    if not settings.asha or settings.search == "grid":
        return FIFOScheduler()
    # By look and not by Tune's own count, which goes on where a lost worker stood while the trial begins again.
    num_looks = most_looks(config)
    grace_looks = min(settings.grace_looks, num_looks)
    return ASHAScheduler(time_attr="look", max_t=num_looks, grace_period=grace_looks, reduction_factor=2)


def most_looks(config: TransferConfig) -> int:
    """The looks at val of the longest trial that can be drawn."""
    keys = [f"protocol.{name}" for name in ("epochs", "num_steps", "validate_every")]
    searched = {key: config.sweep.space[key] for key in keys if key in config.sweep.space}
    drawn = (dict(zip(searched, values, strict=True)) for values in itertools.product(*searched.values()))
    return max(override(config, values).protocol.num_looks for values in drawn)


def _domain(key: str, spec: Any, *, is_grid: bool) -> tuple[list[Any], Any]:
    """(values to check, Tune's domain) of one entry of the space."""
    match spec:
        case [_, *_]:
            return list(spec), tune.grid_search(list(spec)) if is_grid else tune.choice(list(spec))
        case {"log": [int() | float() as low, int() | float() as high]} if 0 < low < high and not is_grid:
            return [float(low), (low * high) ** 0.5], tune.loguniform(low, high)
        case {"uniform": [int() | float() as low, int() | float() as high]} if low < high and not is_grid:
            return [float(low), (low + high) / 2], tune.uniform(low, high)
    expected = "a list of values" if is_grid else 'a list of values, {"log": [low, high]} or {"uniform": [low, high]}'
    raise BadInput(f"sweep.space: {key}: {spec!r}: expected {expected}")
