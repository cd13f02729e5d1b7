"""Fine-tuning: encoder and a linear head trained on a few labelled samples, the best look at val chosen.

One decision: it is a plain function of its samples, settings and seed; the order of samples is the plan's and the augmentation
that of pretraining, keyed by position, so a trial can be repeated, on any number of ranks (see `ranks`). Nothing here can see the
test: it is handed train and val.

Costs: 20 epochs of 60 tiles of 64 px on one core take 3 s with a small ResNet.
"""

import math
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import torch
from torch import nn

from raypath.benchmarks import Predictions, score
from raypath.data.plan import Plan, PlanSettings
from raypath.data.views import Views, ViewSettings
from raypath.errors import Diverged
from raypath.models import LinearHead
from raypath.objectives.gather import num_ranks
from raypath.protocols.looks import Look, Report, report_nothing
from raypath.protocols.ranks import check_batch, joined, own_share, replicated, seed_drop_out
from raypath.protocols.samples import Samples
from raypath.training.loop import mean_over_ranks
from raypath.training.optim import OptimSettings, build_optimizer, lr_at, set_lr

_EVALUATION_BATCH = 128


@dataclass(frozen=True, kw_only=True)
class FinetuneSettings:
    """How an encoder is fine-tuned."""

    kind: Literal["finetune"] = "finetune"
    epochs: int = 20
    num_steps: int = 0
    """Updates instead of epochs (first paper: 1,000); 0: `epochs` counts."""
    validate_every: int = 200
    """Updates between two looks at val, with `num_steps`; else one after every epoch."""
    keep: Literal["best", "last"] = "best"
    """Which weights come back: those of the best look at val, or the last ones (first paper)."""
    batch: int = 32
    optimizer: Literal["adamw", "sgd"] = "adamw"
    lr: float = 1e-3
    head_lr_scale: float = 1.0
    """Learning rate of the head relative to the encoder's."""
    layer_decay: float = 1.0
    """Factor on the learning rate of a layer for each layer above it."""
    weight_decay: float = 1e-4
    dropout: float = 0.0
    warmup_share: float = 0.1
    """Share of the steps spent on linear warm-up."""
    has_cosine: bool = True
    """Half a cosine after the warm-up; without it the rate stays."""
    clip_norm: float = 0.0
    """Largest norm of the gradient; 0: not clipped."""
    min_scale: float = 0.5
    """Least share of the area that the random crop keeps; 1 with jitter 0: only flips."""
    jitter: float = 0.2
    """Strength of brightness, contrast and saturation jitter; hue gets a quarter of it."""
    blur_p: float = 0.0
    """Chance of a blur."""

    def __post_init__(self):
        for name in ("epochs", "batch", "validate_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: expected 1 or more")
        for name in ("lr", "head_lr_scale"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}={getattr(self, name)}: expected more than 0")
        for name in ("weight_decay", "jitter", "num_steps", "clip_norm"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name}={getattr(self, name)}: expected 0 or more")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout={self.dropout}: expected 0 or more and less than 1")
        for name in ("min_scale", "layer_decay"):
            if not 0 < getattr(self, name) <= 1:
                raise ValueError(f"{name}={getattr(self, name)}: expected more than 0 and at most 1")
        for name in ("warmup_share", "blur_p"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}={getattr(self, name)}: expected 0 to 1")

    @property
    def num_looks(self) -> int:
        """How often val is looked at."""
        return math.ceil(self.num_steps / self.validate_every) if self.num_steps else self.epochs

    def place_of(self, look: int) -> str:
        """Where in the training a look at val was, for people."""
        if not self.num_steps:
            return f"epoch {look} of {self.epochs}"
        return f"update {min(look * self.validate_every, self.num_steps):,} of {self.num_steps:,}"

    @property
    def optim(self) -> OptimSettings:
        """The course of the learning rate and the optimiser."""
        return OptimSettings(
            name=self.optimizer,
            lr=self.lr,
            weight_decay=self.weight_decay,
            layer_decay=self.layer_decay,
            has_cosine=self.has_cosine,
            clip_norm=self.clip_norm,
        )


