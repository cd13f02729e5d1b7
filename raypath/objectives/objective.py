"""What an objective is, for those who write one and for the loop that runs it.

One decision: an objective is an ordinary module whose forward gives a loss, with three moments around it. Everything that
changes with time is a function of `progress` (0 at the first step, below 1 at the last), told before the forward pass, so that
nothing has to be remembered for a resumed run but weights and buffers.
"""

from dataclasses import dataclass
from typing import Any, Literal, Protocol

from torch import Tensor

from raypath.models import Encoder


@dataclass(frozen=True, kw_only=True)
class Needs:
    """What an objective's settings ask of batches and of the encoder."""

    num_views: int = 1
    """`views` uint8 [B, num_views, H, W, 3]."""
    num_local_views: int = 0
    """`local_views` uint8 [B, num_local_views, h, w, 3], smaller ones."""
    has_labels: bool = False
    """`label` int64 [B]."""
    allows_unlabelled: bool = False
    """Some rows may have no label (-1)."""
    has_tasks: bool = False
    """`task` int64 [B]: which of several label sets `label` belongs to."""
    is_vit_only: bool = False
    """The encoder must have `tokens`."""
    has_fixed_positions: bool = False
    """A ViT that starts from random weights has sine-cosine position embeddings, which are not trained."""
    accumulation: Literal["mean", "cached", "refused"] = "mean"
    """How a batch may be cut into micro-batches: the loss is a mean over samples; it couples samples, and is computed on cached
    embeddings (`embed` and `loss_of`); or it cannot be cut."""


class Objective(Protocol):
    """Modules and a loss that pretrain `encoder`; wrapped whole in DDP.

    Beside what `Needs` says, a batch holds `position` int64 [B] (where the row stands in the plan: random numbers that must not
    depend on the number of ranks are keyed by it), `slide` int64 [B], and for tiles
    `place` float32 [B, 3], centre x, centre y and extent in level-0 px. Rows of rank r of W have the positions p with p mod W = r.
    """

    encoder: Encoder
    """What transfers: the module that a checkpoint's encoder.safetensors holds."""
    exported_copy: str
    """Which one that is: "encoder" (there is only one), "online", "query" or "momentum"."""

    def start_step(self, progress: float) -> None:
        """Before the forward pass: set what follows a schedule, forget what an earlier step left."""

    def __call__(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """`loss` (a scalar with gradient) and detached scalars for the log, the same names in every step."""

    def param_groups(self, settings: Any) -> list[dict]:
        """The parameters to train, each once, in groups with an optional `lr_scale`."""

    def before_step(self, progress: float) -> None:
        """After the gradients are averaged over ranks, before clipping: scale or drop gradients."""

    def after_step(self, progress: float) -> None:
        """After the optimiser's step: momentum copy, queue, centre. Not called for a step that was not applied."""
