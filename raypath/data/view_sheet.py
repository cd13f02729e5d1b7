"""A picture of what an encoder is trained on: tiles of the plan, and the views made of them.

One decision: it is drawn from the very code that feeds training (same plan, same reader, same views), so what is seen is what is
learned from.
"""

import numpy as np
from PIL import Image

from raypath.data.joined_index import AnyIndex
from raypath.data.plan import Plan
from raypath.data.reading import WindowReader
from raypath.data.views import Views, ViewSettings

_GAP_PX = 4


def view_sheet(
    index: AnyIndex, plan: Plan, settings: ViewSettings, *, seed: int, num_tiles: int = 12, num_draws: int = 3
) -> Image.Image:
    """One column per tile: the tile on top, then `num_draws` draws of its views, as training would see them in later epochs."""
    spread = np.linspace(0, plan.epoch_length - 1, num_tiles).astype(np.int64)
    tiles = WindowReader(index, plan, {}).read(spread)["image"]
    views = Views(settings, seed)
    draws = [views(tiles, spread + draw * plan.epoch_length) for draw in range(num_draws)]  # [N, V, h, w, 3] each
    rows = [tiles, *(draw[:, number] for draw in draws for number in range(settings.num_views))]
    return stack(rows)


def stack(rows: list[np.ndarray]) -> Image.Image:
    """Rows of equally many tiles uint8 [N, h, w, 3], each drawn at the extent of the largest."""
    extent_px = max(96, *(row.shape[1] for row in rows))
    step = extent_px + _GAP_PX
    sheet = Image.new("RGB", (len(rows[0]) * step + _GAP_PX, len(rows) * step + _GAP_PX), "white")
    for top, row in enumerate(rows):
        for left, tile in enumerate(row):
            picture = Image.fromarray(tile).resize((extent_px, extent_px), Image.Resampling.NEAREST)
            sheet.paste(picture, (_GAP_PX + left * step, _GAP_PX + top * step))
    return sheet
