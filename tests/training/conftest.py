"""One thread: the networks here are tiny, and threads that wait for each other on a busy machine are not."""

import pytest
import torch

from raypath.data.plan import PlanSettings
from raypath.data.stream import StreamSettings
from raypath.data.views import ViewSettings
from raypath.models import EncoderSettings
from raypath.objectives import SimCLRSettings
from raypath.training.loop import LoopSettings
from raypath.training.optim import OptimSettings
from raypath.training.settings import PretrainConfig, WorkerSettings

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def config(phantom_index) -> PretrainConfig:
    """A run of about two epochs of the six phantoms' train slides, a checkpoint every 8 steps."""
    return PretrainConfig(
        name="kill",
        index=str(phantom_index.folder),
        encoder=EncoderSettings(architecture="resnet10t", options={"channels": [8, 16, 32, 64]}, input_px=32),
        objective=SimCLRSettings(hidden_width=32, out_width=16),
        views=ViewSettings(extent_px=32),
        plan=PlanSettings(chunk_tiles=8, num_shards=6, chunks_per_shard=1),
        loop=LoopSettings(num_steps=60, global_batch=24, checkpoint_every=8),
        optim=OptimSettings(lr=1e-3, warmup_steps=4),
        stream=StreamSettings(segment_windows=4, read_cpus=0.5),
        workers=WorkerSettings(num_workers=2, cpus_per_worker=0.5, keep_checkpoints=10),
    )
