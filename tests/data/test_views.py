"""A view is a function of (seed, position, view number), and its coins fall one by one."""

import hashlib
import re
from collections import Counter
from dataclasses import dataclass, field, replace

import numpy as np
import pytest

from raypath.config import from_dict, override, to_dict
from raypath.data.stain import jitter_stain, stain_matrices
from raypath.data.views import Views, ViewSettings, mpp_of_views
from raypath.errors import BadInput

ALL = ViewSettings(extent_px=32, min_scale=0.3)
CROP_ONLY = ViewSettings(extent_px=64, num_views=1, min_scale=0.2, jitter_p=0, gray_p=0, blur_p=0)
FLIP_ONLY = ViewSettings(extent_px=16, num_views=1, min_scale=1.0, jitter_p=0, gray_p=0, blur_p=0)
DINO = ViewSettings(
    extent_px=32,
    min_scale=0.4,
    stain=0.1,
    blur_p=(1.0, 0.1),
    solarize_p=(0.0, 0.2),
    num_local_views=3,
    local_px=16,
)
# sha256 of the pixels of `wavy()` at seed 7, from before there were settings other than these.
SINCE_VERSION_0_1 = {
    "f4af4fb127ae186ca94bda486c6b4e57d266f468fbd502e23c73417743821bd4": ViewSettings(),
    "1b27a2c1d348c181c2793319e1c0646c8553c55c892a7bd789429666501d808c": replace(ALL, num_views=3),
    "75031757b5238eb13a9ff849f90150d463833d7cc197b8a9405a0dd037c188ac": replace(FLIP_ONLY, extent_px=48, num_views=2),
    "18fcd9abbc38161929b722d5ee28ff4ae000dcf0c02f02862900de5be04dbbfb": ViewSettings(  # as fine-tuning has them
        extent_px=40,
        num_views=1,
        min_scale=0.8,
        brightness=0.2,
        contrast=0.2,
        saturation=0.2,
        hue=0.05,
        gray_p=0,
        blur_p=0,
    ),
}


@pytest.fixture(scope="module")
def block():
    """40 noisy tiles that differ, and their positions."""
    images = np.random.default_rng(0).integers(0, 256, (40, 48, 48, 3), dtype=np.uint8)
    return images, np.arange(1000, 1160, 4)


def slopes(extent_px):
    """A tile whose red is its column and whose green is its row, in levels."""
    ramp = np.linspace(0, 255, extent_px).astype(np.uint8)
    return np.stack(np.broadcast_arrays(ramp[None, :], ramp[:, None], np.uint8(128)), axis=-1)


