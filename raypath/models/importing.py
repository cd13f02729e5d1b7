"""Weights from other projects, into an encoder: all of it or nothing.

One decision: a layout (see `layouts`) fits a file when every tensor of the encoder is in it with its shape, and every other
tensor belongs to a group that the layout names as left behind. The first layout that fits is taken, and the report says which,
with every name; if none fits, nothing is loaded and the error names what is in the way of the closest.

What may differ, and is said in the report: position embeddings of another grid are resampled (timm's bicubic), half-precision
weights become float32, and counters of batch norm that old files lack are 0.
"""

import json
import re
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from timm.layers import resample_abs_pos_embed
from timm.models import get_pretrained_cfg
from torch import Tensor

from raypath.errors import BadInput
from raypath.hashing import file_sha256
from raypath.models.coverage import Coverage, some
from raypath.models.encoder import Encoder, EncoderSettings, build_encoder, check_architecture, no_such_architecture
from raypath.models.layouts import ALWAYS_IGNORED, LAYOUTS, Layout, MeanStd
from raypath.models.weight_files import WeightFile, read_weight_file

_COUNTER = "num_batches_tracked"


def import_weights(
    path: Path, settings: EncoderSettings, *, layout: str = "auto", copy: str | None = None, prefix: str = ""
) -> tuple[Encoder, Coverage]:
    """The encoder that `settings` describe with the weights of a local file, on CPU, and the report.

    `layout` names one of `LAYOUTS`, "auto" tries all. `copy` takes another copy than the one that transfers ("momentum" of MoCo,
    "student" of DINO). `prefix` restricts the search to names that begin with it, for an encoder inside another model. Raises
    BadInput for an unknown architecture, layout or copy, a file not safe to read, and weights that do not cover the encoder.
    """
    check_architecture(settings)
    if layout != "auto" and layout not in LAYOUTS:
        raise BadInput(f"layout={layout!r}: expected auto or one of {', '.join(LAYOUTS)}")
    file = read_weight_file(path)
    _check_card(file, settings)
    names = {name.removeprefix(prefix): name for name in file.tensors if name.startswith(prefix)}
    encoder = build_encoder(settings, seed=0)
    tried = []
    for candidate in LAYOUTS if layout == "auto" else [layout]:
        for chosen in [c for c in _copies(candidate, copy) if layout != "auto" or _has_copy(names, candidate, c)]:
            tried.append(_match(file, names, encoder, candidate, chosen))
            if tried[-1].is_complete:
                return encoder, _load(encoder, file, tried[-1])
    raise BadInput(_refusal(file, names, settings, tried))


def stated_input(path: Path) -> dict[str, Any]:
    """What a config.json beside the weights (timm's hub form, an export) says they are fed with; empty if it says nothing.

    `mean`, `std` (in 0..1) and `input_px`; of an export of raypath also `mpp` and `mpp_max`.
    """
    try:
        config = json.loads((path.parent / "config.json").read_text())
        fed = config["pretrained_cfg"]
        stated = {"mean": tuple(fed["mean"]), "std": tuple(fed["std"]), "input_px": fed["input_size"][-1]}
        own = config.get("raypath", {})
        return stated | {name: own[name] for name in ("mpp", "mpp_max") if own.get(name) is not None}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def with_normalisation(encoder: Encoder, mean: tuple[float, ...], std: tuple[float, ...]) -> Encoder:
    """The same weights behind another mean and std (in 0..1)."""
    changed = build_encoder(replace(encoder.settings, mean=mean, std=std), seed=0)
    changed.load_state_dict(encoder.state_dict())
    return changed


def published_normalisation(architecture: str) -> tuple[MeanStd, int]:
    """(mean, std) in 0..1 and the input size in px of the weights that timm publishes first for an architecture."""
    unknown = no_such_architecture(architecture)
    if unknown:
        raise BadInput(unknown)
    published = get_pretrained_cfg(architecture)
    if published is None:
        raise BadInput(f"{architecture}: timm publishes no weights of it; give mean, std and input_px")
    return (tuple(published.mean), tuple(published.std)), published.input_size[-1]


