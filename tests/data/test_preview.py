import json
import shutil

import numpy as np
import pytest
from PIL import Image

from raypath.data import preview
from raypath.data.drawing import fitted, font, length_text, scale_bar_um, text_page
from raypath.data.index import Index
from raypath.data.preview import contact_sheet, preview_slide, quarantine_page, write_previews
from raypath.errors import BadInput, SlideChanged, SlideMissing
from raypath.slides import Slide

pytestmark = pytest.mark.ray  # the index of the phantoms needs it


@pytest.fixture
def index_copy(phantom_index, tmp_path):
    shutil.copytree(phantom_index.folder, tmp_path / "index")
    return Index(tmp_path / "index")


def colours(image):
    return {colour for _, colour in image.getcolors(image.width * image.height)}


def test_what_is_kept_looks_as_on_the_slide_and_the_rest_is_faded(phantom_index, monkeypatch):
    monkeypatch.setattr(preview, "draw_outline", lambda *args: None)
    page = np.asarray(preview_slide(phantom_index, 0)).astype(int)
    row, grid = phantom_index.row(0), phantom_index.grid(0)
    left = (page.shape[1] - 768) // 2
    shown = page[preview._MARGIN_PX :, left:][:768, :768]
    with Slide.open(row["path"]) as slide:
        original = slide.thumbnail(0.5).astype(int)
    kept = phantom_index.cells(0).tolist()
    assert len(kept) < grid.num_cells - 20
    for cell in range(grid.num_cells):
        (x,), (y,) = grid.corners(np.array([cell]))
        inside = np.s_[y + 2 : y + 62, x + 2 : x + 62]
        if cell in kept:
            assert (shown[inside] == original[inside]).all()
        else:
            faded = 0.45 * original[inside] + 0.55 * np.array(preview.FADED)
            assert np.abs(shown[inside] - faded).max() <= 1


def test_a_picture_of_a_slide_has_frames_outline_and_caption_and_keeps_its_bound(phantom_index):
    page = preview_slide(phantom_index, 0)
    assert preview.TISSUE in colours(page)
    assert preview.INK in colours(page)
    small = preview_slide(phantom_index, 0, size_px=80)  # tiles of 6.7 px
    tiny = preview_slide(phantom_index, 0, size_px=60)  # of 5: tinted
    assert small.height == 80 + preview._MARGIN_PX + preview._CAPTION_PX
    assert tiny.height == small.height - 20


def test_the_sheet_shows_real_tiles_evenly_and_the_same_ones_for_a_seed(phantom_index):
    picks = preview._evenly(phantom_index.num_tiles, 14, seed=3)
    assert len(set(picks)) == 14
    assert sorted(np.bincount([slide for slide, _ in picks], minlength=6).tolist()) == [2, 2, 2, 2, 3, 3]
    assert all(tile < phantom_index.num_tiles[slide] for slide, tile in picks)
    assert preview._evenly(phantom_index.num_tiles, 14, seed=3) == picks
    assert preview._evenly(phantom_index.num_tiles, 14, seed=4) != picks
    assert len(preview._evenly(np.array([3, 0, 2]), 64, seed=0)) == 5

    sheet = np.asarray(contact_sheet(phantom_index, num_tiles=4, seed=3))
    slide, tile = preview._evenly(phantom_index.num_tiles, 4, seed=3)[0]
    (x_l0,), (y_l0,) = phantom_index.corners(slide, np.array([tile]))
    with Slide.open(phantom_index.row(slide)["path"]) as opened:
        pixels = Image.fromarray(opened.read(int(x_l0), int(y_l0), 64, 64)).resize((160, 160), Image.Resampling.BICUBIC)
    assert (sheet[84 : 84 + 160, 14 : 14 + 160] == np.asarray(pixels)).all()


def test_all_pictures_are_written_and_counted(index_copy):
    seen = []
    folder = write_previews(index_copy, num_slides=4, num_tiles=9, progress=lambda *step: seen.append(step))
    assert sorted(p.name for p in folder.iterdir()) == ["slides", "tiles.png"]
    assert sorted(p.stem for p in (folder / "slides").iterdir()) == [f"phantom-000{n}" for n in (1, 3, 4, 6)]
    assert [(done, total) for done, total, _ in seen] == [(n, 5) for n in range(1, 6)]
    assert seen[-1][2] == "tiles"
    with pytest.raises(BadInput, match="both must be 1 or more"):
        write_previews(index_copy, num_slides=0)


def test_slides_set_aside_and_gone_are_named_on_a_page(index_copy, monkeypatch):
    record = {"slide": "bad", "path": "bad.svs", "reason": "SlideEmpty", "message": "bad.svs: has 0 bytes"}
    (index_copy.folder / "quarantine.jsonl").write_text(json.dumps(record) + "\n")
    shown = []
    monkeypatch.setattr(preview, "quarantine_page", lambda records: shown.extend(records) or quarantine_page(records))
    row = index_copy.row(0)
    monkeypatch.setattr(index_copy, "row", lambda slide: {**row, "path": "/nowhere.svs"} if slide == 0 else row)
    folder = write_previews(index_copy, num_slides=1, num_tiles=1)
    assert (folder / "quarantine.png").exists()
    assert [r["reason"] for r in shown] == ["SlideEmpty", "SlideMissing"]


def test_a_slide_that_is_gone_or_changed_is_an_error_and_its_tiles_are_gray(index_copy, tmp_path, monkeypatch):
    rows = [index_copy.row(slide) for slide in range(6)]
    rows[0] = {**rows[0], "path": str(tmp_path / "nowhere.svs")}
    rows[1] = {**rows[1], "mtime_ns": 1}
    monkeypatch.setattr(index_copy, "row", rows.__getitem__)
    with pytest.raises(SlideMissing):
        preview_slide(index_copy, 0)
    with pytest.raises(SlideChanged):
        preview_slide(index_copy, 1)
    sheet = np.asarray(contact_sheet(index_copy, num_tiles=6))
    assert (sheet[90, 20] == preview.RULE).all()


def test_an_index_without_tiles_has_no_sheet():
    with pytest.raises(BadInput, match="no tiles"):
        preview._evenly(np.array([0, 0]), 5, seed=0)


def test_a_long_quarantine_is_cut_and_says_so():
    records = [{"slide": f"s{n}", "reason": "SlideEmpty", "message": "word " * 200} for n in range(100)]
    assert quarantine_page(records).height < 20_000
    assert text_page("title", [("a", "")]).width == 1200


@pytest.mark.parametrize(
    ("longest", "length", "text"), [(260, 200, "200 \u00b5m"), (1000, 1000, "1 mm"), (7.3, 5, "5 \u00b5m")]
)
def test_scale_bars_have_round_lengths(longest, length, text):
    assert scale_bar_um(longest) == length
    assert length_text(length) == text


def test_long_names_keep_both_ends():
    name = "TCGA-" + "x" * 100 + "-end"
    short = fitted(name, font(14), 160)
    assert short.startswith("TCGA-")
    assert short.endswith("end")
    assert font(14).getlength(short) <= 160
    assert fitted("short", font(14), 160) == "short"
