"""Images of one's own with masks: folders and manifests, and every fault of a mask in one list."""

import csv
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from raypath.benchmarks.masks import MasksSettings
from raypath.benchmarks.splits.making import SplitSettings
from raypath.config import override
from raypath.data.masks import read_mask
from raypath.errors import BadInput
from raypath.protocols.transfer import TransferConfig


def write_pairs(folder, names, *, highest=1):
    """Images of 6 x 4 px, and masks that hold every value of 0 to `highest`."""
    generator = np.random.default_rng(0)
    for sub in ("images", "masks"):
        (folder / sub).mkdir(parents=True, exist_ok=True)
    for name in names:
        Image.fromarray(generator.integers(0, 256, (4, 6, 3), dtype=np.uint8)).save(folder / "images" / f"{name}.jpg")
        values = generator.permutation(np.arange(24) % (highest + 1)).reshape(4, 6)
        Image.fromarray(values.astype(np.uint8)).save(folder / "masks" / f"{name}.png")
    return folder


def write_manifest(folder, header, lines):
    with (folder / "manifest.csv").open("w", newline="") as file:
        csv.writer(file).writerows([header, *lines])


def splits_of(benchmark):
    return {split: sum(counts.values()) for split, counts in benchmark.counts().items()}


def test_two_folders_are_a_benchmark(tmp_path):
    write_pairs(tmp_path, [f"a{i}" for i in range(10)])
    benchmark = MasksSettings(path=str(tmp_path), name="mine", mpp=0.5).load(0)
    assert (benchmark.kind, benchmark.mask_rule, benchmark.mpp) == ("segmentation", "binary", 0.5)
    assert (benchmark.classes, benchmark.primary) == (("background", "foreground"), "miou_macro")
    assert splits_of(benchmark) == {"train": 6, "val": 2, "test": 2}
    assert "60/20/20" in benchmark.split_note
    for row in benchmark.table.to_pylist():
        assert row["mask"] == row["path"].replace("images", "masks").replace("jpg", "png")
        assert read_mask(row["mask"], "binary", size=(6, 4)).max() == 1


def test_split_folders_that_hold_pairs(tmp_path):
    for split, size in (("train", 4), ("val", 2), ("test", 1)):
        write_pairs(tmp_path / split, [f"{split}{i}" for i in range(size)])
    benchmark = MasksSettings(path=str(tmp_path)).load(0)
    assert splits_of(benchmark) == {"train": 4, "val": 2, "test": 1}
    assert benchmark.split_note.startswith("split as given")


def test_a_manifest_says_strata_patients_and_splits(tmp_path):
    names = [f"a{i}" for i in range(30)]
    write_pairs(tmp_path, names, highest=2)
    header = ["image", "mask(0: none, 1: gland)", "grade", "patient", "organ"]
    lines = [
        [f"images/{n}.jpg", f"masks/{n}.png", "low" if i < 15 else "high", f"p{i // 3}", "colon"]
        for i, n in enumerate(names)
    ]
    write_manifest(tmp_path, header, lines)
    chosen = MasksSettings(path=str(tmp_path), mask_rule="values", classes=("none", "gland", "lumen"), stratum="grade")
    benchmark = chosen.load(3)
    assert (benchmark.classes, benchmark.strata) == (("none", "gland", "lumen"), ("high", "low"))
    assert "columns not used: organ" in benchmark.split_note
    assert benchmark.counts()["train"] == {"high": 9, "low": 9}
    patients = {
        s: {r["patient"] for r in benchmark.table.to_pylist() if r["split"] == s} for s in ("train", "val", "test")
    }
    assert patients["train"].isdisjoint(patients["val"] | patients["test"])
    assert patients["val"].isdisjoint(patients["test"])
    with benchmark.write_split(tmp_path / "out").open() as file:
        assert {(r["sample"], r["label"]) for r in csv.DictReader(file)} == {(line[0], line[2]) for line in lines}


def test_without_a_label_nothing_is_stratified(tmp_path):
    write_pairs(tmp_path, [f"a{i}" for i in range(10)])
    write_manifest(tmp_path, ["path", "mask"], [[f"images/a{i}.jpg", f"masks/a{i}.png"] for i in range(10)])
    assert MasksSettings(path=str(tmp_path)).load(0).strata == ("",)
    with pytest.raises(BadInput, match=r"line 1: no column grade among path, mask"):
        MasksSettings(path=str(tmp_path), stratum="grade").load(0)


def test_the_mask_counts_in_the_hash(tmp_path):
    write_pairs(tmp_path, [f"a{i}" for i in range(10)])
    before = MasksSettings(path=str(tmp_path)).load(0).data_hash
    Image.new("L", (6, 4), 1).save(tmp_path / "masks" / "a3.png")
    assert MasksSettings(path=str(tmp_path)).load(0).data_hash != before


def test_it_is_chosen_by_its_kind():
    config = override(TransferConfig(), ["benchmark.kind=masks", "benchmark.path=x", "benchmark.mask_rule=channels"])
    assert config.benchmark == MasksSettings(path="x", mask_rule="channels")


