"""Phantoms: OpenSlide reads them, they are the same every time, and their classes differ in texture only."""

import csv
from hashlib import sha256

import numpy as np
import openslide
import pytest
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from raypath.errors import BadInput
from raypath.slides.phantom import (
    CLASSES,
    MASK_DOWNSAMPLE,
    draw_phantom,
    draw_stain,
    phantom_rows,
    read_class_mask,
    write_phantoms,
)

TILE_PX = 64
NUM_SLIDES = 12


def read_rows(manifest):
    with manifest.open(newline="") as file:
        return list(csv.DictReader(file))


def read_image(path):
    with openslide.OpenSlide(path) as slide:
        return np.asarray(slide.read_region((0, 0), 0, slide.dimensions).convert("RGB"))


def hashes(folder):
    return {path.name: sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


def draw(number, texture=True):
    stain = draw_stain(site_rng=np.random.default_rng((7, number % 3)), patient_rng=np.random.default_rng((8, number)))
    return draw_phantom(512, stain=stain, rng=np.random.default_rng((9, number)), texture=texture)


def pure_tiles(image, mask):
    """Tiles [N, 64, 64, 3] that lie wholly in one class, and that class [N]."""
    step = TILE_PX // MASK_DOWNSAMPLE
    tiles, labels = [], []
    for row in range(0, mask.shape[0] - step + 1, step):
        for column in range(0, mask.shape[1] - step + 1, step):
            cell = mask[row : row + step, column : column + step]
            if cell.min() == cell.max() > 0:
                y, x = row * MASK_DOWNSAMPLE, column * MASK_DOWNSAMPLE
                tiles.append(image[y : y + TILE_PX, x : x + TILE_PX])
                labels.append(cell[0, 0])
    return np.array(tiles), np.array(labels)


def colour_numbers(tiles):
    """The colour baseline's 30 numbers [N, 30]: RGB mean, spread and histogram of 8 bins."""
    pixels = tiles.reshape(len(tiles), -1, 3)
    histogram = [(pixels // 32 == level).mean(axis=1) for level in range(8)]
    return np.concatenate([pixels.mean(axis=1), pixels.std(axis=1), *histogram], axis=1)


def alignment_numbers(tiles):
    """Texture without colour [N, 2]: how far gradients of the gray image agree on a direction, and their mean size."""
    dy, dx = np.gradient(tiles.mean(axis=3), axis=(1, 2))
    total = (dx**2 + dy**2).mean(axis=(1, 2))
    agreement = np.hypot((dx**2 - dy**2).mean(axis=(1, 2)), (2 * dx * dy).mean(axis=(1, 2))) / total
    return np.stack([agreement, np.sqrt(total)], axis=1)


def held_out_accuracy(numbers, labels, is_test):
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    predicted = model.fit(numbers[~is_test], labels[~is_test]).predict(numbers[is_test])
    return np.mean([(predicted == k)[labels[is_test] == k].mean() for k in np.unique(labels)])


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory):
    folder = tmp_path_factory.mktemp("phantoms")
    return write_phantoms(folder, num_slides=NUM_SLIDES, size_px=768, seed=3)


@pytest.fixture(scope="module")
def labelled_tiles(phantoms):
    """Tiles, labels and the slide number of each, over all phantoms."""
    tiles, labels, slides = [], [], []
    for number, row in enumerate(read_rows(phantoms)):
        path = phantoms.parent / row["path"]
        found, classes = pure_tiles(read_image(path), read_class_mask(path))
        tiles, labels, slides = [*tiles, found], [*labels, classes], [*slides, np.full(len(found), number)]
    return np.concatenate(tiles), np.concatenate(labels), np.concatenate(slides)


def test_openslide_reads_aperio(phantoms):
    with openslide.OpenSlide(phantoms.parent / "phantom-0001.svs") as slide:
        properties = slide.properties
        assert properties["openslide.vendor"] == "aperio"
        assert float(properties["openslide.mpp-x"]) == float(properties["openslide.mpp-y"]) == 0.5
        assert float(properties["openslide.objective-power"]) == 20
        assert properties["openslide.level[0].tile-width"] == properties["openslide.level[0].tile-height"] == "256"
        assert slide.dimensions == (768, 768)
        assert slide.level_downsamples == (1.0, 2.0, 4.0)
        assert "thumbnail" in slide.associated_images


def test_levels_show_the_same_picture(phantoms):
    with openslide.OpenSlide(phantoms.parent / "phantom-0002.svs") as slide:
        small = np.asarray(slide.read_region((0, 0), 2, slide.level_dimensions[2]).convert("RGB"), np.float32)
    large = np.asarray(Image.fromarray(read_image(phantoms.parent / "phantom-0002.svs")).reduce(4), np.float32)
    assert np.abs(small - large).mean() < 4


def test_same_bytes_with_two_workers_and_as_prefix(phantoms, tmp_path):
    """Three slides by two fresh processes are the first three of twelve by one."""
    seen = []
    write_phantoms(
        tmp_path,
        num_slides=3,
        size_px=768,
        seed=3,
        num_workers=2,
        progress=lambda done, total: seen.append((done, total)),
    )
    again = hashes(tmp_path)
    assert len(again) == 7
    del again["manifest.csv"]
    assert again.items() <= hashes(phantoms.parent).items()
    assert seen == [(1, 3), (2, 3), (3, 3)]
    assert read_rows(tmp_path / "manifest.csv") == read_rows(phantoms)[:3]


def test_another_seed_is_another_picture():
    assert (draw(1)[0] != draw(2)[0]).mean() > 0.5


def test_mask_lies_on_the_tissue(phantoms):
    """Cells wholly inside the background are bright, cells wholly inside tissue are not; pen is on few of either."""
    path = phantoms.parent / "phantom-0001.svs"
    mask, image = read_class_mask(path), read_image(path)
    assert mask.dtype == np.uint8
    assert mask.shape == (48, 48)
    brightness = image.mean(axis=2).reshape(48, 16, 48, 16).mean(axis=(1, 3))
    assert np.mean(brightness[mask == 0] > 200) > 0.9
    assert np.mean(brightness[mask > 0] < 215) > 0.95
    # shifted by one cell the two agree less: the mask is aligned, not merely alike
    agreement = [np.mean((np.roll(mask, shift, axis=(0, 1)) > 0) == (brightness < 215)) for shift in (-1, 0, 1)]
    assert agreement[1] > max(agreement[0], agreement[2])


def test_tissue_share_and_classes(phantoms):
    for row in read_rows(phantoms):
        mask = read_class_mask(phantoms.parent / row["path"])
        assert set(np.unique(mask)) == set(range(len(CLASSES)))
        assert 0.45 <= (mask > 0).mean() <= 0.65


def test_manifest_is_sound(phantoms):
    rows = read_rows(phantoms)
    assert len({row["slide"] for row in rows}) == NUM_SLIDES
    assert all((phantoms.parent / row["path"]).is_file() for row in rows)
    assert {row["split"] for row in rows} == {"train", "val", "test"}
    assert all(
        len({row["split"] for row in rows if row["patient"] == p}) == 1 for p in {row["patient"] for row in rows}
    )
    assert all(len({row["site"] for row in rows if row["patient"] == p}) == 1 for p in {row["patient"] for row in rows})


@pytest.mark.parametrize("num_slides", [12, 30, 100])
def test_split_shares(num_slides):
    splits = [row.split for row in phantom_rows(num_slides, seed=0)]
    shares = {split: splits.count(split) / num_slides for split in ("train", "val", "test")}
    assert shares == pytest.approx({"train": 0.40, "val": 0.15, "test": 0.45}, abs=0.1)


def test_without_texture_pixels_change_and_masks_do_not():
    (image, mask), (plain_image, plain_mask) = draw(1), draw(1, texture=False)
    assert np.array_equal(mask, plain_mask)
    cells = np.repeat(np.repeat(mask, MASK_DOWNSAMPLE, axis=0), MASK_DOWNSAMPLE, axis=1)
    differs = (np.abs(image.astype(int) - plain_image) > 20).any(axis=2)
    assert differs[cells > 0].mean() > 0.5
    assert differs[cells == 0].mean() < 0.05


def test_classes_have_the_same_colours(labelled_tiles):
    """Slide by slide, so that stain cancels: class means of the colour numbers differ by a fraction of their spread."""
    tiles, labels, slides = labelled_tiles
    numbers = colour_numbers(tiles)[:, :6]  # gray levels: means and spreads
    for slide in np.unique(slides):
        numbers[slides == slide] -= numbers[slides == slide].mean(axis=0)
    means = np.stack([numbers[labels == k].mean(axis=0) for k in (1, 2, 3)])
    assert np.ptp(means, axis=0).max() < 4.0


def test_colour_is_near_chance_and_texture_is_not(labelled_tiles):
    """On slides not trained on: 30 numbers of colour know nothing (chance 0.33), two numbers of gray gradients do."""
    tiles, labels, slides = labelled_tiles
    is_test = slides % 2 == 1
    assert is_test.sum() > 150
    assert held_out_accuracy(colour_numbers(tiles), labels, is_test) < 0.43
    is_spindle = labels == 2
    assert held_out_accuracy(alignment_numbers(tiles), is_spindle, is_test) > 0.85


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"size_px": 496}, "size_px=496"),
        ({"size_px": 700}, "16"),
        ({"num_slides": 2}, "num_slides=2"),
        ({"seed": -1}, "seed"),
    ],
)
def test_bad_settings_are_named(tmp_path, changed, named):
    with pytest.raises(BadInput, match=named):
        write_phantoms(tmp_path / "out", **{"num_slides": 3, "size_px": 512, "seed": 0, **changed})
    assert not (tmp_path / "out").exists()


def test_no_mask_beside_the_slide(tmp_path):
    with pytest.raises(BadInput, match="no class mask"):
        read_class_mask(tmp_path / "other.svs")