class Classifier(nn.Module):
    """Encoder and linear head; uint8 tiles [B, H, W, 3] -> logits [B, K]."""

    def __init__(self, encoder: nn.Module, num_classes: int, dropout: float):
        super().__init__()
        self.encoder = encoder
        self.head = LinearHead(encoder.width, num_classes, dropout)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits [B, K]."""
        return self.head(self.encoder(images))


@dataclass(eq=False)
class Finetuned:
    """The classifier with the weights that were kept, and the look at val they are of."""

    classifier: Classifier
    look: int
    val: Predictions
    val_loss: float
    history: list[dict[str, float]] = field(default_factory=list)

    def predict(self, samples: Samples, device: torch.device) -> Predictions:
        """Class probabilities of samples."""
        return samples.predictions(probability_of(self.classifier, samples.images, device))


def finetune(
    encoder: nn.Module,
    train: Samples,
    val: Samples,
    settings: FinetuneSettings,
    *,
    metric: str,
    seed: int,
    device: torch.device,
    report: Report = report_nothing,
) -> Finetuned:
    """Train all weights; of the looks at val keep the one with the best `metric` (least loss among equals), or the last.

    `report` is called after every look (an epoch, or `validate_every` updates); it may end the training by raising. On several
    ranks all call this, and all get the same. Raises Diverged for a loss that is not finite.
    """
    torch.manual_seed(seed)
    classifier = Classifier(encoder, len(train.classes), settings.dropout).to(device)
    model = replicated(classifier, device)
    optimizer = _optimizer(classifier, settings)
    seed_drop_out(seed)
    batches = _Batches(train, settings, seed)
    num_steps = settings.num_steps or settings.epochs * batches.steps_per_epoch
    per_look = settings.validate_every if settings.num_steps else batches.steps_per_epoch
    kept: Finetuned | None = None
    best_rank: tuple[float, float] | None = None
    history = []
    for look in range(settings.num_looks):
        steps = range(look * per_look, min((look + 1) * per_look, num_steps))
        loss = float(np.mean([_update(model, optimizer, batches, s, num_steps, settings, device) for s in steps]))
        predictions = _look(classifier, val, device)
        metrics = {"train_loss": loss, "val_loss": _log_loss(predictions), f"val_{metric}": score(predictions)[metric]}
        history.append(metrics)
        rank = (metrics[f"val_{metric}"], -metrics["val_loss"])
        is_best = best_rank is None or rank > best_rank
        best_rank = rank if is_best else best_rank
        if is_best or settings.keep == "last":
            weights = {name: tensor.clone() for name, tensor in classifier.state_dict().items()}
            kept = Finetuned(classifier, look + 1, predictions, metrics["val_loss"])
        report(Look(look + 1, metrics, classifier, predictions, is_best))
    classifier.load_state_dict(weights)
    kept.history = history
    return kept


class _Batches:
    """Augmented batches of an epoch; sample order and views are functions of the position."""

    def __init__(self, samples: Samples, settings: FinetuneSettings, seed: int):
        self.samples, self.batch = samples, min(settings.batch, len(samples))
        check_batch(self.batch)
        one_by_one = PlanSettings(chunk_tiles=1, num_shards=1, chunks_per_shard=1)
        self.plan = Plan([len(samples)], one_by_one, seed=seed)
        self.steps_per_epoch = len(samples) // self.batch
        jitter = dict.fromkeys(("brightness", "contrast", "saturation"), settings.jitter)
        self.views = Views(
            ViewSettings(
                extent_px=samples.images.shape[1],
                num_views=1,
                min_scale=settings.min_scale,
                **jitter,
                hue=settings.jitter / 4,
                gray_p=0.0,
                blur_p=settings.blur_p,
            ),
            seed,
        )

    def at(self, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        """For one rank, (images uint8 [B, H, W, 3], labels int64 [B]) of an update; positions go on where the one before ended."""
        positions = own_share(np.arange(step * self.batch, (step + 1) * self.batch))
        _, rows = self.plan.samples(positions)
        images = torch.from_numpy(self.views(self.samples.images[rows], positions)[:, 0])
        return images, torch.from_numpy(self.samples.labels[rows])


def _optimizer(classifier: Classifier, settings: FinetuneSettings) -> torch.optim.Optimizer:
    groups = [
        {"params": list(classifier.encoder.parameters())},
        {"params": list(classifier.head.parameters()), "lr_scale": settings.head_lr_scale},
    ]
    return build_optimizer(classifier, groups, settings.optim)


def _update(model, optimizer, batches: _Batches, step: int, num_steps: int, settings, device) -> float:
    """One update; returns its loss over all ranks."""
    schedule = replace(settings.optim, warmup_steps=int(settings.warmup_share * num_steps))
    set_lr(optimizer, lr_at(step, num_steps, settings.lr, schedule))
    images, labels = batches.at(step)
    model.train()
    own = nn.functional.cross_entropy(model(images.to(device)), labels.to(device))
    loss = own * (len(images) * num_ranks() / batches.batch)
    of_all = mean_over_ranks({"loss": loss.item()}, device)["loss"]
    if not math.isfinite(of_all):
        raise Diverged(f"update {step + 1}: the loss is {of_all}: lower protocol.lr={settings.lr:g}")
    loss.backward()
    if settings.clip_norm:
        nn.utils.clip_grad_norm_(model.parameters(), settings.clip_norm)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return of_all


def _look(classifier: Classifier, val: Samples, device: torch.device) -> Predictions:
    """What is said of val, each rank asked for its share."""
    own = val.take(own_share(np.arange(len(val)))) if num_ranks() > 1 else val
    said = own.predictions(probability_of(classifier, own.images, device)) if len(own) else None
    return joined(said, val.names)


@torch.no_grad()
def probability_of(classifier: Classifier, images: np.ndarray, device: torch.device) -> np.ndarray:
    """Class probabilities float32 [N, K] of uint8 tiles [N, H, W, 3], in evaluation mode."""
    classifier.eval().to(device)
    starts = range(0, len(images), _EVALUATION_BATCH)
    batches = (torch.from_numpy(np.array(images[s : s + _EVALUATION_BATCH])).to(device) for s in starts)
    return torch.cat([classifier(batch).float().softmax(1).cpu() for batch in batches]).numpy()


def _log_loss(predictions: Predictions) -> float:
    own = predictions.probability[np.arange(len(predictions.label)), predictions.label]
    return float(-np.log(np.maximum(own, 1e-12)).mean())
