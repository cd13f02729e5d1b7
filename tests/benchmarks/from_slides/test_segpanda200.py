"""segPANDA200 from PANDA's files: the grid, what stays, the split, and pixels and classes of the same place."""

import numpy as np
import pyarrow as pa
import pytest
import tifffile

from raypath.benchmarks.from_slides.segpanda200 import CLASSES, STRATA, SegPANDA200Settings, read_grades
from raypath.benchmarks.settings import KINDS
from raypath.data.mask_tiles import read_mask_tile
from raypath.data.masked_resampling import resampled
from raypath.errors import BadInput
from raypath.protocols.masked_samples import MaskedSamples
from raypath.slides import Slide, SlideHandles, TileSpec
from tests.benchmarks.from_slides.small_slides import write_slide

MPP = 0.486
SMALL = TileSpec(extent_px=64, mpp=0.39, stride_px=64, min_tissue=0.0)  # 51 px at level 0
SIZE = (320, 260)
NUM_PER_GRADE = 3


def write_mask(path, number, size=SIZE):
    """Rows of glands in the right half: the class of a pixel follows from its place; lossless RGB, as Radboud's."""
    y, x = np.mgrid[0 : size[1], 0 : size[0]]
    classes = np.where(x >= size[0] // 2, 1 + (y // 13 + number) % 5, 0).astype(np.uint8)
    pixels = np.stack([classes, np.zeros_like(classes), np.zeros_like(classes)], axis=2)
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, pixels, tile=(64, 64), photometric="rgb", compression="deflate", metadata=None)
    return classes


def write_panda(folder):
    """Three slides of Radboud for every ISUP grade, one without mask, one that is not there, one of Karolinska."""
    lines = ["image_id,data_provider,isup_grade,gleason_score"]
    for number in range(6 * NUM_PER_GRADE):
        name = f"{number:032x}"
        lines.append(f"{name},radboud,{number % 6},3+4")
        write_slide(folder / "train_images" / f"{name}.tiff", (160, 0, *SIZE), size=SIZE, mpp=MPP, seed=number)
        write_mask(folder / "train_label_masks" / f"{name}_mask.tiff", number)
    write_slide(folder / "train_images" / f"{99:032x}.tiff", (0, 0, 10, 10), size=SIZE, mpp=MPP)
    lines += [f"{99:032x},radboud,0,negative", f"{98:032x},radboud,1,3+3", f"{97:032x},karolinska,1,3+3"]
    (folder / "train.csv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_panda(tmp_path_factory.mktemp("panda"))


@pytest.fixture(scope="module")
def benchmark(folder):
    return SegPANDA200Settings(path=str(folder), tiles=SMALL).load(0)


def test_the_grid_is_822_px_at_level_0():
    spec = SegPANDA200Settings().tiles
    assert (spec.extent_l0(MPP), spec.stride_l0(MPP)) == (822, 822)
    assert spec.extent_px * spec.mpp == pytest.approx(399.36)
    assert (4 * 822, 12 * 822) == (3288, 9864)  # <slide>_level0_x3288_y9864.jpg
    assert len(CLASSES) == len(STRATA) == 6


def test_it_is_a_segmentation_with_a_mask_for_every_tile(benchmark):
    assert (benchmark.kind, benchmark.primary, benchmark.mask_rule) == ("segmentation", "miou_macro", "values")
    assert benchmark.classes == CLASSES
    assert benchmark.strata == STRATA
    rows = benchmark.table.to_pylist()
    assert {row["extent_l0"] for row in rows} == {51}
    for row in rows:
        assert row["mask"].replace("train_label_masks", "train_images").replace("_mask", "") == row["slide"]
        assert row["label"] == int(row["patient"], 16) % 6
        assert row["x_l0"] % 51 == row["y_l0"] % 51 == 0
        assert row["x_l0"] + 51 > 160 + 2  # at least 5 % of it is labelled


def test_tiles_with_too_little_that_is_labelled_are_left_out(folder, benchmark):
    # columns from 0, 51, 102, 153, 204, 255: labelled are the right 44 of 51 px of the fourth, and all after it
    assert sorted(set(benchmark.table["x_l0"].to_pylist())) == [153, 204, 255]
    strict = SegPANDA200Settings(path=str(folder), tiles=SMALL, min_labelled=0.9).load(0)
    assert sorted(set(strict.table["x_l0"].to_pylist())) == [204, 255]
    everything = SegPANDA200Settings(path=str(folder), tiles=SMALL, min_labelled=0.0).load(0)
    assert len(everything.table) == 18 * 6 * 5


def test_the_split_is_by_slide_and_grade(benchmark):
    of_slide = dict(zip(benchmark.table["slide"].to_pylist(), benchmark.table["split"].to_pylist()))
    splits = set(zip(benchmark.table["slide"].to_pylist(), benchmark.table["split"].to_pylist()))
    assert len(splits) == len(of_slide) == 18
    counts = benchmark.counts()
    assert all(counts[split][grade] == 15 for split in counts for grade in STRATA)


def test_counts_and_what_is_absent_are_said(benchmark):
    counts = {count.what: (count.built, count.published) for count in benchmark.built}
    assert counts == {
        "slides": (18, None),
        "patients": (18, None),
        "tiles": (270, None),
        "images and masks": (540, 100_960),
    }
    assert f"1 of 20 slides of Radboud have no slide here: {98:032x}" in benchmark.split_note
    assert f"1 of 20 slides of Radboud have no mask here: {99:032x}" in benchmark.split_note
    assert "PANDA names no patients" in benchmark.split_note


def test_pixels_and_classes_are_of_the_same_place(benchmark):
    handles = SlideHandles(2)
    for row in benchmark.table.slice(0, 5).to_pylist():
        with Slide.open(row["slide"]) as slide:
            image = slide.read(row["x_l0"], row["y_l0"], row["extent_l0"], 64)
        classes = read_mask_tile(handles, row, 64, num_classes=6)
        assert image.shape[:2] == classes.shape
        is_pink = image[..., 1] < 170
        assert np.mean(is_pink == (classes > 0)) > 0.97


def test_it_is_recognised_and_chosen(folder, tmp_path):
    assert SegPANDA200Settings in KINDS
    assert SegPANDA200Settings.recognise(folder)
    assert not SegPANDA200Settings.recognise(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image_id,data_provider\na,radboud\n", "line 1: no column isup_grade"),
        ("image_id,data_provider,isup_grade\na,radboud,6\n", "line 2, column isup_grade: '6'; expected 0 to 5"),
        ("image_id,data_provider,isup_grade\na,utrecht,1\n", "line 2, column data_provider: 'utrecht'"),
        ("image_id,data_provider,isup_grade\na,radboud,1\na,radboud,1\n", "line 3, column image_id: 'a'"),
    ],
)
def test_a_damaged_table_is_refused(tmp_path, text, message):
    (tmp_path / "train.csv").write_text(text)
    with pytest.raises(BadInput, match=rf"train\.csv: {message}"):
        read_grades(tmp_path / "train.csv")


