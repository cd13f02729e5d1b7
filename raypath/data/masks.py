"""Masks: files that say the class of every pixel of an image.

One decision: how values become classes is a rule of the benchmark and never guessed from the values. What a mask file may be:

    PNG, BMP, TIFF            one channel; of several the first counts, and the others repeat it or are empty (PANDA)
    .npy                      [H, W], or with `item` [N, H, W]; with a channel per class another axis [C] after it (PanNuke)
    .xml                      regions of Aperio ImageScope (MoNuSeg): inside is 1, but not in regions marked as negative

Where values number objects (`read_objects`), regions are numbered in their order.

Lossy files (JPEG) are no masks: their values are not what was drawn. Costs one decoding, or about 1 ms per region drawn.
"""

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import shapely
from defusedxml import ElementTree
from PIL import Image

from raypath.data.image_files import loses_bits
from raypath.data.staging import local_path

MaskRule = Literal["none", "values", "binary", "channels"]
"""values: as they are; binary: 0 and not 0 (instance numbers); channels: the last axis is one-hot or instances by class, the last
channel is what is nothing else and becomes class 0. Where two channels claim a pixel, the first has it."""
_FORMATS = ("PNG", "BMP", "TIFF")
_NUM_DIMENSIONS = 2
_NUM_CORNERS = 3


def read_mask(path: str, rule: MaskRule, *, size: tuple[int, int], item: int | None = None) -> np.ndarray:
    """Classes uint8 [H, W] of a mask file that belongs to an image of `size` (width, height).

    Raises ValueError (or SyntaxError, for XML) for another extent, for values that are no class numbers of 0 to 255, and for what
    is no mask; OSError for a file that is not readable; IndexError for an item that is not there.
    """
    values = _values(local_path(path), size, item, draw_polygons)
    values = _fitting(_claimed(values) if rule == "channels" else _single(values), size)
    if rule == "binary":
        return (values != 0).astype(np.uint8)
    if values.min() < 0 or values.max() > np.iinfo(np.uint8).max:
        raise ValueError(
            f"its mask has values from {values.min()} to {values.max()}: expected class numbers of 0 to 255"
        )
    return values.astype(np.uint8)


def read_objects(path: str, *, size: tuple[int, int], item: int | None = None) -> np.ndarray:
    """The number of the object at each pixel, [H, W], 0 for none, in the smallest of uint8, uint16 and uint32 that holds them all.

    What is not 0 here is 1 by the rule "binary". Raises what `read_mask` raises, ValueError for numbers below 0 as well.
    """
    numbers = _fitting(_single(_values(local_path(path), size, item, number_polygons)), size)
    lowest, highest = int(numbers.min()), int(numbers.max())
    if lowest < 0 or highest > np.iinfo(np.uint32).max:
        raise ValueError(f"its mask has values from {lowest} to {highest}: expected numbers of objects, 0 for none")
    return numbers.astype(np.min_scalar_type(highest))


