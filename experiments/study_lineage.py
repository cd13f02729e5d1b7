"""What a study was made with: every command that carried it out, and the versions behind it.

    STUDY/commands.jsonl     time, folder, command, how to repeat it, versions; a line for each start
    STUDY/reopen.json        why tests are opened again, until all of them are scored

One decision: nothing is overwritten. A study is carried out by several commands, maybe of several commits, so each cell has the
versions that it was made with (`cell.json`), and the commands stand one below the other. What repeats a study is its config as it
was resolved, `STUDY/study.json`, and not a file that somebody may have changed since.
"""

import os
import platform
import shlex
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from raypath.run_folder import RunFolder, runs_root
from raypath.study.cells import write_json
from raypath.tracking import git_tags

COMMANDS = "commands.jsonl"
_REOPEN = "reopen.json"
_PACKAGES = ("raypath", "torch", "timm", "ray", "mlflow", "scikit-learn", "numpy")


def versions_here() -> dict[str, str]:
    """Of the code ("with changes": files differ from the commit), of packages and of Python."""
    tags = git_tags(Path(__file__).parent)
    commit = tags.get("mlflow.source.git.commit", "not under git")
    changes = ", with changes" if tags.get("raypath.git_is_dirty") == "true" else ""
    packages = {name: version(name) for name in _PACKAGES}
    return {"commit": f"{commit}{changes}", **packages, "python": platform.python_version()}


def record_command(folder: Path) -> None:
    """Write down the command that carries a study out from now on."""
    places = {"RAYPATH_RUNS": str(runs_root()), "RAYPATH_WEIGHTS": os.environ.get("RAYPATH_WEIGHTS")}
    where = " ".join(f"{name}={shlex.quote(value)}" for name, value in places.items() if value)
    script, *words = sys.argv
    line = {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "folder": os.getcwd(),
        "command": f"{where} {shlex.join(['python', script, *words])}",
        "repeat": f"{where} {shlex.join(['python', script, str(folder.absolute())])}",
        "versions": versions_here(),
    }
    RunFolder(folder).append(COMMANDS, line)


def opening_words(folder: Path, words: str) -> str:
    """Why tests are opened again: what was said now, else what was said to a start that did not come to its end."""
    words = words or RunFolder(folder).read(_REOPEN).get("words", "")
    if words:
        write_json(folder / _REOPEN, {"words": words})
    return words


def forget_opening(folder: Path) -> None:
    """All tests are scored: the next start opens none again unless it says why."""
    (folder / _REOPEN).unlink(missing_ok=True)
