"""The demo: everything for real, small enough for two cores and a few minutes."""

from raypath.benchmarks import PhantomsSettings
from raypath.data.plan import PlanSettings
from raypath.data.stream import StreamSettings
from raypath.data.views import ViewSettings
from raypath.models import EncoderSettings
from raypath.objectives import SimCLRSettings
from raypath.protocols import FinetuneSettings
from raypath.protocols.transfer import SweepSettings, TransferConfig
from raypath.training.loop import LoopSettings
from raypath.training.optim import OptimSettings
from raypath.training.settings import PretrainConfig, WorkerSettings

SMALL_RESNET = EncoderSettings(
    architecture="resnet10t", options={"channels": [32, 64, 128, 256]}, input_px=64
)  # 1.3 M parameters


def demo() -> PretrainConfig:
    """SimCLR of a small ResNet on phantom slides: two and a half minutes on two cores (reproduces no paper)."""
    return PretrainConfig(
        name="demo",
        encoder=SMALL_RESNET,
        objective=SimCLRSettings(temperature=0.2, hidden_width=256, out_width=64),
        views=ViewSettings(extent_px=64, min_scale=0.7),
        plan=PlanSettings(chunk_tiles=16, chunks_per_shard=1),
        loop=LoopSettings(num_steps=300, global_batch=72, checkpoint_every=100),
        optim=OptimSettings(name="adamw", lr=4e-3, weight_decay=1e-4, warmup_steps=15),
        stream=StreamSettings(segment_windows=32, read_cpus=0.5),
        workers=WorkerSettings(num_workers=2, cpus_per_worker=0.5),
    )


def demo_transfer() -> TransferConfig:
    """Fine-tuning with 20 labels per class for 36 updates, 6 trials for each encoder; tested on 568 tiles of 13 unseen patients."""
    return TransferConfig(
        name="demo-sweep",
        benchmark=PhantomsSettings(extent_px=64, mpp=0.5, max_per_class_and_slide=10),
        protocol=FinetuneSettings(epochs=12, batch=20),
        per_class_train=20,
        evaluation="given",
        sweep=SweepSettings(
            search="optuna",
            num_trials=6,
            grace_looks=4,
            space={"protocol.lr": {"log": [3e-4, 1e-2]}, "protocol.head_lr_scale": [1.0, 10.0]},
        ),
    )
