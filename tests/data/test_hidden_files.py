"""What archives leave behind is known by its name, wherever it lies."""

from pathlib import PurePosixPath

import pytest

from raypath.data.hidden_files import is_hidden


@pytest.mark.parametrize("name", [".DS_Store", "._a.png", "__MACOSX", ".ipynb_checkpoints"])
def test_a_hidden_name(name):
    assert is_hidden(PurePosixPath("set") / name)
    assert is_hidden(PurePosixPath("set") / name / "a.png", below=PurePosixPath("set"))
    assert not is_hidden(PurePosixPath("set") / name / "a.png")
    assert not is_hidden(PurePosixPath(name) / "a" / "a.png", below=PurePosixPath(name))


def test_a_name_like_others():
    assert not is_hidden(PurePosixPath("my set/a.b/._not hidden".replace("._", "_")))
