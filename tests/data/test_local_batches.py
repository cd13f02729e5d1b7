"""Batches made in this process are those that the stream's tasks would make."""

from itertools import islice

import numpy as np
import pytest
from ray.data.block import BlockAccessor

from raypath.data import view_sheet as view_sheets
from raypath.data.local_batches import local_batches
from raypath.data.plan import Plan, PlanSettings
from raypath.data.reading import WindowReader
from raypath.data.stream import StreamSettings, StreamSpec, _block_rows, read_blocks
from raypath.data.view_sheet import CAPTION_PX, TITLE_PX, block, stack, view_sheet
from raypath.data.views import Views, ViewSettings

VIEWS, BATCH, START = ViewSettings(extent_px=32, stain=0.1, num_local_views=3, local_px=16), 16, 16


@pytest.mark.ray
def test_local_batches_hold_the_bytes_of_the_stream(phantom_index):
    plan = Plan(phantom_index.num_tiles, PlanSettings(chunk_tiles=4, num_shards=6, chunks_per_shard=2), seed=3)
    spec = StreamSpec(
        index_folders=str(phantom_index.folder),
        index_hash=phantom_index.hash,
        plan=plan,
        views=VIEWS,
        stream=StreamSettings(),
        seed=5,
        world_size=1,
        start=START,
        stop=START + 2 * BATCH,
    )
    blocks = [BlockAccessor.for_block(b).to_numpy() for b in read_blocks(spec, 0, START, START + 2 * BATCH)]
    batches = list(islice(local_batches(phantom_index, plan, VIEWS, seed=5, batch=BATCH, start=START), 2))
    assert all(len(b["position"]) == BATCH for b in batches)
    for name in ("position", "slide", "tile", "fault", "views", "local_views"):
        streamed = np.concatenate([np.stack(list(block[name])) for block in blocks])
        local = np.concatenate([b[name].numpy() for b in batches])
        assert np.array_equal(streamed, local), name


def test_a_block_counts_the_bytes_of_local_views_too():
    """64 MiB at most: 2 views of 224 px and 8 of 96 px are 522,240 bytes a row; whole tiles of 64 px fill 512 rows."""
    multi_crop = ViewSettings(num_local_views=8)
    assert _block_rows(ViewSettings(), 256) == 2**26 // (2 * 3 * 224**2)
    assert _block_rows(multi_crop, 256) == 2**26 // 522_240
    assert _block_rows(ViewSettings(num_local_views=8, where="gpu"), 64) == 512


@pytest.mark.ray
def test_the_sheet_shows_tiles_then_views_then_local_views(phantom_index):
    plan = Plan(phantom_index.num_tiles, PlanSettings(chunk_tiles=4, num_shards=6, chunks_per_shard=2), seed=3)
    settings = ViewSettings(extent_px=128, num_local_views=3, local_px=62)  # two and a gap are as wide as a view
    sheet = np.asarray(view_sheet(WindowReader(phantom_index, plan, {}), settings, seed=1, num_tiles=3, num_draws=2))
    pictures = sheet[TITLE_PX:, CAPTION_PX:]
    assert pictures.shape == (4 + 5 * 132 + 16 + 2 * 132, 4 + 3 * 132, 3)
    first = np.array([0])
    views = Views(settings, seed=1)
    tile = reading(phantom_index, plan, first)
    assert (pictures[4:132, 4:132] == tile[0].repeat(2, 0).repeat(2, 1)).all()
    assert (pictures[136:264, 4:132] == views(tile, first)[0, 0]).all()
    local, top = views.local(tile, first)[0], 4 + 5 * 132 + 16
    assert (pictures[top : top + 62, 4:66] == local[0]).all()
    assert (pictures[top : top + 62, 70:132] == local[1]).all()
    assert (pictures[top + 66 : top + 128, 4:66] == local[2]).all()
    assert (pictures[top + 66 : top + 128, 70:132] == 255).all()


@pytest.mark.ray
def test_every_row_of_the_sheet_says_what_it_is(phantom_index, monkeypatch):
    plan = Plan(phantom_index.num_tiles, PlanSettings(chunk_tiles=4, num_shards=6, chunks_per_shard=2), seed=3)
    said = []
    monkeypatch.setattr(
        view_sheets,
        "stack",
        lambda title, about, *groups: said.extend([title, about, *[[c for c, _ in g] for g in groups]]),
    )
    view_sheet(WindowReader(phantom_index, plan, {}), VIEWS, seed=1, num_tiles=2, num_draws=2)
    title, about, large, local = said
    assert "trained on" in title
    assert about == "a column is a tile of 64 px, a draw its views of 32 px in one epoch; local views have 16 px"
    assert large == ["tile", "view 1\ndraw 1", "view 2\ndraw 1", "view 1\ndraw 2", "view 2\ndraw 2"]
    assert local == ["local\ndraw 1", "local\ndraw 2"]


def test_pictures_of_a_sheet_keep_their_shape_beside_their_captions():
    wide, high = np.zeros((2, 50, 100, 3), np.uint8), block(np.zeros((2, 6, 40, 40, 3), np.uint8), 2)
    assert high.shape == (2, 128, 84, 3)
    width = CAPTION_PX + 2 * 104 + 4
    assert stack("", "", [("wide", wide)], [("high", high)]).size == (width, TITLE_PX + 4 + 54 + 16 + 156)
    sheet = np.asarray(stack("", "", [("first\nbelow", wide), ("", wide)]))
    assert sheet.shape[:2] == (TITLE_PX + 4 + 2 * 54, width)
    captions = sheet[:, :CAPTION_PX].min(axis=(1, 2)) < 128
    assert captions[TITLE_PX : TITLE_PX + 54].any()
    assert not captions[TITLE_PX + 58 :].any()  # the second row has none
    assert not captions[:TITLE_PX].any()


def reading(index, plan, positions):
    return WindowReader(index, plan, {}).read(positions)["image"]
