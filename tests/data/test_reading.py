"""Reading windows from real slides: right pixels at the right position, and what happens to a tile that cannot be read."""

import errno
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from raypath.data.index import Index
from raypath.data.indexing import index_slide
from raypath.data.manifest import SlideRow
from raypath.data.plan import Plan, PlanSettings
from raypath.data.quarantine import TileQuarantine, load_known_faults
from raypath.data.reading import WindowReader
from raypath.errors import (
    TILE_FAULTS,
    BadInput,
    SlideChanged,
    SlideUnreadable,
    SlideUnsupported,
    TileCorrupt,
    TileMissing,
    TooManyQuarantined,
)
from raypath.slides import Slide, TileSpec
from tests.slides import forge

SPEC = TileSpec(extent_px=64, mpp=0.5, stride_px=64, min_tissue=0.0)
PLAN = PlanSettings(chunk_tiles=16, num_shards=2, chunks_per_shard=1)


def index_of(folder, *paths):
    """An index of slides, made without Ray."""
    from raypath.data import indexing

    parts = folder / "slides"
    parts.mkdir(parents=True)
    for path in paths:
        outcome = index_slide(SlideRow(slide=path.stem, path=str(path), patient=path.stem), SPEC, parts)
        assert outcome.reason is None, outcome.message
    indexing.join_parts(sorted(parts.glob("*.parquet")), SPEC, folder)
    return Index(folder)


@pytest.fixture
def slides(tmp_path):
    return [
        forge.write_svs(tmp_path / f"{name}.svs", forge.picture(1024, 1024, seed), num_levels=1)
        for seed, name in enumerate("ab")
    ]


def test_each_row_holds_the_pixels_of_its_tile(slides, tmp_path):
    index = index_of(tmp_path / "index", *slides)
    plan = Plan(index.num_tiles, PLAN, seed=0)
    positions = np.arange(40, 90)
    rows = WindowReader(index, plan, {}).read(positions)
    assert (rows["fault"] == 0).all()
    for image, slide, tile in zip(rows["image"], rows["slide"], rows["tile"]):
        (x,), (y,) = index.corners(int(slide), np.array([tile]))
        with Slide.open(index.row(int(slide))["path"]) as opened:
            assert np.array_equal(image, opened.read(int(x), int(y), 64, 64))


def test_a_corrupt_tile_costs_only_itself_and_is_replaced_by_a_function_of_its_position(slides, tmp_path):
    index = index_of(tmp_path / "index", *slides)
    rot(slides[0], 5)
    plan = Plan(index.num_tiles, PLAN, seed=0)
    reader = WindowReader(index, plan, {})
    positions = np.arange(plan.epoch_length)
    rows = reader.read(positions)
    bad = np.flatnonzero(rows["fault"])
    assert len(bad) == 1  # native tiles have 64 px here, like the tiles
    assert {TILE_FAULTS[f] for f in rows["fault"][bad]} == {TileCorrupt}
    assert set(rows["slide"][bad]) == {0}
    for row in bad:
        assert rows["image"][row].std() > 0  # real pixels of another tile, nothing invented
        found = reader.read(positions[[row]])  # whoever reads the position alone sees the same
        assert np.array_equal(found["image"][0], rows["image"][row])
        same = [
            np.array_equal(rows["image"][row], rows["image"][other]) for other in np.flatnonzero(rows["fault"] == 0)
        ]
        assert any(same)


def rot(path, number):
    """Bytes go bad while size and time stay, so that nothing but decoding can tell."""
    before = path.stat()
    forge.break_tile(path, number)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_a_recorded_fault_decides_although_the_tile_can_be_read_again(slides, tmp_path):
    index = index_of(tmp_path / "index", *slides)
    plan = Plan(index.num_tiles, PLAN, seed=0)
    positions = np.arange(32)
    plain = WindowReader(index, plan, {}).read(positions)
    known = WindowReader(index, plan, {7: TILE_FAULTS.index(TileMissing)}).read(positions)
    assert np.flatnonzero(known["fault"]).tolist() == [7]
    assert not np.array_equal(plain["image"][7], known["image"][7])
    assert np.array_equal(np.delete(plain["image"], 7, 0), np.delete(known["image"], 7, 0))


