import subprocess
import sys

import numpy as np
import pytest

from raypath.benchmarks import TILE_SCHEMA, ImagesSettings, PhantomsSettings, load_phantoms
from raypath.benchmarks.phantoms import class_shares
from raypath.benchmarks.settings import KINDS
from raypath.errors import BadInput
from raypath.slides.phantom import CLASSES, MASK_DOWNSAMPLE, read_class_mask, write_phantoms


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("phantoms")
    write_phantoms(folder, num_slides=4, size_px=768, seed=1)
    return folder


def test_shares_are_exact_between_mask_squares():
    mask = np.random.default_rng(0).integers(len(CLASSES), size=(6, 7)).astype(np.uint8)
    x_l0, y_l0, extent_l0 = np.array([0, 5, 31, 62]), np.array([0, 9, 17, 46]), 50
    pixels = mask.repeat(MASK_DOWNSAMPLE, axis=0).repeat(MASK_DOWNSAMPLE, axis=1)
    expected = [
        [np.mean(pixels[y : y + extent_l0, x : x + extent_l0] == k) for k in range(len(CLASSES))]
        for x, y in zip(x_l0, y_l0, strict=True)
    ]
    assert class_shares(mask, x_l0, y_l0, extent_l0) == pytest.approx(np.array(expected))


def test_every_tile_is_covered_by_its_class(folder):
    benchmark = load_phantoms(folder, extent_px=48, mpp=0.5, stride_px=24, min_share=0.9)
    assert benchmark.classes == CLASSES[1:]
    assert benchmark.table.schema == TILE_SCHEMA
    assert benchmark.has_patients
    for row in benchmark.table.to_pylist():
        mask = read_class_mask(row["slide"]).repeat(MASK_DOWNSAMPLE, axis=0).repeat(MASK_DOWNSAMPLE, axis=1)
        tile = mask[row["y_l0"] : row["y_l0"] + 48, row["x_l0"] : row["x_l0"] + 48]
        assert tile.shape == (48, 48)
        assert np.mean(tile == row["label"] + 1) >= 0.9 - 1e-9
    patients = [set(benchmark.groups("train")), set(benchmark.groups("val"))]
    assert not patients[0] & patients[1]


def test_tiles_keep_their_physical_size(folder):
    fine, coarse = (load_phantoms(folder, extent_px=32, mpp=mpp) for mpp in (0.5, 1.0))
    assert set(fine.table["extent_l0"].to_pylist()) == {32}
    assert set(coarse.table["extent_l0"].to_pylist()) == {64}
    assert fine.data_hash != coarse.data_hash


def test_caps_and_budgets_are_nested_and_keyed(folder):
    def train(**settings):
        benchmark = load_phantoms(folder, extent_px=32, mpp=0.5, **settings)
        return set(benchmark.rows("train")["sample"].to_pylist()), benchmark.counts()

    everything, _ = train()
    capped, counts = train(max_per_class_and_slide=6)
    budget, budget_counts = train(max_per_class_and_slide=6, per_class_train=4)
    assert budget < capped < everything
    assert budget_counts["train"] == dict.fromkeys(CLASSES[1:], 4)
    assert budget_counts["test"] == counts["test"]
    assert train(max_per_class_and_slide=6, seed=1)[0] != capped


def test_bad_settings(folder, tmp_path):
    with pytest.raises(BadInput, match="min_share = 0.5"):
        load_phantoms(folder, extent_px=32, mpp=0.5, min_share=0.5)
    with pytest.raises(BadInput, match="no such manifest"):
        load_phantoms(tmp_path, extent_px=32, mpp=0.5)


def test_loaders_are_found_by_name_and_import_neither_torch_nor_ray_nor_mlflow():
    kinds = [kind().kind for kind in KINDS]
    assert {ImagesSettings, PhantomsSettings} <= set(KINDS)
    assert len(set(kinds)) == len(kinds)
    code = "import sys, raypath.benchmarks; print([m for m in ('torch', 'ray', 'mlflow') if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
