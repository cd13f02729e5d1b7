"""The pixels of one image: from a file of its own, from an array file that holds many, or a part of either.

One decision: 8-bit colours or nothing. What would have to be scaled, cut off or blended to become 8-bit RGB is refused, because how
that is done is part of the data and not of reading. An image that is not square gives a square; nothing is padded. One that a
camera marked as turned (EXIF) comes upright, as viewers show it and as Pillow reads TIFF anyway.
"""

import math
from collections.abc import Sequence
from functools import lru_cache

import h5py
import numpy as np
from PIL import ExifTags, Image, ImageOps

from raypath.data.staging import local_path
from raypath.errors import SlideError

_FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "WEBP")
_DEEP_MODES = ("I", "F", "I;16", "I;16L", "I;16B")  # more than 8 bits: Pillow would cut them off at 255
_BITS_PER_SAMPLE = 258  # the tag of TIFF
_ON_ITS_SIDE = (5, 6, 7, 8)  # orientations of EXIF that swap width and height
# What Pillow raises for damaged files of these formats (found with 9,000 of them), NumPy for an empty file, and slides.
UNREADABLE = (OSError, EOFError, ValueError, IndexError, SyntaxError, Image.DecompressionBombError, SlideError)


def read_image(
    path: str,
    extent_px: int,
    place: float = 0.5,
    *,
    item: int | None = None,
    box: Sequence[int] | None = None,
    side_px: int | None = None,
) -> np.ndarray:
    """One image as uint8 [extent_px, extent_px, 3]: its largest square, antialiased; `item` and `box` as for `open_image`.

    `place` in (0, 1] says where along the longer side the square lies: 0.5 is the centre, and uniform numbers make every place
    equally likely. `side_px` takes the square of that side at the centre instead. Raises one of UNREADABLE.
    """
    image = open_image(path, item=item, box=box)
    square = _square(image, place) if side_px is None else _centre(image, side_px)
    if square.size != (extent_px, extent_px):
        square = square.resize((extent_px, extent_px), Image.Resampling.BICUBIC)
    return np.asarray(square)


def open_image(path: str, *, item: int | None = None, box: Sequence[int] | None = None) -> Image.Image:
    """An image in RGB: a file, number `item` of an array file (.h5 with one array of images, .npy), or `box` of either.

    `box` is left, top, width, height. Raises one of UNREADABLE: what Pillow does for a file it cannot decode, and ValueError for
    what has no 8-bit colours of its own (more than 8 bits per channel, or pixels one can look through), or for a box outside or
    without area; IndexError for an item that is not there.
    """
    if item is not None:
        image = Image.fromarray(_item(local_path(path), item))
    else:
        with Image.open(local_path(path), formats=_FORMATS) as opened:
            image = _opaque_rgb(opened)
        ImageOps.exif_transpose(image, in_place=True)
    if box is None:
        return image
    left, top, width, height = box
    if min(width, height) < 1:
        raise ValueError(f"the box {tuple(box)} has no area")
    if min(left, top) < 0 or left + width > image.width or top + height > image.height:
        raise ValueError(f"the box {tuple(box)} leaves the image of {image.width} x {image.height} px")
    return image.crop((left, top, left + width, top + height))


def size_of(path: str, *, item: int | None = None) -> tuple[int, int]:
    """(width, height) in px of an image, from the header alone. Raises OSError or ValueError for a file that has none."""
    if item is None:
        with Image.open(local_path(path), formats=_FORMATS) as image:
            # Pillow turns the size of a TIFF itself; the method of the base class does not decode a PNG to look for more
            turn = None if image.format == "TIFF" else Image.Image.getexif(image).get(ExifTags.Base.Orientation)
            return image.size[::-1] if turn in _ON_ITS_SIDE else image.size
    return _array_size(local_path(path))


def require_8_bits(image: Image.Image) -> None:
    """Raise ValueError for a file with more than 8 bits per channel; its header is enough."""
    if image.mode in _DEEP_MODES or loses_bits(image):
        kind = image.mode if image.mode in _DEEP_MODES else f"{image.mode} of 16 bits"
        raise ValueError(f"its pixels are {kind}, expected 8 bits per channel: convert it, and say how you scaled it")


def loses_bits(image: Image.Image) -> bool:
    """Whether Pillow would keep 8 of more bits per channel of a file it has not decoded: colours of 16 in PNG and TIFF."""
    bits = getattr(image, "tag_v2", {}).get(_BITS_PER_SAMPLE, (8,))
    return image.mode not in _DEEP_MODES and (max(bits) > 8 or any(";16" in str(tile.args) for tile in image.tile))


@lru_cache(maxsize=64)
def _array_size(path: str) -> tuple[int, int]:
    if path.lower().endswith(".npy"):
        height, width = np.load(path, mmap_mode="r", allow_pickle=False).shape[1:3]
    else:
        with h5py.File(path) as file:
            height, width = images_of(file).shape[1:3]
    return width, height


def _opaque_rgb(image: Image.Image) -> Image.Image:
    require_8_bits(image)
    if image.has_transparency_data and image.convert("RGBA").getextrema()[3][0] < 255:
        raise ValueError("it has transparent pixels, which have no colour: save it without them")
    return image.convert("RGB")


def _item(path: str, item: int) -> np.ndarray:
    """uint8 [H, W, 3]. Whole numbers of 0 to 255 in another type are taken as they are (PanNuke has float64)."""
    if item < 0:
        raise IndexError(f"image {item}: images are numbered from 0")
    if path.lower().endswith(".npy"):
        pixels = np.array(np.load(path, mmap_mode="r", allow_pickle=False)[item])
    else:
        with h5py.File(path) as file:
            pixels = np.array(images_of(file)[item])
    with np.errstate(invalid="ignore"):  # what is no number is no whole number either, and is refused below
        whole = pixels.astype(np.uint8)
    if pixels.ndim != 3 or pixels.shape[2] != 3 or not np.array_equal(whole, pixels):
        raise ValueError(
            f"image {item} has the shape {pixels.shape} and the type {pixels.dtype}: expected RGB of 8 bits"
        )
    return whole


def images_of(file: h5py.File) -> h5py.Dataset:
    """The one array [N, H, W, 3] of an h5 file; raises ValueError if there is none, or more than one."""
    found = [array for array in file.values() if isinstance(array, h5py.Dataset) and array.ndim == 4]
    if len(found) != 1:
        raise ValueError(f"{len(found)} arrays of images in it ({', '.join(file)}): expected one, [N, H, W, 3]")
    return found[0]


def _centre(image: Image.Image, side_px: int) -> Image.Image:
    left, top = (image.width - side_px) // 2, (image.height - side_px) // 2
    if min(left, top) < 0:
        raise ValueError(
            f"it is {image.width} x {image.height} px, smaller than the {side_px} px that are wanted of it"
        )
    return image.crop((left, top, left + side_px, top + side_px))


def _square(image: Image.Image, place: float) -> Image.Image:
    width, height = image.size
    side = min(width, height)
    left, top = (math.ceil(place * (room + 1)) - 1 for room in (width - side, height - side))  # 0 to room
    return image if width == height else image.crop((left, top, left + side, top + side))
