"""Batches made in this process are those that the stream's tasks would make."""

from itertools import islice

import numpy as np
import pytest
from ray.data.block import BlockAccessor

from raypath.data.local_batches import local_batches
from raypath.data.plan import Plan, PlanSettings
from raypath.data.stream import StreamSettings, StreamSpec, read_blocks
from raypath.data.views import ViewSettings

VIEWS, BATCH, START = ViewSettings(extent_px=32), 16, 16


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
    for name in ("position", "slide", "tile", "fault", "views"):
        streamed = np.concatenate([np.stack(list(block[name])) for block in blocks])
        local = np.concatenate([b[name].numpy() for b in batches])
        assert np.array_equal(streamed, local), name
