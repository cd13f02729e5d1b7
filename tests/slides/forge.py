"""Makes small slides that OpenSlide really opens, and breaks them in the ways that slides break."""

from pathlib import Path

import numpy as np
import tifffile
from PIL import Image

TILE_PX = 64


def picture(width: int, height: int, seed: int = 0) -> np.ndarray:
    """Pinkish noise of several scales, uint8 [height, width, 3]."""
    random = np.random.default_rng(seed)
    rgb = np.zeros((height, width, 3))
    for step in (1, 4, 16, 64):
        coarse = random.random((height // step + 2, width // step + 2, 3)) * 255
        fine = [
            np.asarray(Image.fromarray(c.astype(np.float32)).resize((width, height), 2))
            for c in coarse.transpose(2, 0, 1)
        ]
        rgb += np.stack(fine, -1) / 4
    return (rgb * (0.9, 0.5, 0.8) + 20).clip(0, 255).astype(np.uint8)


def write_svs(
    path: Path,
    rgb: np.ndarray,
    *,
    mpp: str | None = "0.5",
    power: str | None = "20",
    num_levels: int = 2,
    compression: str = "deflate",
    bigtiff: bool = False,
) -> Path:
    """An Aperio-like slide: tiles of 64 px, levels halved by averaging; lossless unless compression is "jpeg"."""
    description = f"Aperio Image Library v11.2.1\r\n{rgb.shape[1]}x{rgb.shape[0]} |AppMag = {power}|MPP = {mpp}"
    if mpp is None:
        description = description.replace("|MPP = None", "")
    if power is None:
        description = description.replace("|AppMag = None", "")
    options = {"tile": (TILE_PX, TILE_PX), "compression": compression, "metadata": None}
    options["photometric"] = "minisblack" if rgb.ndim == 2 else "rgb"
    with tifffile.TiffWriter(path, bigtiff=bigtiff) as writer:
        for level in range(num_levels):
            writer.write(halve(rgb, level), description=description, subfiletype=int(level > 0), **options)
    return path


def halve(rgb: np.ndarray, times: int) -> np.ndarray:
    """Average 2x2 pixels, `times` times; an odd last row or column is dropped, as scanners do."""
    for _ in range(times):
        height, width = (side // 2 * 2 for side in rgb.shape[:2])
        blocks = rgb[:height, :width].reshape(height // 2, 2, width // 2, 2, *rgb.shape[2:])
        rgb = np.round(blocks.mean((1, 3))).astype(rgb.dtype)
    return rgb


def spans(path: Path, level: int = 0) -> tuple[list[int], list[int]]:
    """Offsets and byte counts of a level's native tiles."""
    with tifffile.TiffFile(path) as tiff:
        return list(tiff.pages[level].dataoffsets), list(tiff.pages[level].databytecounts)


def break_tile(path: Path, number: int, level: int = 0) -> None:
    """Overwrite the compressed bytes of one native tile, so that it cannot be decoded."""
    offsets, counts = spans(path, level)
    with open(path, "r+b") as file:
        file.seek(offsets[number])
        file.write(b"\xff" * counts[number])


def empty_tile(path: Path, number: int, level: int = 0) -> None:
    """Set the byte count of one native tile to 0: it has no pixels any more."""
    with tifffile.TiffFile(path, mode="r+b") as tiff:
        tag = tiff.pages[level].tags["TileByteCounts"]
        tag.overwrite([0 if i == number else count for i, count in enumerate(tag.value)])


def truncate(path: Path, size_bytes: int) -> None:
    with open(path, "r+b") as file:
        file.truncate(size_bytes)
