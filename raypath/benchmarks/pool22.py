"""The pool of 22 tasks that the second paper pretrains on (Mormont et al. 2020): what each is, and whether it can be had.

One decision: the table is data, copied from print and checked by its sums; the sets themselves come from readers
(`settings.KINDS`), and a task says by name which kind reads it. Twelve tasks are of published sets; nine never left the authors'
collaborators, and of BoneMarrow only the paper is known. So the pool of anybody else is a part of this one, and a score beside the
paper's has to say which part.

Sources: images, classes, splits and units, table "final datasets" in appendix B of the thesis (waliens/phd-thesis@11db1cab);
origin, organ and stain, table "datasets" of its chapter 5 (@116c04ba); whose they are, its appendix D (@5fc24843). Of chapter 5
these are not taken over: 2,922,216 images of Camelyon16 and 9 classes of BoneMarrow (292,226 and 8 make its totals), Breast1
and Breast2 as classification (appendix B has them as segmentation), and "breast" for the lymphomas of Janowczyk7.
"""

from dataclasses import dataclass
from typing import Literal

from raypath.benchmarks.settings import KINDS
from raypath.data.manifest import SPLITS
from raypath.errors import BadInput

_LENT = "came from the authors' collaborators on Cytomine; no release is known"


@dataclass(frozen=True)
class PoolTask:
    """One task of the pool, after the paper's preprocessing to classification."""

    name: str
    origin: Literal["classification", "detection", "segmentation"]
    """What its set was published for."""
    organ: str
    stain: str
    num_classes: int
    train: tuple[int, int]
    """Images (samples), and the groups they come from."""
    val: tuple[int, int]
    """(0, 0) where there is none (UMCMColorectal)."""
    test: tuple[int, int]
    split_by: Literal["patient", "slide", "image"]
    """What a group is, and never divided."""
    kind: str | None = None
    """The kind of benchmark that reads it; None: no reader here."""
    not_public: str = ""
    """Why nobody else can have it; "" for a published set."""

    @property
    def total(self) -> tuple[int, int]:
        """Images and groups of all splits."""
        return tuple(sum(counts) for counts in zip(self.train, self.val, self.test, strict=True))


_CLF, _DET, _SEG = "classification", "detection", "segmentation"
# fmt: off
TASKS: tuple[PoolTask, ...] = (
    PoolTask("Necrosis", _CLF, "breast", "IHC", 2, (695, 9), (96, 1), (91, 3), "slide", not_public=_LENT),
    PoolTask("ProliferativePattern", _CLF, "thyroid", "Diff-Quik", 2, (1179, 19), (167, 4), (511, 13), "slide", not_public=_LENT),
    PoolTask("CellInclusion", _CLF, "thyroid", "Diff-Quik", 2, (1643, 21), (173, 2), (1821, 22), "slide", not_public=_LENT),
    PoolTask("MouseLba", _DET, "lung", "MGG", 8, (1722, 9), (716, 4), (1846, 7), "slide", not_public=_LENT),
    PoolTask("HumanLba", _DET, "lung", "MGG", 9, (4051, 50), (346, 5), (1023, 9), "slide", not_public=_LENT),
    PoolTask("Lung", _CLF, "lung", "H&E", 10, (4881, 669), (562, 73), (888, 139), "slide", not_public=_LENT),
    PoolTask("Glomeruli", _CLF, "kidney", "M3C", 2, (12157, 10), (2448, 8), (14608, 102), "slide", not_public=_LENT),
    PoolTask("Breast1", _SEG, "breast", "H&E", 2, (14055, 22), (4206, 8), (4771, 4), "patient", not_public=_LENT),
    PoolTask("Breast2", _SEG, "breast", "H&E", 2, (11483, 22), (3470, 8), (2570, 4), "patient", not_public=_LENT),
    PoolTask("BoneMarrow", _CLF, "bone marrow", "H&E", 8, (522, 522), (130, 130), (639, 639), "slide",
             not_public="its source is a paper (Kainz et al. 2017); no place to fetch its images from is known"),
    PoolTask("Janowczyk1", _SEG, "breast", "H&E", 2, (17550, 77), (4500, 19), (9675, 41), "patient", kind="janowczyk1"),
    PoolTask("Janowczyk2", _SEG, "breast", "H&E", 2, (1701, 21), (405, 5), (1296, 16), "patient", kind="janowczyk2"),
    PoolTask("Janowczyk5", _DET, "breast", "H&E", 2, (16560, 7), (4551, 2), (3759, 3), "patient", kind="janowczyk5"),
    PoolTask("Janowczyk6", _CLF, "breast", "H&E", 2, (224822, 230), (31934, 29), (20768, 20), "patient", kind="janowczyk6"),
    PoolTask("Janowczyk7", _CLF, "not stated", "H&E", 3, (1350, 225), (456, 76), (438, 73), "patient", kind="janowczyk7"),
    PoolTask("MITOS-ATYPIA14", _DET, "breast", "H&E", 3, (40364, 13), (12799, 4), (11710, 5), "slide", kind="mitos_atypia"),
    PoolTask("WarwickCRC", _DET, "colorectal", "H&E", 2, (1500, 60), (500, 20), (500, 20), "image", kind="warwick_crc"),
    PoolTask("Camelyon16", _SEG, "lymph node", "H&E", 2, (237753, 221), (27950, 26), (26523, 24), "slide", kind="pcam200"),
    PoolTask("TUPAC2016Mitosis", _DET, "breast", "H&E", 2, (62874, 526), (7827, 74), (7152, 56), "patient", kind="tupac"),
    PoolTask("StromaLBP", _CLF, "colorectal", "IHC", 2, (947, 492), (407, 228), (959, 656), "image", kind="stroma_lbp"),
    PoolTask("BACH18Micro", _CLF, "breast", "H&E", 4, (2760, 143), (720, 52), (1320, 89), "patient", kind="bach"),
    PoolTask("UMCMColorectal", _CLF, "colorectal", "H&E", 8, (3349, 6), (0, 0), (1651, 4), "patient", kind="kather2016"),
)
# fmt: on


def task_named(name: str) -> PoolTask:
    """The task of that name; raises BadInput that lists the names."""
    found = [task for task in TASKS if task.name == name]
    if not found:
        raise BadInput(f"{name!r} is no task of the pool; expected one of {', '.join(task.name for task in TASKS)}")
    return found[0]


def availability(task: PoolTask) -> str:
    """One line on how to have a task: "readable: kind=...", "public, but ..." or "not public: ..."."""
    if task.not_public:
        return f"not public: {task.not_public}"
    return f"readable: kind={task.kind}" if is_readable(task) else "public, but no kind of benchmark reads it here"


def description(task: PoolTask) -> str:
    """Two lines for a reader at a terminal: what a task is, and whether it can be had."""
    parts = [
        f"{name} {images:,} of {groups:,}" for name, (images, groups) in zip(SPLITS, (task.train, task.val, task.test))
    ]
    what = f"{task.origin}, {task.organ}, {task.stain}, {task.num_classes} classes"
    return f"{task.name}: {what}; images of {task.split_by}s: {', '.join(parts)}\n    {availability(task)}"


def is_readable(task: PoolTask) -> bool:
    """Whether a kind of benchmark reads it."""
    return task.kind in {settings.kind for settings in KINDS}
