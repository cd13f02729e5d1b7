"""PCam: a miniature in its published files, and what is refused."""

import h5py
import numpy as np
import pytest

from raypath.benchmarks import BenchmarkSettings
from raypath.benchmarks.published.pcam import PCamSettings
from raypath.config import from_dict, override
from raypath.data.image_files import read_image
from raypath.errors import BadInput
from raypath.protocols.transfer import TransferConfig

SIZES = {"train": 12, "valid": 6, "test": 6}
PREFIX = "camelyonpatch_level_2_split_"


def write(folder, *, has_meta=True, prefix=PREFIX):
    """Six files, and three with the slides."""
    generator = np.random.default_rng(0)
    for split, size in SIZES.items():
        with h5py.File(folder / f"{prefix}{split}_x.h5", "w") as file:
            file["x"] = generator.integers(0, 256, (size, 96, 96, 3), dtype=np.uint8)
        with h5py.File(folder / f"{prefix}{split}_y.h5", "w") as file:
            file["y"] = (np.arange(size, dtype=np.uint8) % 2).reshape(-1, 1, 1, 1)
        if has_meta:
            lines = [f"{i},{i},{i},True,{bool(i % 2)},camelyon16_{split}_normal_{i // 3:03d}" for i in range(size)]
            header = ",coord_y,coord_x,tumor_patch,center_tumor_patch,wsi"
            (folder / f"{prefix}{split}_meta.csv").write_text("\n".join([header, *lines]) + "\n")
    return folder


def test_the_published_files_are_read(tmp_path):
    benchmark = PCamSettings(path=str(write(tmp_path))).load(0)
    assert PCamSettings.recognise(tmp_path)
    assert benchmark.classes == ("normal", "tumor")
    assert {s: sum(c.values()) for s, c in benchmark.counts().items()} == {"train": 12, "val": 6, "test": 6}
    rows = benchmark.rows("train").to_pylist()
    assert {row["patient"] for row in rows} == {f"camelyon16_train_normal_{i:03d}" for i in range(4)}
    row = next(row for row in rows if row["sample"] == "train/5")
    with h5py.File(row["path"]) as file:
        np.testing.assert_array_equal(read_image(row["path"], 96, item=row["item"]), file["x"][5])
    assert row["label"] == 1
    assert "images 24 (published: 327,680)" in benchmark.tags["raypath.data"]


def test_short_names_and_no_slides_will_do(tmp_path):
    benchmark = PCamSettings(path=str(write(tmp_path, has_meta=False, prefix=""))).load(0)
    assert not benchmark.has_patients
    assert len(benchmark.table) == 24


def test_it_is_chosen_by_its_kind(tmp_path):
    config = override(TransferConfig(), ["benchmark.kind=pcam", f"benchmark.path={tmp_path}"])
    assert config.benchmark == PCamSettings(path=str(tmp_path))
    assert BenchmarkSettings is not None
    assert from_dict(PCamSettings, {"kind": "pcam", "path": "x"}).path == "x"


def test_what_is_damaged_is_refused(tmp_path):
    write(tmp_path)
    with h5py.File(tmp_path / f"{PREFIX}valid_y.h5", "w") as file:
        file["y"] = np.zeros((5, 1, 1, 1), np.uint8)
    with pytest.raises(BadInput, match=r"valid_y\.h5: 5 labels of \[0\] for 6 images"):
        PCamSettings(path=str(tmp_path)).load(0)
    (tmp_path / f"{PREFIX}valid_x.h5").write_bytes(b"not hdf5")
    with pytest.raises(BadInput, match=r"valid_x\.h5: cannot be read"):
        PCamSettings(path=str(tmp_path)).load(0)
    (tmp_path / f"{PREFIX}test_x.h5").unlink()
    write(tmp_path)
    (tmp_path / f"{PREFIX}test_x.h5").unlink()
    with pytest.raises(BadInput, match=r"no camelyonpatch_level_2_split_test_x\.h5"):
        PCamSettings(path=str(tmp_path)).load(0)
