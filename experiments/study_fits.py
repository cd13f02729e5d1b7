"""One cell on one fold: its settings chosen on val, then fitted with fresh seeds and asked about the test.

One decision: every encoder gets the same search (`sweep.num_trials`, `sweep.space`), and what is reported is not the winner of the
search but fits of its settings with seeds that chose nothing. The null is the same fit on shuffled labels.
"""

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import launch
import pyarrow as pa
import ray
import torch
from launch import say
from scoring import device_here, features_root, scores_of

from raypath.benchmarks import Benchmark
from raypath.config import override, to_dict
from raypath.errors import BadInput
from raypath.protocols import fit
from raypath.protocols.trained import TRAINED, Parts, Said, read_samples, train_weights, training_samples
from raypath.protocols.transfer import OF_PIXELS, TransferConfig, batch_norm_rule, feeding, train_rows
from raypath.run_folder import runs_root
from raypath.study.cells import Cell, CellFolder, Cost, save_said, write_json
from raypath.study.null import shuffled
from raypath.sweep import TrialLog, num_trials, sweep

NULL, MAX_NULLS = "null", 1_000


@dataclass(frozen=True, kw_only=True)
class Tracked:
    """Where trials are written down: the store, the run that they are children of, and what they are tagged with."""

    tracking: str
    run_id: str
    tags: dict[str, Any]


def is_embedded_once(cell: Cell) -> bool:
    """Whether all samples go through the encoder before any fold: it is frozen, and no fold has weights or statistics of its own.

    The test of a given split is embedded when it is opened.
    """
    config = cell.config
    is_frozen = not isinstance(config.protocol, (*TRAINED, *OF_PIXELS)) and not cell.checkpoint.by_fold
    return is_frozen and config.evaluation == "nested" and batch_norm_rule(config) == "keep"


def place_of_cell(cell: Cell) -> CellFolder:
    """Where a cell lies, for all studies."""
    return CellFolder(runs_root() / "cells" / cell.key)


def forget_failed(cells: Sequence[Cell]) -> None:
    """Make failed cells as if they had never been run; the folds that they finished stay."""
    for place in map(place_of_cell, cells):
        record = place.record
        if record and record["state"] == "failed":
            (place.path / "cell.json").unlink()


def choose(tracked: Tracked, cell: Cell, fold: Benchmark, number: int) -> tuple[TransferConfig, Cost]:
    """The configuration that val chooses, and what choosing took; what was chosen before a crash stays chosen."""
    if not isinstance(cell.config.protocol, TRAINED):
        return cell.config, Cost()
    place = place_of_cell(cell).fold(number) / "chosen.json"
    if not place.exists():
        winner = tuned(tracked, cell, fold, number)
        settings, num = cell.config.sweep, num_trials(cell.config.sweep)
        cost = Cost(
            tiles_seen=num * images_of(cell.config, fold),  # at most: trials may have been stopped early
            cpu_hours=winner.hours * settings.cpus_per_trial,
            gpu_hours=winner.hours * settings.gpus_per_trial,
            num_trials=num,
        )
        write_json(place, {"params": winner.params, "place": winner.place, "cost": asdict(cost)})
    known = json.loads(place.read_text())
    return override(cell.config, known["params"]), Cost(**known["cost"])


def images_of(config: TransferConfig, fold: Benchmark) -> int:
    """Images that one training goes through, within its share of the labels."""
    protocol = config.protocol
    if getattr(protocol, "num_steps", 0):
        return protocol.num_steps * protocol.batch
    return len(train_rows(config, fold)) * getattr(protocol, "epochs", 1)


def tuned(tracked: Tracked, cell: Cell, fold: Benchmark, number: int):
    """The winner of the sweep of a cell in a fold, every trial a child run in MLflow."""
    config, folder = cell.config, place_of_cell(cell).path / f"tuned-{number:02}"
    folder.mkdir(parents=True, exist_ok=True)
    train, val = training_samples(config, fold, feeding(config, fold))
    tags = tracked.tags | {"raypath.fold": str(number), "protocol": cell.protocol, "fraction": f"{cell.fraction:.0%}"}
    log = TrialLog(
        config,
        uri=tracked.tracking,
        experiment=launch.PROJECT,
        parent=tracked.run_id,
        folder=folder,
        tags=tags,
        show=say,
    )
    try:
        winner = sweep(config, train, val, metric=fold.primary, folder=folder, callbacks=[log], resume=True)
    finally:
        log.end_open_runs()
    log.mark_winner(winner.trial_id)
    return winner


