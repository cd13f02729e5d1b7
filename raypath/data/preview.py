"""Pictures of an index, for eyes: which tiles are kept on every slide, and what tiles look like.

One decision: the slide is shown as it is stained and what is left out is faded, instead of painting what is kept; a
pathologist judges the tissue first and the grid second. Kept tiles are framed as long as a frame can be seen (6 px) and
tinted below that. Outline and grid are drawn from the index and the tissue mask, never from a memory of how it was made.

    INDEX/preview/slides/SLIDE.png   a slide: kept tiles, outline of tissue, scale bar, caption
    INDEX/preview/tiles.png          tiles as the network gets them, drawn evenly over the slides
    INDEX/preview/quarantine.png     the slides set aside, with their reasons

Costs: a thumbnail per slide (1 s where a pyramid is), one slide and one picture in memory at a time.
"""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from raypath.data.drawing import (
    GRAY,
    INK,
    MICRO,
    RULE,
    WHITE,
    draw_outline,
    draw_scale_bar,
    fitted,
    font,
    length_text,
    text_page,
)
from raypath.data.index import Index
from raypath.data.staging import local_path
from raypath.errors import BadInput, SlideError
from raypath.slides import SlideHandles, tissue_mask
from raypath.slides.tissue import THUMBNAIL_MPP

KEPT, TISSUE, FADED = (0, 140, 110), (40, 60, 160), (243, 244, 247)
_SMALLEST_FRAME_PX, _FRAME_OF_ITS_OWN_PX = 6, 40
_MARGIN_PX, _CAPTION_PX, _MIN_WIDTH_PX = 28, 158, 980
_NUM_LISTED = 40  # slides set aside that a page of quarantine names
_COMPRESS = 3  # of PNG: half the time of the default for a tenth more bytes


def write_previews(
    index: Index,
    *,
    num_slides: int = 24,
    num_tiles: int = 64,
    seed: int = 0,
    progress: Callable[[int, int, str], None] = lambda done, total, name: None,
) -> Path:
    """Write all pictures of an index into its folder `preview` and return that.

    At most `num_slides` slides, evenly over the index. A slide that is gone or changed since gets no picture but is
    named in quarantine.png. `progress(done, total, name)` is called after every picture.
    """
    if num_slides < 1 or num_tiles < 1:
        raise BadInput(f"num_slides = {num_slides}, num_tiles = {num_tiles}: both must be 1 or more")
    folder = index.folder / "preview"
    (folder / "slides").mkdir(parents=True, exist_ok=True)
    chosen = np.unique(np.linspace(0, len(index) - 1, min(num_slides, len(index))).round().astype(int)).tolist()
    set_aside, total = _quarantine(index.folder), len(chosen) + 1
    for done, slide in enumerate(chosen, start=1):
        name = index.row(slide)["slide"]
        try:
            preview_slide(index, slide).save(folder / "slides" / f"{name}.png", compress_level=_COMPRESS)
        except SlideError as error:
            set_aside.append({"slide": name, "reason": type(error).__name__, "message": str(error)})
        progress(done, total, name)
    contact_sheet(index, num_tiles=num_tiles, seed=seed).save(folder / "tiles.png", compress_level=_COMPRESS)
    progress(total, total, "tiles")
    (folder / "quarantine.png").unlink(missing_ok=True)
    if set_aside:
        quarantine_page(set_aside).save(folder / "quarantine.png")
    return folder


def preview_slide(index: Index, slide: int, *, size_px: int = 1400) -> Image.Image:
    """Slide number `slide` of an index, its longer side at most `size_px`, with a caption below.

    Raises SlideError where the slide is gone, has changed since it was indexed, or cannot be read.
    """
    row = index.row(slide)
    with _lend(SlideHandles(1), row) as opened:
        mpp = max(row["mpp"], max(opened.size_l0) * row["mpp"] / size_px)
        picture = Image.fromarray(opened.thumbnail(mpp))
        mask = tissue_mask(opened.thumbnail(THUMBNAIL_MPP), THUMBNAIL_MPP)
    x_l0, y_l0 = index.corners(slide, np.arange(row["num_tiles"]))
    scale = row["mpp"] / mpp  # pixels of the picture per pixel of level 0
    picture = _show_kept(picture, x_l0 * scale, y_l0 * scale, index.grid(slide).extent_l0 * scale)
    draw_outline(picture, mask, TISSUE)
    return _with_caption(picture, index, row, mpp)


