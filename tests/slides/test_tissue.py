import numpy as np
import pytest
from PIL import Image, ImageDraw
from scipy import ndimage

from raypath.slides import Slide, TileGrid, TileSpec, tissue_fractions, tissue_mask

MPP = 8.0
INKS = {"blue": (40, 60, 170), "green": (20, 130, 60), "black": (35, 35, 40), "red": (205, 30, 45)}
# A thumbnail's mean colour of tissue at different stains, and of glass
STAINS = {"pale frozen": (205, 190, 212), "dense": (110, 70, 130), "eosin": (225, 150, 180), "blue": (122, 111, 156)}


def thumbnail(draw, glass=(243, 240, 242), size=(200, 160), seed=0):
    image = Image.new("RGB", size, glass)
    draw(ImageDraw.Draw(image))
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(0, 12, (size[1], size[0], 3)), (0.7, 0.7, 0))
    return (np.asarray(image) + noise).clip(0, 255).astype(np.uint8)


def dice(one, other):
    return 2 * (one & other).sum() / (one.sum() + other.sum())


@pytest.mark.parametrize("colour", STAINS.values(), ids=STAINS)
@pytest.mark.parametrize("glass", [(255, 255, 255), (243, 240, 242), (231, 214, 229)], ids=["white", "usual", "pink"])
def test_finds_tissue_of_any_stain_on_any_glass(colour, glass):
    if glass == (231, 214, 229) and colour == STAINS["pale frozen"]:
        colour = (185, 160, 195)  # as pale against its own glass
    found = tissue_mask(thumbnail(lambda d: d.ellipse((40, 30, 160, 130), colour), glass), MPP)
    expected = np.asarray(thumbnail(lambda d: d.ellipse((40, 30, 160, 130), (0, 0, 0)), seed=1)).mean(-1) < 100
    assert dice(found, expected) > 0.93


@pytest.mark.parametrize("glass", [(255, 255, 255), (243, 240, 242), (231, 214, 229), (215, 215, 215)])
def test_a_blank_slide_has_no_tissue(glass):
    assert not tissue_mask(thumbnail(lambda d: None, glass), MPP).any()


def test_vignetting_and_dust_are_no_tissue():
    blank = thumbnail(lambda d: d.ellipse((50, 50, 62, 62), (140, 139, 140)))
    shade = np.linspace(1, 0.88, 200)[None, :, None]
    assert not tissue_mask((blank * shade).astype(np.uint8), MPP).any()


@pytest.mark.parametrize("ink", INKS.values(), ids=INKS)
def test_pen_strokes_are_left_out_and_the_tissue_beside_them_stays(ink):
    def draw(d):
        d.rectangle((90, 30, 170, 130), STAINS["eosin"])
        d.rectangle((90, 60, 170, 90), STAINS["dense"])
        d.line((20, 10, 60, 140), ink, width=8)

    found = tissue_mask(thumbnail(draw), MPP)
    assert not found[:, :80].any()
    assert found[35:125, 95:165].mean() > 0.99


def test_small_holes_are_filled_and_large_ones_and_specks_are_not_tissue():
    def draw(d):
        d.rectangle((20, 20, 180, 140), STAINS["eosin"])
        d.ellipse((40, 40, 56, 56), (243, 240, 242))  # 128 um
        d.ellipse((80, 50, 140, 110), (243, 240, 242))  # 480 um
        d.rectangle((5, 5, 9, 9), STAINS["eosin"])

    found = tissue_mask(thumbnail(draw), MPP)
    assert found[40:57, 40:57].all()
    assert not found[70:90, 100:120].any()
    assert not found[:14, :14].any()


def test_a_wrong_picture_is_refused():
    with pytest.raises(ValueError, match=r"not float64 \[4, 4, 3\]"):
        tissue_mask(np.zeros((4, 4, 3)), MPP)


