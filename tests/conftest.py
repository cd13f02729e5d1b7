"""What many tests share: one Ray instance, six phantoms with their index, and the place of the real data.

Ray starts once for the whole run (4 s); the switches it reads at import are set here, before anything imports it. What the
fixtures of phantoms return is shared: a test that changes a slide or an index works on a copy.
"""

import os
import shutil
import tempfile
from pathlib import Path

os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.1")  # Ray Train notices starts and ends at once
os.environ.setdefault("RAY_idle_worker_killing_time_threshold_ms", "120000")  # keep what has imported everything
os.environ.setdefault("RAY_TRAIN_ENABLE_PRINT_PATCH", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

import pytest


@pytest.fixture(scope="session")
def ray_instance():
    """The Ray instance of the test run: 4 logical CPUs, no dashboard, its files in a short temporary path."""
    import ray

    folder = tempfile.mkdtemp(prefix="raypath-", dir="/tmp")  # a socket's path has at most 107 characters
    ray.init(
        address="local",
        num_cpus=4,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
        object_store_memory=512 * 2**20,
        _temp_dir=folder,
    )
    yield ray
    ray.shutdown()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def phantom_folder(tmp_path_factory) -> Path:
    """A folder with 6 phantom slides of 768 px (seed 0), their class masks and manifest.csv."""
    from raypath.slides.phantom import write_phantoms

    folder = tmp_path_factory.mktemp("phantoms")
    write_phantoms(folder, num_slides=6, size_px=768, seed=0)
    return folder


@pytest.fixture(scope="session")
def phantom_index(phantom_folder, ray_instance, tmp_path_factory):
    """The index of the phantoms: tiles of 64 px at 0.5 um per px."""
    from raypath.data.indexing import make_index
    from raypath.data.manifest import read_manifest
    from raypath.slides import TileSpec

    spec = TileSpec(extent_px=64, mpp=0.5, stride_px=64, min_tissue=0.5)
    index, _ = make_index(read_manifest(phantom_folder / "manifest.csv"), spec, tmp_path_factory.mktemp("index"))
    return index


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real slides and labelled sets: RAYPATH_REAL_DATA, else ../shared/data beside the repository."""
    folder = Path(os.environ.get("RAYPATH_REAL_DATA") or Path(__file__).parents[2] / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}; set RAYPATH_REAL_DATA")
    return folder
