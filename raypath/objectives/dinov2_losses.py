"""What DINOv2 adds to DINO's loss: masked patches, balanced targets, and features kept apart.

One decision: each is a function of tensors, checked against the original or a slow loop; weights and schedules are the objective's.

Shapes: B tiles per rank, P patches of a large view, M masked patches of a rank, N rows, D width of the encoder, K width of the
predictions. D2 is facebookresearch/dinov2@fc49f49d.
"""

import math

import torch
from torch import Tensor, nn

from raypath.objectives.gather import gather, gather_with_gradient, rank


def ibot_loss(predictions: Tensor, targets: Tensor, masks: Tensor, temperature: float) -> Tensor:
    """Cross-entropy of logits [M, K] with probabilities [M, K], both of the patches at `masks` bool [2B, P]; a scalar.

    Mean over a view's masked patches, then over all views; one without counts 0 (D2 loss/ibot_patch_loss.py, forward_masked).
    """
    losses = nn.functional.cross_entropy(predictions / temperature, targets, reduction="none")  # [M]
    weights = (1 / masks.sum(1, keepdim=True).clamp(min=1).to(losses.dtype)).expand_as(masks)[masks]  # [M]
    return (losses * weights).sum() / len(masks)


@torch.no_grad()
def sinkhorn(logits: Tensor, temperature: float, num_iterations: int = 3) -> Tensor:
    """Logits [N, K] -> probabilities [N, K] that use each of the K places about as often, over the N rows of all ranks.

    exp(logits / T), its columns and rows divided by their sums in turn (D2 loss/dino_clstoken_loss.py, sinkhorn_knopp_teacher, 3
    times; SwaV, arXiv 2006.09882). Here in logarithms, which do not overflow, and without the constants, which cancel.
    """
    logs = logits / temperature
    for _ in range(num_iterations):
        logs = logs - gather(logs.logsumexp(0, keepdim=True)).logsumexp(0)
        logs = logs - logs.logsumexp(1, keepdim=True)
    return logs.exp()


def koleo(features: Tensor, scope: str) -> Tensor:
    """Minus the log of the distance to the nearest other direction, mean over features [B, D] (arXiv 1806.03198); a scalar.

    As D2 loss/koleo_loss.py: features of length 1; 1e-8 is added to differences and to distances.
    """
    own, everything, cosines = _directions(features, scope)
    self_at = torch.arange(len(own), device=own.device) + (rank() * len(own) if scope == "global" else 0)
    nearest = cosines.detach().scatter(1, self_at[:, None], -2).argmax(1)
    distances = nn.functional.pairwise_distance(own, everything[nearest], eps=1e-8)
    return -(distances + 1e-8).log().mean()


def kde(features: Tensor, scope: str, concentration: float) -> Tensor:
    """The log of how dense directions are, mean over features [B, D]; a scalar.

    mean_i log mean_j exp(k x_i . x_j): negative entropy by a von Mises-Fisher kernel, without its constant (Wang and Isola 2020,
    arXiv 2005.10242, section 4.1). In Virchow2 (Zimmermann et al. 2024, arXiv 2408.00738) it replaces KoLeo, whose gradient has
    no bound where two tiles are nearly alike. NOTE: j = i counts, which keeps this one's bounded.
    """
    _, everything, cosines = _directions(features, scope)
    return (concentration * cosines).logsumexp(1).mean() - math.log(len(everything))


def _directions(features: Tensor, scope: str) -> tuple[Tensor, Tensor, Tensor]:
    """Features [B, D] at length 1, those of the scope [N, D], and their cosines [B, N]."""
    own = nn.functional.normalize(features, dim=1, eps=1e-8)
    everything = gather_with_gradient(own) if scope == "global" else own
    with torch.autocast(own.device.type, enabled=False):  # in bfloat16 many are nearest
        return own, everything, own @ everything.T
