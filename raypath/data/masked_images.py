"""Whole images with their masks, read once and held in memory: what a segmentation is trained on.

One decision: images stay as they are. A crop that is drawn anew at every step needs all of the image, and images of one set have
different extents, so they are a list of uint8 arrays and not one array. A set that would not fit is refused with its size, which is
known from the files' headers before a pixel is decoded; boxes of one file are cut out of one decoding.

Tiles of slides, whose masks are slides themselves, are read by `masked_tiles`.

Costs 10 ms for an image of 775 x 522 px, in four threads, and 4 bytes per pixel.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa

from raypath.data.image_files import UNREADABLE, open_image, size_of
from raypath.data.masks import MaskRule, read_mask, read_objects
from raypath.errors import BadInput

MAX_BYTES = 8 << 30
_BYTES_PER_PX = 4  # RGB and a class
_BYTES_OF_OBJECTS = 2  # more, for up to 65,535 objects in an image
_NUM_THREADS = 4

Masked = tuple[np.ndarray, np.ndarray]
"""An image uint8 [H, W, 3] and its classes uint8 [H, W]."""


def read_masked(rows: pa.Table, rule: MaskRule, classes: Sequence[str], *, has_objects: bool = False) -> list[Masked]:
    """Image and mask of each row of a segmentation benchmark (IMAGE_SCHEMA), in their order.

    `has_objects`: the numbers of objects stand where classes would, as `read_objects` gives them.

    Raises BadInput, with file and reason, for what cannot be read, a mask that does not fit its image, a value that is none of
    `classes`, and a set of more than MAX_BYTES, with its size.
    """
    samples = rows.select(["path", "item", "box", "mask"]).to_pylist()
    of_file: dict[tuple, list[int]] = {}
    for number, row in enumerate(samples):
        of_file.setdefault((row["path"], row["item"], row["mask"]), []).append(number)
    groups = [[samples[number] for number in numbers] for numbers in of_file.values()]
    read: list[Masked | None] = [None] * len(samples)
    with ThreadPoolExecutor(_NUM_THREADS) as pool:
        bytes_per_px = _BYTES_PER_PX + has_objects * _BYTES_OF_OBJECTS
        check_size(sum(pool.map(_num_px, groups)), len(samples), bytes_per_px)
        parts = pool.map(lambda group: _read(group, rule, len(classes), has_objects), groups)
        for numbers, found in zip(of_file.values(), parts):
            for number, masked in zip(numbers, found):
                read[number] = masked
    return read


def _num_px(group: list[dict]) -> int:
    """Pixels of the samples of one file, from its header."""
    if all(row["box"] for row in group):
        return sum(row["box"][2] * row["box"][3] for row in group)
    try:
        width, height = size_of(group[0]["path"], item=group[0]["item"])
    except UNREADABLE as error:
        raise _unreadable(group[0], error) from None
    return len(group) * width * height


def check_size(num_px: int, num_samples: int, bytes_per_px: int = _BYTES_PER_PX) -> None:
    """Raise BadInput, with the size, for more pixels than are held in memory."""
    if num_px * bytes_per_px > MAX_BYTES:
        raise BadInput(
            f"{num_samples} images with masks are {num_px * bytes_per_px / 2**30:.1f} GiB, more than the"
            f" {MAX_BYTES / 2**30:.0f} GiB that are held in memory: cap the samples (per_class_train)"
        )


def _read(group: list[dict], rule: MaskRule, num_classes: int, has_objects: bool) -> list[Masked]:
    """The samples of one file."""
    first = group[0]
    try:
        image = open_image(first["path"], item=first["item"])
        place = {"size": image.size, "item": first["item"]}
        mask = read_objects(first["mask"], **place) if has_objects else read_mask(first["mask"], rule, **place)
        if not has_objects and mask.max() >= num_classes:
            raise ValueError(f"its mask has the value {mask.max()}: expected classes 0 to {num_classes - 1}")
        return [_cut(np.array(image), mask, row["box"]) for row in group]
    except UNREADABLE as error:
        raise _unreadable(first, error) from None


def _cut(image: np.ndarray, mask: np.ndarray, box: list[int] | None) -> Masked:
    if box is None:
        return image, mask
    left, top, width, height = box
    if min(left, top) < 0 or left + width > image.shape[1] or top + height > image.shape[0]:
        raise ValueError(f"the box {tuple(box)} leaves the image of {image.shape[1]} x {image.shape[0]} px")
    part = np.s_[top : top + height, left : left + width]
    return image[part].copy(), mask[part].copy()


def _unreadable(row: dict, error: Exception) -> BadInput:
    return BadInput(f"{row['path']}, mask {row['mask']}: cannot be read ({error}); mend or remove the file")
