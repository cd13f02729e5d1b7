"""A picture of near-duplicates, for eyes to judge: both samples as they are, and the second laid on the first.

One decision: the third picture is the second one turned, mirrored and enlarged by what the search found, so that a wrong pair shows
at a glance: nothing in it stands where it stands in the first.
"""

from collections.abc import Sequence
from math import cos, radians, sin

from PIL import Image, ImageDraw

from raypath.benchmarks.splits.near_duplicates import Pair, pictures
from raypath.data.drawing import GRAY, INK, WHITE, fitted, font

_TILE_PX, _GAP_PX, _MARGIN_PX, _CAPTION_PX, _TITLE_PX = 192, 12, 32, 60, 72
_PER_LINE = 2


def sheet(pairs: Sequence[Pair], *, title: str = "Near-duplicates across splits") -> Image.Image:
    """Two pairs a line: the first, the second, the second laid on the first, with names, splits and correlation.

    Reads the pictures again; raises BadInput for one that is gone.
    """
    block_px = 3 * (_TILE_PX + _GAP_PX) + _MARGIN_PX
    num_lines = -(-len(pairs) // _PER_LINE)
    size = _MARGIN_PX + _PER_LINE * block_px, _TITLE_PX + num_lines * (_TILE_PX + _CAPTION_PX) + _MARGIN_PX // 2
    page = Image.new("RGB", size, WHITE)
    lettering = font(24, is_bold=True)
    heading = fitted(title, lettering, size[0] - 2 * _MARGIN_PX)
    ImageDraw.Draw(page).text((_MARGIN_PX, 20), heading, INK, lettering)
    for number, pair in enumerate(pairs):
        line, column = divmod(number, _PER_LINE)
        _draw_pair(page, (_MARGIN_PX + column * block_px, _TITLE_PX + line * (_TILE_PX + _CAPTION_PX)), pair)
    return page


def laid_on(pair: Pair, second: Image.Image) -> Image.Image:
    """The second picture (a square) as the first shows it; white where the first shows more."""
    turn, scale, middle = radians(pair.turn_deg), 1 / pair.magnification, (second.width - 1) / 2
    a, b = scale * cos(turn), scale * sin(turn)
    matrix = ((a, b), (b, -a)) if pair.is_mirrored else ((a, b), (-b, a))
    affine = [value for x, y in matrix for value in (x, y, middle - (x + y) * middle)]
    return second.transform(second.size, Image.Transform.AFFINE, affine, Image.Resampling.BICUBIC, fillcolor=WHITE)


def _draw_pair(page: Image.Image, corner: tuple[int, int], pair: Pair) -> None:
    first, second = (_square(picture) for picture in pictures([pair.first, pair.second], _TILE_PX))
    turn = f"turned {pair.turn_deg:.0f}\u00b0, {pair.magnification:.2f} x" + (", mirrored" if pair.is_mirrored else "")
    captions = [(side["split"], side["sample"]) for side in (pair.first, pair.second)]
    captions.append((f"correlation {pair.correlation:.2f}", turn))
    draw, bold, plain = ImageDraw.Draw(page), font(14, is_bold=True), font(13)
    for number, (picture, (head, text)) in enumerate(zip((first, second, laid_on(pair, second)), captions)):
        left, top = corner[0] + number * (_TILE_PX + _GAP_PX), corner[1]
        page.paste(picture, (left, top))
        draw.text((left, top + _TILE_PX + 6), fitted(head, bold, _TILE_PX), INK, bold)
        draw.text((left, top + _TILE_PX + 25), fitted(text, plain, _TILE_PX), GRAY, plain)


def _square(picture: Image.Image) -> Image.Image:
    side = min(picture.size)
    left, top = ((length - side) / 2 for length in picture.size)
    return picture.resize((_TILE_PX, _TILE_PX), Image.Resampling.BICUBIC, box=(left, top, left + side, top + side))
