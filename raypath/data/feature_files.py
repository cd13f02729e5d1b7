"""Features of a slide's tiles in one HDF5 file, as the programs that train on whole slides read them.

One decision: a file is written under another name, piece by piece, and gets its own when all is in it; an attribute says what
it was made of, so that the next call can tell whether it still stands. Features are float32, in the order of the index.

    trident   DIR/SLIDE.h5: `features` [N, D], `coords` int64 [N, 2], the top left corners in level-0 px. TRIDENT reads both
              with the attributes of `coords` (mahmoodlab/TRIDENT, trident/wsi_objects/WSI.py, `extract_slide_features`; they
              are those of trident/IO.py, `coords_to_h5`), of which its slide encoders use `patch_size_level0`
              (trident/slide_encoder_models/load.py)
    clam      the same file as DIR/h5_files/SLIDE.h5, which CLAM reads for heat maps, and the features alone as
              DIR/pt_files/SLIDE.pt, which it trains on (mahmoodlab/CLAM, dataset_modules/dataset_generic.py,
              `Generic_MIL_Dataset.__getitem__`)
    stamp     DIR/SLIDE.h5: `feats` [N, D] and `coords` float32 [N, 2] in um, with `unit`, `tile_size_um` and `tile_size_px` as
              attributes of the file (KatherLab/STAMP, src/stamp/modeling/data.py, `BagDataset` and `get_coords`)

No file serves all three: `coords` is level-0 px to the first two and um to STAMP, which knows no other name for it. The attribute
`stamp_version`, which STAMP compares with its own, is left out: no STAMP made the file. Magnifications, which TRIDENT divides by
each other to find the side of a tile, are 10 / (um per px), its own rule (trident/wsi_objects/WSIPatcher.py): they say the scale
that is known, not an objective.

Costs 4 D + 16 bytes a tile (twice that for clam), and a piece in memory.
"""

import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch

from raypath import __version__
from raypath.slides import TileSpec

LAYOUTS = ("trident", "clam", "stamp")
_ROWS_PER_CHUNK = 64
_KEY = "raypath_key"


@dataclass(frozen=True, eq=False)
class Piece:
    """Some tiles of a slide: those with features, and those that could not be read."""

    corners: np.ndarray
    """int64 [n, 2], (x_l0, y_l0)."""
    features: np.ndarray
    """float32 [n, D]."""
    lost: np.ndarray
    """int64 [k, 2], the corners of the tiles left out."""
    reasons: tuple[str, ...]
    """The k reasons, names of errors."""


@dataclass(frozen=True)
class Content:
    """What is in a file."""

    num_tiles: int
    num_left_out: int
    why_left_out: str
    """Reasons with their counts; "" if there are none."""


@dataclass(frozen=True, kw_only=True)
class About:
    """What a file's attributes say of its slide, tiles and encoder."""

    slide: dict[str, Any]
    """The slide's row of the index: slide, path, sha256, size_bytes, mtime_ns, mpp, width_l0, height_l0."""
    spec: TileSpec
    encoder: str
    """The encoder's name."""
    encoder_sha256: str
    """Of the file of weights; "" for an encoder without one."""
    key: str
    """All that the features depend on, as text."""


def feature_path(folder: Path, layout: str, slide: str) -> Path:
    """Where the HDF5 file of a slide is."""
    return folder / "h5_files" / f"{slide}.h5" if layout == "clam" else folder / f"{slide}.h5"


def tensor_path(folder: Path, slide: str) -> Path:
    """Where CLAM looks for the features alone."""
    return folder / "pt_files" / f"{slide}.pt"


def finished(folder: Path, layout: str, slide: str, key: str) -> Content | None:
    """What is in the file of a slide that was made with the same `key`; None if it has to be made."""
    if layout == "clam" and not tensor_path(folder, slide).is_file():
        return None
    try:
        with h5py.File(feature_path(folder, layout, slide)) as file:
            if file.attrs.get(_KEY) != key:
                return None
            reasons = file["left_out_reason"].asstr()[:].tolist() if "left_out_reason" in file else []
            return Content(len(file["coords"]), len(reasons), counted(reasons))
    except OSError:  # none, or none that can be opened
        return None


def remove_features(folder: Path, layout: str, slide: str) -> None:
    """Remove what is there of a slide, drafts of a killed process too."""
    places = [feature_path(folder, layout, slide)] + ([tensor_path(folder, slide)] if layout == "clam" else [])
    for path in places:
        for found in (path, *path.parent.glob(f".{path.name}.*")):
            found.unlink(missing_ok=True)


