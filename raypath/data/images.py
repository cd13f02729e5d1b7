"""The pixels of labelled samples: images or tiles, read once, in the order they were asked for.

One decision: every sample becomes a square of one extent while it is read, so a block has one fixed shape and a whole set of a few
thousand samples is one uint8 array that all trials of a sweep share. A set that would not fit is refused with its size.

An image that is not square is cropped to its centre square (or, in pretraining, to one that the plan draws); nothing is padded.
Tiles of slides come at the extent from the slide, antialiased.
"""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import ray

from raypath.data.image_files import UNREADABLE, read_image
from raypath.data.quiet import quiet_ray_data
from raypath.data.staging import local_path
from raypath.errors import BadInput
from raypath.slides import SlideHandles

MAX_BYTES = 8 << 30
_ROWS_PER_TASK = 256


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


def _read_tile(handles: SlideHandles, row: dict, extent_px: int) -> np.ndarray:
    with handles.lend(local_path(row["slide"]), row["slide_mpp"]) as slide:
        return slide.read(row["x_l0"], row["y_l0"], row["extent_l0"], extent_px)
