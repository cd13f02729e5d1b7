"""An encoder out of its run, as a person asks for it: `raypath export`.

One decision: what the model card says of a training is read from the run's own files (checkpoint.json, metrics.jsonl, best.json),
and what is not there is not said. The index is counted only if it is still the one the run was trained on.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from raypath.data.joined_index import AnyIndex, load_index
from raypath.data.pool import Task, open_pool
from raypath.errors import BadInput, CheckpointInvalid
from raypath.hashing import file_sha256
from raypath.import_job import COVERAGE
from raypath.models import export_encoder, load_encoder
from raypath.protocols.encoders import monitors_of
from raypath.training.checkpoint import ENCODER, MANIFEST, newest_valid, verify

# Which module transfers, for checkpoints that do not say it (RECIPES: momentum for DINO, online for BYOL, query for MoCo)
COPY_OF_KIND = {"dino": "momentum", "dinov2": "momentum", "byol": "online", "moco": "query", "moco_v3": "query"}
# Metrics of the machine and of the schedule, which say nothing of the weights
_NOT_OF_WEIGHTS = ("step_s", "tiles_per_s", "waiting_share", "lr", "weight_decay")


@dataclass(frozen=True)
class Origin:
    """An encoder file, and what lies around it."""

    encoder: Path
    checkpoint: dict[str, Any]
    """`checkpoint.json`; empty for a bare file."""
    run: Path | None = None
    best: dict[str, Any] | None = None
    """Step and score, where the run's best look is taken."""
    imported: dict[str, Any] | None = None
    """The coverage report, where the weights came from another project."""


def export(
    source: Path, folder: Path, *, copy: Literal["last", "best"] = "last", license_name: str = "not stated"
) -> str:
    """Export a run (runs/ID), a checkpoint or an encoder file into `folder`; returns a line on what was exported.

    Raises BadInput if there is no valid checkpoint or no best one, or if `folder` holds something else.
    """
    origin = find_origin(Path(source), copy)
    encoder = load_encoder(origin.encoder).eval()
    config = origin.checkpoint.get("config", {})
    kind = config.get("objective", {}).get("kind", "")
    which = origin.checkpoint.get("exported_copy") or COPY_OF_KIND.get(kind, "encoder")
    monitors = monitors_of(str(origin.encoder))
    sections = _sections(origin) | {
        "Watched while training": {watched["name"]: watched["path"] for watched in monitors}
    }
    export_encoder(
        encoder,
        folder,
        exported_copy=which,
        license_name=license_name,
        sections={title: rows for title, rows in sections.items() if rows},
        monitors=monitors,
    )
    return f"{origin.encoder}: exported the {'encoder' if which == 'encoder' else which + ' copy'} to {folder}"


def find_origin(source: Path, copy: Literal["last", "best"] = "last") -> Origin:
    """The encoder file behind a run, a checkpoint folder or a path."""
    if copy not in ("last", "best"):
        raise BadInput(f"copy={copy!r}: expected last or best")
    if (source / "checkpoints").is_dir():
        return _of_run(source, copy)
    if copy == "best":
        raise BadInput(f"{source}: only a run (runs/ID) has a best encoder; leave --copy out")
    if (source / MANIFEST).is_file():
        source = source / ENCODER
    if not source.is_file():
        raise BadInput(f"{source}: expected runs/ID, a checkpoint's folder, or an encoder.safetensors")
    if (source.parent / MANIFEST).is_file():
        run = source.parent.parent.parent
        return Origin(source, _verified(source.parent), run if (run / "config.json").is_file() else None)
    beside = source.parent / COVERAGE
    return Origin(source, {}, imported=json.loads(beside.read_text()) if beside.is_file() else None)


def _of_run(run: Path, copy: str) -> Origin:
    checkpoint = newest_valid(run / "checkpoints")
    if checkpoint is None:
        raise BadInput(f"{run}: no valid checkpoint in this run; has its pretraining written one yet?")
    manifest = json.loads((checkpoint / MANIFEST).read_text())
    if copy == "last":
        return Origin(checkpoint / ENCODER, manifest, run)
    best = run / "best"
    if not (best / ENCODER).is_file():
        raise BadInput(f"{run}: no best encoder was kept; was it run with a monitor? Leave --copy out for the last one")
    return Origin(best / ENCODER, manifest, run, best=json.loads((best / "best.json").read_text()))


def _verified(checkpoint: Path) -> dict[str, Any]:
    try:
        return verify(checkpoint)
    except CheckpointInvalid as error:
        raise BadInput(f"{error}; export another checkpoint, or the run itself (its newest valid one)") from None


