"""Where the real slides are."""

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def real_slides(real_data) -> Path:
    folder = real_data / "slides"
    if not folder.is_dir():
        pytest.skip(f"no real slides at {folder}; set RAYPATH_REAL_DATA")
    return folder
