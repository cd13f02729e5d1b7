"""The pixels of labelled samples: images or tiles, read once, in the order they were asked for.

One decision: every sample becomes a square of one extent while it is read, so a block has one fixed shape and a whole set of a few
thousand samples is one uint8 array that all trials of a sweep share. A set that would not fit is refused with its size.

An image that is not square is cropped to its centre square (or, in pretraining, to one that the plan draws); nothing is padded.
Tiles of slides come at the extent from the slide, antialiased.
"""

import math
from collections.abc import Iterator, Sequence

import h5py
import numpy as np
import pyarrow as pa
import ray
from PIL import Image

from raypath.data.quiet import quiet_ray_data
from raypath.data.staging import local_path
from raypath.errors import BadInput, SlideError
from raypath.slides import SlideHandles

MAX_BYTES = 8 << 30
_ROWS_PER_TASK = 256
_FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "WEBP")
_DEEP_MODES = ("I", "F", "I;16", "I;16L", "I;16B")  # more than 8 bits: Pillow would cut them off at 255
# What Pillow raises for damaged files of these formats (found with 9,000 of them), and slides for theirs.
UNREADABLE = (OSError, ValueError, IndexError, SyntaxError, Image.DecompressionBombError, SlideError)


def read_pixels(rows: pa.Table, extent_px: int) -> np.ndarray:
    """uint8 [N, extent_px, extent_px, 3] of the rows of a benchmark (IMAGE_SCHEMA or TILE_SCHEMA), in their order.

    Read by Ray Data tasks. Raises BadInput naming the first sample that cannot be read, or the size of a set too large.
    """
    size = 3 * extent_px**2 * len(rows)
    if size > MAX_BYTES:
        raise BadInput(
            f"{len(rows)} samples of {extent_px} px are {size / 2**30:.1f} GiB, more than the {MAX_BYTES / 2**30:.0f} GiB that are"
            " held in memory: lower extent_px, or cap the samples per class"
        )
    pixels = np.empty((len(rows), extent_px, extent_px, 3), np.uint8)
    table = rows.append_column("row", pa.array(range(len(rows)), pa.int64()))
    tables = [table.slice(start, _ROWS_PER_TASK) for start in range(0, len(table), _ROWS_PER_TASK)]
    data = ray.data.from_arrow(tables).map_batches(
        _read_block, batch_size=None, batch_format="pyarrow", fn_kwargs={"extent_px": extent_px}, num_cpus=1
    )
    data.context.enable_progress_bars = False
    data.context.print_on_execution_start = False
    with quiet_ray_data():
        for block in data.iter_batches(batch_size=None, batch_format="numpy"):
            bad = np.flatnonzero(block["fault"] != "")
            if len(bad):
                raise BadInput(f"{block['fault'][bad[0]]}; mend or remove the file, or the row of the manifest")
            pixels[block["row"]] = block["image"]
    return pixels


def _read_block(table: pa.Table, extent_px: int) -> dict[str, np.ndarray]:
    images = np.zeros((len(table), extent_px, extent_px, 3), np.uint8)
    faults = []
    for image, (pixels, fault) in zip(images, _each(table, extent_px)):
        if pixels is not None:
            image[:] = pixels
        faults.append(fault)
    return {"row": table["row"].to_numpy(), "image": images, "fault": np.array(faults, dtype=object).astype(str)}


def _each(table: pa.Table, extent_px: int) -> Iterator[tuple[np.ndarray | None, str]]:
    handles = SlideHandles(16)
    for row in table.to_pylist():
        try:
            if "path" in row:
                yield read_image(row["path"], extent_px, item=row["item"], box=row["box"]), ""
            else:
                yield _read_tile(handles, row, extent_px), ""
        except UNREADABLE as error:
            yield None, f"{row.get('path') or row['slide']}: cannot be read ({error})"


def read_image(
    path: str, extent_px: int, place: float = 0.5, *, item: int | None = None, box: Sequence[int] | None = None
) -> np.ndarray:
    """One image as uint8 [extent_px, extent_px, 3]: its largest square, antialiased; `item` and `box` as for `open_image`.

    `place` in (0, 1] says where along the longer side the square lies: 0.5 is the centre, and uniform numbers make every place
    equally likely. Raises one of UNREADABLE.
    """
    square = _square(open_image(path, item=item, box=box), place)
    if square.size != (extent_px, extent_px):
        square = square.resize((extent_px, extent_px), Image.Resampling.BICUBIC)
    return np.asarray(square)


def open_image(path: str, *, item: int | None = None, box: Sequence[int] | None = None) -> Image.Image:
    """An image in RGB: a file, number `item` of an array file (.h5 with one array of images, .npy), or `box` of either.

    `box` is left, top, width, height. Raises one of UNREADABLE: what Pillow does for a file it cannot decode, and ValueError for
    what has no 8-bit colours of its own (more than 8 bits per channel, or pixels one can look through), or for a box outside.
    """
    if item is not None:
        image = Image.fromarray(_item(local_path(path), item))
    else:
        with Image.open(local_path(path), formats=_FORMATS) as opened:
            image = _opaque_rgb(opened)
    if box is None:
        return image
    left, top, width, height = box
    if min(left, top) < 0 or left + width > image.width or top + height > image.height:
        raise ValueError(f"the box {tuple(box)} leaves the image of {image.width} x {image.height} px")
    return image.crop((left, top, left + width, top + height))


def _opaque_rgb(image: Image.Image) -> Image.Image:
    if image.mode in _DEEP_MODES:
        raise ValueError(
            f"its pixels are {image.mode}, expected 8 bits per channel: convert it, and say how you scaled it"
        )
    if image.has_transparency_data and image.convert("RGBA").getextrema()[3][0] < 255:
        raise ValueError("it has transparent pixels, which have no colour: save it without them")
    return image.convert("RGB")


def _item(path: str, item: int) -> np.ndarray:
    """uint8 [H, W, 3]. Whole numbers of 0 to 255 in another type are taken as they are (PanNuke has float64)."""
    if path.endswith(".npy"):
        pixels = np.array(np.load(path, mmap_mode="r", allow_pickle=False)[item])
    else:
        with h5py.File(path) as file:
            pixels = np.array(images_of(file)[item])
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


def _square(image: Image.Image, place: float) -> Image.Image:
    width, height = image.size
    side = min(width, height)
    left, top = (math.ceil(place * (room + 1)) - 1 for room in (width - side, height - side))  # 0 to room
    return image if width == height else image.crop((left, top, left + side, top + side))


def _read_tile(handles: SlideHandles, row: dict, extent_px: int) -> np.ndarray:
    with handles.lend(local_path(row["slide"]), row["slide_mpp"]) as slide:
        return slide.read(row["x_l0"], row["y_l0"], row["extent_l0"], extent_px)