def _sections(origin: Origin) -> dict[str, dict[str, Any]]:
    """The tables of the model card that speak of the training."""
    manifest = origin.checkpoint
    step = origin.best["step"] if origin.best else manifest.get("step")
    return {
        "Training": _training(origin, step) if manifest else {},
        "Trained on": _data(manifest) if manifest else {},
        "Imported weights": _import_rows(origin.imported) if origin.imported else {},
        f"Metrics at step {step}": _metrics(origin.run, step) if origin.run else {},
        "Files (sha256)": {"encoder.safetensors of raypath": file_sha256(origin.encoder)},
        "Versions": {f"{name}, at training": text for name, text in manifest.get("versions", {}).items()},
    }


def _training(origin: Origin, step: int) -> dict[str, Any]:
    config = origin.checkpoint["config"]
    loop = config["loop"]
    score = origin.best and f"best by the monitor, score {origin.best['score']:.4g}"
    return _known(
        {
            "objective": config["objective"]["kind"],
            "settings": json.dumps(config["objective"], sort_keys=True),
            "views": json.dumps(config["views"], sort_keys=True),
            "optimiser": json.dumps(config["optim"], sort_keys=True),
            "steps": f"{step} of {loop['num_steps']}, {loop['global_batch']} tiles each",
            "ended": _how_it_ended(origin.checkpoint.get("step"), loop["num_steps"]),
            "chosen": score or "last checkpoint",
            "started from": _short(config.get("init"), 4),
            "fidelity": config.get("fidelity"),
            "seed": config.get("seed"),
            "run": origin.run and origin.run.name,
            "config hash": origin.checkpoint.get("config_hash"),
        }
    )


def _how_it_ended(step: int | None, num_steps: int) -> str | None:
    """What is to be said of a run whose newest checkpoint is not that of its last step."""
    return (
        f"stopped at step {step}, before its last step {num_steps}" if step is not None and step < num_steps else None
    )


def _data(manifest: dict[str, Any]) -> dict[str, Any]:
    config, content_hash = manifest["config"], manifest.get("index_hash")
    kind = "index" if config.get("index") else "pool"
    rows = {kind: _short(config.get(kind), 2), f"{kind} hash": content_hash, "splits": config.get("splits")}
    rows["classes"] = [len(names) for names in manifest.get("classes", [])]
    for task in _tasks_of_then(config, content_hash):
        rows[f"task {task.name}"] = (
            f"{len(task.paths):,} images of {len(task.classes)} classes: {', '.join(task.classes)}"
        )
    index = _index_of_then(config.get("index"), content_hash)
    if index:
        rows |= {"slides in the index": len(index), "tiles in the index": f"{int(index.num_tiles.sum()):,}"}
        rows["um per px of the tiles"] = sorted(set(index.mpp_range))
    return _known(rows)


def _index_of_then(folders: str | None, content_hash: str | None) -> AnyIndex | None:
    """The index, if it is still there and still holds what it held."""
    try:
        index = load_index(folders) if folders else None
    except (BadInput, OSError):
        return None
    return index if index and index.hash == content_hash else None


def _tasks_of_then(config: dict[str, Any], content_hash: str | None) -> tuple[Task, ...]:
    """The tasks of the pool, if its sets are still there and still list what they did; none for an index."""
    if not config.get("pool") or not content_hash:
        return ()
    try:
        return open_pool(config["pool"], tuple(config["splits"]), content_hash).tasks
    except (BadInput, OSError):
        return ()


def _import_rows(coverage: dict[str, Any]) -> dict[str, Any]:
    rows = {name: coverage[name] for name in ("file", "sha256", "layout", "copy")}
    return rows | {
        "left behind": list(coverage["ignored"]) or "nothing",
        "notes": "; ".join(coverage["notes"]) or "none",
    }


def _metrics(run: Path, step: int | None) -> dict[str, Any]:
    """The newest value of every metric up to `step`, with its step where that is another one."""
    newest: dict[str, tuple[int, float]] = {}
    for line in _lines(run / "metrics.jsonl"):
        if step is None or line["step"] <= step:
            newest |= {name: (line["step"], float(value)) for name, value in line["metrics"].items()}
    kept = {name: at for name, at in sorted(newest.items()) if name not in _NOT_OF_WEIGHTS}
    return {n: f"{value:.6g}" + ("" if at == step else f" (step {at})") for n, (at, value) in kept.items()}


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    for line in path.read_text().splitlines() if path.is_file() else []:
        try:
            yield json.loads(line)
        except ValueError:
            continue  # a crash may tear the last line


def _short(places: str | None, num_parts: int) -> str | None:
    """Paths without what they say of the machine they lay on."""
    return places and ",".join("/".join(Path(place).parts[-num_parts:]) for place in places.split(","))


def _known(rows: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in rows.items() if value not in (None, "", [])}
