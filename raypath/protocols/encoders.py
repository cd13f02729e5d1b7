"""Which encoder: a word from the command line to a module.

    runs/ID                 the newest valid checkpoint of a pretraining
    path/x.safetensors      an encoder file
    DIR                     what `raypath export` or `raypath import` made
    ARCHITECTURE@FILE       an architecture of timm with the weights of any file that `raypath import` reads
    imagenet:ARCHITECTURE   timm's weights, from the folder RAYPATH_WEIGHTS
    random:LIKE             the architecture of LIKE (one of the above, or a name of timm) with random weights
    random_bn:LIKE          the same, its batch norm with the statistics of the training images: a harder baseline
    colour                  the 30 colour numbers
    file                    4 numbers of the file itself (bytes, size): what a set gives away without its pixels

One decision: `random` needs something to be like, because a baseline with another architecture or input size is none.
"""

import json
from pathlib import Path
from typing import Any

from torch import nn

from raypath.config import config_hash
from raypath.errors import BadInput
from raypath.hashing import file_sha256
from raypath.models import (
    ColourEncoder,
    EncoderSettings,
    FileEncoder,
    build_encoder,
    check_architecture,
    import_as_fed,
    load_encoder,
)
from raypath.models.exporting import MONITORS, WEIGHTS
from raypath.training.checkpoint import ENCODER, newest_valid
from raypath.training.start import imagenet_file

COLOUR, FILE, RANDOM, RANDOM_BN, IMAGENET = "colour", "file", "random", "random_bn", "imagenet"
WITHOUT_WEIGHTS = (COLOUR, FILE)
_RANDOM = (RANDOM, RANDOM_BN)


def open_encoder(source: str, *, seed: int) -> nn.Module:
    """The encoder that `source` names, on CPU; `seed` decides random weights. Raises BadInput if there is none."""
    if source in WITHOUT_WEIGHTS:
        return ColourEncoder() if source == COLOUR else FileEncoder()
    kind, _, like = source.partition(":")
    if kind in _RANDOM:
        return build_encoder(_settings_of(like), seed=seed)
    architecture, path = _foreign(source)
    if architecture:
        return import_as_fed(path, {"architecture": architecture})[0]
    if path.name == WEIGHTS:  # an export: its config.json says all the rest
        return import_as_fed(path, _settings_of_export(path))[0]
    return load_encoder(path)


def encoder_file(source: str) -> Path:
    """The file with the weights; raises BadInput if there is none."""
    return _foreign(source)[1]


def _foreign(source: str) -> tuple[str, Path]:
    """(architecture, file) of weights that do not say their own; ("", file) of those that do."""
    kind, _, rest = source.partition(":")
    if kind == IMAGENET:
        return rest, imagenet_file(rest, asked=f"encoder={source}")
    architecture, at, file = source.partition("@")
    if at and not Path(source).exists():
        if not Path(file).is_file():
            raise BadInput(f"encoder={source}: there is no file {file}; expected ARCHITECTURE@FILE")
        return architecture, Path(file)
    return "", _own_file(source)


def _own_file(source: str) -> Path:
    path = Path(source)
    if not path.is_dir():
        if not path.is_file():
            raise BadInput(
                f"encoder={source}: expected runs/ID, a .safetensors file, an export's folder, ARCHITECTURE@FILE,"
                " imagenet:ARCHITECTURE, random:runs/ID, colour or file"
            )
        return path
    if (path / ENCODER).is_file() or (path / WEIGHTS).is_file():
        return path / (ENCODER if (path / ENCODER).is_file() else WEIGHTS)
    checkpoint = newest_valid(path / "checkpoints")
    if checkpoint is None:
        raise BadInput(f"{path}: no valid checkpoint in this run; has its pretraining written one yet?")
    return checkpoint / ENCODER


def _settings_of_export(path: Path) -> dict[str, Any]:
    try:
        config = json.loads((path.parent / "config.json").read_text())
        return {"architecture": config["architecture"], "options": config.get("model_args", {})}
    except (OSError, ValueError, KeyError) as error:
        raise BadInput(f"{path}: no config.json beside it that says its architecture ({error})") from None


def monitors_of(source: str) -> list[dict[str, Any]]:
    """The labelled sets watched while the encoder was pretrained, or those it started from: as its run declares them, or as they
    were written beside its export.
    """
    if _is_made_here(source) or source.partition(":")[0] == IMAGENET:
        return []
    path = Path(source.partition("@")[2] or source).absolute()
    beside = (path if path.is_dir() else path.parent) / MONITORS
    if beside.is_file():
        return json.loads(beside.read_text())
    runs = (folder for folder in (path, *path.parents[:3]) if (folder / "run.json").is_file())
    run = next(runs, None)  # runs/ID itself, or the run of runs/ID/checkpoints/step-N/encoder.safetensors
    return json.loads((run / "run.json").read_text()).get("monitors", []) if run else []


def encoder_id(source: str, *, seed: int) -> str:
    """What a result is kept under: the name with the hash of the weights (or the seed of random ones)."""
    weights = weights_id(source, seed=seed)
    return weights if _is_made_here(source) else f"{short_name(source)} {weights}"


def weights_id(source: str, *, seed: int) -> str:
    """The same for the same file of weights, whatever it is called and wherever it lies."""
    if source in WITHOUT_WEIGHTS:
        return source
    kind, _, like = source.partition(":")
    if kind in _RANDOM:
        settings = _settings_of(like)
        return f"{kind} {settings.architecture} {config_hash(settings)[:12]} seed {seed}"
    return file_sha256(encoder_file(source))[:12]


def read_as(source: str) -> str:
    """What decides features beside the weights, where their file does not say it: the architecture, or an export's card."""
    if _is_made_here(source):
        return ""
    architecture, path = _foreign(source)
    return file_sha256(path.parent / "config.json")[:12] if path.name == WEIGHTS else architecture


def _is_made_here(source: str) -> bool:
    """Whether there is no file of weights."""
    return source in WITHOUT_WEIGHTS or source.partition(":")[0] in _RANDOM


def _settings_of(like: str) -> EncoderSettings:
    """The architecture that random weights are to have."""
    if not like:
        raise BadInput("encoder=random: say whose architecture, e.g. encoder=random:runs/ID or random:resnet18")
    if not Path(like).exists() and "@" not in like and not like.startswith(f"{IMAGENET}:"):
        return _named(like)
    return open_encoder(like, seed=0).settings


def _named(architecture: str) -> EncoderSettings:
    """Settings of a bare name of timm; raises BadInput if it is none."""
    settings = EncoderSettings(architecture=architecture)
    try:
        check_architecture(settings)
    except BadInput as error:
        raise BadInput(f"random:{architecture}: there is no such run or file, and as a name of timm: {error}") from None
    return settings


def input_px(encoder: nn.Module) -> int | None:
    """The extent an encoder was made for; None if any will do."""
    return encoder.settings.input_px if hasattr(encoder, "settings") else None


def short_name(source: str) -> str:
    """What a table and MLflow call the encoder."""
    kind, _, like = source.partition(":")
    if kind in _RANDOM:
        return f"{kind} ({short_name(like)})"
    if kind == IMAGENET:
        return source
    if "@" in source and not Path(source).exists():
        return f"{source.partition('@')[0]}@{Path(source.partition('@')[2]).name}"
    path = Path(source)
    if path.name != ENCODER:
        return path.name
    folder = path.absolute().parent  # runs/ID/checkpoints/step-N, runs/ID/best, or the folder of an import
    if folder.name.startswith("step-"):
        return folder.parent.parent.name
    return f"{folder.parent.name} best" if folder.name == "best" else folder.name