@pytest.mark.parametrize(("extent", "stride"), [(40, 40), (37, 23), (10, 30), (3, 3)])
def test_fractions_equal_counting_level_0_pixels(extent, stride):
    size_l0, scale = (403, 307), 7  # the mask's pixels are 7 and a bit level-0 pixels
    mask = np.random.default_rng(0).random((307 // scale, 403 // scale)) < 0.4
    spec = TileSpec(extent_px=extent, mpp=1.0, stride_px=stride, min_tissue=0.5)
    grid = TileGrid.of(size_l0, 1.0, spec)
    fractions = tissue_fractions(mask, grid)
    assert fractions.dtype == np.float32
    assert fractions.shape == (grid.num_rows, grid.num_columns)
    fine = 20  # samples per level-0 pixel and axis would be exact in the limit
    rows = (np.arange(extent * fine) + 0.5) / fine
    for cell in np.random.default_rng(1).choice(grid.num_cells, 20):
        x_l0, y_l0 = (int(value[0]) for value in grid.corners(np.array([cell])))
        row = ((y_l0 + rows) * mask.shape[0] / size_l0[1]).astype(int)
        column = ((x_l0 + rows) * mask.shape[1] / size_l0[0]).astype(int)
        assert fractions.flat[cell] == pytest.approx(mask[np.ix_(row, column)].mean(), abs=0.02)


def test_fractions_of_all_and_nothing_and_of_an_empty_grid():
    grid = TileGrid.of((1000, 800), 1.0, TileSpec(extent_px=90, mpp=1.0, stride_px=45, min_tissue=0.5))
    assert (tissue_fractions(np.ones((100, 125), bool), grid) > 0.99999).all()
    assert (tissue_fractions(np.zeros((100, 125), bool), grid) == 0).all()
    narrow = TileGrid.of((50, 800), 1.0, TileSpec(extent_px=90, mpp=1.0, stride_px=45, min_tissue=0.5))
    assert tissue_fractions(np.ones((100, 10), bool), narrow).shape == (16, 0)


# Measured Dice at 8 um per px: s1 0.952, s3 0.970 (s3 is 97 % tissue).
@pytest.mark.real
@pytest.mark.parametrize(("name", "mpp", "bound"), [("s1_half", 0.5, 0.93), ("s3_native", 0.25, 0.95)])
def test_agrees_with_the_annotated_outline(real_slides, name, mpp, bound):
    stem = f"colon_polyp_P2_0039_{name}"
    found = tissue_mask(Slide.open(real_slides / f"{stem}.tiff", mpp=mpp).thumbnail(MPP), MPP)
    outline = Image.open(real_slides / f"{stem}.tissue_mask_ds16.png").resize(
        found.shape[::-1], Image.Resampling.NEAREST
    )
    assert dice(found, np.asarray(outline) > 0) > bound


# What a person sees on the thumbnails: one wedge on each frozen section (halo and dust are not tissue), two thirds of
# the TCGA slide, one strand on the CMU region.
@pytest.mark.real
@pytest.mark.parametrize(
    ("name", "mpp", "low", "high"),
    [
        ("her2st_C2.tiff", None, 0.16, 0.19),
        ("her2st_C3.tiff", None, 0.16, 0.19),
        ("her2st_C4.tiff", None, 0.16, 0.19),
        ("CMU-1-Small-Region.svs", None, 0.36, 0.46),
        ("TCGA-CR-7395-01A-01-TS1.svs", 0.5, 0.62, 0.72),
    ],
)
def test_the_share_of_tissue_on_real_slides(real_slides, name, mpp, low, high):
    shares = []
    slide = Slide.open(real_slides / name, mpp)
    for thumbnail_mpp in (8, 16):
        shares.append(tissue_mask(slide.thumbnail(thumbnail_mpp), thumbnail_mpp).mean())
        assert low < shares[-1] < high
    assert abs(shares[0] - shares[1]) < 0.01
