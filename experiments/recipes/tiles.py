"""Pretraining on anybody's slides."""

from dataclasses import replace

from raypath.data.plan import PlanSettings
from raypath.data.views import ViewSettings
from raypath.models import EncoderSettings
from raypath.objectives import SimCLRSettings
from raypath.training.loop import LoopSettings
from raypath.training.optim import OptimSettings
from recipes.demo import demo


def simclr_tiles():
    """SimCLR of a ResNet-18 on the slides of index=DIR, sized for CPUs: a start for your own (reproduces no paper)."""
    return replace(
        demo(),
        name="simclr_tiles",
        encoder=EncoderSettings(architecture="resnet18", input_px=96),
        objective=SimCLRSettings(temperature=0.2, hidden_width=512, out_width=128),
        views=ViewSettings(extent_px=96),
        plan=PlanSettings(chunk_tiles=32, chunks_per_shard=2),
        loop=LoopSettings(num_steps=2_000, global_batch=96, checkpoint_every=200),
        optim=OptimSettings(name="adamw", lr=1e-3, weight_decay=1e-4, warmup_steps=100),
    )
