"""At which scale an encoder is fed: which part of a sample, at how many px, and what a px is then.

One decision: it is said, not guessed. A benchmark has um per px or "unknown", an encoder's card the range it was trained on, and
the um per px that reaches the encoder is logged with every result; beyond 1.25 times that range the result is flagged. The range is
that of the views of its training, so a crop that was enlarged counts as what the encoder saw.

    resize      the whole sample at the encoder's extent, whatever a px becomes
    native      px as they are: the middle of the sample at the encoder's extent
    match_mpp   resampled to the encoder's um per px (the nearest of its range): the middle, or all of a small sample

A sample smaller than what is wanted is fed at its own extent (in multiples of a ViT's tokens): no pixel is invented. The
"magnification-adjusted" sets of the first paper are match_mpp: 287 px at 0.39 become 224 px at 0.5 (its published code).

A segmentation is fed with crops from everywhere, so match_mpp resamples whole images before crops are cut (see `MaskedSamples`);
resize has no extent to aim at and is the same as native: images as they are.

Costs the opening of every file's header, once in a process for the same contents: 0.1 ms each, a minute or two for a million.
"""

import hashlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Literal

import numpy as np
import pyarrow as pa
from torch import nn

from raypath.benchmarks import Benchmark
from raypath.data.alterations import parse_alteration
from raypath.data.image_files import size_of
from raypath.data.images import Frame
from raypath.errors import BadInput

Scale = Literal["native", "match_mpp", "resize"]
LARGEST_MISMATCH = 1.25
_NUM_THREADS = 8
_ANY_EXTENT_PX = 96  # for an encoder that takes any


@dataclass(frozen=True, kw_only=True)
class Feeding:
    """How samples reach an encoder."""

    frame: Frame
    mpp: float | None
    """um per px at the encoder's input (for samples of several sizes the median); None: not known."""
    trained_mpp: tuple[float, float] | None
    """What the encoder was trained on."""
    is_of_crops: bool = False
    """Whether the frame lies anywhere in a sample, again and again, and not in its middle."""

    @property
    def mismatch(self) -> float | None:
        """How many times finer or coarser than the encoder's range; 1 inside it, None where either is not known."""
        if self.mpp is None or self.trained_mpp is None:
            return None
        low, high = self.trained_mpp
        return max(low / self.mpp, self.mpp / high, 1.0)

    @property
    def is_mismatched(self) -> bool:
        """Whether a reader must be told."""
        return (self.mismatch or 1.0) > LARGEST_MISMATCH

    def altered(self, alteration: str) -> "Feeding":
        """The same with altered pixels (`grey`, `hed=0.05`; empty: as they are), of which the encoder is told nothing.

        Raises BadInput for a text that is no alteration.
        """
        return replace(self, frame=replace(self.frame, alteration=str(parse_alteration(alteration) or "")))

    @property
    def tags(self) -> dict[str, str]:
        """For the run: um per px at the input, and the flag."""
        found = {"raypath.um_per_px": "unknown" if self.mpp is None else f"{self.mpp:.4g}"}
        return found | ({"raypath.scale_mismatch": f"{self.mismatch:.2f}"} if self.is_mismatched else {})

    def __str__(self) -> str:
        what = "crops of" if self.is_of_crops else "the middle"
        part = "all of each sample" if self.frame.side_px is None else f"{what} {self.frame.side_px} px"
        scale = "um per px not known" if self.mpp is None else f"{self.mpp:.3g} um per px"
        told = ""
        if self.trained_mpp is not None:
            low, high = self.trained_mpp
            told = f", trained at {low:.3g}" + (f" to {high:.3g}" if high != low else "")
        flag = f": {self.mismatch:.2f} times off" if self.is_mismatched else ""
        return f"{part} at {self.frame.extent_px} px ({scale}{told}{flag})"


