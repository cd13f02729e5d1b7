"""Samples through an encoder, once each: what feature extraction is made of.

One decision: a module goes to a pool of actors once, and blocks of samples stream past it; nothing of the size of the set but its
features is ever held. On CPUs an actor reads and encodes its block; with GPUs, CPU tasks read ahead of one actor per GPU.

Costs the reading of the set and one forward pass; the first block waits for the actors to start (2-4 s).
"""

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import ray
import torch
from torch import nn

from raypath.data.images import Frame, blocks_of, in_any_order, read_block

_BATCH = 128
_CPUS_PER_READER = 1


def embed_rows(
    encoder: nn.Module,
    rows: pa.Table,
    frame: Frame,
    *,
    num_gpus: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> np.ndarray:
    """Features float32 [N, D] of the rows of a benchmark, in their order, by `encoder` (on CPU) in evaluation mode.

    `progress(done, total)` counts samples. Raises BadInput naming a sample that cannot be read.
    """
    features = None
    done = 0
    for block in in_any_order(_pipeline(encoder.eval(), rows, frame, num_gpus)):
        if features is None:
            features = np.empty((len(rows), block["features"].shape[1]), np.float32)
        features[block["row"]] = block["features"]
        done += len(block["row"])
        progress(done, len(rows))
    return features


def _pipeline(encoder: nn.Module, rows: pa.Table, frame: Frame, num_gpus: int) -> ray.data.Dataset:
    kwargs = {"fn_constructor_kwargs": {"module": ray.put(encoder)}, "batch_size": None}
    if num_gpus:
        read = blocks_of(rows).map_batches(
            read_block, batch_size=None, batch_format="pyarrow", fn_kwargs={"frame": frame}, num_cpus=_CPUS_PER_READER
        )
        return read.map_batches(_Encode, batch_format="numpy", concurrency=num_gpus, num_gpus=1, **kwargs)
    kwargs["fn_constructor_kwargs"]["frame"] = frame
    data = blocks_of(rows)
    most = max(1, int(ray.available_resources().get("CPU", 1)))
    return data.map_batches(
        _Encode, batch_format="pyarrow", concurrency=(1, min(most, data.num_blocks())), num_cpus=1, **kwargs
    )


class _Encode:
    """Blocks with pixels, or blocks to read, to blocks with features."""

    def __init__(self, module: ray.ObjectRef, frame: Frame | None = None):
        self.device = torch.device("cuda" if torch.cuda.is_available() and frame is None else "cpu")
        self.encoder = ray.get(module).to(self.device).eval()
        self.frame = frame

    def __call__(self, block) -> dict[str, np.ndarray]:
        if self.frame is not None:
            block = read_block(block, self.frame)
        return {
            "row": block["row"],
            "fault": block["fault"],
            "features": encode(self.encoder, block["image"], self.device),
        }


@torch.no_grad()
def encode(encoder: nn.Module, images: np.ndarray, device: torch.device) -> np.ndarray:
    """Features float32 [N, D] of uint8 images [N, H, W, 3] by a module that is in evaluation mode."""
    starts = range(0, len(images), _BATCH)
    batches = (torch.from_numpy(np.array(images[start : start + _BATCH])).to(device) for start in starts)
    return torch.cat([encoder(batch).float().cpu() for batch in batches]).numpy()
