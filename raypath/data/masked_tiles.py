"""Tiles of slides with the tiles of their mask slides: `masked_images` for a table of tiles.

One decision: a tile comes at the benchmark's um per px, colours antialiased and classes by nearest neighbour, so the two have one
extent, and everything after is the same as for images. Costs the reading of both slides; 4 bytes per pixel are held.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa

from raypath.data.image_files import UNREADABLE
from raypath.data.mask_tiles import read_mask_tile
from raypath.data.masked_images import Masked, check_size
from raypath.data.staging import local_path
from raypath.errors import BadInput
from raypath.slides import SlideHandles

_NUM_THREADS = 4
_OPEN_SLIDES = 8


def read_masked_tiles(rows: pa.Table, mpp: float, classes: Sequence[str]) -> list[Masked]:
    """Tile uint8 [H, H, 3] and classes uint8 [H, H] of each row (TILE_SCHEMA with `mask`), at `mpp` um per px, in their order.

    Raises BadInput for what cannot be read, with the slide and the reason, and for a set that does not fit, with its size.
    """
    wanted = rows.to_pylist()
    extents = [round(row["extent_l0"] * row["slide_mpp"] / mpp) for row in wanted]
    check_size(sum(extent**2 for extent in extents), len(wanted))
    of_slide: dict[str, list[int]] = {}
    for number, row in enumerate(wanted):
        of_slide.setdefault(row["slide"], []).append(number)
    read: list[Masked | None] = [None] * len(wanted)

    def read_slide(numbers: list[int]) -> list[Masked]:
        handles = SlideHandles(_OPEN_SLIDES)  # one set for each thread's slide: a handle is not shared
        return [_read(handles, wanted[number], extents[number], len(classes)) for number in numbers]

    with ThreadPoolExecutor(_NUM_THREADS) as pool:
        for numbers, tiles in zip(of_slide.values(), pool.map(read_slide, of_slide.values())):
            for number, tile in zip(numbers, tiles):
                read[number] = tile
    return read


def _read(handles: SlideHandles, row: dict, extent_px: int, num_classes: int) -> Masked:
    try:
        with handles.lend(local_path(row["slide"]), row["slide_mpp"]) as slide:
            image = slide.read(row["x_l0"], row["y_l0"], row["extent_l0"], extent_px)
        return image, read_mask_tile(handles, row, extent_px, num_classes=num_classes)
    except UNREADABLE as error:
        raise BadInput(
            f"{row['slide']}, mask {row['mask']}: the tile at {row['x_l0']}, {row['y_l0']} cannot be read ({error})"
        ) from None
