"""A picture of what an encoder takes for alike: query tiles (or images of a pool) with their nearest neighbours.

One decision: neighbours from other slides and from the query's own slide stand apart. Nearest of all is nearly always the tile
next door, or one with the same stain; whether tissue of the same kind is found on another slide is what the left block shows.

Costs a matrix product of queries and tiles; drawing takes a fraction of a second.
"""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from raypath.data.drawing import GRAY, INK, RULE, WHITE, fitted, font

_TILE_PX, _GAP_PX, _MARGIN_PX, _BLOCK_GAP_PX = 144, 12, 32, 44
_TITLE_PX, _HEADS_PX, _CAPTION_PX = 92, 42, 58
_LEAST_WIDTH_PX = 760  # so that the words above have room
_QUERY = (40, 60, 160)  # frame of a query


def neighbour_sheet(
    images: np.ndarray,
    features: np.ndarray,
    slides: Sequence[str],
    *,
    num_queries: int = 8,
    num_neighbours: int = 5,
    title: str = "Nearest neighbours",
    one: str = "tile",
    group: str = "slide",
) -> Image.Image:
    """One row per query: the tile, its nearest from other slides, its nearest from its own slide, with cosine and slide.

    `images` uint8 [N, H, W, 3], `features` [N, D], `slides` the N names; `one` and `group` are what the words call an image and
    what it belongs to. Queries are spread evenly over slides, always the same ones for the same slides, so that the sheets of two
    encoders can be compared. A place without a neighbour stays empty; a column without any is left out, a whole block with a word.
    Raises ValueError unless there is one feature and one name for every image.
    """
    if not len(images) == len(features) == len(slides) > 0:
        raise ValueError(
            f"{len(images)} images, {len(features)} features, {len(slides)} slides: expected as many of each, 1 or more"
        )
    queries = spread_over_slides(slides, num_queries)
    others, own = nearest(features, slides, queries, num_neighbours)
    found = {f"Nearest from other {group}s": others, f"Nearest from the same {group}": own}
    blocks = {head: rows for head, rows in found.items() if any(rows)}
    widths = [_TILE_PX, *(max(map(len, rows)) * (_TILE_PX + _GAP_PX) - _GAP_PX for rows in blocks.values())]
    lefts = (_MARGIN_PX + np.cumsum([0, *(width + _BLOCK_GAP_PX for width in widths)])).tolist()
    row_px, top = _TILE_PX + _CAPTION_PX, _TITLE_PX + _HEADS_PX
    width = max(lefts[-1] - _BLOCK_GAP_PX + _MARGIN_PX, _LEAST_WIDTH_PX)
    sheet = Image.new("RGB", (width, top + len(queries) * row_px + _MARGIN_PX // 2), WHITE)
    num_groups = len(set(slides))
    about = f"{len(images):,} {one}s of {num_groups:,} {group}{'s' if num_groups > 1 else ''}"
    absent = [
        "" if any(others) else f"; no other {group} to look in",
        "" if any(own) else f"; one {one} of each {group}",
    ]
    _draw_heads(sheet, title, about + "".join(absent), dict(zip(("Query", *blocks), zip(lefts, widths))))
    for row, query in enumerate(queries):
        y = top + row * row_px
        _draw_tile(sheet, (lefts[0], y), images[query], slides[query], "", frame=_QUERY)
        for left, rows in zip(lefts[1:], blocks.values()):
            for place in range(max(map(len, rows))):
                corner = (left + place * (_TILE_PX + _GAP_PX), y)
                if place < len(rows[row]):
                    tile, cosine = rows[row][place]
                    _draw_tile(sheet, corner, images[tile], f"{cosine:.3f}", slides[tile] if rows is others else "")
                else:
                    _draw_empty(sheet, corner)
    return sheet


def spread_over_slides(slides: Sequence[str], num: int) -> list[int]:
    """`num` tiles (all, if there are fewer), turn by turn over the slides, evenly inside each; in the order of the slides."""
    rows = {name: [i for i, slide in enumerate(slides) if slide == name] for name in dict.fromkeys(slides)}
    counts = dict.fromkeys(rows, 0)
    for _ in range(min(num, len(slides))):
        fewest = min((name for name in rows if counts[name] < len(rows[name])), key=counts.__getitem__)
        counts[fewest] += 1
    return [rows[name][(2 * i + 1) * len(rows[name]) // (2 * n)] for name, n in counts.items() for i in range(n)]


def nearest(
    features: np.ndarray, slides: Sequence[str], queries: Sequence[int], num: int
) -> tuple[list[list[tuple[int, float]]], list[list[tuple[int, float]]]]:
    """(tile, cosine) of the `num` nearest of each query, nearest first: from other slides, and from its own."""
    norms = np.linalg.norm(features, axis=1, keepdims=True)
    directions = features / np.maximum(norms, np.finfo(np.float32).tiny)
    cosines = directions[queries] @ directions.T  # [Q, N]
    _, number = np.unique(np.asarray(slides), return_inverse=True)
    others, own = [], []
    for query, row in zip(queries, cosines):
        order = np.argsort(-row, kind="stable")
        is_own = number[order] == number[query]
        for found, kept in ((others, order[~is_own]), (own, order[is_own & (order != query)])):
            found.append([(int(tile), float(row[tile])) for tile in kept[:num]])
    return others, own


def _draw_heads(sheet: Image.Image, title: str, about: str, heads: dict[str, tuple[int, int]]) -> None:
    """The title, a line below it, and a ruled head for every block: its left edge and its width."""
    draw, room = ImageDraw.Draw(sheet), sheet.width - 2 * _MARGIN_PX
    draw.text((_MARGIN_PX, 20), fitted(title, font(24, is_bold=True), room), INK, font(24, is_bold=True))
    explained = f"{about}; nearest first, by the cosine of their features"
    draw.text((_MARGIN_PX, 54), fitted(explained, font(15), room), GRAY, font(15))
    for head, (left, width) in heads.items():
        draw.text((left, _TITLE_PX), fitted(head, font(16, is_bold=True), width), INK, font(16, is_bold=True))
        draw.line((left, _TITLE_PX + 26, left + width - 1, _TITLE_PX + 26), RULE, 2)


def _draw_tile(
    sheet: Image.Image, corner: tuple[int, int], tile: np.ndarray, head: str, name: str, frame: tuple | None = None
) -> None:
    (left, top), draw = corner, ImageDraw.Draw(sheet)
    sheet.paste(Image.fromarray(tile).resize((_TILE_PX, _TILE_PX), Image.Resampling.BICUBIC), corner)
    if frame:
        draw.rectangle((left - 3, top - 3, left + _TILE_PX + 2, top + _TILE_PX + 2), outline=frame, width=3)
    bold = font(14, is_bold=True)
    draw.text((left, top + _TILE_PX + 7), fitted(head, bold, _TILE_PX), INK, bold)
    draw.text((left, top + _TILE_PX + 26), fitted(name, font(13), _TILE_PX), GRAY, font(13))


def _draw_empty(sheet: Image.Image, corner: tuple[int, int]) -> None:
    left, top = corner
    ImageDraw.Draw(sheet).rectangle((left, top, left + _TILE_PX - 1, top + _TILE_PX - 1), outline=RULE)