def feeding_of(encoder: nn.Module, benchmark: Benchmark, scale: Scale, extent_px: int = 0) -> Feeding:
    """How `encoder` is fed with the samples of `benchmark`; `extent_px` replaces the extent it was trained on.

    Opens the header of every image where its size matters, once for the same contents (`sides_of`). Raises BadInput for match_mpp
    where the benchmark or the encoder does not know its um per px, and for samples smaller than one token.
    """
    settings = getattr(encoder, "settings", None)
    trained = _trained_mpp(encoder)
    extent_px = extent_px or (settings.input_px if settings else _ANY_EXTENT_PX)
    if scale == "resize" and benchmark.mpp is None:
        return Feeding(frame=Frame(extent_px=extent_px), mpp=None, trained_mpp=trained)  # no header is opened
    sides = sides_of(benchmark)
    if scale == "resize":
        mpp = benchmark.mpp * float(np.median(sides)) / extent_px
        return Feeding(frame=Frame(extent_px=extent_px), mpp=mpp, trained_mpp=trained)
    factor = 1.0 if scale == "native" else _factor(benchmark, trained)
    smallest = int(sides.min())
    step = _token_px(encoder)
    extent_px = min(extent_px, int(smallest * factor) // step * step)
    if extent_px < step:
        raise BadInput(
            f"{benchmark.name}: samples of {smallest} px are less than a token of {step} px; use scale=resize"
        )
    side_px = min(smallest, round(extent_px / factor))
    mpp = benchmark.mpp and benchmark.mpp * side_px / extent_px
    frame = Frame(extent_px=extent_px, side_px=side_px, mpp=benchmark.mpp)
    return Feeding(frame=frame, mpp=mpp, trained_mpp=trained)


def crops_fed(encoder: nn.Module, benchmark: Benchmark, scale: Scale, extent_px: int) -> Feeding:
    """How a segmentation feeds `encoder`: in crops of `extent_px`, of images resampled for match_mpp and else as they are.

    Opens no file. Raises BadInput for match_mpp where the benchmark or the encoder does not know its um per px.
    """
    trained = _trained_mpp(encoder)
    factor = _factor(benchmark, trained) if scale == "match_mpp" else 1.0
    frame = Frame(extent_px=extent_px, side_px=round(extent_px / factor), mpp=benchmark.mpp)
    mpp = benchmark.mpp and benchmark.mpp / factor
    return Feeding(frame=frame, mpp=mpp, trained_mpp=trained, is_of_crops=True)


def _trained_mpp(encoder: nn.Module) -> tuple[float, float] | None:
    settings = getattr(encoder, "settings", None)
    return None if settings is None or settings.mpp is None else (settings.mpp, settings.mpp_max or settings.mpp)


def _factor(benchmark: Benchmark, trained: tuple[float, float] | None) -> float:
    """By how much samples are magnified to reach the encoder's range."""
    for what, value, remedy in (
        (benchmark.name, benchmark.mpp, "benchmark.mpp=0.5, if you know it"),
        ("the encoder", trained, "an encoder whose card says it"),
    ):
        if value is None:
            raise BadInput(f"scale=match_mpp: um per px of {what} is not known; give {remedy}, or use scale=resize")
    return benchmark.mpp / min(max(benchmark.mpp, trained[0]), trained[1])


def _token_px(encoder: nn.Module) -> int:
    patches = getattr(getattr(encoder, "trunk", None), "patch_embed", None)
    size = getattr(patches, "patch_size", 1)
    return size[0] if isinstance(size, tuple) else int(size)


def sides_of(benchmark: Benchmark) -> np.ndarray:
    """The shorter side of every sample in px, float64 [N]; of a tile: at the benchmark's um per px.

    Files are asked once for the same contents, whichever fold or encoder wants to know: a size belongs to the content that the
    benchmark knows each sample by. Where it knows none they are asked every time. Raises BadInput as `sizes_of` does.
    """
    table = benchmark.table
    if "path" not in table.schema.names:
        return table["extent_l0"].to_numpy() * table["slide_mpp"].to_numpy() / benchmark.mpp
    files = table.select(["path", "item", "box"])
    if table["content"].null_count:
        return _sides_of_files(_Files("", files))
    contents = hashlib.sha256(" ".join(table["content"].to_pylist()).encode()).hexdigest()
    return _known_sides(_Files(contents, files))


@dataclass(frozen=True)
class _Files:
    """Where images are; equal to others of the same contents, wherever those are."""

    contents: str
    table: pa.Table = field(compare=False, repr=False)


def _sides_of_files(files: _Files) -> np.ndarray:
    sides = np.array([min(size) for size in sizes_of(files.table)], np.float64)
    sides.setflags(write=False)  # it is handed out again
    return sides


_known_sides = lru_cache(maxsize=8)(_sides_of_files)


def sizes_of(table: pa.Table) -> list[tuple[int, int]]:
    """(width, height) of every image in px, from its box or its file's header; raises BadInput for one that cannot be read."""

    def size(row: dict) -> tuple[int, int]:
        try:
            return tuple(row["box"][2:]) if row["box"] else size_of(row["path"], item=row["item"])
        except (OSError, ValueError) as error:
            raise BadInput(f"{row['path']}: cannot be read ({error}); mend or remove the file") from None

    with ThreadPoolExecutor(_NUM_THREADS) as pool:
        return list(pool.map(size, table.select(["path", "item", "box"]).to_pylist()))
