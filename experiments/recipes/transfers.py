"""How encoders are scored: the two papers' protocols, and defaults that suit most sets.

    python experiments/finetune.py DIR kawai_finetune --encoder runs/ID
    python experiments/sweep.py DIR mormont_finetune --encoder runs/ID,random

One decision: a protocol is a complete config without an encoder and a benchmark; `key=value` changes it like any other.
"""

from raypath.protocols import FinetuneSettings, HeadSettings, KnnSettings, ProbeSettings, SvmSettings
from raypath.protocols.pixel_colour import PixelColourSettings
from raypath.protocols.segment import SegmentSettings
from raypath.protocols.transfer import SweepSettings, TransferConfig

# What is worth searching when an encoder is fine-tuned on a small set: rate, decay, layer-wise decay, drop-out, augmentation, batch
WIDE_SPACE = {
    "protocol.lr": {"log": [3e-5, 3e-3]},
    "protocol.weight_decay": {"log": [1e-5, 1e-1]},
    "protocol.layer_decay": [0.65, 0.75, 0.85, 1.0],
    "protocol.dropout": [0.0, 0.2, 0.4],
    "protocol.jitter": [0.0, 0.2, 0.4],
    "protocol.batch": [16, 32, 64],
}


def knn() -> TransferConfig:
    """Frozen, 20 nearest neighbours: nothing is fitted."""
    return TransferConfig(name="knn", protocol=KnnSettings())


def probe() -> TransferConfig:
    """Frozen, logistic regression on standardised features, its penalty chosen on val."""
    return TransferConfig(name="probe", protocol=ProbeSettings())


def svm() -> TransferConfig:
    """Frozen, a linear SVM, its penalty by cross-validation over patients."""
    return TransferConfig(name="svm", protocol=SvmSettings())


def head() -> TransferConfig:
    """A multi-task run's own head of the task (protocol.task=NAME; second paper: joint): nothing is fitted."""
    return TransferConfig(name="head", protocol=HeadSettings())


def pixel_colour() -> TransferConfig:
    """The colour baseline of a segmentation (encoder=colour): logistic regression on the colours about each pixel."""
    return TransferConfig(name="pixel_colour", protocol=PixelColourSettings())


def finetune() -> TransferConfig:
    """All weights, 20 epochs; as a sweep: rate and decay, 8 trials."""
    return TransferConfig(name="finetune", protocol=FinetuneSettings())


def finetune_wide() -> TransferConfig:
    """All weights, 50 epochs; as a sweep: rate, decay, layer-wise decay, drop-out, augmentation and batch, 40 trials."""
    sweep = SweepSettings(num_trials=40, space=WIDE_SPACE, grace_looks=8)
    return TransferConfig(name="finetune_wide", protocol=FinetuneSettings(epochs=50), sweep=sweep)


def segment() -> TransferConfig:
    """FCN head on the last map, 1,000 updates on crops of 256 px, the best look at val; as a sweep: rate and decay, 8 trials."""
    return TransferConfig(name="segment", protocol=SegmentSettings())


def kawai_finetune() -> TransferConfig:
    """Paper 1: 1,000 updates of AdamW at 1e-4, drop-out 0.4, the last weights (arXiv 2303.15693; PatchTCGA@ea39a9e5).

    The code's 128 images per GPU at a base batch of 512 make a rate of 1e-4 x batch / 512; with one GPU its whole-number division
    makes 0 of it, so the rate stands here as written. Its first epoch is warm-up, a tenth of the updates here.
    """
    protocol = FinetuneSettings(
        num_steps=1_000,
        validate_every=200,
        keep="last",
        batch=128,
        lr=1e-4,
        weight_decay=0.0,  # "set 0.0 for fine-tuning": the comment beside its 5e-5
        dropout=0.4,
        clip_norm=1.0,
        min_scale=0.8,
        jitter=0.4,
        blur_p=0.5,
    )
    return TransferConfig(name="kawai_finetune", protocol=protocol, scale="match_mpp")


def kawai_segment() -> TransferConfig:
    """Paper 1: FCN head on the last map, crops of 512 px, 1,000 updates of AdamW at 1e-4, the last weights."""
    protocol = SegmentSettings(
        head="fcn",
        crop_px=512,
        num_steps=1_000,
        lr=1e-4,
        dropout=0.1,  # torchvision's FCNHead
        blur_p=0.5,
        has_turns=False,
        keep="last",
    )
    return TransferConfig(name="kawai_segment", protocol=protocol)


def mormont_svm() -> TransferConfig:
    """Paper 2: frozen features, LIBLINEAR, C of 1e-10 to 1 by 5-fold cross-validation grouped by patient (arXiv 2005.02561)."""
    return TransferConfig(name="mormont_svm", protocol=SvmSettings(), batch_norm="adapt")


def mormont_finetune() -> TransferConfig:
    """Paper 2: 100 epochs, best epoch and rate (1e-3, 1e-4, 1e-5, 1e-6) on val: a grid, nothing is stopped early.

    Batch and optimiser are not stated in the paper; they are those of its multi-task training (64, SGD with momentum 0.9).
    """
    protocol = FinetuneSettings(
        epochs=100,
        batch=64,
        optimizer="sgd",
        weight_decay=0.0,
        warmup_share=0.0,
        has_cosine=False,
        min_scale=1.0,
        jitter=0.0,
    )
    grid = SweepSettings(search="grid", asha=False, space={"protocol.lr": [1e-3, 1e-4, 1e-5, 1e-6]})
    return TransferConfig(name="mormont_finetune", protocol=protocol, batch_norm="adapt", sweep=grid)


# name -> protocol
TRANSFERS = {
    "knn": knn,
    "probe": probe,
    "svm": svm,
    "head": head,
    "pixel_colour": pixel_colour,
    "finetune": finetune,
    "finetune_wide": finetune_wide,
    "segment": segment,
    "kawai_finetune": kawai_finetune,
    "kawai_segment": kawai_segment,
    "mormont_svm": mormont_svm,
    "mormont_finetune": mormont_finetune,
}