def _fitting(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The same [H, W], which is that of the image, of whole numbers."""
    if values.dtype.kind == "f" and not np.array_equal(values, np.rint(values)):
        raise ValueError("its mask has values that are no whole numbers: expected classes or instances")
    if values.shape != (size[1], size[0]):
        raise ValueError(f"its mask is {values.shape[1]} x {values.shape[0]} px, the image {size[0]} x {size[1]}")
    return values


def _values(path: str, size: tuple[int, int], item: int | None, draw: Callable[..., np.ndarray]) -> np.ndarray:
    if item is not None and item < 0:
        raise IndexError(f"mask {item}: masks are numbered from 0")
    if path.lower().endswith(".npy"):
        array = np.load(path, mmap_mode="r", allow_pickle=False)
        return np.array(array if item is None else array[item])
    if path.lower().endswith(".xml"):
        return draw(*read_polygons(path), size)
    with Image.open(path, formats=_FORMATS) as image:
        if getattr(image, "n_frames", 1) > 1:
            raise ValueError(f"its mask has {image.n_frames} pages: expected one")
        if loses_bits(image):
            raise ValueError(f"its mask is {image.mode} of 16 bits: expected one channel; save it as grey values")
        return np.array(image)  # a palette only paints the values


def _claimed(values: np.ndarray) -> np.ndarray:
    """[H, W] from a channel per class [H, W, C]: 1 + the first channel that is not 0, or 0; the last channel is not asked."""
    if values.ndim != _NUM_DIMENSIONS + 1:
        raise ValueError(f"its mask has the shape {values.shape}: expected a channel for each class")
    is_class = values[..., :-1] != 0
    return np.where(is_class.any(axis=2), is_class.argmax(axis=2) + 1, 0)


def _single(values: np.ndarray) -> np.ndarray:
    """[H, W] from one channel, or from several that say the same."""
    if values.ndim == _NUM_DIMENSIONS:
        return values
    if values.ndim != _NUM_DIMENSIONS + 1:
        raise ValueError(f"its mask has the shape {values.shape}: expected one value for each pixel")
    has_alpha = values.shape[2] in (2, 4) and (values[..., -1] == np.iinfo(np.uint8).max).all()
    first, others = values[..., 0], values[..., 1 : values.shape[2] - has_alpha]
    if others.any() and not (others == first[..., None]).all():
        raise ValueError(
            "its mask is coloured: expected one channel of class numbers; convert it, and say which is which"
        )
    return first


def read_polygons(path: str) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """The regions of an Aperio ImageScope file, and those marked as negative: float64 [V, 2], x and y of corners in px of level 0.

    Raises SyntaxError for what is no XML, ValueError for another kind of XML or a corner that is no pair of numbers.
    """
    root = ElementTree.parse(path).getroot()
    if root.tag != "Annotations":
        raise ValueError(f"its root is <{root.tag}>: expected <Annotations>, as Aperio ImageScope writes it")
    inside, holes = [], []
    for region in root.iter("Region"):
        points = [(float(vertex.get("X", "nan")), float(vertex.get("Y", "nan"))) for vertex in region.iter("Vertex")]
        corners = np.array(points).reshape(-1, _NUM_DIMENSIONS)
        if not np.isfinite(corners).all():
            raise ValueError(f"its region {region.get('Id')} has a corner without place")
        (holes if region.get("NegativeROA") == "1" else inside).append(corners)
    return inside, holes


def draw_polygons(inside: Sequence[np.ndarray], holes: Sequence[np.ndarray], size: tuple[int, int]) -> np.ndarray:
    """uint8 [H, W], 1 for pixels whose centre lies in a polygon of `inside` and in none of `holes`.

    (0, 0) is the outer corner of the first pixel, so its centre is (0.5, 0.5). A polygon that crosses itself counts by the even-odd
    rule; one of less than three corners has no inside. (Drawing with Pillow takes the outline in as well, which makes a nucleus of
    20 px a tenth larger.)
    """
    return (number_polygons(inside, holes, size) != 0).astype(np.uint8)


def number_polygons(inside: Sequence[np.ndarray], holes: Sequence[np.ndarray], size: tuple[int, int]) -> np.ndarray:
    """The same with the number of the polygon, from 1 in the order of `inside`: uint8, uint16 or uint32 [H, W].

    Where two overlap the pixel is the first one's, as in the script that came with MoNuSeg (he_to_binary_mask.m).
    """
    mask = np.zeros((size[1], size[0]), np.min_scalar_type(len(inside)))
    for number in range(len(inside), 0, -1):
        _fill(mask, inside[number - 1], number)
    for corners in holes:
        _fill(mask, corners, 0)
    return mask


def _fill(mask: np.ndarray, corners: np.ndarray, value: int) -> None:
    """Set the pixels inside; only those of the polygon's own box are asked."""
    if len(corners) < _NUM_CORNERS:
        return
    limit = mask.shape[::-1]
    left, top = np.clip(np.floor(corners.min(axis=0)), 0, limit).astype(int)
    right, bottom = np.clip(np.ceil(corners.max(axis=0)), 0, limit).astype(int)
    x, y = np.meshgrid(np.arange(left, right) + 0.5, np.arange(top, bottom) + 0.5)
    polygon = shapely.Polygon(corners)
    shapely.prepare(polygon)
    mask[top:bottom, left:right][shapely.contains_xy(polygon, x, y)] = value
