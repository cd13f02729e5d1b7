"""The pencils of `preview`: lettering, outline, scale bar, a page of text; on Pillow pictures and nothing else.

One decision: the lettering is DejaVu Sans as matplotlib carries it, so that a picture looks the same on every machine and
has the sign for micro; Pillow's own font is not complete and a system font may not be there.
"""

from functools import lru_cache
from math import floor, log10
from pathlib import Path

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageFont

WHITE, INK, GRAY, RULE = (255, 255, 255), (32, 34, 48), (104, 108, 120), (214, 216, 222)
MICRO = "\u00b5m"
_PAGE_PX, _MARGIN_PX = 1200, 32


@lru_cache(maxsize=32)
def font(size_px: int, *, is_bold: bool = False) -> ImageFont.FreeTypeFont:
    """DejaVu Sans of a height in pixels."""
    import matplotlib  # only for the folder of its data: 0.1 s

    name = "DejaVuSans-Bold.ttf" if is_bold else "DejaVuSans.ttf"
    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name), size_px)


def fitted(text: str, lettering: ImageFont.FreeTypeFont, width_px: float) -> str:
    """The text, or its two ends around "..." if it is wider than `width_px`."""
    if lettering.getlength(text) <= width_px:
        return text
    for kept in range(len(text) - 1, 1, -1):
        short = f"{text[: (kept + 1) // 2]}...{text[len(text) - kept // 2 :]}"
        if lettering.getlength(short) <= width_px:
            return short
    return "..."


def scale_bar_um(longest_um: float) -> float:
    """The longest of 1, 2, 5, 10, 20, ... um that is not above `longest_um`."""
    decade = 10.0 ** floor(log10(longest_um))
    return max(step * decade for step in (1, 2, 5) if step * decade <= longest_um * (1 + 1e-9))


def length_text(length_um: float) -> str:
    """1500 um as "1.5 mm", 200 um as "200 \u00b5m"; three digits."""
    return f"{length_um / 1000:.3g} mm" if length_um >= 1000 else f"{length_um:.3g} {MICRO}"


def draw_scale_bar(picture: Image.Image, right_px: int, top_px: int, mpp: float, max_width_px: int) -> None:
    """A bar with end strokes and its length over it, flush right at `right_px`; `mpp` is that of the picture."""
    length_um = scale_bar_um(max_width_px * mpp)
    width_px = round(length_um / mpp)
    left, bar = right_px - width_px, top_px + 30
    draw, lettering = ImageDraw.Draw(picture), font(20, is_bold=True)
    draw.text((right_px - width_px / 2, top_px), length_text(length_um), INK, lettering, anchor="ma")
    draw.rectangle((left, bar, right_px, bar + 5), INK)
    for x in (left, right_px):
        draw.rectangle((x - 1, bar - 5, x + 1, bar + 10), INK)


def draw_outline(picture: Image.Image, mask: np.ndarray, colour: tuple[int, int, int]) -> None:
    """A smooth line along the edge of `mask` (bool [h, w], covers the whole picture)."""
    smooth = Image.fromarray(mask.astype(np.uint8) * 255).resize(picture.size, Image.Resampling.BICUBIC)
    smooth = smooth.filter(ImageFilter.GaussianBlur(max(1, picture.width / mask.shape[1] / 2)))
    is_inside = smooth.point(lambda value: 255 if value > 127 else 0)
    edge = ImageChops.subtract(is_inside.filter(ImageFilter.MaxFilter(3)), is_inside.filter(ImageFilter.MinFilter(3)))
    picture.paste(colour, mask=edge.filter(ImageFilter.GaussianBlur(0.6)))


def text_page(title: str, entries: list[tuple[str, str]]) -> Image.Image:
    """A page with a title and, one under the other, entries of a bold head and a text that is wrapped."""
    head, body = font(19, is_bold=True), font(17)
    lines: list[tuple[str, ImageFont.FreeTypeFont, tuple[int, int, int], int]] = []
    for name, text in entries:
        lines.append((fitted(name, head, _PAGE_PX - 2 * _MARGIN_PX), head, INK, 32))
        wrapped = _wrapped(text, body, _PAGE_PX - 2 * _MARGIN_PX)
        lines += [(line, body, GRAY, 40 if i == len(wrapped) - 1 else 26) for i, line in enumerate(wrapped)]
    page = Image.new("RGB", (_PAGE_PX, 3 * _MARGIN_PX + 28 + sum(line[3] for line in lines)), WHITE)
    draw = ImageDraw.Draw(page)
    draw.text((_MARGIN_PX, _MARGIN_PX), title, INK, font(26, is_bold=True))
    top = 2 * _MARGIN_PX + 28
    for text, lettering, colour, height in lines:
        draw.text((_MARGIN_PX, top), text, colour, lettering)
        top += height
    return page


def _wrapped(text: str, lettering: ImageFont.FreeTypeFont, width_px: int) -> list[str]:
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lettering.getlength(longer) <= width_px:
            lines[-1] = longer
        else:
            lines.append(fitted(word, lettering, width_px))
    return [line for line in lines if line] or [""]
