"""What archives and file browsers leave beside the files of a set, and is no part of it.

One decision: it is known by its name, and passed over: all that begins with a dot (.DS_Store; the ._ twin that macOS packs beside
every file, under that file's own ending; .ipynb_checkpoints with its copies), and the folder __MACOSX. What it costs: a set cannot
have images or classes of such names.
"""

from pathlib import PurePath

_LEFT_BY_ARCHIVES = "__MACOSX"


def is_hidden(path: PurePath, below: PurePath | None = None) -> bool:
    """Whether a file or folder is no part of a set: by its own name, or by one of all its names `below` a folder."""
    names = (path.name,) if below is None else path.relative_to(below).parts
    return any(name.startswith(".") or name == _LEFT_BY_ARCHIVES for name in names)
