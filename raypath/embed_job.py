"""The embedding job as a person runs it: from slides and an encoder to one file of features per slide.

One decision: the encoder says which tiles it wants, its extent at its um per px, and an option may overrule it; nobody guesses.
Where an encoder was trained on a range of scales the middle is taken, and said. The slides are indexed first, as `raypath index`
does it, into OUT/index; an index that is given is taken as it is where its tiles are the wanted ones, and else names the slides
and how much tissue a tile needs.

As for an index, the verdict comes last: the files of the good slides are written in any case, too many bad ones are exit code 3.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import ray
import torch
from ray.exceptions import RayError
from rich.console import Console
from rich.table import Table
from torch import nn

from raypath.config import canonical_json
from raypath.data.feature_files import LAYOUTS, counted, feature_path, remove_features
from raypath.data.index import Index
from raypath.data.indexing import Outcome, make_index, write_quarantine
from raypath.data.manifest import read_manifest
from raypath.data.slide_features import Embedded, FeatureJob, embed_index
from raypath.errors import BadInput, RaypathError
from raypath.hashing import file_sha256
from raypath.index_job import IndexSettings, require_few, say, slide_progress
from raypath.index_table import set_aside_lines
from raypath.protocols.encoders import (
    FILE,
    RANDOM,
    RANDOM_BN,
    WITHOUT_WEIGHTS,
    encoder_file,
    encoder_id,
    input_px,
    open_encoder,
    short_name,
)
from raypath.slides import TileSpec

_MIN_TISSUE, _MAX_UPSAMPLE = 0.5, 1.3  # as `raypath index`, where no index says otherwise


@dataclass(frozen=True, kw_only=True)
class EmbedSettings:
    """What features are made with; every field is an option of `raypath embed`."""

    encoder: str
    """A word of `protocols.encoders`."""
    out: str
    """The folder of the files."""
    layout: str = "trident"
    """Who is to read them (see `data.feature_files`)."""
    extent_px: int | None = None
    """Side length of a tile in pixels; None: the encoder's."""
    mpp: float | None = None
    """Micrometres per pixel of the tiles; None: the encoder's."""
    stride_px: int | None = None
    """Distance between neighbouring tiles; None: `extent_px`."""
    min_tissue: float | None = None
    """Least share of tissue in a tile; None: the given index's, else 0.5."""
    max_upsample: float | None = None
    """How much coarser than `mpp` a slide may be; None: the given index's, else 1.3."""
    max_bad_share: float = 0.1
    """Largest share of slides that may be set aside before the job ends with exit code 3."""
    seed: int = 0
    """Of an encoder with random weights."""


def embed_slides(
    source: Path, settings: EmbedSettings, console: Console, start_ray: Callable[[], None]
) -> list[Outcome]:
    """Write the features of the slides of a manifest, a folder or an index, print what came of it, and return it slide by slide.

    Ray is started after settings, encoder and manifest were found good. Raises BadInput (2) for any of them or when no slide has a
    tile, TooManyQuarantined (3) after the files were written.
    """
    out = Path(settings.out)
    _require_possible(settings, out)
    encoder = _opened(settings)
    given = Index(source) if (source / "index.json").is_file() else None
    spec, why = _wanted(settings, encoder, given)
    width = _width(encoder, spec.extent_px)
    rows = read_manifest(given.folder / "manifest.csv" if given else source)
    start_ray()
    say(console, f"{short_name(settings.encoder)}: {width} features of tiles of {why}")
    started = time.monotonic()
    try:
        index, bad = (given, []) if given and given.spec == spec else _indexed(rows, spec, out / "index", console)
        embedding = time.monotonic()
        with slide_progress(console) as report:
            made = embed_index(
                index,
                _job(index, settings, encoder),
                encoder,
                num_gpus=int(ray.cluster_resources().get("GPU", 0)),
                progress=report,
            )
    except RayError as error:
        reason = str(error).strip().splitlines()[-1]
        raise RaypathError(f"{out}: the job broke off ({reason}); what is done is kept, run it again") from None
    outcomes = sorted([*bad, *made], key=lambda o: o.slide)
    write_quarantine(outcomes, out / "quarantine.jsonl")
    for outcome in outcomes:
        if not outcome.num_tiles:  # nothing of an earlier call stays for a slide that has nothing now
            remove_features(out, settings.layout, outcome.slide)
    _show(console, out, outcomes, _table(index, made, outcomes, width, time.monotonic() - embedding, started))
    require_few(outcomes, settings.max_bad_share, out, "the features")
    say(console, f"{settings.layout}: {feature_path(out, settings.layout, 'SLIDE')}")
    return outcomes


def _require_possible(settings: EmbedSettings, out: Path) -> None:
    if settings.layout not in LAYOUTS:
        raise BadInput(f"layout = {settings.layout!r} is not known; expected one of {', '.join(LAYOUTS)}")
    if (out / "index.json").exists():
        raise BadInput(f"{out}: is an index; give the features a folder of their own with --out")
    kind = settings.encoder.partition(":")[0]
    if settings.encoder == FILE or kind == RANDOM_BN:
        raise BadInput(
            f"encoder={settings.encoder}: needs a labelled set and cannot take tiles alone; use runs/ID, colour, random:..."
        )
    IndexSettings(out="", max_bad_share=settings.max_bad_share).spec()  # raises BadInput for an impossible share


