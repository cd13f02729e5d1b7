"""Altered images: against slow references, the same for a sample in any order, and texts that are none."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy.ndimage import gaussian_filter

from raypath.benchmarks import IMAGE_SCHEMA
from raypath.data.alterations import KINDS, Alteration, alter, alter_image, parse_alteration
from raypath.data.images import Frame, read_block
from raypath.data.stain import RGB_OF_HED
from raypath.errors import BadInput

TEXTS = ("grey", "hed=0.05", "blur=1.5", "jpeg=30", "mpp=0.7", "mpp=2")


def noise(num: int = 1, height: int = 24, width: int = 24, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (num, height, width, 3), dtype=np.uint8)


def altered(text: str, image: np.ndarray, sample: str = "a") -> np.ndarray:
    return alter_image(image, sample, parse_alteration(text))


def kernel(x: float) -> float:
    """Keys' cubic with a = -0.5 (IEEE TASSP 29 (1981) 1153), as Pillow's bicubic."""
    x, a = abs(x), -0.5
    if x < 1:
        return ((a + 2) * x - (a + 3)) * x * x + 1
    return (((x - 5) * x + 8) * x - 4) * a if x < 2 else 0.0


def slowly_resized(line: list[float], new: int, start: float, end: float) -> list[float]:
    """`new` samples of the part [start, end) of a line, antialiased where that shrinks; float64."""
    scale = (end - start) / new
    reach = max(scale, 1.0)
    made = []
    for place in range(new):
        centre = start + (place + 0.5) * scale
        first, last = max(0, int(centre - 2 * reach + 0.5)), min(len(line), int(centre + 2 * reach + 0.5))
        weights = [kernel((old + 0.5 - centre) / reach) for old in range(first, last)]
        made.append(sum(w * line[old] for w, old in zip(weights, range(first, last))) / sum(weights))
    return made


def slowly(image: np.ndarray, new: tuple[int, int], part: list[tuple[float, float]]) -> np.ndarray:
    """float64 [h, w, 3], rounded to levels after columns and after rows as Pillow does."""
    columns = [[slowly_resized(line, new[1], *part[1]) for line in channel] for channel in image.transpose(2, 0, 1)]
    narrow = np.clip(np.rint(columns), 0, 255)  # [3, H, w]
    rows = [[slowly_resized(line, new[0], *part[0]) for line in channel.T] for channel in narrow]
    return np.clip(np.rint(rows), 0, 255).transpose(2, 1, 0)


def test_grey_is_luminance_in_three_equal_channels():
    image = noise()[0]
    grey = altered("grey", image)
    assert (grey == grey[..., :1]).all()
    expected = image.astype(np.float64) @ [0.299, 0.587, 0.114]
    assert np.abs(grey[..., 0] - expected).max() <= 0.51


@pytest.mark.parametrize(("height", "width", "factor"), [(24, 24, 2), (30, 17, 1.3), (24, 24, 0.5), (25, 31, 0.8)])
def test_mpp_takes_detail_above_1_and_field_below(height, width, factor):
    image = noise(1, height, width)[0]
    size, whole = (height, width), [(0, height), (0, width)]
    if factor > 1:
        smaller = tuple(round(length / factor) for length in size)
        expected = slowly(slowly(image.astype(float), smaller, whole), size, [(0, length) for length in smaller])
    else:
        middle = [(length * (1 - factor) / 2, length * (1 + factor) / 2) for length in size]
        expected = slowly(image.astype(float), size, middle)
    made = altered(f"mpp={factor}", image)
    assert made.shape == image.shape
    assert np.abs(made - expected).max() <= 1  # where a half is rounded the other way


def test_an_object_grows_below_1_and_stays_above():
    image = np.full((64, 64, 3), 255, np.uint8)
    image[24:40, 24:40] = 0  # 16 px
    dark = {text: (altered(text, image)[..., 0] < 128).sum() for text in ("mpp=0.5", "mpp=2")}
    assert dark == {"mpp=0.5": 32**2, "mpp=2": 16**2}


@pytest.mark.parametrize("sigma_px", [0.5, 1.5, 4])
def test_blur_is_a_gaussian_of_so_many_px(sigma_px):
    image = noise(1, 40, 33)[0]
    expected = gaussian_filter(image.astype(np.float64), (sigma_px, sigma_px, 0), mode="mirror")
    assert np.abs(altered(f"blur={sigma_px}", image) - expected).max() < 2  # weights in 1/256, and cut off at 3 sigma


def test_jpeg_is_what_pillow_writes_and_worse_for_less():
    smooth = np.broadcast_to(np.arange(64, dtype=np.uint8)[:, None, None] * 3, (64, 64, 3)).copy()
    smooth[::7, :, 0] = 200
    errors = [np.abs(altered(f"jpeg={quality}", smooth).astype(float) - smooth).mean() for quality in (95, 50, 10)]
    assert 0 < errors[0] < errors[1] < errors[2]


def densities(pixel) -> np.ndarray:
    return -np.log((np.asarray(pixel, np.float64) + 1) / 256) @ np.linalg.inv(RGB_OF_HED)


def test_stain_stays_within_its_strength_and_leans_one_way_at_every_strength():
    image = np.full((4, 4, 3), (180, 120, 160), np.uint8)
    before = densities(image[0, 0])
    moved = {s: densities(altered(f"hed={s}", image, "tile 7")[0, 0]) - before for s in (0.05, 0.1, 0.2)}
    for strength, change in moved.items():
        assert (np.abs(change) <= strength * (1 + np.abs(before)) + 0.02).all()  # 0.02: levels are whole
    assert np.linalg.norm(moved[0.1]) > 0.01
    np.testing.assert_allclose(moved[0.2], 2 * moved[0.1], atol=0.03)
    many = np.stack([altered("hed=0.1", image, f"tile {i}")[0, 0] for i in range(50)])
    assert len(np.unique(many, axis=0)) > 40
    assert np.abs(many.mean(0) - image[0, 0]).max() < 6  # no lean of the whole set


@pytest.mark.parametrize("text", TEXTS)
def test_a_sample_is_altered_alike_in_any_order_and_alone(text):
    images, ids = noise(5), [f"p1/{i}" for i in range(5)]
    alteration = parse_alteration(text)
    whole = alter(images, ids, alteration)
    assert (whole.dtype, whole.shape) == (np.uint8, images.shape)
    assert (whole != images).any()
    order = np.array([3, 0, 4, 1, 2])
    np.testing.assert_array_equal(alter(images[order], [ids[i] for i in order], alteration), whole[order])
    np.testing.assert_array_equal(alter_image(images[2], ids[2], alteration), whole[2])
    other = alter(images, ids, alteration, seed=1)
    assert (other != whole).any() == (alteration.kind == "hed")


def test_nothing_is_done_where_nothing_is_asked():
    images = noise(2)
    assert parse_alteration("") is None
    np.testing.assert_array_equal(alter(images, ["a", "b"], None), images)
    np.testing.assert_array_equal(altered("mpp=1", images[0]), images[0])
    np.testing.assert_array_equal(altered("hed=1e-6", images[0]), images[0])
    np.testing.assert_array_equal(altered("blur=0.01", images[0]), images[0])


@given(st.sampled_from(KINDS[1:]), st.floats(0.5, 1), st.integers(1, 100))
def test_a_text_comes_back_as_what_it_was(kind, share, quality):
    alteration = Alteration(kind, quality if kind == "jpeg" else round(share, 3))
    assert parse_alteration(str(alteration)) == alteration


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("gray", "expected one of grey, hed, blur, jpeg, mpp"),
        ("grey=1", "expected grey alone"),
        ("hed", "expected hed=NUMBER, above 0 and at most 1"),
        ("hed=0", "above 0 and at most 1"),
        ("hed=1.5", "above 0 and at most 1"),
        ("blur=nan", "above 0 and at most 32"),
        ("jpeg=30.5", "whole number"),
        ("jpeg=0", "expected jpeg=NUMBER, 1 to 100"),
        ("mpp=3", "expected mpp=NUMBER, 0.5 to 2"),
        ("mpp=much", "could not convert"),
        ("mpp=", "could not convert"),
    ],
)
def test_a_text_that_is_no_alteration_is_refused_in_one_line(text, message):
    with pytest.raises(BadInput, match=f"alteration='{text}': .*{message}.*e.g. hed=0.05, grey, jpeg=30") as caught:
        parse_alteration(text)
    assert "\n" not in str(caught.value)


def test_only_a_zoom_moves_pixels():
    assert [text for text in (*TEXTS, "mpp=1") if not parse_alteration(text).is_in_place] == ["mpp=0.7"]


def test_a_block_is_read_and_then_altered_by_the_ids_of_its_rows(tmp_path):
    images = noise(4, 20, 20)
    rows = []
    for number, image in enumerate(images):
        path = tmp_path / f"{number}.png"
        Image.fromarray(image).save(path)
        rows.append({"sample": f"s{number}", "label": 0, "split": "test", "path": str(path)})
    rows.append(rows[0] | {"sample": "gone", "path": str(tmp_path / "gone.png")})
    table = pa.Table.from_pylist(rows, schema=IMAGE_SCHEMA).append_column("row", [list(range(5))])
    block = read_block(table, Frame(extent_px=20, alteration="hed=0.1"))
    expected = alter(images, [f"s{i}" for i in range(4)], Alteration("hed", 0.1))
    np.testing.assert_array_equal(block["image"][:4], expected)
    assert [bool(fault) for fault in block["fault"]] == [False] * 4 + [True]
    np.testing.assert_array_equal(read_block(table, Frame(extent_px=20))["image"][:4], images)
