"""MITOS-ATYPIA-14: breast cancer at 40x of two scanners, with mitoses and look-alikes marked by points.

    A03/frames/x40/A03_00Aa.tiff                1539 x 1376 px (Aperio); slides H03 ... 1663 x 1485 px (Hamamatsu)
    A03/mitosis/A03_00Aa_mitosis.csv            x,y,confidence of each mitosis; maybe empty
    A03/mitosis/A03_00Aa_not_mitosis.csv        the same of what was taken for one by some reader

at any depth below the folder. One decision: A03 and H03 are one biopsy on two scanners, so the biopsy is the patient and its two
slides are never divided (the paper's split is by slide). Boxes of 323 px in three classes: ten around every object, and of an
overlapping grid all that are clear of them (`sparse_objects`). Slides without a folder mitosis (the challenge's test) are left out
and counted.
"""

import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar, Literal

from raypath.benchmarks.assembling import assemble, folder_of
from raypath.benchmarks.benchmark import Benchmark
from raypath.benchmarks.cutting.boxes import image_size
from raypath.benchmarks.cutting.sparse_objects import box_rows, object_boxes, read_points
from raypath.benchmarks.facts import Facts
from raypath.benchmarks.splits.making import SplitSettings
from raypath.config import setting
from raypath.data.hidden_files import is_hidden
from raypath.data.image_rows import ImageRow
from raypath.errors import BadInput

_SLIDE = re.compile(r"[AH](\d\d)")
_INITIALS = {"aperio": "A", "hamamatsu": "H", "both": "AH"}
_MPP = {"aperio": 0.2455, "hamamatsu": 0.2274, "both": None}  # Hamamatsu: 0.2273 along x, 0.2275 along y
_KINDS = ("mitosis", "not_mitosis")
_CLASSES = ("none", "not_mitosis", "mitosis")


@dataclass(frozen=True, kw_only=True)
class MitosAtypiaSettings:
    """MITOS-ATYPIA-14: a box holds a mitosis, else a look-alike, else none."""

    kind: Literal["mitos_atypia"] = "mitos_atypia"
    path: str = setting("", identity=False)
    scanner: Literal["both", "aperio", "hamamatsu"] = "both"
    extent_px: int = 323
    stride_px: int = 161
    """Of the grid of boxes without an object; the paper's is not published."""
    num_per_object: int = 10
    shift_px: float = 80.0
    """The most that a box is shifted off an object along each axis; the paper's is not published."""
    clearance_px: float = 32.0
    """How far an empty box keeps from every object."""
    split: SplitSettings = field(default_factory=SplitSettings)

    # Sizes and mpp of frames, and that A03 and H03 show the same tissue: several public readers of the set, which agree. 64,873
    # boxes of 22 slides: the second paper's table of its pool, whose grid is not published, so a set built here differs.
    FACTS: ClassVar[Facts] = Facts(
        title="MITOS-ATYPIA-14",
        source="Roux et al. 2014, ICPR contest; mitos-atypia-14.grand-challenge.org",
        licence="not stated",
        mpp=None,
        counts={"images": 64_873, "slides": 22},
        note="two scanners of 0.2455 and 0.2274 um per px: of both no one mpp is said",
    )

    @staticmethod
    def recognise(folder: Path) -> bool:
        """Whether a slide with frames and mitoses is there, at most two folders down."""
        pattern = "[AH][0-9][0-9]/mitosis/*_not_mitosis.csv"
        return any(next(folder.glob(up + pattern), None) for up in ("", "*/", "*/*/"))

    def load(self, seed: int) -> Benchmark:
        """The benchmark; raises BadInput for a frame without its two lists, and for damaged files."""
        folder = folder_of(self.path, self.kind)
        found = sorted(frames.parents[1] for frames in folder.rglob("frames/x40"))
        homes = [home for home in found if not is_hidden(home, folder)]
        homes = [home for home in homes if _SLIDE.fullmatch(home.name) and home.name[0] in _INITIALS[self.scanner]]
        marked = [home for home in homes if (home / "mitosis").is_dir()]
        if not marked:
            raise BadInput(
                f"{folder}: {len(homes)} slides ({self.scanner}), none with a folder mitosis;"
                " expected A03/frames/x40 and A03/mitosis"
            )
        rows = [row for home in marked for row in self._slide(home, seed)]
        left_out = len(homes) - len(marked)
        return assemble(
            rows,
            replace(self.FACTS, mpp=_MPP[self.scanner], counts=self.FACTS.counts if self.scanner == "both" else {}),
            self.split,
            name="mitos-atypia" if self.scanner == "both" else f"mitos-atypia-{self.scanner}",
            seed=seed,
            notes=[f"{left_out} slides without marks left out" if left_out else ""],
            classes=_CLASSES,
        )

    def _slide(self, home: Path, seed: int) -> list[ImageRow]:
        frames = sorted(
            path for path in (home / "frames" / "x40").glob(f"{home.name}_*") if path.suffix in (".tiff", ".tif")
        )
        if not frames:
            raise BadInput(f"{home / 'frames' / 'x40'}: no {home.name}_00Aa.tiff and the like; unpack the slide again")
        return [row for path in frames for row in self._cut(path, home, seed)]

    def _cut(self, path: Path, home: Path, seed: int) -> list[ImageRow]:
        size = image_size(path)
        lists = [home / "mitosis" / f"{path.stem}_{kind}.csv" for kind in _KINDS]
        boxes, kinds = object_boxes(
            [read_points(points, size, is_row_first=False) for points in lists],
            size,
            self.extent_px,
            stride_px=self.stride_px,
            num_per_object=self.num_per_object,
            shift_px=self.shift_px,
            clearance_px=self.clearance_px,
            key=f"{seed} {path.stem}",
        )
        labels = [(*_KINDS, "none")[kind] for kind in kinds]
        return box_rows(
            f"{home.name}/{path.stem}", path, boxes, labels, _SLIDE.fullmatch(home.name)[1], slide=home.name
        )
