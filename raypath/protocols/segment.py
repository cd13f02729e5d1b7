"""Segmentation: encoder and decoder trained on crops of images with masks, scored on whole images.

One decision: it counts updates and not epochs, as the first paper does, because an epoch of crops has no natural length. What
an update sees is a function of its number; the weights that come back are those of the best look at val (the paper takes the last:
`keep`). The loss is the cross-entropy of every pixel, classes unweighted (RECIPES 1.4). Several ranks share an update and a look at
val (see `ranks`).

Costs for EfficientNet-Lite0 on one core, for each crop of 256 px of an update: 0.13 s with fcn, 0.21 s with unet.
"""

import math
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from torch import nn

from raypath.benchmarks.metrics.pixels import PixelPredictions, score_pixels
from raypath.data.crops import Crops
from raypath.data.views import ViewSettings
from raypath.errors import BadInput, Diverged
from raypath.models.decoders import Decoder
from raypath.models.encoder import Encoder
from raypath.models.segmentation import Segmenter
from raypath.objectives.gather import num_ranks
from raypath.protocols.looks import Look, Report, report_nothing
from raypath.protocols.masked_samples import MaskedSamples
from raypath.protocols.ranks import check_batch, joined, own_share, replicated, seed_drop_out
from raypath.protocols.whole_images import probability_map
from raypath.training.loop import mean_over_ranks
from raypath.training.optim import OptimSettings, build_optimizer, lr_at, set_lr

_LEAST_PROBABILITY = 1e-12


