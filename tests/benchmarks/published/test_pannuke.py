"""PanNuke: three small folds in the published layout, both targets, every order of folds, and what is refused."""

from itertools import permutations

import numpy as np
import pytest

from raypath.benchmarks.published.pannuke import PanNukeSettings
from raypath.config import override
from raypath.data.image_files import open_image
from raypath.data.masks import read_mask
from raypath.errors import BadInput
from raypath.protocols.transfer import TransferConfig

SIZES = {1: 6, 2: 4, 3: 5}
TISSUES = ("Breast", "HeadNeck")


def write(folder):
    """Folds of some images: float64 as published; returns images, tissues and masks by fold."""
    generator = np.random.default_rng(0)
    written = {}
    for fold, size in SIZES.items():
        images = generator.integers(0, 256, (size, 256, 256, 3)).astype(np.float64)
        tissues = np.array([TISSUES[i % 2] for i in range(size)], dtype="<U13")
        masks = np.zeros((size, 256, 256, 6))
        for item in range(size):
            for number in range(12):
                top, left = generator.integers(0, 236, 2)
                masks[item, top : top + 20, left : left + 20, generator.integers(0, 5)] = 3 + 4 * number
        masks[..., 5] = ~masks[..., :5].any(axis=3)
        home = folder / f"Fold {fold}"
        (home / "images" / f"fold{fold}").mkdir(parents=True)
        (home / "masks" / f"fold{fold}").mkdir(parents=True)
        np.save(home / "images" / f"fold{fold}" / "images.npy", images)
        np.save(home / "images" / f"fold{fold}" / "types.npy", tissues)
        np.save(home / "masks" / f"fold{fold}" / "masks.npy", masks)
        written[fold] = images, tissues, masks
    return written


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pannuke")
    return folder, write(folder)


def slow_classes(mask):
    """Background, unless one of the five channels has a nucleus: the first of them."""
    classes = np.zeros((256, 256), np.uint8)
    for channel in (4, 3, 2, 1, 0):
        classes[mask[..., channel] > 0] = channel + 1
    return classes


def test_nuclei_are_those_of_the_arrays(published):
    folder, written = published
    assert PanNukeSettings.recognise(folder)
    benchmark = PanNukeSettings(path=str(folder)).load(0)
    assert (benchmark.kind, benchmark.mask_rule, benchmark.mpp) == ("segmentation", "channels", 0.25)
    assert benchmark.classes == ("background", "neoplastic", "inflammatory", "connective", "dead", "epithelial")
    assert benchmark.strata == TISSUES
    assert {s: sum(c.values()) for s, c in benchmark.counts().items()} == {"train": 6, "val": 4, "test": 5}
    for row in benchmark.rows("val").to_pylist():
        images, tissues, masks = written[2]
        item = int(row["sample"].removeprefix("fold2/"))
        assert row["item"] == item
        np.testing.assert_array_equal(np.asarray(open_image(row["path"], item=row["item"])), images[item])
        found = read_mask(row["mask"], benchmark.mask_rule, size=(256, 256), item=row["item"])
        np.testing.assert_array_equal(found, slow_classes(masks[item]))
        assert benchmark.strata[row["label"]] == tissues[item]
    said = benchmark.tags["raypath.data"]
    assert "images 15 (published: 7,901)" in said
    assert "val 4 (published: 2,523)" in said


def test_arrays_saved_as_small_numbers_are_the_same_pixels_of_another_set(published, tmp_path):
    write(tmp_path)
    for path in tmp_path.rglob("*s.npy"):
        if path.name != "types.npy":
            np.save(path, np.load(path).astype(np.uint8 if path.name == "images.npy" else np.uint16))
    own, small = (PanNukeSettings(path=str(folder)).load(0) for folder in (published[0], tmp_path))
    assert own.data_hash != small.data_hash
    for one, other in zip(own.table.to_pylist(), small.table.to_pylist(), strict=True):
        assert one["sample"] == other["sample"]
        pixels = [np.asarray(open_image(row["path"], item=row["item"])) for row in (one, other)]
        np.testing.assert_array_equal(*pixels)
        classes = [read_mask(row["mask"], "channels", size=(256, 256), item=row["item"]) for row in (one, other)]
        np.testing.assert_array_equal(*classes)


