"""Encoder weights on disk: one safetensors file that says what it holds.

One decision: the encoder's card (architecture, input size, normalisation, mpp) is the file's single metadata entry: several
entries are written in random order, and the file's sha256 would differ between two equal runs. A file loads whole or not at all;
nothing here reads a pickle.
"""

import json
from dataclasses import fields
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from raypath.errors import BadInput
from raypath.models.encoder import Encoder, EncoderSettings

_CARD = "encoder"


def save_encoder(encoder: Encoder, path: Path) -> None:
    """Write weights and card; two equal encoders give equal bytes."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in encoder.state_dict().items()}
    save_file(tensors, path, metadata={_CARD: json.dumps(encoder.card(), sort_keys=True)})


def load_encoder(path: Path) -> Encoder:
    """The encoder a file holds, on CPU.

    Raises BadInput, with the names, unless file and architecture cover each other exactly.
    """
    card, tensors = _read(path)
    encoder = Encoder(_settings(card, path))
    own = encoder.state_dict()
    missing, unexpected = sorted(own.keys() - tensors.keys()), sorted(tensors.keys() - own.keys())
    misshapen = sorted(n for n in own.keys() & tensors.keys() if own[n].shape != tensors[n].shape)
    if missing or unexpected or misshapen:
        raise BadInput(
            f"{path}: the weights do not fit {card['architecture']}: {len(missing)} missing {missing[:3]},"
            f" {len(unexpected)} unexpected {unexpected[:3]}, {len(misshapen)} of another shape {misshapen[:3]}"
        )
    encoder.load_state_dict(tensors)
    return encoder


def _settings(card: dict, path: Path) -> EncoderSettings:
    known = {field.name for field in fields(EncoderSettings)}
    if card.keys() != known | {"width"}:
        strange = sorted(card.keys() ^ (known | {"width"}))
        raise BadInput(f"{path}: the encoder card does not say what this version expects: {', '.join(strange)}")
    values = {name: value for name, value in card.items() if name in known}
    return EncoderSettings(**values | {name: tuple(values[name]) for name in ("mean", "std")})


def _read(path: Path) -> tuple[dict, dict[str, torch.Tensor]]:
    if not Path(path).is_file():
        raise BadInput(f"{path}: there is no encoder here; expected the encoder.safetensors of a run")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    except SafetensorError as error:
        raise BadInput(f"{path}: not a sound safetensors file ({error})") from None
    if _CARD not in metadata:
        raise BadInput(f"{path}: no encoder card in the file; expected one written by raypath")
    return json.loads(metadata[_CARD]), tensors
