"""Weights of other projects into this one, as a person asks for them: `raypath import`.

One decision: an imported encoder is an encoder file like any other (`encoder=DIR/encoder.safetensors`), and the report on every
tensor lies beside it. What the encoder is fed with is never a silent default: it is returned in words, with whose numbers they are.

    encoder.safetensors   weights and card        coverage.json   what was taken from which file, and what was left behind
    monitors.json         where there is one beside the file: the sets that were watched while it was trained
"""

import json
from pathlib import Path
from typing import Any

from raypath.errors import BadInput
from raypath.models import Coverage, import_as_fed, save_encoder
from raypath.models.exporting import MONITORS, check_replaceable
from raypath.protocols.encoders import monitors_of

ENCODER, COVERAGE = "encoder.safetensors", "coverage.json"


def import_encoder(
    path: Path,
    folder: Path,
    settings: dict[str, Any],
    *,
    layout: str = "auto",
    copy: str | None = None,
    prefix: str = "",
) -> tuple[Path, Coverage, str]:
    """Import foreign weights into `folder/encoder.safetensors`: its path, the report, and where the normalisation is from.

    `settings` are those of `EncoderSettings` that a person decides (see `models.foreign` for those that are left out). Raises
    BadInput, and writes nothing, unless the weights cover the encoder.
    """
    check_replaceable(folder, (ENCODER, COVERAGE, MONITORS), (folder / COVERAGE).is_file)
    encoder, coverage, whose = import_as_fed(path, settings, layout=layout, copy=copy, prefix=prefix)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / COVERAGE).write_text(json.dumps(coverage.as_dict(), indent=1) + "\n")
    save_encoder(encoder, folder / ENCODER)
    (folder / MONITORS).unlink(missing_ok=True)  # of an earlier import
    if monitors := monitors_of(str(path)):
        (folder / MONITORS).write_text(json.dumps(monitors) + "\n")
    mean, std = encoder.settings.mean, encoder.settings.std
    return folder / ENCODER, coverage, f"input {encoder.settings.input_px} px, mean={mean}, std={std} ({whose})"


def settings_from_text(
    architecture: str, options: str, *, input_px: int | None, mpp: float | None, mean: str | None, std: str | None
) -> dict[str, Any]:
    """Encoder settings as a person types them; what is None is left out. Raises BadInput for what cannot be read."""
    try:
        values = {"architecture": architecture, "options": json.loads(options)}
    except ValueError:
        values = {"options": None}
    if not isinstance(values["options"], dict):
        raise BadInput(f'options={options}: expected a JSON object, e.g. {{"depth": 6}}')
    if (mean is None) != (std is None):
        raise BadInput("expected both --mean and --std, or neither")
    numbers = {name: _three(name, text) for name, text in (("mean", mean), ("std", std)) if text is not None}
    if any(value <= 0 for value in numbers.get("std", ())):
        raise BadInput(f"std={std}: expected three numbers above 0")
    return values | numbers | {n: value for n, value in (("input_px", input_px), ("mpp", mpp)) if value is not None}


def _three(name: str, text: str) -> tuple[float, ...]:
    try:
        numbers = tuple(float(part) for part in text.split(","))
    except ValueError:
        numbers = ()
    if len(numbers) != 3:
        raise BadInput(f"{name}={text}: expected three numbers in 0..1 with commas, e.g. 0.5,0.5,0.5")
    return numbers