@dataclass
class _Match:
    """How far a layout explains a file."""

    layout: str
    copy: str
    tensors: dict[str, Tensor] = field(default_factory=dict)
    matched: dict[str, str] = field(default_factory=dict)
    ignored: dict[str, list[str]] = field(default_factory=dict)
    unexpected: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    misshapen: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def is_complete(self) -> bool:
        return not (self.unexpected or self.misshapen or self.absent)

    @property
    def absent(self) -> list[str]:
        """What is missing and matters."""
        return [name for name in self.missing if not name.endswith(_COUNTER)]

    @property
    def closeness(self) -> tuple[int, int]:
        return len(self.matched), -len(self.unexpected)


def _match(file: WeightFile, names: dict[str, str], encoder: Encoder, candidate: str, copy: str) -> _Match:
    """Every tensor of the file put where the layout wants it; `names` are those below the prefix -> those in the file."""
    layout, match, own = LAYOUTS[candidate], _Match(candidate, copy), encoder.trunk.state_dict()
    groups = _groups(layout, copy)
    for name, full_name in names.items():
        found = re.match(layout.copies[copy], name)
        target = layout.rename(name[found.end() :]) if found else None
        if target in own and target not in match.matched:
            match.matched[target], match.tensors[target] = full_name, file.tensors[full_name]
            continue
        group = next((g for g, pattern in groups.items() if pattern.match(name)), None)
        (match.ignored.setdefault(group, []) if group else match.unexpected).append(full_name)
    below = set(names.values())
    outside = [full_name for full_name in file.tensors if full_name not in below]
    match.ignored |= {"outside the prefix": outside} if outside else {}
    match.ignored |= {"no tensor": list(file.others)} if file.others else {}
    match.missing = sorted(own.keys() - match.matched.keys())
    for target, tensor in layout.convert(match.tensors).items():
        match.tensors[target] = _fitted(match, encoder, target, tensor, own[target])
    return match


def _groups(layout: Layout, copy: str) -> dict[str, re.Pattern]:
    """The patterns of what may be left behind when `copy` is taken."""
    others = {f"{other} copy": pattern for other, pattern in layout.copies.items() if other != copy}
    patterns = layout.ignored | ALWAYS_IGNORED | others
    return {group: re.compile(p.replace("{own}", f"(?:{layout.copies[copy]})")) for group, p in patterns.items()}


def _fitted(match: _Match, encoder: Encoder, name: str, tensor: Tensor, own: Tensor) -> Tensor:
    """The tensor in the encoder's shape and type; what cannot be is noted in `match`."""
    if tensor.is_floating_point() != own.is_floating_point():
        match.misshapen.append(f"{name} ({tensor.dtype} in the file, {own.dtype} wanted)")
        return tensor
    if tensor.is_floating_point() and not tensor.isfinite().all():
        match.misshapen.append(f"{name} (holds NaN or infinity)")
    if tensor.dtype != own.dtype:
        note = f"{tensor.dtype} became {own.dtype}".replace("torch.", "")
        match.notes += [note] if note not in match.notes else []
        tensor = tensor.to(own.dtype)
    if tensor.shape == own.shape:
        return tensor
    resampled = _resampled(encoder, tensor, own) if name == "pos_embed" else None
    if resampled is None:
        match.misshapen.append(f"{name} ({list(tensor.shape)} in the file, {list(own.shape)} wanted)")
        return tensor
    match.notes.append(f"pos_embed resampled from {tensor.shape[1]} to {own.shape[1]} positions (timm, bicubic)")
    return resampled