@dataclass(frozen=True, kw_only=True)
class SegmentSettings:
    """How an encoder learns to segment; what the first paper says (RECIPES 1.4) is the default, but for `keep`."""

    kind: Literal["segment"] = "segment"
    head: Decoder = "fcn"
    crop_px: int = 256
    """Extent of a crop in px of the images as they are fed (first paper: 512)."""
    num_steps: int = 1_000
    batch: int = 16
    """Crops in an update (first paper: 128 per GPU)."""
    lr: float = 1e-4
    head_lr_scale: float = 1.0
    """Learning rate of the decoder relative to the encoder's."""
    weight_decay: float = 0.0
    warmup_share: float = 0.1
    """Share of the updates spent on linear warm-up; a cosine follows."""
    clip_norm: float = 1.0
    """Largest norm of the gradient; 0: not clipped."""
    dropout: float = 0.1
    """Before the last convolution (torchvision's FCNHead)."""
    is_frozen: bool = False
    """Whether the encoder stays as it is, its batch norm included."""
    jitter: float = 0.4
    """Strength of brightness, contrast and saturation jitter; hue gets a quarter of it."""
    blur_p: float = 0.0
    """Chance of a blur (first paper: 0.5)."""
    has_turns: bool = True
    """Crops are turned by 90 degrees as well as flipped (first paper: flipped only)."""
    validate_every: int = 200
    keep: Literal["best", "last"] = "best"
    """Which weights come back: those of the best look at val, or the last ones (first paper)."""
    overlap: float = 0.25
    """Least share of a window that its neighbour covers too, where whole images are predicted."""

    def __post_init__(self):
        for name, least in (("crop_px", 32), ("num_steps", 1), ("batch", 2), ("validate_every", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name}={getattr(self, name)}: expected {least} or more")
        for name in ("lr", "head_lr_scale"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}={getattr(self, name)}: expected more than 0")
        for name in ("weight_decay", "clip_norm"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name}={getattr(self, name)}: expected 0 or more")
        for name in ("jitter", "blur_p", "warmup_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}={getattr(self, name)}: expected 0 to 1")
        for name in ("dropout", "overlap"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: expected 0 or more and less than 1")

    @property
    def num_looks(self) -> int:
        """How often val is looked at."""
        return math.ceil(self.num_steps / self.validate_every)

    def place_of(self, look: int) -> str:
        """Where in the training a look at val was, for people."""
        return f"update {min(look * self.validate_every, self.num_steps):,} of {self.num_steps:,}"


@dataclass(eq=False)
class Segmented:
    """The model with the weights that were kept, and the look at val they are of."""

    model: Segmenter
    settings: SegmentSettings
    look: int
    val: PixelPredictions
    val_loss: float
    history: list[dict[str, float]] = field(default_factory=list)

    def predict(self, samples: MaskedSamples, device: torch.device) -> PixelPredictions:
        """How often each class was called each class, in whole images."""
        return predicted_masks(self.model, samples, self.settings, device)

    def classes_of(self, image: np.ndarray, device: torch.device) -> np.ndarray:
        """The class of each pixel, int64 [H, W], of an image uint8 [H, W, 3]."""
        return _probability(self.model, image, self.settings, device).argmax(0)


def segment(
    encoder: Encoder,
    train: MaskedSamples,
    val: MaskedSamples,
    settings: SegmentSettings,
    *,
    metric: str,
    seed: int,
    device: torch.device,
    report: Report = report_nothing,
) -> Segmented:
    """Train for `settings.num_steps` updates; of the looks at val keep the one with the best `metric` (least loss among equals).

    `report` is called after every look; it may end the training by raising. On several ranks all call this, and all get the same.
    Raises BadInput for an encoder without maps and for images smaller than a crop, Diverged for a loss that is not finite.
    """
    torch.manual_seed(seed)
    check_batch(settings.batch)
    model = segmenter_of(encoder, len(train.classes), settings).to(device)
    trained = replicated(model, device)
    crops = Crops(train.masked, settings.crop_px, seed=seed, colours=_colours(settings), has_turns=settings.has_turns)
    optimizer = _optimizer(model, settings)
    seed_drop_out(seed)
    kept: Segmented | None = None
    best_rank: tuple[float, float] | None = None
    history = []
    for number in range(settings.num_looks):
        steps = range(number * settings.validate_every, min((number + 1) * settings.validate_every, settings.num_steps))
        losses = [_update(trained, optimizer, crops, step, settings, device) for step in steps]
        predictions, loss = look(model, val, settings, device)
        value = score_pixels(predictions)[metric]
        metrics = {"train_loss": float(np.mean(losses)), "val_loss": loss, f"val_{metric}": value}
        history.append(metrics)
        is_best = best_rank is None or (value, -loss) > best_rank
        best_rank = (value, -loss) if is_best else best_rank
        if is_best or settings.keep == "last":
            weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
            kept = Segmented(model, settings, number + 1, predictions, loss)
        report(Look(number + 1, metrics, model, predictions, is_best))
    model.load_state_dict(weights)
    kept.history = history
    return kept


def predicted_masks(
    model: Segmenter, samples: MaskedSamples, settings: SegmentSettings, device: torch.device
) -> PixelPredictions:
    """How often each class is called each class, in whole images."""
    return samples.predictions(lambda image: _probability(model, image, settings, device))


def look(
    model: Segmenter, samples: MaskedSamples, settings: SegmentSettings, device: torch.device
) -> tuple[PixelPredictions, float]:
    """Predictions on whole images, and the mean cross-entropy of their pixels as they are fed, which is what is learnt.

    Each rank is asked for its share of the images.
    """
    own_samples = samples.take(own_share(np.arange(len(samples))))
    masks = iter(own_samples.masked)
    losses, num_px = 0.0, 0

    def probability_of(image: np.ndarray) -> np.ndarray:
        nonlocal losses, num_px
        probability, (_, mask) = _probability(model, image, settings, device), next(masks)
        own = np.take_along_axis(probability, mask[None].astype(np.int64), axis=0)
        losses -= float(np.log(np.maximum(own, _LEAST_PROBABILITY)).sum(dtype=np.float64))
        num_px += mask.size
        return probability

    said = own_samples.predictions(probability_of) if len(own_samples) else None
    sums = mean_over_ranks({"loss": losses, "num_px": num_px}, device)
    return joined(said, samples.names), sums["loss"] / sums["num_px"]


def segmenter_of(encoder: Encoder, num_classes: int, settings: SegmentSettings) -> Segmenter:
    """The model before it has learnt anything; raises BadInput for an encoder without maps, or without those the head needs."""
    if not isinstance(encoder, Encoder):
        raise BadInput(
            f"protocol.kind=segment needs an encoder with maps, {type(encoder).__name__} has none: the colour baseline of a"
            " segmentation is protocol.kind=pixel_colour"
        )
    try:
        return Segmenter(
            encoder, num_classes, decoder=settings.head, dropout=settings.dropout, is_frozen=settings.is_frozen
        )
    except TypeError as error:
        raise BadInput(f"protocol.head={settings.head}: {error}") from None


def _colours(settings: SegmentSettings) -> ViewSettings | None:
    if not (settings.jitter or settings.blur_p):
        return None
    jitter = dict.fromkeys(("brightness", "contrast", "saturation"), settings.jitter)
    hue = settings.jitter / 4
    return ViewSettings(extent_px=settings.crop_px, num_views=1, **jitter, hue=hue, gray_p=0.0, blur_p=settings.blur_p)


def _optimizer(model: Segmenter, settings: SegmentSettings) -> torch.optim.Optimizer:
    groups = [{"params": list(model.decoder.parameters()), "lr_scale": settings.head_lr_scale}]
    if not settings.is_frozen:
        groups.append({"params": list(model.encoder.parameters())})
    return build_optimizer(model, groups, OptimSettings(lr=settings.lr, weight_decay=settings.weight_decay))


def _update(model: nn.Module, optimizer, crops: Crops, step: int, settings: SegmentSettings, device) -> float:
    """One update; returns its loss over all ranks."""
    schedule = OptimSettings(lr=settings.lr, warmup_steps=int(settings.warmup_share * settings.num_steps))
    set_lr(optimizer, lr_at(step, settings.num_steps, settings.lr, schedule))
    images, masks = crops.at(own_share(np.arange(step * settings.batch, (step + 1) * settings.batch)))
    model.train()
    logits = model(torch.from_numpy(images).to(device))
    own = nn.functional.cross_entropy(logits.float(), torch.from_numpy(masks).to(device).long())
    loss = own * (len(images) * num_ranks() / settings.batch)
    of_all = mean_over_ranks({"loss": loss.item()}, device)["loss"]
    if not math.isfinite(of_all):
        raise Diverged(f"update {step + 1}: the loss is {of_all}: lower protocol.lr={settings.lr:g}")
    loss.backward()
    if settings.clip_norm:
        nn.utils.clip_grad_norm_(model.parameters(), settings.clip_norm)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return of_all


def _probability(model: Segmenter, image: np.ndarray, settings: SegmentSettings, device) -> np.ndarray:
    return probability_map(
        model, image, extent_px=settings.crop_px, overlap=settings.overlap, batch=settings.batch, device=device
    )