def say_all(
    cell: Cell, fold: Benchmark, rows: pa.Table, place: Path, tuning: Cost, share: float, *, draw: int = 0
) -> None:
    """What a cell, with the configuration that was chosen, says of the test: by every seed, on altered images, and fitted on
    shuffled labels; on each draw of the folds those fits whose turn it is.
    """
    started, config = time.monotonic(), cell.config
    fits = fits_of(cell, fold, draw)
    first = f"seed-{cell.seeds[0]}"
    is_trained = isinstance(config.protocol, TRAINED)
    speak = said_by_trained if is_trained else said_by_frozen
    vals, how = {}, ""
    for name, own, data in fits:
        altered = cell.alterations if name == first else ()
        val, said, way = speak(own, data, rows, altered)
        vals[name], how = scores_of("val", val)[f"val_{fold.primary}"], how or way
        for alteration, predictions in said.items():
            target = place / (f"altered/{alteration}.parquet" if alteration else f"{name}.parquet")
            target.parent.mkdir(exist_ok=True)
            save_said(predictions, target)
    hours = (time.monotonic() - started) / 3600
    cost = tuning + cost_of_fits(cell, fold, len(fits), len(rows), hours, share)
    done = {"how": how, "val": vals, "cost": asdict(cost), "params": to_dict(config)}
    write_json(place / "done.json", done)


def fits_of(cell: Cell, fold: Benchmark, draw: int) -> list[tuple[str, TransferConfig, Benchmark]]:
    """(name, config, labels) of the fits on a draw of the folds: seeds take the draws in turn, and so do shuffles of labels."""
    num_draws = cell.config.num_repeats or 1
    own = cell.seeds[draw::num_draws]
    fits = [(f"seed-{seed}", replace(cell.config, seed=seed), fold) for seed in own]
    numbers = range(draw, cell.num_nulls, num_draws)
    for number, labels in zip(numbers, nulls_of(cell, fold, numbers)):
        fits.append((f"{NULL}-{number + 1}", replace(cell.config, seed=own[0]), labels))
    return fits


def nulls_of(cell: Cell, fold: Benchmark, numbers: Sequence[int]) -> list[Benchmark]:
    """The fold with shuffled labels, another shuffle for every checkpoint too; none where masks fit no other image."""
    try:
        return [shuffled(fold, seed=cell.checkpoint.seed * MAX_NULLS + number) for number in numbers]
    except BadInput as error:
        say(f"{cell.words}: no null: {error}")
        return []


def cost_of_fits(cell: Cell, fold: Benchmark, num_fits: int, num_tested: int, hours: float, share: float) -> Cost:
    """What fitting and saying took: the processors of one trial, one core where features are known, else this pair's share."""
    config, settings = cell.config, cell.config.sweep
    if isinstance(config.protocol, TRAINED):
        gpus = settings.gpus_per_trial / settings.workers_per_trial  # a fit has one worker
        own = {"cpu_hours": hours * settings.cpus_per_trial, "gpu_hours": hours * gpus}
        return Cost(tiles_seen=images_of(config, fold) * num_fits, **own)
    if is_embedded_once(cell):
        return Cost(cpu_hours=hours)
    return Cost(tiles_seen=len(fold.table) + len(cell.alterations) * num_tested, **held(hours, share))


def held(hours: float, share: float) -> dict[str, float]:
    """Hours of this share of the cluster's processors."""
    resources = ray.cluster_resources()
    return {"cpu_hours": hours * resources.get("CPU", 1) * share, "gpu_hours": hours * resources.get("GPU", 0) * share}


def said_by_frozen(
    config: TransferConfig, fold: Benchmark, rows: pa.Table, alterations: tuple[str, ...]
) -> tuple[Said, dict[str, Said], str]:
    """(val, what is said of the test as it is ("") and altered, how) by a frozen encoder."""
    progress = launch.counter("samples embedded")
    fitted = fit(config, fold, features_root=features_root(), device=device_here(), progress=progress)
    said = {alteration: fitted.predict(rows, alteration) for alteration in ("", *alterations)}
    return fitted.val, said, fitted.how


def said_by_trained(
    config: TransferConfig, fold: Benchmark, rows: pa.Table, alterations: tuple[str, ...]
) -> tuple[Said, dict[str, Said], str]:
    """The same of an encoder that is trained, with the processors of one trial."""
    fed = feeding(config, fold)
    train, val = training_samples(config, fold, fed)
    tests = {"": read_samples(config, fold, rows, fed)}
    tests |= {one: read_samples(config, fold, rows, fed.altered(one)) for one in alterations}
    settings = config.sweep
    resources = {"num_cpus": settings.cpus_per_trial, "num_gpus": settings.gpus_per_trial / settings.workers_per_trial}
    task = ray.remote(max_retries=1, **resources)(_train_and_say)
    return ray.get(task.remote(config, ray.put(train), ray.put(val), ray.put(tests), fold.primary))


def _train_and_say(
    config: TransferConfig, train: Parts, val: Parts, tests: dict[str, Parts], metric: str
) -> tuple[Said, dict[str, Said], str]:
    torch.set_num_threads(max(1, int(config.sweep.cpus_per_trial)))
    device = torch.device("cuda" if config.sweep.gpus_per_trial else "cpu")
    fitted = train_weights(config, train, val, metric=metric, device=device)
    how = f"{config.protocol.kind}, {config.protocol.place_of(fitted.look)}"
    return fitted.val, {name: fitted.predict(samples, device) for name, samples in tests.items()}, how
