"""The pool of tasks on a page: its table, and what its images look like.

One decision: the table is made from counts and the montage from the pool that trains, so that what is seen is what is learned from.
The images of a task are drawn by a key of its own: another task more or less changes none. What it costs: one file read for each
image that is shown.
"""

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from textwrap import fill

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from raypath.data.image_files import UNREADABLE, read_image
from raypath.data.pool import Pool, Task
from raypath.study.figures import INK, SOFT
from raypath.study.published.gaps import mark_gap
from raypath.study.tables import Cell, Table

Counts = tuple[int | None, int | None]
"""Images and groups; None: not known."""
_SPLITS = ("train", "val", "test")
_NAME_CHARACTERS = 18


@dataclass(frozen=True, kw_only=True)
class PoolLine:
    """A task of a pool in numbers."""

    name: str
    num_classes: int
    splits: Mapping[str, Counts]
    """By split; one that is not there is not known."""
    origin: str = ""
    """What its set was made for: CLF, DET, SEG."""
    split_by: str = ""
    """What a group is."""


def lines_of(pools: Mapping[str, Pool]) -> list[PoolLine]:
    """The lines of a pool that was read split by split (`data.pool.load_pool`); groups are patients, where all images name one."""
    names = dict.fromkeys(task.name for pool in pools.values() for task in pool.tasks)
    found = {(split, task.name): task for split, pool in pools.items() for task in pool.tasks}
    lines = []
    for name in names:
        tasks = {split: found[split, name] for split in pools if (split, name) in found}
        counts = {split: (len(task.paths), _num_patients(task)) for split, task in tasks.items()}
        num_classes = len(next(iter(tasks.values())).classes)
        is_by_patient = all(num is not None for _, num in counts.values())
        split_by = "patient" if is_by_patient else "image"
        lines.append(PoolLine(name=name, num_classes=num_classes, splits=counts, split_by=split_by))
    return lines


def _num_patients(task: Task) -> int | None:
    return None if None in task.patients else len(set(task.patients))


def pool_table(lines: Sequence[PoolLine], caption: str) -> Table:
    """Tasks, classes, and images and groups of each split, with the sums below."""
    counts = [[line.splits.get(split, (None, None)) for split in _SPLITS] for line in lines]
    rows = [_row(line.name, line.origin, line.num_classes, own, line.split_by) for line, own in zip(lines, counts)]
    sums = [_summed(column) for column in zip(*counts)]
    total = _row(f"{len(lines)} tasks", "", sum(line.num_classes for line in lines), sums, "")
    heads = [f"{split} {what}" for split in (*_SPLITS, "total") for what in ("images", "groups")]
    columns = ("task", "type", "classes", *heads, "split by")
    return Table(columns=columns, rows=(*rows, total), caption=caption)


def _row(name: str, origin: str, num_classes: int, counts: Sequence[Counts], split_by: str) -> tuple[Cell, ...]:
    numbers = [number for pair in (*counts, _summed(counts)) for number in pair]
    return (name, origin, num_classes, *numbers, split_by)


def _summed(pairs: Sequence[Counts]) -> Counts:
    """Images and groups together; a sum with an unknown part is not known."""
    return tuple(None if None in column else sum(column) for column in zip(*pairs))


def pool_montage(pool: Pool, *, num_images: int = 8, extent_px: int = 112, seed: int = 0) -> Figure:
    """A row of images for each task, class after class, each with its class below; an image that cannot be read is a marked gap.

    `extent_px`: the side of an image in the picture. A task with fewer images has a shorter row.
    """
    figure = Figure(figsize=(1.9 + 1.05 * num_images, 0.3 + 1.4 * len(pool.tasks)), layout="constrained")
    panels = figure.subplots(len(pool.tasks), num_images, squeeze=False)
    for task, line in zip(pool.tasks, panels):
        chosen = _chosen(task, num_images, seed)
        for axes, image in zip(line, chosen):
            _draw_image(axes, task, image, extent_px)
        for axes in line[len(chosen) :]:
            axes.set_axis_off()
        about = f"{fill(task.name, _NAME_CHARACTERS)}\n{len(task.classes)} classes\n{len(task.paths):,} images"
        line[0].set_ylabel(about, rotation=0, ha="right", va="center", fontsize=8, color=INK)
    return figure


def _chosen(task: Task, num_images: int, seed: int) -> list[int]:
    """Numbers of images: of every class in turn, none twice; the first classes where there are more classes than places."""
    key = np.random.default_rng([seed, zlib.crc32(task.name.encode())])
    shuffled = [key.permutation(np.flatnonzero(task.labels == label)) for label in range(len(task.classes))]
    turns = [own[turn] for turn in range(num_images) for own in shuffled if turn < len(own)]
    return sorted((int(image) for image in turns[:num_images]), key=lambda image: task.labels[image])


def _draw_image(axes: Axes, task: Task, image: int, extent_px: int) -> None:
    try:
        axes.imshow(read_image(task.paths[image], extent_px), interpolation="none")
    except UNREADABLE:
        axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
        mark_gap(axes, 0, 1, "cannot\nbe read")
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    name = fill(task.classes[task.labels[image]], _NAME_CHARACTERS)
    axes.set_xlabel(name, fontsize=6, color=SOFT, labelpad=2)