def contact_sheet(index: Index, *, num_tiles: int = 64, seed: int = 0) -> Image.Image:
    """Tiles as the network gets them, with the slide under each; as many of every slide as the number allows.

    A tile that cannot be read is a gray square with the reason. Raises BadInput for an index without tiles.
    """
    picks = _evenly(index.num_tiles, num_tiles, seed)
    extent_px = index.spec.extent_px
    shown_px = max(extent_px, 160) if extent_px < 160 else min(extent_px, 256)
    columns = max(1, min(int(np.ceil(np.sqrt(len(picks)))), len(picks)))
    cell_w, cell_h = shown_px + 14, shown_px + 52
    sheet = Image.new("RGB", (max(cell_w * columns + 14, 700), 84 + cell_h * -(-len(picks) // columns)), WHITE)
    draw = ImageDraw.Draw(sheet)
    about = f"{len(picks)} tiles of {extent_px} px at {index.spec.mpp:g} {MICRO} per px"
    draw.text((14, 14), about, INK, font(24, is_bold=True))
    side = f"side of a tile: {length_text(extent_px * index.spec.mpp)}; below each its slide and the place of its corner in level 0"
    draw.text((14, 48), fitted(side, font(15), sheet.width - 28), GRAY, font(15))
    handles = SlideHandles(4)
    for number, (slide, tile) in enumerate(picks):
        left, top = 14 + number % columns * cell_w, 84 + number // columns * cell_h
        row, (x_l0, y_l0) = index.row(slide), index.corners(slide, np.array([tile]))
        sheet.paste(_tile(index, slide, handles, int(x_l0[0]), int(y_l0[0]), shown_px), (left, top))
        draw.text((left, top + shown_px + 5), fitted(row["slide"], font(14), shown_px), INK, font(14))
        draw.text((left, top + shown_px + 23), f"x {x_l0[0]:,}  y {y_l0[0]:,}", GRAY, font(12))
    handles.close()
    return sheet


def quarantine_page(records: list[dict]) -> Image.Image:
    """A page that names slides set aside: records with `slide`, `reason` and `message`."""
    entries = [(f"{record['slide']}: {record['reason']}", record["message"]) for record in records[:_NUM_LISTED]]
    if len(records) > _NUM_LISTED:
        entries.append((f"and {len(records) - _NUM_LISTED:,} more", "all of them stand in quarantine.jsonl"))
    return text_page(f"Set aside: {len(records):,} slide{'s' if len(records) > 1 else ''}", entries)


def _lend(handles: SlideHandles, row: dict):
    """The open slide of an index row, if the file is still the one that was indexed."""
    path = local_path(row["path"], row["stamp"])
    mtime_ns = row["mtime_ns"] if path == row["path"] else None  # a staged copy has its own
    return handles.lend(path, row["mpp"], size_bytes=row["size_bytes"], mtime_ns=mtime_ns)


def _show_kept(picture: Image.Image, xs: np.ndarray, ys: np.ndarray, side: float) -> Image.Image:
    """The picture with squares (float, pixels of the picture) as they are and the rest faded."""
    boxes = np.stack([xs, ys, xs + side, ys + side], axis=1).round().astype(int)
    kept, frames = (Image.new("L", picture.size, 0) for _ in range(2))
    draw_kept, draw_frames = ImageDraw.Draw(kept), ImageDraw.Draw(frames)
    for left, top, right, bottom in boxes.tolist():
        draw_kept.rectangle((left, top, max(left, right - 1), max(top, bottom - 1)), 255)  # Pillow includes the end
        if side >= _SMALLEST_FRAME_PX:
            shared = int(side < _FRAME_OF_ITS_OWN_PX)  # small neighbours have one line between them, large ones two
            draw_frames.rectangle((left, top, right - 1 + shared, bottom - 1 + shared), outline=170)
    shown = Image.composite(picture, Image.blend(picture, Image.new("RGB", picture.size, FADED), 0.55), kept)
    if side < _SMALLEST_FRAME_PX:
        frames = kept.point(lambda value: value // 7)
    shown.paste(KEPT, mask=frames)
    return shown


def _with_caption(picture: Image.Image, index: Index, row: dict, mpp: float) -> Image.Image:
    width = max(picture.width + 2 * _MARGIN_PX, _MIN_WIDTH_PX)
    page = Image.new("RGB", (width, picture.height + _MARGIN_PX + _CAPTION_PX), WHITE)
    left = (width - picture.width) // 2
    page.paste(picture, (left, _MARGIN_PX))
    draw = ImageDraw.Draw(page)
    draw.rectangle((left - 1, _MARGIN_PX - 1, left + picture.width, _MARGIN_PX + picture.height), outline=RULE)
    top, bar_px = picture.height + _MARGIN_PX + 18, min(260, width // 4)
    draw_scale_bar(page, width - _MARGIN_PX, top, mpp, bar_px)
    room = width - 3 * _MARGIN_PX - bar_px
    draw.text((_MARGIN_PX, top), fitted(row["slide"], font(24, is_bold=True), room), INK, font(24, is_bold=True))
    for i, line in enumerate(_facts(index, row)):
        draw.text((_MARGIN_PX, top + 38 + 25 * i), fitted(line, font(16), room), INK if i else GRAY, font(16))
    _draw_legend(draw, top + 98)
    return page


def _facts(index: Index, row: dict) -> tuple[str, str]:
    spec = index.spec
    source = "manifest" if row["mpp_source"] == "override" else row["mpp_source"].replace("file:", "file, ")
    size = " x ".join(length_text(side * row["mpp"]) for side in (row["width_l0"], row["height_l0"]))
    upsampled = f", upsampled {row['upsample']:.2f}x" if row["upsample"] > 1.005 else ""
    tiles = "1 tile" if row["num_tiles"] == 1 else f"{row['num_tiles']:,} tiles"
    return (
        f"{size}, {row['width_l0']:,} x {row['height_l0']:,} px at {row['mpp']:.4g} {MICRO} per px ({source})",
        f"{tiles} kept, {spec.extent_px} px at {spec.mpp:g} {MICRO} per px ({length_text(spec.extent_px * spec.mpp)}){upsampled}",
    )


def _draw_legend(draw: ImageDraw.ImageDraw, top: int) -> None:
    draw.rectangle((_MARGIN_PX, top + 1, _MARGIN_PX + 14, top + 15), outline=KEPT, width=2)
    draw.text((_MARGIN_PX + 24, top), "tile kept", GRAY, font(14))
    draw.line((_MARGIN_PX + 120, top + 8, _MARGIN_PX + 144, top + 8), TISSUE, 3)
    draw.text((_MARGIN_PX + 154, top), "outline of tissue; faded: left out", GRAY, font(14))


def _tile(index: Index, slide: int, handles: SlideHandles, x_l0: int, y_l0: int, shown_px: int) -> Image.Image:
    extent_l0, spec = index.grid(slide).extent_l0, index.spec
    try:
        with _lend(handles, index.row(slide)) as opened:
            pixels = opened.read(x_l0, y_l0, extent_l0, spec.extent_px, max_upsample=spec.max_upsample)
    except SlideError as error:
        square = Image.new("RGB", (shown_px, shown_px), RULE)
        ImageDraw.Draw(square).text((shown_px / 2, shown_px / 2), type(error).__name__, INK, font(15), anchor="mm")
        return square
    return Image.fromarray(pixels).resize((shown_px, shown_px), Image.Resampling.BICUBIC)


def _evenly(num_tiles: np.ndarray, wanted: int, seed: int) -> list[tuple[int, int]]:
    """`wanted` different (slide, tile), turn by turn over the slides that have tiles, in the order of the slides."""
    random = np.random.default_rng(seed)
    left = {int(slide): int(num_tiles[slide]) for slide in random.permutation(np.flatnonzero(num_tiles))}
    if not left:
        raise BadInput("the index has no tiles, so there is nothing to show")
    counts = dict.fromkeys(left, 0)
    while sum(counts.values()) < min(wanted, int(num_tiles.sum())):
        for slide in [slide for slide in left if counts[slide] < left[slide]][: wanted - sum(counts.values())]:
            counts[slide] += 1
    return [
        (slide, int(tile))
        for slide in sorted(counts)
        for tile in np.sort(random.choice(left[slide], counts[slide], replace=False))
    ]


def _quarantine(folder: Path) -> list[dict]:
    path = folder / "quarantine.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
