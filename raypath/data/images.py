"""The pixels of labelled samples: images or tiles, read once, in the order they were asked for.

One decision: every sample becomes a square of one extent while it is read, so a block has one fixed shape and a whole set of a few
thousand samples is one uint8 array that all trials of a sweep share. A set that would not fit is refused with its size.

An image that is not square is cropped to its centre square (or, in pretraining, to one that the plan draws); nothing is padded.
Tiles of slides come at the extent from the slide, antialiased. Last of all a frame may alter what was read.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import ray

from raypath.data.alterations import alter, parse_alteration
from raypath.data.image_files import UNREADABLE, read_image
from raypath.data.quiet import quiet_ray_data
from raypath.data.staging import local_path
from raypath.errors import BadInput
from raypath.slides import SlideHandles

MAX_BYTES = 8 << 30
_ROWS_PER_TASK = 256


@dataclass(frozen=True, kw_only=True)
class Frame:
    """Which part of a sample is read, and at how many pixels."""

    extent_px: int
    """What comes out: [extent_px, extent_px]."""
    side_px: int | None = None
    """The square at the centre that is read, in px of the sample; None: the largest one."""
    mpp: float | None = None
    """um per px of `side_px`, where samples are tiles of slides."""
    alteration: str = ""
    """What is done to the pixels after they are read, as text (see `alterations`); empty: nothing."""


def read_pixels(rows: pa.Table, frame: Frame) -> np.ndarray:
    """uint8 [N, extent_px, extent_px, 3] of the rows of a benchmark (IMAGE_SCHEMA or TILE_SCHEMA), in their order.

    Read by Ray Data tasks. Raises BadInput naming the first sample that cannot be read, or the size of a set too large.
    """
    extent_px = frame.extent_px
    size = 3 * extent_px**2 * len(rows)
    if size > MAX_BYTES:
        raise BadInput(
            f"{len(rows)} samples of {extent_px} px are {size / 2**30:.1f} GiB, more than the {MAX_BYTES / 2**30:.0f} GiB that are"
            " held in memory: lower extent_px, or cap the samples per class"
        )
    pixels = np.empty((len(rows), extent_px, extent_px, 3), np.uint8)
    data = blocks_of(rows).map_batches(
        read_block, batch_size=None, batch_format="pyarrow", fn_kwargs={"frame": frame}, num_cpus=1
    )
    for block in in_any_order(data):
        pixels[block["row"]] = block["image"]
    return pixels


def blocks_of(rows: pa.Table) -> ray.data.Dataset:
    """The rows in blocks of one task each, with their numbers in the column `row`."""
    table = rows.append_column("row", pa.array(range(len(rows)), pa.int64()))
    tables = [table.slice(start, _ROWS_PER_TASK) for start in range(0, len(table), _ROWS_PER_TASK)]
    data = ray.data.from_arrow(tables)
    data.context.enable_progress_bars = False
    data.context.print_on_execution_start = False
    return data


def in_any_order(data: ray.data.Dataset) -> Iterator[dict[str, np.ndarray]]:
    """The blocks as they come; raises BadInput for the first sample with a `fault`."""
    with quiet_ray_data():
        for block in data.iter_batches(batch_size=None, batch_format="numpy"):
            bad = np.flatnonzero(block["fault"] != "")
            if len(bad):
                raise BadInput(f"{block['fault'][bad[0]]}; mend or remove the file, or the row of the manifest")
            yield block


def read_block(table: pa.Table, frame: Frame) -> dict[str, np.ndarray]:
    """`row` int64 [N], `image` uint8 [N, H, H, 3], and `fault`: what is wrong with each, or an empty text."""
    images = np.zeros((len(table), frame.extent_px, frame.extent_px, 3), np.uint8)
    faults = []
    for image, (pixels, fault) in zip(images, _each(table, frame)):
        if pixels is not None:
            image[:] = pixels
        faults.append(fault)
    images = alter(images, table["sample"].to_pylist(), parse_alteration(frame.alteration))
    return {"row": table["row"].to_numpy(), "image": images, "fault": np.array(faults, dtype=object).astype(str)}


def _each(table: pa.Table, frame: Frame) -> Iterator[tuple[np.ndarray | None, str]]:
    handles = SlideHandles(16)
    for row in table.to_pylist():
        try:
            if "path" in row:
                part = {"item": row["item"], "box": row["box"], "side_px": frame.side_px}
                yield read_image(row["path"], frame.extent_px, **part), ""
            else:
                yield _read_tile(handles, row, frame), ""
        except UNREADABLE as error:
            yield None, f"{row.get('path') or row['slide']}: cannot be read ({error})"


def _read_tile(handles: SlideHandles, row: dict, frame: Frame) -> np.ndarray:
    x_l0, y_l0, extent_l0 = row["x_l0"], row["y_l0"], row["extent_l0"]
    if frame.side_px is not None:
        inner_l0 = round(frame.side_px * frame.mpp / row["slide_mpp"])
        x_l0, y_l0 = (corner + (extent_l0 - inner_l0) // 2 for corner in (x_l0, y_l0))
        extent_l0 = inner_l0
    with handles.lend(local_path(row["slide"]), row["slide_mpp"]) as slide:
        return slide.read(x_l0, y_l0, extent_l0, frame.extent_px)
