"""Where the real slides are: RAYPATH_REAL_DATA, else ../shared/data beside the repository."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def real_slides() -> Path:
    default = Path(__file__).parents[3] / "shared" / "data"
    folder = Path(os.environ.get("RAYPATH_REAL_DATA") or default) / "slides"
    if not folder.is_dir():
        pytest.skip(f"no real slides at {folder}; set RAYPATH_REAL_DATA")
    return folder
