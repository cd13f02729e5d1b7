"""What an encoder has seen before it was asked: slides, labelled images, and what those saw that it started from.

One decision: a run says it itself. Its config names the index or the pool and the splits, those name every slide and image with
patient and contents, and `init` leads to what it started from, which counts as seen too. What cannot be looked up any more, or
was trained elsewhere, is *unknown* until somebody declares the collections by name; ImageNet's weights have seen no slide, random
and colour ones nothing. Nothing is guessed from the name of a model.

What it costs: the columns of an index (no tile), and every byte of a pool twice, for its hash and for each image's.
"""

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raypath.data.joined_index import AnyIndex, load_index
from raypath.data.pool import Pool, load_pool
from raypath.errors import BadInput
from raypath.hashing import file_sha256
from raypath.objectives import OBJECTIVES
from raypath.protocols.encoders import COLOUR, FILE, IMAGENET, RANDOM, RANDOM_BN
from raypath.training.start import imagenet_file

_NUM_HASH_THREADS = 4
_BLIND = (COLOUR, FILE, RANDOM, RANDOM_BN, IMAGENET)
_LABELLED = {settings.__dataclass_fields__["kind"].default for settings in OBJECTIVES if settings().needs.has_labels}


@dataclass(frozen=True)
class SeenSlide:
    """A slide that was trained on; `sha256` and `size_bytes` of its file."""

    slide: str
    path: str
    patient: str
    site: str | None
    split: str | None
    sha256: str
    size_bytes: int


@dataclass(frozen=True)
class SeenImage:
    """An image of a pool that was trained on."""

    task: str
    path: str
    patient: str | None
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Training:
    """What one pretraining saw."""

    name: str
    """The run's id, or the file of weights."""
    uses_labels: bool
    """Whether labels had a say: supervised, multi-task."""
    slides: tuple[SeenSlide, ...] = ()
    images: tuple[SeenImage, ...] = ()
    corpora: tuple[str, ...] = ()
    """Collections that somebody declared, e.g. "TCGA"."""
    unknown: str = ""
    """Why it is not known what was seen; empty where it is."""

    def __str__(self) -> str:
        if self.unknown:
            return f"{self.name}: unknown, {self.unknown}"
        parts = (
            [f"{len(self.slides)} slides of {len({s.patient for s in self.slides})} patients"] if self.slides else []
        )
        parts += [f"{len(self.images)} images"] if self.images else []
        parts += [f"declared: {', '.join(self.corpora)}"] if self.corpora else []
        how = "with labels" if self.uses_labels else "without labels"
        return f"{self.name}: {', '.join(parts) or 'no pathology'} ({how})"


@dataclass(frozen=True)
class Seen:
    """All pretrainings behind an encoder, the newest first; none for weights that never saw a slide."""

    trainings: tuple[Training, ...] = ()

    def __str__(self) -> str:
        return "; ".join(map(str, self.trainings)) or "no slide and no labelled image of pathology"


def seen_by(source: str, *, corpora: Sequence[str] | None = None, uses_labels: bool = False) -> Seen:
    """What the encoder that `source` names (see `protocols.encoders`) has seen.

    `corpora` declares, where weights come from elsewhere, by name what they were trained on (() for no pathology), and
    `uses_labels` whether with labels. Raises BadInput for a declaration where all is known, and for a run whose config is no
    pretraining's.
    """
    file = source.partition("@")[2] if "@" in source and not Path(source).exists() else source
    own, foreign = ([], None) if source.partition(":")[0] in _BLIND else _chain(Path(file).absolute())
    if foreign is not None:
        return Seen((*own, _foreign(foreign, corpora, uses_labels)))
    if corpora is not None:
        raise BadInput(f"{source}: what it saw is known from its own files; leave out corpora={','.join(corpora)}")
    return Seen(tuple(own))