def wavy():
    """12 tiles of 48 px that any machine makes alike, and their positions."""
    k, y, x, c = np.ogrid[:12, :48, :48, :3]
    tiles = (x * (3 + c) + y * (5 - c) + (x * y) // (7 + c) + 37 * k) % 256
    return tiles.astype(np.uint8), np.arange(10**6, 10**6 + 12 * 7, 7)


@pytest.mark.parametrize(("expected", "settings"), SINCE_VERSION_0_1.items(), ids=["default", "all", "flips", "tuning"])
def test_what_was_drawn_stays_what_it_was(expected, settings):
    assert hashlib.sha256(Views(settings, seed=7)(*wavy()).tobytes()).hexdigest() == expected


def test_shape_and_type(block):
    views = Views(ALL, seed=1)(*block)
    assert views.shape == (40, 2, 32, 32, 3)
    assert views.dtype == np.uint8
    assert views.flags["C_CONTIGUOUS"]


def test_any_order_and_any_split_give_the_same_pixels(block):
    images, positions = block
    whole = Views(ALL, seed=1)(images, positions)
    order = np.random.default_rng(1).permutation(len(images))
    assert np.array_equal(Views(ALL, seed=1)(images[order], positions[order]), whole[order])
    maker = Views(ALL, seed=1)
    parts = [maker(images[part], positions[part]) for part in np.split(order, [1, 2, 17, 30])]
    assert np.array_equal(np.concatenate(parts), whole[order])
    assert np.array_equal(maker(images, positions), whole)  # nothing is left over from calls before


def test_fewer_views_are_the_first_of_more(block):
    images, positions = block
    three = Views(ViewSettings(extent_px=32, min_scale=0.3, num_views=3), seed=1)(images[:5], positions[:5])
    assert np.array_equal(three[:, :2], Views(ALL, seed=1)(images[:5], positions[:5]))


def test_views_positions_and_seeds_differ(block):
    images, positions = block
    same = np.broadcast_to(images[:1], images.shape)
    views = Views(ALL, seed=1)(same, positions)
    other = Views(ALL, seed=2)(same, positions)
    assert len({view.tobytes() for view in views.reshape(-1, 32 * 32 * 3)}) == 80
    assert not any(np.array_equal(a, b) for a, b in zip(views.reshape(80, -1), other.reshape(80, -1)))


def test_flips_are_independent_of_each_other():
    """One generator per transform, all seeded alike, would flip both ways or not at all."""
    num = 2000
    image = slopes(16)
    views = Views(FLIP_ONLY, seed=3)(np.broadcast_to(image, (num, *image.shape)), np.arange(num))[:, 0].astype(int)
    across = views[:, 0, 0, 0] > views[:, 0, -1, 0]
    down = views[:, 0, 0, 1] > views[:, -1, 0, 1]
    counts = Counter(zip(across.tolist(), down.tolist()))
    assert len(counts) == 4
    assert sum((count - num / 4) ** 2 / (num / 4) for count in counts.values()) < 16.3  # chi square, 3 df, p = 0.001
    for flipped in range(4):
        expected = image[:, :: -1 if flipped & 1 else 1][:: -1 if flipped & 2 else 1]
        some = views[(across == bool(flipped & 1)) & (down == bool(flipped & 2))]
        assert (some == expected).all()  # nothing but the flips was done


def test_crops_keep_their_share_of_the_area():
    num = 600
    views = Views(CROP_ONLY, seed=4)(np.broadcast_to(slopes(128), (num, 128, 128, 3)), np.arange(num))[:, 0].astype(int)
    width = (np.ptp(views[..., 0], axis=(1, 2)) + 1) / 256
    height = (np.ptp(views[..., 1], axis=(1, 2)) + 1) / 256
    area = width * height
    assert area.min() > 0.2 * 0.9  # to a pixel of 128
    assert area.max() <= 1
    assert 0.52 < area.mean() < 0.66  # 0.6, less the large crops that do not fit at their aspect ratio
    assert 0.9 < np.median(width / height) < 1.1
    assert (width / height).min() > 0.7
    assert (width / height).max() < 1.45


def test_gray_and_jitter_happen_as_often_as_they_should():
    num = 1000
    image = np.full((16, 16, 3), (150, 90, 200), np.uint8)
    images = np.broadcast_to(image, (num, *image.shape))
    gray = ViewSettings(extent_px=16, num_views=1, jitter_p=0, gray_p=0.2, blur_p=0)
    made = Views(gray, seed=5)(images, np.arange(num))[:, 0, 8, 8].astype(int)
    assert 0.15 < (np.ptp(made, axis=1) == 0).mean() < 0.25
    jitter = ViewSettings(extent_px=16, num_views=1, jitter_p=0.8, gray_p=0, blur_p=0)
    made = Views(jitter, seed=5)(images, np.arange(num))[:, 0, 8, 8].astype(int)
    assert 0.75 < (np.abs(made - image[0, 0]).max(1) > 1).mean() < 0.85


def test_local_views_have_numbers_of_their_own(block):
    """They depend neither on the global views nor on how many there are, and any order or split gives the same."""
    images, positions = block
    local = Views(DINO, seed=1).local(images, positions)
    assert local.shape == (40, 3, 16, 16, 3)
    assert local.dtype == np.uint8
    other = replace(DINO, extent_px=24, num_views=5, blur_p=0.5, solarize_p=1.0, min_scale=0.1, num_local_views=2)
    assert np.array_equal(Views(other, seed=1).local(images[::-1], positions[::-1])[::-1], local[:, :2])
    alike = replace(DINO, num_local_views=2, local_px=32, local_scale=(0.4, 1.0), blur_p=0.5, solarize_p=0.0)
    maker = Views(alike, seed=1)
    same = maker(images, positions) == maker.local(images, positions)
    assert same.all((2, 3, 4)).mean() < 0.1  # the same family, other draws
    assert Views(ALL, seed=1).local(images, positions).shape == (40, 0, 96, 96, 3)


def test_local_crops_keep_their_own_share_and_global_ones_at_most_max_scale():
    num = 400
    settings = replace(CROP_ONLY, min_scale=0.5, max_scale=0.6, num_local_views=1, local_px=64, local_blur_p=0)
    views = Views(settings, seed=4)
    images, positions = np.broadcast_to(slopes(128), (num, 128, 128, 3)), np.arange(num)
    for made, low, high in ((views(images, positions), 0.5, 0.6), (views.local(images, positions), 0.05, 0.4)):
        area = np.prod([(np.ptp(made[:, 0, ..., c].astype(int), axis=(1, 2)) + 1) / 256 for c in (0, 1)], axis=0)
        assert low * 0.85 < area.min() < low * 1.15  # to a pixel of a small crop
        assert high * 0.93 < area.max() < high * 1.03


def test_each_view_has_its_own_chances_of_blur_and_solarisation(block):
    none = Views(replace(ALL, blur_p=0), seed=1)(*block)
    blurred = Views(replace(ALL, blur_p=1), seed=1)(*block)
    mixed = Views(replace(ALL, blur_p=(1, 0), solarize_p=(0.0, 1.0)), seed=1)(*block)
    assert np.array_equal(mixed[:, 0], blurred[:, 0])
    assert np.array_equal(mixed[:, 1], np.where(none[:, 1] < 128, none[:, 1], 255 - none[:, 1]))
    assert (none != blurred).any((2, 3, 4)).mean() > 0.6  # a sigma of less than 0.29 px is no blur
    sometimes = Views(replace(ALL, solarize_p=0.3), seed=1)(*block)
    plain = Views(ALL, seed=1)(*block)
    assert 0.15 < (sometimes != plain).any((2, 3, 4)).mean() < 0.45
    local = replace(DINO, solarize_p=1.0, local_blur_p=0.0)
    assert np.array_equal(Views(local, 1).local(*block), Views(replace(local, solarize_p=0.0), 1).local(*block))


def test_stain_jitter_is_one_jitter_per_view_before_the_colours(block):
    """It takes no draw from what else is done: flips, crops and colours are those of the view without it."""
    barely = replace(ALL, stain=1e-6)
    assert np.array_equal(Views(barely, seed=1)(*block), Views(ALL, seed=1)(*block))
    still = replace(FLIP_ONLY, num_views=2)
    plain = Views(still, seed=1)(*block)
    stained = Views(replace(still, stain=0.2), seed=1)(*block)
    jitters = []
    for before, after in zip(plain.reshape(80, 16, 16, 3), stained.reshape(80, 16, 16, 3)):
        is_inside = ((after > 0) & (after < 255)).all(2)
        logs, logs_after = np.log1p(before[is_inside].astype(float)), np.log1p(after[is_inside].astype(float))
        jitter = np.linalg.lstsq(np.c_[logs, np.ones(len(logs))], logs_after, rcond=None)[0].T.astype(np.float32)
        assert np.abs(jitter_stain(before, jitter)[is_inside].astype(int) - after[is_inside]).max() <= 3
        jitters.append(jitter)
    assert np.ptp(jitters, axis=0)[:, 3].min() > 0.3  # and each view has another
    limits = np.ptp(stain_matrices(np.random.default_rng(0).random((10_000, 6)), 0.2), axis=0)
    assert (np.ptp(jitters, axis=0) < limits * 1.1 + 0.05).all()


def test_stain_jitter_differs_between_local_and_global_views(block):
    settings = replace(FLIP_ONLY, stain=0.2, num_local_views=2, local_px=16, local_scale=(1.0, 1.0), local_blur_p=0)
    images = np.full((40, 16, 16, 3), (180, 120, 170), np.uint8)
    views = Views(settings, seed=1)
    colours = np.concatenate([views(images, block[1]), views.local(images, block[1])], axis=1)[:, :, 3, 5]
    assert (np.ptp(colours.astype(int), axis=1).max(1) > 2).mean() > 0.9


@pytest.mark.parametrize("shape", [(40, 100, 3), (100, 40, 3), (12, 8, 3), (16, 16, 3)])
def test_no_crop_shows_the_whole_tile_of_any_shape(shape):
    image = np.zeros(shape, np.uint8)
    image[0, 0], image[-1, -1] = 250, 120
    image[shape[0] // 4 : -(shape[0] // 4), shape[1] // 4 : -(shape[1] // 4)] = 255
    unflipped = replace(FLIP_ONLY, vertical_flip_p=0)
    views = Views(unflipped, seed=1)(np.broadcast_to(image, (8, *shape)), np.arange(8))[:, 0, ..., 0].astype(int)
    for view in views:
        view = view if view[0, 0] else view[:, ::-1]
        assert view[0, 0] > view[-1, -1] > 0  # both corners are there
        assert 0.4 < (view > 127).mean(0).max() < 0.75  # the half of it that is white
        assert 0.4 < (view > 127).mean(1).max() < 0.75
    assert len({view.tobytes() for view in views}) == 2


def test_images_make_way_for_views(block):
    images, positions = block
    rows = {"image": images, "position": positions, "slide": positions}
    Views(DINO, seed=1).replace_images(rows)
    assert list(rows) == ["position", "slide", "views", "local_views"]
    assert np.array_equal(rows["views"], Views(DINO, seed=1)(images, positions))
    assert np.array_equal(rows["local_views"], Views(DINO, seed=1).local(images, positions))
    rows = {"image": images, "position": positions}
    Views(ALL, seed=1).replace_images(rows)
    assert list(rows) == ["position", "views"]


@dataclass(frozen=True, kw_only=True)
class Run:
    """As a run's config holds its views."""

    views: ViewSettings = field(default_factory=ViewSettings)


def test_settings_survive_json_and_are_set_by_key():
    for settings in (ViewSettings(), DINO, replace(ALL, blur_p=0, solarize_p=(0, 1))):
        again = from_dict(ViewSettings, to_dict(settings))
        assert again == settings
        assert isinstance(again.blur_p, type(settings.blur_p) if settings.blur_p else float)
    changed = override(Run(), ["views.blur_p=[1, 0.1]", "views.local_scale=[0.1, 0.3]", "views.solarize_p=0.2"])
    assert changed.views == ViewSettings(blur_p=(1.0, 0.1), local_scale=(0.1, 0.3), solarize_p=0.2)
    with pytest.raises(BadInput, match=r"blur_p=\[0.5\]: expected one number, or one for each of 2 views"):
        override(Run(), ["views.blur_p=[0.5]"])
    with pytest.raises(BadInput, match=r"views\.blur_p"):
        override(Run(), ["views.blur_p=often"])
    with pytest.raises(BadInput, match="local_pxs"):
        from_dict(ViewSettings, {"local_pxs": 96})


@pytest.mark.parametrize(
    ("wrong", "line"),
    [
        ({"min_scale": 0.5, "max_scale": 0.4}, "min_scale=0.5, max_scale=0.4: expected"),
        ({"max_scale": 1.1}, "max_scale=1.1: expected"),
        ({"local_scale": (0.0, 0.4)}, "local_scale=[0.0, 0.4]: expected"),
        ({"num_local_views": -1}, "num_local_views=-1: expected"),
        ({"local_px": 0}, "local_px=0, "),
        (
            {"solarize_p": (0.1, 0.2, 0.3)},
            "solarize_p=[0.1, 0.2, 0.3]: expected one number, or one for each of 2 views",
        ),
        ({"blur_p": (0.5, 1.5)}, "blur_p=(0.5, 1.5): expected 0 to 1"),
        ({"solarize_p": -0.1}, "solarize_p=-0.1: expected 0 to 1"),
        ({"local_blur_p": 2.0}, "local_blur_p=2.0: expected 0 to 1"),
        ({"vertical_flip_p": 2.0}, "vertical_flip_p=2.0: expected 0 to 1"),
        ({"stain": -0.1}, "stain=-0.1: expected 0 to 1"),
    ],
)
def test_a_wrong_value_is_named(wrong, line):
    with pytest.raises(ValueError, match=re.escape(line)):
        ViewSettings(**wrong)


def test_the_scale_of_views_counts_their_crops():
    settings = ViewSettings(extent_px=64, min_scale=0.4, jitter_p=0.0, gray_p=0.0, blur_p=0.0)
    assert mpp_of_views(settings, 0.5, 0.5, 96) == pytest.approx((0.474, 0.75), abs=5e-4)
    assert mpp_of_views(settings, 0.5, 1.0, 96) == pytest.approx((0.474, 1.5), abs=5e-4)
    assert mpp_of_views(replace(settings, min_scale=1.0), 0.5, 0.5, 64) == (0.5, 0.5)

    # what the views show: on a tile whose levels count its px, how many of them one px of a view steps over
    ramp = np.broadcast_to(2 * np.arange(96, dtype=np.uint8), (96, 96))
    tile = np.stack([ramp, ramp.T, ramp], axis=-1)
    views = Views(settings, 0)(np.broadcast_to(tile, (300, *tile.shape)), np.arange(300)).astype(
        float
    )  # [N, V, H, W, 3]
    across = np.abs(views[:, :, 32, 56, 0] - views[:, :, 32, 8, 0]) / 48 / 2
    down = np.abs(views[:, :, 56, 32, 1] - views[:, :, 8, 32, 1]) / 48 / 2
    seen = 0.5 * np.sqrt(across * down)
    finest, coarsest = mpp_of_views(settings, 0.5, 0.5, 96)
    assert finest * 0.97 < seen.min() < finest * 1.06
    assert coarsest * 0.94 < seen.max() < coarsest * 1.03