def test_tissues_are_a_classification(published):
    folder, written = published
    benchmark = PanNukeSettings(path=str(folder), target="tissue").load(0)
    assert (benchmark.kind, benchmark.classes, benchmark.mask_rule) == ("classification", TISSUES, "none")
    for row in benchmark.table.to_pylist():
        fold = int(row["sample"][4])
        assert benchmark.classes[row["label"]] == written[fold][1][row["item"]]
        assert row["mask"] is None


@pytest.mark.parametrize("order", list(permutations((1, 2, 3))))
def test_folds_are_the_splits_that_were_asked_for(published, order):
    chosen = dict(zip(("train_fold", "val_fold", "test_fold"), order))
    benchmark = PanNukeSettings(path=str(published[0]), target="tissue", **chosen).load(0)
    split_of = dict(zip(order, ("train", "val", "test")))
    assert all(row["split"] == split_of[int(row["sample"][4])] for row in benchmark.table.to_pylist())
    published_sizes = {1: 2656, 2: 2523, 3: 2722}
    assert {c.what: c.published for c in benchmark.built if c.what in ("train", "val", "test")} == {
        split: published_sizes[fold] for fold, split in split_of.items()
    }


def test_it_is_chosen_by_its_kind(published):
    config = override(TransferConfig(), ["benchmark.kind=pannuke", "benchmark.path=x", "benchmark.test_fold=1"])
    assert config.benchmark == PanNukeSettings(path="x", test_fold=1)
    with pytest.raises(BadInput, match=r"= \(1, 2, 1\); expected each of 1, 2, 3 once"):
        PanNukeSettings(path=str(published[0]), test_fold=1).load(0)


def test_what_is_damaged_is_refused(tmp_path):
    write(tmp_path)
    settings = PanNukeSettings(path=str(tmp_path))
    masks = tmp_path / "Fold 2" / "masks" / "fold2" / "masks.npy"
    np.save(masks, np.zeros((3, 256, 256, 6), np.uint8))
    with pytest.raises(BadInput, match=r"masks\.npy: 3 entries for 4 images"):
        settings.load(0)
    np.save(masks, np.zeros((4, 256, 256), np.uint8))
    with pytest.raises(BadInput, match=r"masks\.npy: its shape is \(4, 256, 256\); expected \[N, 256, 256, 6\]"):
        settings.load(0)
    masks.write_bytes(masks.read_bytes()[:200])
    with pytest.raises(BadInput, match=r"masks\.npy: cannot be read"):
        settings.load(0)
    masks.unlink()
    with pytest.raises(BadInput, match=r"masks\.npy: cannot be read \(.*No such file"):
        settings.load(0)
    assert len(PanNukeSettings(path=str(tmp_path), target="tissue").load(0).table) == 15  # no masks are needed
    types = tmp_path / "Fold 3" / "images" / "fold3" / "types.npy"
    np.save(types, np.array(["Breast", "Brest", "Breast", "Breast", "Breast"]))
    with pytest.raises(BadInput, match=r"types\.npy: the tissue 'Brest'"):
        PanNukeSettings(path=str(tmp_path), target="tissue").load(0)
    types.write_bytes(b"")
    with pytest.raises(BadInput, match=r"types\.npy: cannot be read \(No data left"):
        PanNukeSettings(path=str(tmp_path), target="tissue").load(0)
    (tmp_path / "Fold 1" / "images" / "fold1" / "images.npy").unlink()
    with pytest.raises(BadInput, match=r"no Fold 1/images/fold1/images\.npy"):
        settings.load(0)
