"""The smallest labelled set that can be learnt, and the smallest encoder that learns it.

Images are noise of 32 px around a reddish or a bluish gray: a cue that flips and crops leave alone, and that two epochs find.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from raypath.models import EncoderSettings, build_encoder, save_encoder
from raypath.protocols import Samples

EXTENT_PX = 32
CLASSES = ("blue", "red")
TINY = EncoderSettings(architecture="resnet10t", options={"channels": [8, 8, 16, 16]}, input_px=EXTENT_PX)


def write_encoder(path: Path, *, seed: int = 0, mpp: float | None = None) -> Path:
    """A randomly initialised encoder of 17,000 weights; `mpp`: um per px that its card says."""
    save_encoder(build_encoder(replace(TINY, mpp=mpp), seed=seed), path)
    return path


def samples(num: int, *, seed: int, cue: float = 40.0) -> Samples:
    """`num` images, half of each class; `cue`: how far the means of red and blue lie apart."""
    rng = np.random.default_rng(seed)
    labels = np.arange(num) % 2
    images = rng.normal(128, 40, (num, EXTENT_PX, EXTENT_PX, 3))
    images[..., 0] += (labels - 0.5)[:, None, None] * cue
    images[..., 2] -= (labels - 0.5)[:, None, None] * cue
    return Samples(
        images=images.clip(0, 255).astype(np.uint8),
        labels=labels.astype(np.int64),
        names=tuple(f"{seed}-{i:03}" for i in range(num)),
        patients=(None,) * num,
        classes=CLASSES,
    )


def write_set(folder: Path, *, train: int = 24, val: int = 16, test: int = 16) -> Path:
    """The same as PNG files in train, val and test folders of class folders."""
    for seed, (split, num) in enumerate({"train": train, "val": val, "test": test}.items()):
        made = samples(num, seed=seed)
        for number, (image, label) in enumerate(zip(made.images, made.labels)):
            path = folder / split / CLASSES[label] / f"{number:03}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(path)
    return folder
