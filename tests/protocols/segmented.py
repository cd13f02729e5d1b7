"""The smallest set that can be segmented: files of noise in which an ellipse is redder, of a finer grain, or both.

The cue is in the pixels and in nothing else: place, size and number of the class differ from image to image.
"""

from pathlib import Path

import numpy as np
from PIL import Image

from raypath.benchmarks import Benchmark
from raypath.benchmarks.assembling import assemble
from raypath.benchmarks.facts import Facts
from raypath.benchmarks.splits.making import SplitSettings
from raypath.data.image_rows import ImageRow

CLASSES = ("background", "blob")
FACTS = Facts(title="Blobs", source="drawn here", licence="CC0", mpp=0.5)


def draw(seed: int, size: tuple[int, int] = (64, 80), *, cue: float = 60.0) -> tuple[np.ndarray, np.ndarray]:
    """Image uint8 [H, W, 3] and mask uint8 [H, W] with an ellipse on about a third of it; `cue`: how much redder it is."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[: size[0], : size[1]]
    middle, radii = rng.uniform(0.35, 0.65, 2) * size, rng.uniform(0.25, 0.4, 2) * size
    mask = ((rows - middle[0]) / radii[0]) ** 2 + ((columns - middle[1]) / radii[1]) ** 2 < 1
    image = rng.normal(128, 25, (*size, 3))
    image[..., 0] += cue * mask
    return image.clip(0, 255).astype(np.uint8), mask.astype(np.uint8)


def write_blobs(folder: Path, *, num: int = 20, cue: float = 60.0) -> list[ImageRow]:
    """PNG images and masks (values 0 and 255) of `num` images of ten patients, three splits."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for number in range(num):
        image, mask = draw(number, cue=cue)
        path, mask_path = folder / f"{number:02}.png", folder / f"{number:02}-mask.png"
        Image.fromarray(image).save(path)
        Image.fromarray(255 * mask).save(mask_path)
        split = "train" if number % 10 < 6 else "val" if number % 10 < 8 else "test"
        rows.append(ImageRow(path.name, path, "any", split, f"p{number % 10}", mask=mask_path))
    return rows


def benchmark(folder: Path, **settings) -> Benchmark:
    """Those files as a benchmark."""
    rows = write_blobs(folder, **settings)
    return assemble(rows, FACTS, SplitSettings(), name="blobs", seed=0, classes=CLASSES, mask_rule="binary")


def write_glas(folder: Path, *, num: int = 20) -> Path:
    """Such images as the GlaS set lies in its folder, of ten patients."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = ["name, patient ID, grade (GlaS), grade (Sirinukunwattana et al. 2015)"]
    for number in range(num):
        image, mask = draw(number)
        name, patient = f"train_{number + 1}", number % 10
        Image.fromarray(image).save(folder / f"{name}.bmp")
        Image.fromarray(mask).save(folder / f"{name}_anno.bmp")
        lines.append(f"{name}, {patient}, {('benign', 'malignant')[patient % 2]}, healthy")
    (folder / "Grade.csv").write_text("\n".join(lines) + "\n")
    return folder
