"""How well the heads of a supervised or multi-task training do on the val rows of its pool, task by task, while it trains.

One decision: it is a look, not a choice: nothing is selected by it. Images are read once, centre squares of at most `MAX_IMAGES` of
a task, evenly over its rows, so that a look costs one forward pass over a few thousand images on one rank.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from raypath.data.image_files import read_image
from raypath.data.pool import load_pool
from raypath.training.health import evaluating
from raypath.training.settings import PretrainConfig

MAX_IMAGES = 512
_BATCH = 128


@dataclass(frozen=True, eq=False)
class PoolValidation:
    """The val images of every task: `names` [T], `images` uint8 [n, H, H, 3] and `labels` int64 [n] of each."""

    names: tuple[str, ...]
    images: tuple[np.ndarray, ...]
    labels: tuple[np.ndarray, ...]

    @classmethod
    def open(cls, config: PretrainConfig) -> "PoolValidation":
        """Read the val rows of the config's pool at the extent of the views. Raises BadInput for a task without val rows."""
        tasks = load_pool(config.pool, ("val",)).tasks
        chosen = [np.unique(np.linspace(0, len(t.paths) - 1, MAX_IMAGES).astype(np.int64)) for t in tasks]
        extent_px = config.views.extent_px
        images = tuple(
            np.stack([read_image(task.paths[row], extent_px) for row in rows.tolist()])
            for task, rows in zip(tasks, chosen)
        )
        return cls(tuple(t.name for t in tasks), images, tuple(t.labels[rows] for t, rows in zip(tasks, chosen)))

    @torch.no_grad()
    def __call__(self, objective: nn.Module, device: torch.device) -> dict[str, float]:
        """`val/TASK` accuracy of every task, and their mean `val/mean`; the objective is left as it was."""
        with evaluating(objective):
            found = {f"val/{name}": self._accuracy(objective, task, device) for task, name in enumerate(self.names)}
        return found | {"val/mean": sum(found.values()) / len(found)}

    def _accuracy(self, objective: nn.Module, task: int, device: torch.device) -> float:
        images, labels = self.images[task], torch.from_numpy(self.labels[task])
        starts = range(0, len(images), _BATCH)
        batches = (torch.from_numpy(images[start : start + _BATCH]).to(device) for start in starts)
        predicted = torch.cat([objective.logits(batch, task).argmax(1).cpu() for batch in batches])
        return (predicted == labels).float().mean().item()