def _chain(path: Path) -> tuple[list[Training], Path | None]:
    """The trainings behind a file or folder of weights, newest first, and what they began with that was trained elsewhere."""
    found: dict[Path, Training] = {}
    while True:
        run = _run_of(path)
        if run is None:
            return list(found.values()), path
        if run in found:
            raise BadInput(f"{run}: this run starts from itself; correct init in its config.json")
        config, record = _read(run / "config.json"), _read(run / "run.json")
        if "objective" not in config:
            raise BadInput(f"{run}: no pretraining (its config has no objective); expected runs/ID of one")
        found[run] = _training(run, config, record)
        start = config.get("init", RANDOM)
        if start in (RANDOM, IMAGENET) or _is_imagenet(Path(start), config["encoder"]["architecture"]):
            return list(found.values()), None
        path = Path(start).absolute()


def _run_of(path: Path) -> Path | None:
    """The run that a path is, or lies in: runs/ID, runs/ID/checkpoints/step-N/encoder.safetensors, runs/ID/best/..."""
    folders = (path, *path.parents[:3])
    return next((f for f in folders if (f / "run.json").is_file() and (f / "config.json").is_file()), None)


def _is_imagenet(path: Path, architecture: str) -> bool:
    """Whether `init=imagenet` means this file: weights of timm, of natural images."""
    try:
        return imagenet_file(architecture).absolute() == path
    except BadInput:
        return False


def _foreign(path: Path, corpora: Sequence[str] | None, uses_labels: bool) -> Training:
    if corpora is not None:
        return Training(name=path.name, uses_labels=uses_labels, corpora=tuple(corpora))
    what = "trained elsewhere" if path.exists() else "its run or file is gone"
    why = f"{what}: declare the collections it was trained on by name (corpora=TCGA,...; none: corpora=)"
    return Training(name=str(path), uses_labels=uses_labels, unknown=why)


def _training(run: Path, config: dict[str, Any], record: dict[str, Any]) -> Training:
    """What a run was trained on; unknown where its index or pool is gone or has changed."""
    uses_labels, splits = config["objective"]["kind"] in _LABELLED, tuple(config["splits"])
    try:
        if config.get("pool"):
            pool = load_pool(config["pool"], splits)
            if pool.hash != record.get("index_hash"):
                raise BadInput(f"{config['pool']}: other images than the run was trained on")
            return Training(name=run.name, uses_labels=uses_labels, images=_images(pool))
        index = load_index(config["index"])
        if index.hash != record.get("index_hash"):
            raise BadInput(f"{config['index']}: another index than the run was trained on")
        return Training(name=run.name, uses_labels=uses_labels, slides=_slides(index, splits))
    except (BadInput, OSError) as error:
        return Training(name=run.name, uses_labels=uses_labels, unknown=str(error).splitlines()[0])


def _slides(index: AnyIndex, splits: Sequence[str]) -> tuple[SeenSlide, ...]:
    """Those of `splits`, and those without one, that have tiles; a slide of several scales once."""
    names = ("slide", "path", "patient", "site", "split", "sha256", "size_bytes")
    rows = zip(*(index.column(name).tolist() for name in names), index.num_tiles.tolist(), strict=True)
    seen = (SeenSlide(*row) for *row, num_tiles in rows if num_tiles and (row[4] is None or row[4] in splits))
    return tuple(dict.fromkeys(seen))


def _images(pool: Pool) -> tuple[SeenImage, ...]:
    rows = [(task.name, *row) for task in pool.tasks for row in zip(task.paths, task.patients, strict=True)]
    with ThreadPoolExecutor(_NUM_HASH_THREADS) as threads:
        contents = threads.map(file_sha256, (path for _, path, _ in rows))
    return tuple(SeenImage(*row, sha256) for row, sha256 in zip(rows, contents, strict=True))


def _read(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise BadInput(f"{path}: cannot be read ({error}); expected the JSON that the run wrote") from None
