"""Features of whole slides: a Ray Data job over the slides of an index, one file of features each.

One decision: whoever has a slide has all of it. One actor reads a slide's tiles piece by piece along the Morton curve, has them
encoded, appends the features to a draft, and gives it its name; so neither the driver nor a shuffle ever holds a tile, and only a
line of counts comes back. On CPUs the actor encodes what it has read; with GPUs a pool of encoders has one each, and the actors on
the CPUs read the next piece while the last is being encoded.

A tile that cannot be decoded, or has no pixels, is left out of the file, where it is named with its reason. What befalls the
slide as a whole (gone, changed, not to be read), or all of its tiles, sets it aside.

Costs the reading of the slide and one forward pass per tile; 256 tiles of pixels in memory per actor, three times that with GPUs.
"""

import hashlib
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import ray
import ray.data
import torch
from ray.util.annotations import RayDeprecationWarning
from torch import nn

from raypath.data.embedding import encode
from raypath.data.feature_files import About, Content, Piece, finished, key_of, write_features
from raypath.data.index import Index
from raypath.data.indexing import Outcome
from raypath.data.joined_index import open_index
from raypath.data.quiet import quiet_ray_data
from raypath.data.reading import SlideTiles
from raypath.errors import TILE_FAULTS, SlideError, SlideUnreadable, TileCorrupt, TileMissing
from raypath.slides.handles import require_same

_FORMAT = 1  # raised when files of an earlier version of this code are no longer what it would write
_TILES_PER_PIECE = 256
_AHEAD = 2  # pieces being encoded elsewhere while the next is read
_MAX_BLOCKS = 2_000  # see `indexing`


@dataclass(frozen=True)
class Embedded(Outcome):
    """What embedding one slide came to."""

    num_left_out: int = 0
    """Tiles that could not be read."""
    why_left_out: str = ""
    """Their reasons with counts."""


@dataclass(frozen=True, kw_only=True)
class FeatureJob:
    """What is made of the slides of an index; small, and the same for all actors."""

    index_folder: str
    index_hash: str
    out: str
    layout: str
    encoder: str
    """The encoder's name."""
    encoder_sha256: str
    identity: str
    """All that decides a feature on the encoder's side."""


def embed_index(
    index: Index,
    job: FeatureJob,
    encoder: nn.Module,
    *,
    num_gpus: int = 0,
    num_encoders: int = 0,
    progress: Callable[[int, int, Embedded], None] = lambda done, total, outcome: None,
) -> list[Embedded]:
    """Write the features of every slide of `index` that has tiles; `progress(done, total, outcome)` is called after each slide.

    `num_encoders` actors encode for those that read, each with a GPU while there are `num_gpus`; 0: as many as GPUs, and without
    any those that read do it themselves.
    """
    numbers = np.flatnonzero(index.num_tiles).tolist()
    empty = np.flatnonzero(index.num_tiles == 0).tolist()
    outcomes = [Embedded(index.row(number)["slide"], index.row(number)["path"], 0) for number in empty]
    module = ray.put(encoder.eval())
    actors = [
        _EncoderActor.options(num_gpus=int(number < num_gpus), num_cpus=0).remote(module)
        for number in range(num_encoders or num_gpus)
    ]
    try:
        for outcome in _run(numbers, job, module, actors):
            outcomes.append(outcome)
            progress(len(outcomes) - len(empty), len(numbers), outcome)
    finally:
        for actor in actors:
            ray.kill(actor)
    return sorted(outcomes, key=lambda o: o.slide)


def _run(numbers: list[int], job: FeatureJob, module: ray.ObjectRef, actors: list) -> Iterator[Embedded]:
    if not numbers:
        return
    data = ray.data.from_items(
        [{"number": number} for number in numbers], override_num_blocks=min(len(numbers), _MAX_BLOCKS)
    )
    most = max(1, min(int(ray.available_resources().get("CPU", 1)), len(numbers)))
    with warnings.catch_warnings():  # as in `indexing`: the default is to retry for ever
        warnings.simplefilter("ignore", RayDeprecationWarning)
        data = data.map(
            _SlideActor,
            fn_constructor_kwargs={"job": job, "module": module, "actors": actors},
            compute=ray.data.ActorPoolStrategy(min_size=1, max_size=most),
            num_cpus=1,
            max_restarts=2,
            max_task_retries=1,
        )
    data.context.enable_progress_bars = False
    data.context.print_on_execution_start = False
    with quiet_ray_data():
        for row in data.iter_rows():
            yield Embedded(**row)


class _SlideActor:
    """Slides to files of features, one after the other."""

    def __init__(self, job: FeatureJob, module: ray.ObjectRef, actors: list):
        encoding = Elsewhere(actors) if actors else Here(ray.get(module), torch.device("cpu"))
        self.slides = SlideFeatures(open_index(job.index_folder, job.index_hash), job, encoding)

    def __call__(self, row: dict[str, int]) -> dict[str, Any]:
        return asdict(self.slides.embed(row["number"]))


