"""The demo: everything for real, small enough for two cores and a few minutes."""

from raypath.data.plan import PlanSettings
from raypath.data.stream import StreamSettings
from raypath.data.views import ViewSettings
from raypath.models import EncoderSettings
from raypath.objectives import SimCLRSettings
from raypath.training.loop import LoopSettings
from raypath.training.optim import OptimSettings
from raypath.training.settings import PretrainConfig, WorkerSettings

SMALL_RESNET = EncoderSettings(
    architecture="resnet10t", options={"channels": [32, 64, 128, 256]}, input_px=64
)  # 1.3 M parameters


def demo() -> PretrainConfig:
    """SimCLR of a small ResNet on phantom slides: two minutes on two cores (reproduces no paper)."""
    return PretrainConfig(
        name="demo",
        encoder=SMALL_RESNET,
        objective=SimCLRSettings(temperature=0.2, hidden_width=256, out_width=64),
        views=ViewSettings(extent_px=64, min_scale=0.4),
        plan=PlanSettings(chunk_tiles=16, chunks_per_shard=1),
        loop=LoopSettings(num_steps=150, global_batch=96, checkpoint_every=50),
        optim=OptimSettings(name="adamw", lr=2e-3, weight_decay=1e-4, warmup_steps=15),
        stream=StreamSettings(segment_windows=32, read_cpus=0.5),
        workers=WorkerSettings(num_workers=2, cpus_per_worker=0.5),
    )
