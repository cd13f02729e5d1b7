import os
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from raypath.data import slide_features
from raypath.data.feature_files import LAYOUTS, Piece, feature_path, finished, tensor_path, write_features
from raypath.data.index import Index
from raypath.data.indexing import index_slide, join_parts
from raypath.data.manifest import SlideRow
from raypath.data.slide_features import FeatureJob, Here, SlideFeatures, embed_index
from raypath.models import build_encoder
from raypath.slides import Slide, TileSpec
from tests.protocols import small
from tests.slides import forge

SPEC = TileSpec(extent_px=32, mpp=0.5, stride_px=32, min_tissue=0.5)
ENCODER = build_encoder(small.TINY, seed=3).eval()


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch):
    monkeypatch.setattr(slide_features, "_TILES_PER_PIECE", 7)
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)  # a network of 17,000 weights
    yield
    torch.set_num_threads(num_threads)


def index_of(folder: Path, *paths: Path, spec: TileSpec = SPEC) -> Index:
    rows = [SlideRow(slide=path.stem, path=str(path), patient=path.stem) for path in paths]
    folder.mkdir(exist_ok=True)
    outcomes = [index_slide(row, spec, folder) for row in rows]
    assert [o.message for o in outcomes] == [None] * len(rows)
    join_parts([folder / f"{o.slide}.parquet" for o in outcomes], spec, folder)
    return Index(folder)


def job_of(index: Index, out: Path, layout: str = "trident", **changes) -> FeatureJob:
    job = FeatureJob(
        index_folder=str(index.folder),
        index_hash=index.hash,
        out=str(out),
        layout=layout,
        encoder="tiny",
        encoder_sha256="ab" * 32,
        identity="tiny weights",
    )
    return replace(job, **changes)


def embed(index: Index, out: Path, layout: str = "trident", number: int = 0, **changes):
    here = Here(ENCODER, torch.device("cpu"))
    return SlideFeatures(index, job_of(index, out, layout, **changes), here).embed(number)


@pytest.fixture(scope="module")
def fine(tmp_path_factory) -> Index:
    """A slide of 0.2513 um per px: 16 um are 63.67 of its px, and a tile has 64."""
    folder = tmp_path_factory.mktemp("fine")
    return index_of(
        folder / "index", forge.write_svs(folder / "fine.svs", forge.picture(448, 384), mpp="0.2513", power="40")
    )


def corners_of(index: Index, number: int = 0) -> np.ndarray:
    return np.stack(index.corners(number, np.arange(index.num_tiles[number])), 1)


@torch.no_grad()
def encoded_alone(index: Index, corners: np.ndarray) -> np.ndarray:
    """The slow way: tile by tile through Slide.read."""
    row, extent_l0 = index.row(0), index.grid(0).extent_l0
    with Slide.open(row["path"], row["mpp"]) as slide:
        tiles = [slide.read(int(x), int(y), extent_l0, index.spec.extent_px) for x, y in corners]
    return ENCODER(torch.from_numpy(np.stack(tiles))).numpy()


def test_features_are_those_of_the_indexed_tiles_in_their_order(fine, tmp_path):
    outcome = embed(fine, tmp_path)
    assert outcome.reason is None
    assert outcome.num_tiles == fine.num_tiles[0] > 20
    with h5py.File(tmp_path / "fine.h5") as file:
        coords, features = file["coords"][:], file["features"][:]
        assert file.attrs["raypath_encoder_sha256"] == "ab" * 32
        assert file.attrs["raypath_slide_sha256"] == fine.row(0)["sha256"]
        assert (file.attrs["raypath_mpp"], file.attrs["raypath_extent_px"]) == (0.5, 32)
    assert (coords.dtype, features.dtype) == (np.int64, np.float32)
    assert (coords == corners_of(fine)).all()
    expected = encoded_alone(fine, coords)
    assert np.abs(features - expected).max() < 1e-5
    assert np.abs(expected - expected[0]).max() > 1e-3  # tiles differ: an order that is wrong would be seen