class Here:
    """Encodes in this process."""

    num_ahead = 0

    def __init__(self, encoder: nn.Module, device: torch.device):
        self.encoder = encoder.to(device).eval()
        self.device = device

    def start(self, images: np.ndarray) -> np.ndarray:
        """Features float32 [n, D] of uint8 images [n, H, W, 3]."""
        return encode(self.encoder, images, self.device)

    def finish(self, features: np.ndarray) -> np.ndarray:
        """What was started."""
        return features


class Elsewhere:
    """Hands images to encoders in turn, and waits for their features only when asked for."""

    num_ahead = _AHEAD

    def __init__(self, actors: list):
        self.actors = deque(actors)
        self.actors.rotate(np.random.default_rng().integers(len(actors)))  # not everyone to the first one first

    def start(self, images: np.ndarray) -> ray.ObjectRef:
        """A promise of features."""
        self.actors.rotate(-1)
        return self.actors[0].encode.remote(images)

    def finish(self, features: ray.ObjectRef) -> np.ndarray:
        """The features float32 [n, D]."""
        return ray.get(features)


@ray.remote(max_restarts=2, max_task_retries=2)
class _EncoderActor:
    """An encoder on a GPU of its own, if it was given one."""

    def __init__(self, module: nn.Module):
        self.here = Here(module, torch.device("cuda" if torch.cuda.is_available() else "cpu"))

    def encode(self, images: np.ndarray) -> np.ndarray:
        return self.here.start(images)


class SlideFeatures:
    """Makes the file of a slide of one index, or finds that it is there."""

    def __init__(self, index: Index, job: FeatureJob, encoding: Here | Elsewhere):
        self.index = index
        self.job = job
        self.encoding = encoding
        self.tiles = SlideTiles(index, faults=(TileCorrupt, TileMissing))

    def embed(self, number: int) -> Embedded:
        """The file of slide `number`; whatever is wrong with the slide is in the outcome."""
        row = self.index.row(number)
        name = row["slide"], row["path"]
        try:
            if "://" not in row["path"]:
                require_same(row["path"], row["size_bytes"], row["mtime_ns"])
            key = self._key(number)
            found = finished(Path(self.job.out), self.job.layout, row["slide"], key)
            is_unchanged = found is not None
            content = found or self._written(number, key)
            left_out = content.num_left_out, content.why_left_out
            return Embedded(*name, content.num_tiles, None, None, is_unchanged, *left_out)
        except SlideError as error:
            return Embedded(*name, 0, type(error).__name__, str(error))

    def _key(self, number: int) -> str:
        row = self.index.row(number)
        cells = hashlib.sha256(self.index.cells(number).tobytes()).hexdigest()
        spec = asdict(self.index.spec)
        return key_of(_FORMAT, self.job.layout, self.job.identity, spec, row["sha256"], row["mpp"], cells)

    def _written(self, number: int, key: str) -> Content:
        about = About(
            slide=self.index.row(number),
            spec=self.index.spec,
            encoder=self.job.encoder,
            encoder_sha256=self.job.encoder_sha256,
            key=key,
        )
        content = write_features(Path(self.job.out), self.job.layout, about, self._pieces(number))
        if not content.num_tiles:
            path = about.slide["path"]
            raise SlideUnreadable(
                f"{path}: none of its {content.num_left_out:,} tiles can be read ({content.why_left_out})"
            )
        return content

    def _pieces(self, number: int) -> Iterator[Piece]:
        """The pieces in order, each a few behind the reading where they are encoded elsewhere."""
        waiting: deque = deque()
        for start in range(0, int(self.index.num_tiles[number]), _TILES_PER_PIECE):
            stop = min(start + _TILES_PER_PIECE, int(self.index.num_tiles[number]))
            corners, images, faults = self._read(number, np.arange(start, stop))
            is_good = faults == 0
            reasons = tuple(TILE_FAULTS[fault].__name__ for fault in faults[~is_good])
            features = self.encoding.start(images[is_good]) if is_good.any() else None
            waiting.append((corners[is_good], features, corners[~is_good], reasons))
            if len(waiting) > self.encoding.num_ahead:
                yield self._finished(*waiting.popleft())
        while waiting:
            yield self._finished(*waiting.popleft())

    def _read(self, number: int, tiles: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Corners int64 [n, 2], pixels uint8 [n, H, W, 3] and faults [n] (index into TILE_FAULTS) of some tiles of a slide."""
        extent_px = self.index.extent_px
        images = np.empty((len(tiles), extent_px, extent_px, 3), np.uint8)
        faults = np.zeros(len(tiles), np.int8)
        for at, pixels, fault in self.tiles.read(number, tiles):
            images[at], faults[at] = pixels, fault
        return np.stack(self.index.corners(number, tiles), 1), images, faults

    def _finished(self, corners: np.ndarray, features: Any, lost: np.ndarray, reasons: tuple[str, ...]) -> Piece:
        values = np.empty((0, 0), np.float32) if features is None else self.encoding.finish(features)
        return Piece(corners, values, lost, reasons)