def write_features(folder: Path, layout: str, about: About, pieces: Iterable[Piece]) -> Content:
    """Write the file of a slide from its pieces; nothing is left behind if one of them raises, or if no tile has features."""
    slide = about.slide["slide"]
    remove_features(folder, layout, slide)
    path = feature_path(folder, layout, slide)
    with _draft(path) as draft:
        with h5py.File(draft, "w") as file:
            corners, content = _fill(file, "feats" if layout == "stamp" else "features", pieces)
            if not content.num_tiles:
                return content
            if layout == "stamp":
                _complete_for_stamp(file, about, corners)
            else:
                _complete_for_trident(file, about, corners, folder)
            _describe(file, about)
            if layout == "clam":
                _write_tensor(tensor_path(folder, slide), file["features"][:])
        draft.rename(path)  # last: its name says that all is there
    return content


def counted(reasons: Iterable[str]) -> str:
    """Reasons with their counts, the commonest first."""
    return ", ".join(f"{reason}: {count:,}" for reason, count in Counter(reasons).most_common())


@contextmanager
def _draft(path: Path) -> Iterator[Path]:
    """A name beside `path` to write under; whatever is still there at the end goes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield draft
    finally:
        draft.unlink(missing_ok=True)


def _fill(file: h5py.File, name: str, pieces: Iterable[Piece]) -> tuple[np.ndarray, Content]:
    """Write features and what was left out as they come; the corners (int64 [N, 2]) are few bytes and written by the layout."""
    corners, lost, reasons = [np.empty((0, 2), np.int64)], [np.empty((0, 2), np.int64)], []
    for piece in pieces:
        lost.append(piece.lost)
        reasons += piece.reasons
        if len(piece.corners):
            corners.append(piece.corners)
            _append(file, name, piece.features)
    if reasons:
        file["left_out"] = np.concatenate(lost)
        file["left_out_reason"] = reasons
    found = np.concatenate(corners)
    return found, Content(len(found), len(reasons), counted(reasons))


def _append(file: h5py.File, name: str, features: np.ndarray) -> None:
    num_more, width = features.shape
    if name not in file:
        shape = {"shape": (0, width), "maxshape": (None, width), "chunks": (_ROWS_PER_CHUNK, width)}
        file.create_dataset(name, dtype=np.float32, **shape)
    file[name].resize(len(file[name]) + num_more, axis=0)
    file[name][-num_more:] = features


def _complete_for_trident(file: h5py.File, about: About, corners: np.ndarray, folder: Path) -> None:
    spec, slide = about.spec, about.slide
    file["coords"] = corners
    own = {"name": slide["slide"], "savetodir": str(folder)}
    file["features"].attrs.update(own)
    file["coords"].attrs.update(
        own
        | {
            "patch_size": spec.extent_px,
            "patch_size_level0": spec.extent_l0(slide["mpp"]),
            "level0_magnification": 10 / slide["mpp"],
            "target_magnification": 10 / spec.mpp,
            "overlap": spec.extent_px - spec.stride_px,
            "level0_width": slide["width_l0"],
            "level0_height": slide["height_l0"],
        }
    )


def _complete_for_stamp(file: h5py.File, about: About, corners: np.ndarray) -> None:
    file["coords"] = (corners * about.slide["mpp"]).astype(np.float32)
    file["coords_l0"] = corners
    file.attrs.update(
        {
            "unit": "um",
            "tile_size_um": about.spec.extent_px * about.spec.mpp,
            "tile_size_px": about.spec.extent_px,
            "feat_type": "tile",
            # with a prefix, because STAMP takes what begins like one of its extractors for that
            "extractor": f"raypath-{about.encoder}",
        }
    )


def _describe(file: h5py.File, about: About) -> None:
    """What is the same in every layout; with a prefix, because STAMP has meanings of its own for `encoder` and the like."""
    slide, spec = about.slide, about.spec
    values = {
        "version": __version__,
        "encoder": about.encoder,
        "encoder_sha256": about.encoder_sha256,
        "mpp": spec.mpp,
        "extent_px": spec.extent_px,
        "stride_px": spec.stride_px,
        "extent_l0": spec.extent_l0(slide["mpp"]),
        "slide": slide["slide"],
        "slide_path": slide["path"],
        "slide_mpp": slide["mpp"],
        "slide_sha256": slide["sha256"],
        "slide_size_bytes": slide["size_bytes"],
        "slide_mtime_ns": slide["mtime_ns"],
    }
    file.attrs.update({f"raypath_{name}": value for name, value in values.items()})
    file.attrs[_KEY] = about.key


def _write_tensor(path: Path, features: np.ndarray) -> None:
    with _draft(path) as draft:
        torch.save(torch.from_numpy(features), draft)
        draft.rename(path)


def key_of(*parts: Any) -> str:
    """The text that two files have in common if they would hold the same."""
    return json.dumps([*parts], sort_keys=True)