def test_a_slide_that_was_replaced_is_not_read_on_as_if_it_were_the_same(slides, tmp_path):
    index = index_of(tmp_path / "index", *slides)
    plan = Plan(index.num_tiles, PLAN, seed=0)
    forge.write_svs(slides[0], forge.picture(1024, 1024, seed=9), num_levels=1)
    rows = WindowReader(index, plan, {}).read(np.arange(plan.epoch_length))
    assert set(rows["slide"][rows["fault"] > 0]) == {0}
    assert (rows["fault"][rows["slide"] == 0] == TILE_FAULTS.index(SlideChanged)).all()


def test_a_slide_that_is_no_file_any_more_is_set_aside_and_the_others_go_on(slides, tmp_path):
    index = index_of(tmp_path / "index", *slides)
    plan = Plan(index.num_tiles, PLAN, seed=0)
    slides[0].unlink()
    slides[0].mkdir()
    rows = WindowReader(index, plan, {}).read(np.arange(plan.epoch_length))
    assert (rows["fault"][rows["slide"] == 0] == TILE_FAULTS.index(SlideUnsupported)).all()
    assert (rows["fault"][rows["slide"] != 0] == 0).all()


def test_a_file_system_that_fails_is_a_fault_of_the_tile(slides, tmp_path, monkeypatch):
    index = index_of(tmp_path / "index", *slides)
    plan = Plan(index.num_tiles, PLAN, seed=0)
    reader = WindowReader(index, plan, {})
    lend = reader.tiles.handles.lend

    def stale(path, *args, **kwargs):
        if Path(path) == slides[0]:
            raise OSError(errno.ESTALE, "Stale file handle")
        return lend(path, *args, **kwargs)

    monkeypatch.setattr(reader.tiles.handles, "lend", stale)
    rows = reader.read(np.arange(plan.epoch_length))
    assert (rows["fault"][rows["slide"] == 0] == TILE_FAULTS.index(SlideUnreadable)).all()
    assert (rows["fault"][rows["slide"] != 0] == 0).all()


def test_when_nothing_can_be_read_the_error_says_what_to_do(slides, tmp_path):
    index = index_of(tmp_path / "index", *slides)
    plan = Plan(index.num_tiles, PLAN, seed=0)
    for path in slides:
        path.unlink()
    with pytest.raises(BadInput, match="raypath index"):
        WindowReader(index, plan, {}).read(np.arange(4))


def test_the_quarantine_names_each_tile_once_and_is_read_back(slides, tmp_path):
    index = index_of(tmp_path / "index", *slides)
    path = tmp_path / "quarantine.jsonl"
    batch = {
        "position": torch.tensor([3, 5, 8]),
        "slide": torch.tensor([0, 1, 0]),
        "tile": torch.tensor([2, 4, 6]),
        "fault": torch.tensor([0, TILE_FAULTS.index(TileCorrupt), 0], dtype=torch.int8),
    }
    quarantine = TileQuarantine(path, index, max_share=0.01)
    quarantine.note(batch)
    quarantine.note(batch)
    TileQuarantine(path, index, max_share=0.01).note(batch)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(lines) == 1
    assert lines[0] | {"x_l0": 0, "y_l0": 0} == {
        "position": 5, "slide": "b", "tile": 4, "x_l0": 0, "y_l0": 0, "reason": "TileCorrupt",
    }  # fmt: skip
    assert load_known_faults(path) == {5: TILE_FAULTS.index(TileCorrupt)}


def test_too_many_unreadable_tiles_end_a_run(slides, tmp_path):
    index = index_of(tmp_path / "index", *slides)
    num = 1000
    batch = {
        "position": torch.arange(num),
        "slide": torch.zeros(num, dtype=torch.int64),
        "tile": torch.zeros(num, dtype=torch.int64),
        "fault": torch.tensor([1] * 11 + [0] * (num - 11), dtype=torch.int8),
    }
    with pytest.raises(TooManyQuarantined, match="11 of 1000 tiles") as caught:
        TileQuarantine(tmp_path / "q.jsonl", index, max_share=0.01).note(batch)
    assert caught.value.exit_code == 3
