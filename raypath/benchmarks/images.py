"""A benchmark from labelled images of one's own: a folder with one subfolder per class, or a manifest.

One decision: the set is taken as it is (see `assembling`), and nothing is published of it: what its manifest does not say is not
known.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from raypath.benchmarks.assembling import assemble
from raypath.benchmarks.benchmark import Benchmark
from raypath.benchmarks.facts import Facts
from raypath.benchmarks.splits.making import SplitSettings
from raypath.data.image_rows import MANIFEST_NAMES, ImageRow, read_image_rows
from raypath.errors import BadInput


def load_images(
    path: str | Path,
    *,
    name: str | None = None,
    mpp: float | None = None,
    label: str = "label",
    seed: int = 0,
    drop_classes: Sequence[str] = (),
    grades: Sequence[str] = (),
    ignore_split: bool = False,
    split: SplitSettings = SplitSettings(),  # noqa: B008 - frozen
) -> Benchmark:
    """The benchmark of an image set.

    `path`: a manifest, a folder that holds one, or a folder of class folders (see `image_rows`). `name`: else the folder's.
    `mpp`: um per px of the images; None: unknown, nothing is guessed. `label`: the manifest's column of the classes. `seed`: of a
    split that is made. `drop_classes`: classes to leave out. `grades`: all classes from the lowest to the highest, where they
    are grades (the primary metric is then quadratic weighted kappa). `ignore_split`: make a split although one is given (for one
    that divides patients).

    Raises BadInput for wrong cells, for a patient in two splits, for a class that is not in all three splits or is no grade, and
    for a grade that is no class.
    """
    path = Path(path)
    rows, note = read_image_rows(path, label=label)
    name = name or (path.parent if path.name in MANIFEST_NAMES else path.absolute()).name or path.stem
    facts = Facts(title=name, source=str(path), licence="not stated", mpp=mpp)
    notes = [note, f"left out: {', '.join(drop_classes)}" if drop_classes else ""]
    if ignore_split:
        split = replace(split, use_given=False)
    primary = "quadratic_kappa" if grades else None
    rows = _without(rows, drop_classes, name)
    absent = [grade for grade in grades if grade not in {row.label for row in rows}]
    if absent:
        raise BadInput(
            f"{name}: no image has the grade {', '.join(absent)}; leave it out of benchmark.grades (neighbours are then one step"
            " apart)"
        )
    return assemble(rows, facts, split, name=name, seed=seed, notes=notes, classes=grades, primary=primary)


def _without(rows: list[ImageRow], drop_classes: Sequence[str], name: str) -> list[ImageRow]:
    found = {row.label for row in rows}
    unknown = sorted(set(drop_classes) - found)
    if unknown:
        raise BadInput(f"{name}: drop_classes names {', '.join(unknown)}; the classes are {', '.join(sorted(found))}")
    return [row for row in rows if row.label not in drop_classes]
