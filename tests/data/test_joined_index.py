"""Tiles of two scales in one pretraining: the right pixels, the asked shares, and what does not go together."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raypath.data import indexing
from raypath.data.index import Index
from raypath.data.joined_index import load_index, open_index
from raypath.data.manifest import read_manifest, write_manifest
from raypath.data.plan import PlanSettings
from raypath.data.reading import WindowReader
from raypath.errors import BadInput
from raypath.slides import Slide, TileSpec
from raypath.training.settings import PretrainConfig, make_plan

COARSE = TileSpec(extent_px=64, mpp=1.0, stride_px=64, min_tissue=0.3)


def make_index(manifest: Path, spec: TileSpec, folder: Path) -> Index:
    parts = folder / "slides"
    parts.mkdir(parents=True)
    rows = read_manifest(manifest)
    for row in rows:
        indexing.index_slide(row, spec, parts)
    indexing.join_parts(sorted(parts.glob("*.parquet")), spec, folder)
    return Index(folder)


@pytest.fixture(scope="module")
def coarse(phantom_folder, tmp_path_factory) -> Index:
    return make_index(phantom_folder / "manifest.csv", COARSE, tmp_path_factory.mktemp("coarse"))


@pytest.fixture(scope="module")
def joined(phantom_index, coarse):
    return load_index(f"{phantom_index.folder},{coarse.folder}")


def test_every_tile_is_read_at_the_scale_of_its_own_index(phantom_index, coarse, joined):
    config = PretrainConfig(splits=("train", "val", "test"), plan=PlanSettings(chunk_tiles=8, num_shards=6))
    plan = make_plan(config, joined)
    assert plan.epoch_length == phantom_index.num_tiles.sum() + coarse.num_tiles.sum()
    positions = np.linspace(0, plan.epoch_length - 1, 40).astype(np.int64)
    rows = WindowReader(joined, plan, {}).read(positions)
    is_coarse = rows["slide"] >= len(phantom_index)
    assert 5 <= is_coarse.sum() < 40
    for image, slide, tile in zip(rows["image"], rows["slide"].tolist(), rows["tile"].tolist()):
        x_l0, y_l0 = joined.corners(slide, np.array([tile]))
        mpp = 1.0 if slide >= len(phantom_index) else 0.5
        with Slide.open(joined.row(slide)["path"]) as opened:
            expected = opened.read(int(x_l0[0]), int(y_l0[0]), 64 * mpp / opened.mpp, 64)
        assert np.abs(image.astype(int) - expected).max() <= 1
    assert joined.mpp_range == (0.5, 1.0)


def test_scales_get_the_shares_that_were_asked_for(phantom_index, joined):
    settings = PlanSettings(balance_by="tile_mpp", weights={"1": 3})
    plan = make_plan(PretrainConfig(splits=("train", "val", "test"), plan=settings), joined)
    slides, _ = plan.samples(np.arange(plan.epoch_length))
    assert np.mean(slides >= len(phantom_index)) == pytest.approx(0.75, abs=0.01)


def test_a_slide_in_two_indexes_is_one_slide(phantom_index, joined):
    assert joined.slide_numbers.tolist() == [*range(len(phantom_index))] * 2


def test_a_task_opens_the_very_indexes_it_was_told(joined):
    assert open_index(joined.folder, joined.hash).hash == joined.hash
    there = ",".join(reversed(joined.folder.split(",")))
    with pytest.raises(BadInput, match="the index changed while it was in use"):
        open_index(there, joined.hash)  # another order is another numbering


def test_indexes_that_do_not_go_together_are_refused(phantom_index, phantom_folder, coarse, tmp_path):
    with pytest.raises(BadInput, match="the same index is named twice"):
        load_index(f"{coarse.folder},{coarse.folder}")

    shutil.copytree(coarse.folder, tmp_path / "larger")
    about = json.loads((tmp_path / "larger" / "index.json").read_text())
    about["spec"]["extent_px"] = 128
    (tmp_path / "larger" / "index.json").write_text(json.dumps(about))
    with pytest.raises(BadInput, match=r"one extent in pixels; .*: 64 px, .*larger: 128 px"):
        load_index(f"{phantom_index.folder},{tmp_path / 'larger'}")

    shutil.copytree(coarse.folder, tmp_path / "other")
    table = pq.read_table(tmp_path / "other" / "index.parquet")
    column = table.schema.get_field_index("sha256")
    pq.write_table(
        table.set_column(column, "sha256", pa.array(["0" * 64] * len(table))), tmp_path / "other/index.parquet"
    )
    with pytest.raises(BadInput, match=r"slide 'phantom-0001': sha256 is .* in .* and 0+ in .*other"):
        load_index(f"{phantom_index.folder},{tmp_path / 'other'}")

    without_splits = tmp_path / "manifest.csv"
    rows = [replace(row, split=None) for row in read_manifest(phantom_folder / "manifest.csv")]
    write_manifest(rows, without_splits)
    loose = make_index(without_splits, COARSE, tmp_path / "loose")
    with pytest.raises(BadInput, match=r"split is \w+ in .* and None in .*loose"):  # test slides would be trained on
        load_index(f"{phantom_index.folder},{loose.folder}")

    with pytest.raises(BadInput, match="index: which one"):
        load_index(" , ")