def test_masks_that_do_not_fit_are_listed_together(tmp_path):
    write_pairs(tmp_path, [f"a{i}" for i in range(10)])
    Image.new("L", (4, 6)).save(tmp_path / "masks" / "a1.png")
    (tmp_path / "masks" / "a2.png").write_bytes(b"no image")
    Image.new("L", (6, 4), 255).save(tmp_path / "masks" / "a3.png")
    with pytest.raises(BadInput) as caught:
        MasksSettings(path=str(tmp_path), mask_rule="values").load(0)
    first, *faults = str(caught.value).splitlines()
    assert first.startswith("3 of 10 masks cannot be used")
    assert [fault.split(": ", 1)[0].rsplit("/", 1)[1] for fault in faults] == ["a1.png", "a2.png", "a3.png"]
    assert "its mask is 4 x 6 px, the image 6 x 4" in faults[0]
    assert "cannot identify" in faults[1]
    assert "it holds class 255, but only 0 to 1 have names (background, foreground)" in faults[2]
    (tmp_path / "images" / "a4.jpg").write_bytes(b"no image")
    with pytest.raises(BadInput, match=r"a4\.png: its image .*a4\.jpg cannot be read"):
        MasksSettings(path=str(tmp_path)).load(0)


def test_what_is_missing_is_refused(tmp_path):
    write_pairs(tmp_path, ["a", "b"])
    (tmp_path / "masks" / "b.png").unlink()
    with pytest.raises(BadInput, match=r"1 images without a mask .*b\.jpg.* of 2 images and 1 masks"):
        MasksSettings(path=str(tmp_path)).load(0)
    Image.new("L", (6, 4)).save(tmp_path / "masks" / "a.bmp")
    with pytest.raises(BadInput, match=r"a\.bmp: another file has the same stem"):
        MasksSettings(path=str(tmp_path)).load(0)
    write_manifest(tmp_path, ["image", "mask"], [["images/a.jpg", "masks/a.png"], ["images/b.jpg", "masks/b.png"]])
    with pytest.raises(BadInput, match=r"line 3, column mask: 'masks/b\.png': there is no such file"):
        MasksSettings(path=str(tmp_path)).load(0)
    write_manifest(tmp_path, ["image", "mask", "mask2"], [["images/a.jpg", "masks/a.png", ""]])
    with pytest.raises(BadInput, match="mask and mask2 all begin with mask"):
        MasksSettings(path=str(tmp_path)).load(0)
    write_manifest(tmp_path, ["image", "label"], [["images/a.jpg", "x"]])
    with pytest.raises(BadInput, match="line 1: no column mask among image, label"):
        MasksSettings(path=str(tmp_path)).load(0)
    with pytest.raises(BadInput, match=r"benchmark\.path: which images with masks"):
        MasksSettings().load(0)
    with pytest.raises(BadInput, match="mask_rule=binary needs two names"):
        MasksSettings(path=str(tmp_path), classes=("a", "b", "c")).load(0)


def test_numbered_objects_are_asked_for_and_must_be_there(tmp_path):
    for highest in (1, 4):
        write_pairs(tmp_path / str(highest), [f"a{i}" for i in range(10)], highest=highest)
    assert not MasksSettings(path=str(tmp_path / "4")).load(0).has_objects
    benchmark = MasksSettings(path=str(tmp_path / "4"), has_objects=True).load(0)
    assert (benchmark.has_objects, benchmark.mask_rule) == (True, "binary")
    with pytest.raises(BadInput, match="none of 10 masks has another value than 0 and one more"):
        MasksSettings(path=str(tmp_path / "1"), has_objects=True).load(0)
    with pytest.raises(BadInput, match=r"has_objects: mask_rule=values; objects are numbered where there is one class"):
        MasksSettings(path=str(tmp_path / "4"), has_objects=True, mask_rule="values").load(0)
    with pytest.raises(ValueError, match="numbered objects need masks of images"):
        replace(benchmark, mask_rule="values")


SETS = [("glas", 145, "grade"), ("monuseg", 24, "label"), ("dsb2018_stained", 53, "label")]


@pytest.mark.real
@pytest.mark.parametrize(("name", "num_images", "stratum"), SETS)
def test_real_sets_load(real_data, name, num_images, stratum):
    folder = real_data / "masks" / name
    if not folder.is_dir():
        pytest.skip(f"no {folder}")
    benchmark = MasksSettings(path=str(folder), stratum=stratum, split=SplitSettings(use_given=False)).load(0)
    assert sum(splits_of(benchmark).values()) == num_images == len(benchmark.table)
    assert min(splits_of(benchmark).values()) > 0
    row = benchmark.rows("val").to_pylist()[0]
    with Image.open(row["path"]) as image, Image.open(row["mask"]) as mask:
        expected = np.asarray(mask) > 0
        assert (read_mask(row["mask"], benchmark.mask_rule, size=image.size) == expected).all()


@pytest.mark.real
def test_real_glas_divides_no_patient_but_its_given_split_does(real_data):
    folder = real_data / "masks" / "glas"
    if not folder.is_dir():
        pytest.skip(f"no {folder}")
    with pytest.raises(BadInput, match="patients stand in more than one split"):
        MasksSettings(path=str(folder), stratum="grade").load(0)
    benchmark = MasksSettings(path=str(folder), stratum="grade", split=SplitSettings(use_given=False)).load(0)
    where = {}
    for row in benchmark.table.to_pylist():
        where.setdefault(row["patient"], set()).add(row["split"])
    assert len(where) > 5
    assert all(len(splits) == 1 for splits in where.values())
    assert benchmark.strata == ("benign", "malignant")
