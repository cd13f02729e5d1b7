"""A picture of what an encoder is trained on: tiles of the plan, and the views made of them.

One decision: it is drawn from the very code that feeds training (same plan, same reader, same views), so what is seen is what is
learned from.
"""

import numpy as np
from PIL import Image, ImageDraw

from raypath.data.drawing import GRAY, INK, WHITE, fitted, font
from raypath.data.image_reading import ImageReader
from raypath.data.reading import WindowReader
from raypath.data.views import Views, ViewSettings

_GAP_PX, _GROUP_GAP_PX = 4, 16
TITLE_PX, CAPTION_PX = 68, 96
"""The room above the pictures, and to the left of them."""

Row = tuple[str, np.ndarray]
"""What a row shows, in lines, and its pictures uint8 [N, h, w, 3]."""


def view_sheet(
    reader: WindowReader | ImageReader, settings: ViewSettings, *, seed: int, num_tiles: int = 12, num_draws: int = 3
) -> Image.Image:
    """One column per tile: the tile on top, then `num_draws` draws of its views, as training would see them in later epochs.

    Local views, where there are some, stand below those, apart and small: a block of them for each draw. Every row says what it is.
    """
    epoch_length = reader.plan.epoch_length
    spread = np.linspace(0, epoch_length - 1, num_tiles).astype(np.int64)
    tiles = reader.read(spread)["image"]
    views = Views(settings, seed)
    draws = [spread + draw * epoch_length for draw in range(num_draws)]
    rows = [("tile", tiles)]
    for number, draw in enumerate(draws, start=1):
        made = views(tiles, draw).swapaxes(0, 1)
        rows += [(f"view {view}\ndraw {number}", row) for view, row in enumerate(made, start=1)]
    about = f"a column is a tile of {tiles.shape[2]} px, a draw its views of {settings.extent_px} px in one epoch"
    groups = [rows]
    if settings.num_local_views:
        across = max(2, settings.extent_px // settings.local_px)
        local = [block(views.local(tiles, draw), across) for draw in draws]
        groups.append([(f"local\ndraw {number}", row) for number, row in enumerate(local, start=1)])
        about += f"; local views have {settings.local_px} px"
    return stack("What the encoder is trained on", about, *groups)


def block(views: np.ndarray, across: int) -> np.ndarray:
    """Local views uint8 [N, L, s, s, 3] as one picture per tile, `across` of them side by side: uint8 [N, h, w, 3]."""
    num, num_views, extent_px = views.shape[:3]
    step = extent_px + _GAP_PX
    pages = np.full((num, -(-num_views // across) * step - _GAP_PX, across * step - _GAP_PX, 3), 255, np.uint8)
    for number in range(num_views):
        top, left = (step * place for place in divmod(number, across))
        pages[:, top : top + extent_px, left : left + extent_px] = views[:, number]
    return pages


def stack(title: str, about: str, *groups: list[Row]) -> Image.Image:
    """Rows of equally many pictures, each drawn at the width of the widest, with what it is to the left; groups lie apart."""
    width_px = max(96, *(row.shape[2] for rows in groups for _, row in rows))
    placed, top = [], TITLE_PX + _GAP_PX  # (top, height, caption, pictures) of each row
    for rows in groups:
        for caption, row in rows:
            height_px = round(width_px * row.shape[1] / row.shape[2])
            placed.append((top, height_px, caption, row))
            top += height_px + _GAP_PX
        top += _GROUP_GAP_PX
    step = width_px + _GAP_PX
    sheet = Image.new("RGB", (CAPTION_PX + len(groups[0][0][1]) * step + _GAP_PX, top - _GROUP_GAP_PX), WHITE)
    draw, room = ImageDraw.Draw(sheet), sheet.width - 2 * _GROUP_GAP_PX
    draw.text((_GROUP_GAP_PX, 10), fitted(title, font(20, is_bold=True), room), INK, font(20, is_bold=True))
    draw.text((_GROUP_GAP_PX, 40), fitted(about, font(14), room), GRAY, font(14))
    for top, height_px, caption, row in placed:
        first, *others = caption.split("\n")
        draw.text((_GROUP_GAP_PX, top + height_px / 2 - 8), first, INK, font(15, is_bold=True), anchor="lm")
        draw.text((_GROUP_GAP_PX, top + height_px / 2 + 12), " ".join(others), GRAY, font(13), anchor="lm")
        for number, pixels in enumerate(row):
            picture = Image.fromarray(pixels).resize((width_px, height_px), Image.Resampling.NEAREST)
            sheet.paste(picture, (CAPTION_PX + _GAP_PX + number * step, top))
    return sheet