def test_trident_finds_features_and_the_squares_that_were_read(fine, tmp_path):
    embed(fine, tmp_path)
    # mahmoodlab/TRIDENT: trident/wsi_objects/WSI.py, extract_slide_features
    with h5py.File(tmp_path / "fine.h5", "r") as file:
        features, coords, attributes = file["features"][:], file["coords"][:], dict(file["coords"].attrs)
    assert len(features) == len(coords) == fine.num_tiles[0]
    assert attributes["patch_size_level0"] == fine.grid(0).extent_l0 == 64
    # trident/wsi_objects/WSIPatcher.py: the side of a tile from the two magnifications
    downsample = (10 / attributes["target_magnification"]) / (10 / attributes["level0_magnification"])
    assert round(attributes["patch_size"] * downsample) == fine.grid(0).extent_l0
    assert (attributes["overlap"], attributes["name"]) == (0, "fine")
    assert (attributes["level0_width"], attributes["level0_height"]) == (448, 384)


def test_clam_finds_its_two_files(fine, tmp_path):
    embed(fine, tmp_path, "clam")
    # mahmoodlab/CLAM: dataset_modules/dataset_generic.py, Generic_MIL_Dataset.__getitem__
    trained_on = torch.load(tmp_path / "pt_files" / "fine.pt", weights_only=True)
    with h5py.File(tmp_path / "h5_files" / "fine.h5", "r") as file:
        features, coords = torch.from_numpy(file["features"][:]), file["coords"][:]
    assert torch.equal(trained_on, features)
    assert (coords == corners_of(fine)).all()