def test_damaged_masks_and_empty_folders_are_refused(tmp_path):
    with pytest.raises(BadInput, match=r"train\.csv: there is no such file"):
        SegPANDA200Settings(path=str(tmp_path)).load(0)
    (tmp_path / "train.csv").write_text("image_id,data_provider,isup_grade\na,radboud,1\n")
    with pytest.raises(BadInput, match="none of 1 slides of Radboud has its files"):
        SegPANDA200Settings(path=str(tmp_path)).load(0)
    write_slide(tmp_path / "train_images" / "a.tiff", (0, 0, *SIZE), size=SIZE, mpp=MPP)
    write_mask(tmp_path / "train_label_masks" / "a_mask.tiff", 0, size=(300, 200))
    with pytest.raises(BadInput, match=r"a_mask\.tiff: 300 x 200 px, but its slide has 320 x 260"):
        SegPANDA200Settings(path=str(tmp_path), tiles=SMALL).load(0)
    with pytest.raises(BadInput, match="min_labelled=2"):
        SegPANDA200Settings(path=str(tmp_path), min_labelled=2.0).load(0)


def test_a_segmentation_reads_tiles_and_masks_in_order_and_names_what_is_gone(benchmark, folder, tmp_path):
    rows = benchmark.rows("train").take([3, 0, 1])
    samples = MaskedSamples.of(rows, benchmark.classes, benchmark.mask_rule, mpp=benchmark.mpp)
    for row, (image, mask) in zip(rows.to_pylist(), samples.masked):
        with Slide.open(row["slide"], mpp=MPP) as slide:
            np.testing.assert_array_equal(image, slide.read(row["x_l0"], row["y_l0"], row["extent_l0"], 64))
        np.testing.assert_array_equal(mask, read_mask_tile(SlideHandles(2), row, 64))
    assert samples.names == tuple(rows["sample"].to_pylist())
    fed_mpp = 1.6 * benchmark.mpp
    coarse = MaskedSamples.of(rows, benchmark.classes, benchmark.mask_rule, mpp=benchmark.mpp, fed_mpp=fed_mpp)
    for (image, mask), fed, truth in zip(samples.masked, coarse.masked, coarse.truth, strict=True):
        np.testing.assert_array_equal(truth, mask)
        for ours, theirs in zip(fed, resampled(image, mask, 40 / 64), strict=True):
            np.testing.assert_array_equal(ours, theirs)
    gone = rows.set_column(rows.schema.get_field_index("mask"), "mask", pa.array([str(tmp_path / "gone.tiff")] * 3))
    with pytest.raises(BadInput, match=r"gone\.tiff: the tile at \d+, \d+ cannot be read"):
        MaskedSamples.of(gone, benchmark.classes, benchmark.mask_rule, mpp=benchmark.mpp)
