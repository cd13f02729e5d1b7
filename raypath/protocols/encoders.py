"""Which encoder: a word from the command line to a module.

    runs/ID                 the newest valid checkpoint of a pretraining
    path/x.safetensors      an encoder file
    colour                  the 30 colour numbers
    random:SOURCE           the architecture of SOURCE with random weights (SOURCE: one of the first two)

One decision: `random` needs something to be like, because a baseline with another architecture or input size is none.
"""

import json
from pathlib import Path
from typing import Any

from torch import nn

from raypath.config import config_hash
from raypath.errors import BadInput
from raypath.hashing import file_sha256
from raypath.models import ColourEncoder, EncoderSettings, build_encoder, load_encoder
from raypath.models.exporting import MONITORS
from raypath.training.checkpoint import ENCODER, newest_valid

COLOUR, RANDOM = "colour", "random"


def open_encoder(source: str, *, seed: int) -> nn.Module:
    """The encoder that `source` names, on CPU; `seed` decides random weights. Raises BadInput if there is none."""
    if source == COLOUR:
        return ColourEncoder()
    kind, _, like = source.partition(":")
    if kind == RANDOM:
        return build_encoder(_settings_of(like), seed=seed)
    return load_encoder(encoder_file(source))


def encoder_file(source: str) -> Path:
    """The file of a run or the path itself; raises BadInput if a run has no valid checkpoint."""
    path = Path(source)
    if path.is_dir():
        checkpoint = newest_valid(path / "checkpoints")
        if checkpoint is None:
            raise BadInput(f"{path}: no valid checkpoint in this run; has its pretraining written one yet?")
        return checkpoint / ENCODER
    if not path.is_file():
        raise BadInput(f"encoder={source}: expected runs/ID, a .safetensors file, colour, or random:runs/ID")
    return path


def monitors_of(source: str) -> list[dict[str, Any]]:
    """The labelled sets watched while the encoder was pretrained, or those it started from: as its run declares them, or as they
    were written beside its export.
    """
    if source == COLOUR or source.partition(":")[0] == RANDOM:
        return []
    path = Path(source).absolute()
    beside = (path if path.is_dir() else path.parent) / MONITORS
    if beside.is_file():
        return json.loads(beside.read_text())
    runs = (folder for folder in (path, *path.parents[:3]) if (folder / "run.json").is_file())
    run = next(runs, None)  # runs/ID itself, or the run of runs/ID/checkpoints/step-N/encoder.safetensors
    return json.loads((run / "run.json").read_text()).get("monitors", []) if run else []


def encoder_id(source: str, *, seed: int) -> str:
    """What a result is kept under: the name with the hash of the weights (or the seed of random ones)."""
    if source == COLOUR:
        return COLOUR
    kind, _, like = source.partition(":")
    if kind == RANDOM:
        settings = _settings_of(like)
        return f"random {settings.architecture} {config_hash(settings)[:12]} seed {seed}"
    path = encoder_file(source)
    return f"{short_name(source)} {file_sha256(path)[:12]}"


def _settings_of(source: str) -> EncoderSettings:
    """The architecture that random weights are to have."""
    if not source:
        raise BadInput("encoder=random: say whose architecture, e.g. encoder=random:runs/ID")
    return load_encoder(encoder_file(source)).settings


def input_px(encoder: nn.Module) -> int | None:
    """The extent an encoder was made for; None if any will do."""
    return encoder.settings.input_px if hasattr(encoder, "settings") else None


def short_name(source: str) -> str:
    """What a table and MLflow call the encoder."""
    kind, _, like = source.partition(":")
    if kind == RANDOM:
        return f"random ({short_name(like)})"
    path = Path(source)
    if path.name != ENCODER:
        return path.name
    folder = path.absolute().parent  # runs/ID/checkpoints/step-N, runs/ID/best, or the folder of an import
    if folder.name.startswith("step-"):
        return folder.parent.parent.name
    return f"{folder.parent.name} best" if folder.name == "best" else folder.name