def _opened(settings: EmbedSettings) -> nn.Module:
    return open_encoder(settings.encoder, seed=settings.seed).eval()


def _wanted(settings: EmbedSettings, encoder: nn.Module, given: Index | None) -> tuple[TileSpec, str]:
    """The tiles, and in words where their extent and scale come from."""
    extent_px = input_px(encoder) if settings.extent_px is None else settings.extent_px
    if extent_px is None:
        raise BadInput(f"encoder={settings.encoder}: takes tiles of any extent; say which with --extent-px, e.g. 224")
    mpp, whence = _scale(settings, encoder)
    spec = TileSpec(
        extent_px=extent_px,
        mpp=mpp,
        stride_px=extent_px if settings.stride_px is None else settings.stride_px,
        min_tissue=_first(settings.min_tissue, given and given.spec.min_tissue, _MIN_TISSUE),
        max_upsample=_first(settings.max_upsample, given and given.spec.max_upsample, _MAX_UPSAMPLE),
    )
    said = "the encoder's" if settings.extent_px is None else "as asked for"
    return spec, f"{extent_px} px ({said}) at {mpp:g} um per px ({whence})"


def _scale(settings: EmbedSettings, encoder: nn.Module) -> tuple[float, str]:
    if settings.mpp is not None:
        return settings.mpp, "as asked for"
    known = getattr(encoder, "settings", None)
    if known is None or known.mpp is None:
        raise BadInput(f"encoder={settings.encoder}: its um per px are not known; say them with --mpp, e.g. --mpp 0.5")
    if known.mpp_max in (None, known.mpp):
        return known.mpp, "the encoder's"
    return (known.mpp + known.mpp_max) / 2, f"the middle of the encoder's {known.mpp:g} to {known.mpp_max:g}"


def _first(*values: float | None) -> float:
    return next(value for value in values if value is not None)


def _width(encoder: nn.Module, extent_px: int) -> int:
    """How many features a tile has; raises BadInput if the encoder cannot take such tiles."""
    try:
        with torch.no_grad():
            return encoder(torch.zeros((1, extent_px, extent_px, 3), dtype=torch.uint8)).shape[1]
    except (RuntimeError, ValueError, AssertionError) as error:
        reason = str(error).strip().splitlines()[0]
        raise BadInput(f"the encoder cannot take tiles of {extent_px} px ({reason}); use its own extent") from None


def _indexed(rows: list, spec: TileSpec, folder: Path, console: Console) -> tuple[Index, list[Outcome]]:
    """The index of the slides, and the outcomes of those set aside."""
    with slide_progress(console) as report:
        index, outcomes = make_index(rows, spec, folder, progress=report)
    say(console, f"{index.num_tiles.sum():,} tiles in {len(index):,} slides: {folder}")
    return index, [outcome for outcome in outcomes if outcome.reason]


def _job(index: Index, settings: EmbedSettings, encoder: nn.Module) -> FeatureJob:
    kind = settings.encoder.partition(":")[0]
    has_file = settings.encoder not in WITHOUT_WEIGHTS and kind != RANDOM
    sha256 = file_sha256(encoder_file(settings.encoder)) if has_file else ""
    return FeatureJob(
        index_folder=str(index.folder.absolute()),
        index_hash=index.hash,
        out=str(Path(settings.out).absolute()),
        layout=settings.layout,
        encoder=short_name(settings.encoder),
        encoder_sha256=sha256,
        identity=canonical_json([sha256 or encoder_id(settings.encoder, seed=settings.seed), encoder.card()]),
    )


def _table(
    index: Index, made: list[Embedded], outcomes: list[Outcome], width: int, seconds: float, started: float
) -> Table:
    table = Table(box=None, show_header=False, padding=(0, 3, 0, 0))
    table.add_column(style="cyan", no_wrap=True)
    table.add_column(overflow="fold")
    good = [o for o in made if o.num_tiles]
    num_done = sum(o.is_unchanged for o in good)
    num_new = sum(o.num_tiles for o in good if not o.is_unchanged)
    table.add_row("slides", f"{len(good):,} of {len(outcomes):,}, {num_done:,} of them done before")
    spec = index.spec
    table.add_row("tiles", f"{sum(o.num_tiles for o in good):,} of {spec.extent_px} px at {spec.mpp:g} um per px")
    table.add_row("features", f"{width} float32 a tile")
    lossy = [o for o in good if o.num_left_out]
    table.add_row("left out", "\n".join(_left_out(o) for o in lossy) or "no tile")
    table.add_row("no tissue", f"{sum(not o.num_tiles and not o.reason for o in made):,} slide(s) without a tile")
    table.add_row("set aside", counted(o.reason for o in outcomes if o.reason) or "none")
    rate = f", {num_new / seconds:,.0f} tiles/s" if num_new else ""
    table.add_row("time", f"{time.monotonic() - started:.1f} s{rate}")
    return table


def _left_out(outcome: Embedded) -> str:
    num_tiles = outcome.num_tiles + outcome.num_left_out
    return f"{outcome.slide}: {outcome.num_left_out:,} of {num_tiles:,} tiles ({outcome.why_left_out})"


def _show(console: Console, out: Path, outcomes: list[Outcome], table: Table) -> None:
    console.print(f"\n{out}", style="bold", markup=False, soft_wrap=True)
    console.print(table)
    for line in set_aside_lines(outcomes):
        say(console, line)