def _resampled(encoder: Encoder, positions: Tensor, own: Tensor) -> Tensor | None:
    """Position embeddings [1, N, D] of a square grid on the encoder's grid; None if they are of something else."""
    trunk = encoder.trunk
    num_prefix = 0 if getattr(trunk, "no_embed_class", False) else getattr(trunk, "num_prefix_tokens", 0)
    grid = getattr(getattr(trunk, "patch_embed", None), "grid_size", None)
    if positions.dim() != 3 or positions.shape[-1] != own.shape[-1] or grid is None:
        return None
    num_patches = positions.shape[1] - num_prefix
    if num_patches < 1 or round(num_patches**0.5) ** 2 != num_patches:
        return None
    return resample_abs_pos_embed(positions, list(grid), num_prefix_tokens=num_prefix)


def _load(encoder: Encoder, file: WeightFile, match: _Match) -> Coverage:
    """Put a complete match into the encoder."""
    counters = {name: torch.zeros((), dtype=torch.int64) for name in match.missing}
    encoder.trunk.load_state_dict(match.tensors | counters, strict=True)
    layout, notes = LAYOUTS[match.layout], list(match.notes)
    if layout.note:
        notes.append(layout.note)
    if file.wrappers:
        notes.append(f"names without {', '.join(file.wrappers)}")
    own = (tuple(encoder.settings.mean), tuple(encoder.settings.std))
    if layout.normalisation and layout.normalisation != own:
        mean, std = layout.normalisation
        notes.append(f"weights in this layout are trained with mean={mean}, std={std}")
    return Coverage(
        file=str(file.path),
        sha256=file_sha256(file.path),
        architecture=encoder.settings.architecture,
        layout=match.layout,
        copy=match.copy,
        matched=dict(sorted(match.matched.items())),
        missing=tuple(match.missing),
        ignored={group: tuple(names) for group, names in match.ignored.items()},
        notes=tuple(notes),
    )


def _refusal(file: WeightFile, names: dict[str, str], settings: EncoderSettings, tried: list[_Match]) -> str:
    """One line for a file that no layout explains."""
    pairs = {(name, c) for name, layout in LAYOUTS.items() for c in layout.copies} - {(m.layout, m.copy) for m in tried}
    others = sorted(f"copy={c} of {name}" for name, c in pairs if _has_copy(names, name, c, is_marked=True))
    held = f"; the file also has {', '.join(others)}" if others else ""
    if not tried:
        return f"{file.path}: nothing there has that layout, copy or prefix; its names are {some(file.tensors)}{held}"
    best = max(tried, key=lambda match: match.closeness)
    faults = [
        (best.absent, "missing in the file"),
        (best.unexpected, "in the file and not known"),
        (best.misshapen, "of another shape or kind"),
    ]
    said = "; ".join(f"{len(found)} {what}: {some(found)}" for found, what in faults if found)
    return (
        f"{file.path}: does not cover {settings.architecture}, nothing was loaded. Closest is layout {best.layout} ({best.copy}):"
        f" {len(best.matched)} tensors fit; {said}. Tried: {', '.join(match.layout for match in tried)}{held}. Choose the"
        " architecture the weights were made for, or layout, copy or prefix"
    )


def _check_card(file: WeightFile, settings: EncoderSettings) -> None:
    """An encoder file of raypath says what it is fed with; other numbers would silently change its features."""
    card = file.card or {}
    wanted = {name: asdict(settings)[name] for name in ("architecture", "mean", "std") if name in card}
    for name, asked in wanted.items():
        said = tuple(card[name]) if isinstance(card[name], list) else card[name]
        if said != asked:
            raise BadInput(
                f"{file.path}: the file's card says {name}={said}, asked for is {name}={asked}; give the file's"
            )


def _copies(layout: str, copy: str | None) -> list[str]:
    """The copy to try: the one asked for, if the layout has it, else the one that transfers."""
    known = list(LAYOUTS[layout].copies)
    return known[:1] if copy is None else [c for c in known if c == copy]


def _has_copy(names: dict[str, str], layout: str, copy: str, is_marked: bool = False) -> bool:
    """Whether any name begins as the copy's do; `is_marked`: where they begin with something."""
    pattern = LAYOUTS[layout].copies[copy]
    return bool(pattern or not is_marked) and any(re.match(pattern, name) for name in names)
