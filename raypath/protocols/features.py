"""Frozen features: an encoder run once over samples.

One decision: evaluation mode and full precision, in batches whose size changes nothing; what is computed depends on weights and
pixels alone.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from raypath.benchmarks import Predictions
from raypath.data.embedding import encode
from raypath.training.health import evaluating


@dataclass(frozen=True, eq=False)
class Features:
    """What an encoder says of N samples: `values` float32 [N, D], `labels` int64 [N], and who they are."""

    values: np.ndarray
    labels: np.ndarray
    names: tuple[str, ...]
    patients: tuple[str | None, ...]
    classes: tuple[str, ...]
    undivided: tuple[str, ...] = ()
    """What no cross-validation divides, one name per sample; empty: the patient, or the sample where there is none."""

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def groups(self) -> np.ndarray:
        """What belongs together; texts [N]."""
        return np.array(
            self.undivided or [patient or name for patient, name in zip(self.patients, self.names, strict=True)]
        )

    def part(self, start: int, end: int) -> "Features":
        """The samples from number `start` to before `end`."""
        rows = slice(start, end)
        return Features(
            self.values[rows],
            self.labels[rows],
            self.names[rows],
            self.patients[rows],
            self.classes,
            self.undivided[rows],
        )

    def joined(self, other: "Features") -> "Features":
        """These samples and those of `other`."""
        return Features(
            np.concatenate([self.values, other.values]),
            np.concatenate([self.labels, other.labels]),
            self.names + other.names,
            self.patients + other.patients,
            self.classes,
            self.undivided + other.undivided,
        )

    def predictions(self, probability: np.ndarray) -> Predictions:
        """What was said about each sample; `probability` [N, K]."""
        return Predictions(self.names, self.patients, self.labels, probability, self.classes)


def features_of(encoder: nn.Module, images: np.ndarray, device: torch.device) -> np.ndarray:
    """Features float32 [N, D] of uint8 tiles [N, H, W, 3]."""
    with evaluating(encoder.to(device)):
        return encode(encoder, images, device)
