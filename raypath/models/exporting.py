"""An encoder for everybody else: a folder that plain timm loads, with a card that says what it is.

    model.safetensors   weights under timm's names       config.json   architecture, options, normalisation (timm's hub form)
    README.md           the model card
    monitors.json       the labelled sets that were watched while it was trained, if any

One decision: the folder needs nothing of raypath. `timm.create_model("local-dir:DIR", pretrained=True)` gives the encoder's
features, for (RGB / 255 - mean) / std. There is no date in it: two exports of one encoder into folders of one name are equal byte
for byte.
"""

import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from raypath import __version__
from raypath.errors import BadInput
from raypath.hashing import file_sha256
from raypath.models.encoder import Encoder

WEIGHTS, CONFIG, CARD, MONITORS = "model.safetensors", "config.json", "README.md", "monitors.json"
NOT_STATED = "not stated"
_MARK = "raypath"

Sections = Mapping[str, Mapping[str, Any]]
"""Title -> what -> value: further tables of the model card."""


def export_encoder(
    encoder: Encoder,
    folder: Path,
    *,
    exported_copy: str = "encoder",
    license_name: str = NOT_STATED,
    sections: Sections | None = None,
    monitors: Sequence[Mapping[str, Any]] = (),
) -> Path:
    """Write the encoder into `folder` and return it; an earlier export there is replaced, anything else refused by BadInput.

    `exported_copy` says which module of its pretraining it is (encoder, online, query, momentum); `sections` are further tables
    of the model card, e.g. {"Trained on": {"slides": 12}}. `monitors` are what its run declares to have watched.
    """
    folder = Path(folder).absolute()
    check_replaceable(
        folder, (WEIGHTS, CONFIG, CARD, MONITORS), lambda: _MARK in json.loads((folder / CONFIG).read_text())
    )
    draft = folder.parent / f".{folder.name}.{os.getpid()}"
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    try:
        tensors = {n.removeprefix("trunk."): t.detach().cpu().contiguous() for n, t in encoder.state_dict().items()}
        save_file(tensors, draft / WEIGHTS, metadata={"format": "pt"})
        config = timm_config(encoder) | {
            _MARK: {"version": __version__, "exported_copy": exported_copy, **encoder.card()}
        }
        (draft / CONFIG).write_text(json.dumps(config, indent=1, sort_keys=True) + "\n")
        hashes = {name: file_sha256(draft / name) for name in (WEIGHTS, CONFIG)}
        if monitors:
            (draft / MONITORS).write_text(json.dumps(list(monitors)) + "\n")
        card = _card(encoder, folder.name, exported_copy, license_name, sections or {}, hashes)
        (draft / CARD).write_text(card)
        shutil.rmtree(folder, ignore_errors=True)
        draft.rename(folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return folder


def check_replaceable(folder: Path, own_files: tuple[str, ...], is_ours: Callable[[], bool]) -> None:
    """Raise BadInput unless `folder` is absent, empty, or holds nothing but `own_files`, of which `is_ours()` is true."""
    if folder.exists() and not folder.is_dir():
        raise BadInput(f"{folder}: expected a folder, there is a file of that name")
    held = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    try:
        is_earlier = set(held) <= set(own_files) and is_ours()
    except (OSError, ValueError):
        is_earlier = False
    if held and not is_earlier:
        raise BadInput(f"{folder}: holds other files ({', '.join(held[:3])}); name a new or empty folder")


def timm_config(encoder: Encoder) -> dict[str, Any]:
    """What timm's hub loader wants to know, as plain values."""
    settings, trunk = encoder.settings, encoder.trunk
    published = trunk.pretrained_cfg
    return {
        "architecture": settings.architecture.split(".")[0],  # without the tag of the weights that timm publishes
        "num_classes": 0,
        "num_features": encoder.width,
        "global_pool": pooling(trunk),
        "model_args": timm_options(encoder),
        "pretrained_cfg": {
            "tag": _MARK,
            "custom_load": False,
            "input_size": [3, settings.input_px, settings.input_px],
            "fixed_input_size": published.get("fixed_input_size", False)
            and not getattr(trunk, "dynamic_img_size", False),
            "pool_size": None,
            "interpolation": "bicubic",  # as raypath resizes: bicubic, antialiased (slides/resize.py)
            "crop_pct": 1.0,
            "crop_mode": "center",
            "mean": list(settings.mean),
            "std": list(settings.std),
            "num_classes": 0,
            "first_conv": published.get("first_conv"),
            "classifier": published.get("classifier"),
        },
    }


def timm_options(encoder: Encoder) -> dict[str, Any]:
    """The arguments by which `timm.create_model(architecture, num_classes=0, **options)` builds the same trunk."""
    options, trunk = dict(encoder.settings.options), encoder.trunk
    size = getattr(getattr(trunk, "patch_embed", None), "img_size", None)
    if size is not None:
        options.setdefault("img_size", list(size))
    if getattr(trunk, "dynamic_img_size", False):
        options.setdefault("dynamic_img_size", True)
    return options


def pooling(trunk: nn.Module) -> str:
    """How the trunk makes one vector of its map or tokens, in timm's word for it."""
    for holder in (trunk, getattr(trunk, "head", None)):
        pool = getattr(holder, "global_pool", None)
        if pool is not None:
            return pool if isinstance(pool, str) else str(getattr(pool, "pool_type", None) or type(pool).__name__)
    return type(getattr(trunk, "head", trunk)).__name__


def _card(
    encoder: Encoder, name: str, exported_copy: str, license_name: str, sections: Sections, hashes: dict[str, str]
) -> str:
    settings, (mpp, mpp_max) = encoder.settings, (encoder.settings.mpp, encoder.settings.mpp_max)
    scale = "not known" if mpp is None else f"{mpp:.3g}" if mpp_max in (None, mpp) else f"{mpp:.3g} to {mpp_max:.3g}"
    tables = {
        "Encoder": {
            "architecture": f"{settings.architecture} (timm), options {json.dumps(timm_options(encoder), sort_keys=True)}",
            "exported copy": exported_copy,
            "features": f"{encoder.width} per tile, pooling: {pooling(encoder.trunk)}",
            "parameters": f"{sum(p.numel() for p in encoder.parameters()):,}",
            "licence": license_name,
        },
        "Input": {
            "tiles": f"RGB, {settings.input_px} x {settings.input_px} px",
            "um per px": scale
            if mpp is None
            else f"{scale} at the input; where it was trained on random crops, theirs",
            "normalisation": "(RGB / 255 - mean) / std",
            "mean": _plain(settings.mean),
            "std": _plain(settings.std),
        },
    }
    last = {
        "Files (sha256)": hashes,
        "Versions": {"raypath": __version__, "torch": torch.__version__, "timm": version("timm")},
    }
    tables |= {title: rows for title, rows in sections.items() if title not in last}
    tables |= {title: {**rows, **sections.get(title, {})} for title, rows in last.items()}
    front = ["---", "library_name: timm", "tags:", "- histopathology", "- feature-extraction"]
    front += [f"license: {json.dumps(license_name)}"] if license_name != NOT_STATED else []
    lines = [*front, "---", "", f"# {settings.architecture}, exported by raypath", "", *_example(encoder, name)]
    for title, rows in tables.items():
        lines += ["", f"## {title}", "", "| | |", "|---|---|"]
        lines += [f"| {_cell(name)} | {_cell(_plain(value))} |" for name, value in rows.items()]
    return "\n".join(lines) + "\n"


def _example(encoder: Encoder, name: str) -> list[str]:
    settings = encoder.settings
    return [
        "```python",
        "import timm, torch",
        f'model = timm.create_model("local-dir:{name}", pretrained=True).eval()  # the path of this folder',
        f"mean, std = torch.tensor({list(settings.mean)}), torch.tensor({list(settings.std)})",
        f"tiles = torch.zeros(1, {settings.input_px}, {settings.input_px}, 3, dtype=torch.uint8)  # RGB",
        "with torch.inference_mode():",
        f"    features = model(((tiles / 255 - mean) / std).permute(0, 3, 1, 2))  # [1, {encoder.width}]",
        "```",
    ]


def _plain(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    return ", ".join(map(_plain, value)) if isinstance(value, list | tuple) else str(value)


def _cell(text: str) -> str:
    return str(text).replace("|", "\\|").replace("\n", " ")
