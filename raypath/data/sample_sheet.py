"""A picture of samples with a few words under each: the worst ones, or those that two encoders see differently.

One decision: thumbnails of one size in rows that fit a page, so that a report can hold them without the images.
"""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from raypath.data.drawing import GRAY, INK, WHITE, fitted, font

_TILE_PX, _GAP_PX, _MARGIN_PX, _LINE_PX, _TITLE_PX = 144, 14, 28, 18, 64


def sample_sheet(
    images: np.ndarray, words: Sequence[Sequence[str]], *, title: str, about: str, columns: int = 5
) -> Image.Image:
    """`images` uint8 [N, H, W, 3] in rows of `columns`, each with its lines of `words`, the first one bold.

    Raises ValueError unless there are words for every image, and one image at least.
    """
    if not 0 < len(images) == len(words):
        raise ValueError(f"{len(images)} images, {len(words)} captions: expected as many of each, 1 or more")
    num_lines = max(map(len, words))
    row_px = _TILE_PX + num_lines * _LINE_PX + _GAP_PX + 6
    num_rows = -(-len(images) // columns)
    width = 2 * _MARGIN_PX + columns * (_TILE_PX + _GAP_PX) - _GAP_PX
    sheet = Image.new("RGB", (width, _TITLE_PX + _MARGIN_PX + num_rows * row_px), WHITE)
    draw, room = ImageDraw.Draw(sheet), width - 2 * _MARGIN_PX
    draw.text((_MARGIN_PX, 16), fitted(title, font(20, is_bold=True), room), INK, font(20, is_bold=True))
    draw.text((_MARGIN_PX, 46), fitted(about, font(14), room), GRAY, font(14))
    for number, (image, lines) in enumerate(zip(images, words)):
        row, column = divmod(number, columns)
        left, top = _MARGIN_PX + column * (_TILE_PX + _GAP_PX), _TITLE_PX + _MARGIN_PX // 2 + row * row_px
        thumb = Image.fromarray(image).resize((_TILE_PX, _TILE_PX), Image.Resampling.BICUBIC)
        sheet.paste(thumb, (left, top))
        for place, line in enumerate(lines):
            lettering = font(13, is_bold=place == 0)
            at = (left, top + _TILE_PX + 5 + place * _LINE_PX)
            draw.text(at, fitted(line, lettering, _TILE_PX), INK if place == 0 else GRAY, lettering)
    return sheet
