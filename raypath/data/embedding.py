"""Samples through an encoder, once each: what feature extraction is made of.

One decision: blocks of samples stream past a module that each process fetches once; nothing of the size of the set but its features
is ever held. On CPUs a task reads and encodes its block; with GPUs, CPU tasks read ahead of one actor per GPU.

Costs the reading of the set and one forward pass, and seconds for the first block where a process has to import torch.
"""

from collections.abc import Callable
from functools import lru_cache

import numpy as np
import pyarrow as pa
import ray
import torch
from torch import nn

from raypath.data.images import Frame, blocks_of, in_any_order, read_block

_BATCH = 128


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
    module, blocks = ray.put(encoder), blocks_of(rows)
    if not num_gpus:
        kwargs = {"module": module, "frame": frame}
        return blocks.map_batches(
            _read_and_encode, batch_size=None, batch_format="pyarrow", fn_kwargs=kwargs, num_cpus=1
        )
    read = blocks.map_batches(
        read_block, batch_size=None, batch_format="pyarrow", fn_kwargs={"frame": frame}, num_cpus=1
    )
    return read.map_batches(
        _Encode,
        batch_size=None,
        batch_format="numpy",
        fn_constructor_kwargs={"module": module},
        compute=ray.data.ActorPoolStrategy(size=num_gpus),
        num_gpus=1,
    )


def _read_and_encode(table: pa.Table, module: ray.ObjectRef, frame: Frame) -> dict[str, np.ndarray]:
    return _encoded(read_block(table, frame), _module(module), torch.device("cpu"))


@lru_cache(maxsize=1)
def _module(reference: ray.ObjectRef) -> nn.Module:
    """The encoder, fetched once per process: tasks of one pass run in the same few."""
    return ray.get(reference).eval()


class _Encode:
    """Blocks with pixels to blocks with features, on the GPU that this actor holds."""

    def __init__(self, module: ray.ObjectRef):
        self.device = torch.device("cuda")
        self.encoder = ray.get(module).to(self.device).eval()

    def __call__(self, block: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return _encoded(block, self.encoder, self.device)


def _encoded(block: dict[str, np.ndarray], encoder: nn.Module, device: torch.device) -> dict[str, np.ndarray]:
    return {"row": block["row"], "fault": block["fault"], "features": encode(encoder, block["image"], device)}


@torch.no_grad()
def encode(encoder: nn.Module, images: np.ndarray, device: torch.device) -> np.ndarray:
    """Features float32 [N, D] of uint8 images [N, H, W, 3] by a module that is in evaluation mode."""
    starts = range(0, len(images), _BATCH)
    batches = (torch.from_numpy(np.array(images[start : start + _BATCH])).to(device) for start in starts)
    return torch.cat([encoder(batch).float().cpu() for batch in batches]).numpy()
