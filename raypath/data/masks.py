"""Masks: files that say the class of every pixel of an image.

One decision: how values become classes is a rule of the benchmark and never guessed from the values. What a mask file may be:

    PNG, BMP, TIFF            one channel, or colours of which the first channel counts (PANDA)
    .npy                      [N, H, W] or, with a channel per class, [N, H, W, C]; `item` says which
    .xml                      polygons of Aperio ImageScope (MoNuSeg): inside is 1

Costs one decoding, or one drawing of some hundred polygons.
"""

from typing import Literal

import numpy as np
from defusedxml import ElementTree
from PIL import Image, ImageDraw

from raypath.data.staging import local_path

MaskRule = Literal["none", "values", "binary", "channels"]
"""values: as they are; binary: 0 and not 0 (instance numbers); channels: the last axis is one-hot or instances by class, the last
channel is what is nothing else and becomes class 0."""
_NUM_XY = 2


def read_mask(path: str, rule: MaskRule, *, size: tuple[int, int], item: int | None = None) -> np.ndarray:
    """Classes uint8 [H, W] of a mask file that belongs to an image of `size` (width, height).

    Raises ValueError for another extent, for values beyond 255, and for what is no mask; OSError for a file that is not readable.
    """
    values = _values(local_path(path), size, item)
    if rule == "channels":
        if values.ndim != 3:
            raise ValueError(f"its mask has the shape {values.shape}: expected a channel for each class")
        values = np.where(values[..., :-1].any(axis=2), values[..., :-1].argmax(axis=2) + 1, 0)
    elif values.ndim == 3:
        values = values[..., 0]
    if values.shape != (size[1], size[0]):
        raise ValueError(f"its mask is {values.shape[1]} x {values.shape[0]} px, the image {size[0]} x {size[1]}")
    if rule == "binary":
        return (values != 0).astype(np.uint8)
    if values.min() < 0 or values.max() > np.iinfo(np.uint8).max:
        raise ValueError(
            f"its mask has values from {values.min()} to {values.max()}: expected class numbers of 0 to 255"
        )
    return values.astype(np.uint8)


def _values(path: str, size: tuple[int, int], item: int | None) -> np.ndarray:
    if path.endswith(".npy"):
        return np.array(np.load(path, mmap_mode="r", allow_pickle=False)[item])
    if path.endswith(".xml"):
        return draw_polygons(read_polygons(path), size)
    with Image.open(path) as image:
        return np.array(image)  # a palette only paints the values


def read_polygons(path: str) -> list[np.ndarray]:
    """The regions of an Aperio ImageScope file, float64 [V, 2] each: x and y of their corners in px of level 0."""
    corners = []
    for region in ElementTree.parse(path).iter("Region"):
        points = [(float(vertex.get("X")), float(vertex.get("Y"))) for vertex in region.iter("Vertex")]
        corners.append(np.array(points).reshape(-1, _NUM_XY))
    return corners


def draw_polygons(polygons: list[np.ndarray], size: tuple[int, int]) -> np.ndarray:
    """uint8 [H, W], 1 inside any polygon of at least three corners."""
    canvas = Image.new("L", size)
    draw = ImageDraw.Draw(canvas)
    for polygon in polygons:
        if len(polygon) > _NUM_XY:
            draw.polygon([tuple(corner) for corner in polygon], fill=1)
    return np.array(canvas)