def test_stamp_finds_micrometres(fine, tmp_path):
    embed(fine, tmp_path, "stamp")
    # KatherLab/STAMP: src/stamp/modeling/data.py, BagDataset.__getitem__, get_coords and detect_feature_type
    with h5py.File(tmp_path / "fine.h5", "r") as file:
        feats, coords_um = torch.from_numpy(file["feats"][:]).float(), file["coords"][:]
        attributes = dict(file.attrs)
        assert "features" not in file  # who takes um for px must not find anything
        assert (file["coords_l0"][:] == corners_of(fine)).all()
    assert attributes["feat_type"] == "tile"
    assert not {"tile_size", "stamp_version", "encoder"} & set(attributes)  # another branch of get_coords, or a refusal
    tile_um, tile_px = float(attributes["tile_size_um"]), int(attributes["tile_size_px"])
    assert (attributes["unit"], tile_um, tile_px) == ("um", 16.0, 32)
    # src/stamp/heatmaps/__init__.py: back to the slide, and to a grid by the smallest step
    assert (np.round(coords_um / 0.2513).astype(int) == corners_of(fine)).all()
    assert round(tile_um / 0.2513) == fine.grid(0).extent_l0
    stride = min(np.diff(np.unique(column)).min() for column in coords_um.T)
    assert (np.round(coords_um / stride).astype(int) == corners_of(fine) // 64).all()
    assert np.abs(feats.numpy() - encoded_alone(fine, corners_of(fine))).max() < 1e-5


@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_is_done_is_not_done_again_unless_something_changed(layout, fine, tmp_path):
    first = embed(fine, tmp_path, layout)
    path = feature_path(tmp_path, layout, "fine")
    before = path.stat()
    again = embed(fine, tmp_path, layout)
    assert (again.is_unchanged, again.num_tiles) == (True, first.num_tiles)
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert not embed(fine, tmp_path, layout, identity="other weights").is_unchanged
    assert not embed(fine, tmp_path, layout).is_unchanged
    if layout == "clam":
        tensor_path(tmp_path, "fine").unlink()
        assert not embed(fine, tmp_path, layout).is_unchanged


def test_other_tiles_or_another_slide_are_made_anew(fine, tmp_path):
    embed(fine, tmp_path)
    path = Path(fine.row(0)["path"])
    wider = index_of(tmp_path / "wider", path, spec=replace(SPEC, stride_px=64))
    outcome = embed(wider, tmp_path)
    assert not outcome.is_unchanged
    assert outcome.num_tiles < fine.num_tiles[0]
    with h5py.File(tmp_path / "fine.h5") as file:
        assert (file["coords"][:] == corners_of(wider)).all()

    other = forge.write_svs(tmp_path / "fine.svs", forge.picture(448, 384, seed=1), mpp="0.2513", power="40")
    assert not embed(index_of(tmp_path / "other", other, spec=replace(SPEC, stride_px=64)), tmp_path).is_unchanged


def test_a_part_of_a_file_is_never_taken_for_it(fine, tmp_path):
    embed(fine, tmp_path)
    path = tmp_path / "fine.h5"
    whole = path.read_bytes()
    draft = tmp_path / ".fine.h5.4711"  # of a process that was killed
    draft.write_bytes(whole)
    path.unlink()
    assert not embed(fine, tmp_path).is_unchanged
    assert not draft.exists()
    path.write_bytes(whole[: len(whole) // 2])
    assert not embed(fine, tmp_path).is_unchanged
    assert embed(fine, tmp_path).is_unchanged
    assert [p.name for p in tmp_path.iterdir()] == ["fine.h5"]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_reader_that_fails_midway_leaves_nothing(layout, fine, tmp_path):
    embed(fine, tmp_path, layout)  # an older file of the slide goes too: it is not what was asked for

    def pieces():
        yield Piece(np.zeros((2, 2), np.int64), np.zeros((2, 4), np.float32), np.empty((0, 2), np.int64), ())
        raise OSError("the disk is gone")

    about = slide_features.About(slide=fine.row(0), spec=SPEC, encoder="tiny", encoder_sha256="", key="k")
    with pytest.raises(OSError, match="the disk is gone"):
        write_features(tmp_path, layout, about, pieces())
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []
    assert finished(tmp_path, layout, "fine", "k") is None


def test_a_tile_that_cannot_be_read_is_left_out_counted_and_named(tmp_path):
    path = forge.write_svs(tmp_path / "holes.svs", forge.picture(256, 256))
    index = index_of(tmp_path / "index", path)
    whole = corners_of(index)
    expected = encoded_alone(index, whole)
    times = path.stat()
    forge.break_tile(path, 5)  # of 4 x 4 native tiles: x and y from 64 to 128, four of the 32 px tiles
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))  # bytes that rot tell nobody
    is_bad = ((whole >= 64) & (whole < 128)).all(1)
    assert is_bad.sum() == 4
    outcome = embed(index, tmp_path / "out")
    assert (outcome.reason, outcome.num_left_out, outcome.why_left_out) == (None, 4, "TileCorrupt: 4")
    with h5py.File(tmp_path / "out" / "holes.h5") as file:
        assert (file["coords"][:] == whole[~is_bad]).all()
        assert np.abs(file["features"][:] - expected[~is_bad]).max() < 1e-5
        assert sorted(file["left_out"][:].tolist()) == sorted(whole[is_bad].tolist())
        assert file["left_out_reason"].asstr()[:].tolist() == ["TileCorrupt"] * 4
    again = embed(index, tmp_path / "out")
    assert (again.is_unchanged, again.num_left_out, again.why_left_out) == (True, 4, "TileCorrupt: 4")


def test_a_slide_without_one_readable_tile_or_no_longer_the_same_is_set_aside(tmp_path):
    path = forge.write_svs(tmp_path / "gone.svs", forge.picture(256, 256))
    index = index_of(tmp_path / "index", path)
    assert index.num_tiles[0] > 10
    times = path.stat()
    for number in range(16):
        forge.break_tile(path, number)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    outcome = embed(index, tmp_path / "out")
    assert outcome.reason == "SlideUnreadable"
    assert (
        outcome.message
        == f"{path}: none of its {index.num_tiles[0]} tiles can be read (TileCorrupt: {index.num_tiles[0]})"
    )
    assert not (tmp_path / "out" / "gone.h5").exists()

    os.utime(path)
    assert embed(index, tmp_path / "out").reason == "SlideChanged"
    path.unlink()
    assert embed(index, tmp_path / "out").reason == "SlideMissing"


@pytest.mark.ray
def test_encoders_elsewhere_give_the_same_and_pieces_keep_their_order(fine, ray_instance, tmp_path):
    embed(fine, tmp_path / "here")
    outcomes = embed_index(fine, job_of(fine, tmp_path / "there"), ENCODER, num_encoders=2)
    assert [(o.slide, o.num_tiles) for o in outcomes] == [("fine", fine.num_tiles[0])]
    with h5py.File(tmp_path / "here" / "fine.h5") as here, h5py.File(tmp_path / "there" / "fine.h5") as there:
        assert (here["coords"][:] == there["coords"][:]).all()
        assert np.abs(here["features"][:] - there["features"][:]).max() < 1e-5
