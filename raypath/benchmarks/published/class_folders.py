"""The images of a published set whose folders are its classes: found by name, or refused by name.

One decision: a published set is complete or damaged. A class whose folder is missing or empty, and a folder that no
class has, are errors, because a set that lost a part in unpacking trains as well as a whole one.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

from raypath.data.hidden_files import is_hidden
from raypath.errors import BadInput


def images_of_classes(
    folder: Path, classes: Mapping[str, str], suffix: str, *, beside: tuple[str, ...] = ()
) -> Iterator[tuple[Path, str]]:
    """(path, label) of every image `folder/NAME/*suffix`, sorted; `classes` says the label of each folder's name.

    `beside` names the folders that may lie there and are no class; hidden ones always may. Raises BadInput as above.
    """
    found = {path.name for path in folder.iterdir() if path.is_dir() and not is_hidden(path)}
    unknown = sorted(found - set(classes) - set(beside))
    if unknown:
        raise BadInput(f"{folder}: found the folder {unknown[0]}; expected those of the set: {', '.join(classes)}")
    for name, label in classes.items():
        if name not in found:
            raise BadInput(
                f"{folder / name}: there is no such folder; unpack the set again, it has {', '.join(classes)}"
            )
        for path in images_in(folder / name, suffix):
            yield path, label


def images_in(folder: Path, suffix: str) -> list[Path]:
    """The files of a folder that end in `suffix` (in capitals too), sorted; raises BadInput for none."""
    paths = sorted(path for path in folder.iterdir() if path.name.lower().endswith(suffix) and not is_hidden(path))
    if not paths:
        raise BadInput(f"{folder}: no images in it; expected files that end in {suffix}: unpack the set again")
    return paths
