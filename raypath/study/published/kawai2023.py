"""The first paper's grid: what was pretrained on what, and how well it transfers (Kawai, Ota, Yamaoka 2023, arXiv 2303.15693).

Rows are architectures with their pretraining, columns the four benchmarks (RECIPES 1.5). Only the abstract, the code and a later
README are known to us: which rows the paper has is inferred from its code, and most cells are not known.

One decision: the rows stand here and the numbers come from outside, by the key of a row: the name of its recipe, or of its
pretraining and architecture. So the paper's numbers and ours fill the same grid; a number without a row is refused. What it costs:
nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from raypath.errors import BadInput
from raypath.study.figures import INK, PALE, SOFT
from raypath.study.tables import Cell, Noted, Spread, Table

BENCHMARKS = {
    "ptcga200 accuracy": "PTCGA200 accuracy",
    "pcam accuracy": "PCam accuracy",
    "pcam200 accuracy": "PCam200 accuracy",
    "segpanda200 mIoU": "segPANDA200 mIoU",
}
Known = Mapping[tuple[str, str], float | None]
"""(key of a row, key of a benchmark): percent; None or no entry: not known."""
_LATER = "later than the paper: README of its code, November 2024"
_SEGMENTS_ONLY = "used for segmentation alone"


@dataclass(frozen=True, kw_only=True)
class GridRow:
    """One encoder of the grid."""

    architecture: str
    pretraining: str
    key: str
    is_later: bool = False
    """Not in the paper, but in what its authors wrote since."""
    segments_only: bool = False


def _rows() -> tuple[GridRow, ...]:
    """Every architecture with what it is said or likely to have been pretrained on (RECIPES 1.5, "Grid to run")."""
    names = {
        "resnet18": ("ResNet-18", "imagenet2012"),
        "resnet50": ("ResNet-50", "imagenet2012"),
        "inception_v3": ("Inception v3", "imagenet2012"),
        "efficientnet_b3": ("EfficientNet-b3", "imagenet2012"),
        "bit_r50x1": ("BiT-M R50x1", "in21k"),
        "vit_small": ("ViT-S/16", "in21k"),
        "vit_base32": ("ViT-B/32", "in21k"),
    }
    self_supervised = {
        "resnet50": (("MoCo v2", "kawai_moco"), ("SimCLR", "kawai_simclr"), ("BYOL", "kawai_byol")),
        "vit_small": (("DINO", "kawai_dino"),),
    }
    rows = []
    for short, (name, general) in names.items():
        if short == "resnet50":
            rows.append(GridRow(architecture=name, pretraining="COCO", key=f"COCO {name}", segments_only=True))
        rows += [
            GridRow(architecture=name, pretraining="none (scratch)", key=f"scratch {name}"),
            GridRow(architecture=name, pretraining=general, key=f"{general} {name}"),
            GridRow(architecture=name, pretraining="PTCGA200, supervised", key=f"kawai_supervised_{short}"),
            GridRow(architecture=name, pretraining=f"{general}, then PTCGA200", key=f"kawai_retrained_{short}"),
        ]
        for method, recipe in self_supervised.get(short, ()):
            rows.append(GridRow(architecture=name, pretraining=f"PTCGA200, {method}", key=f"{recipe}_{short}"))
    clip = GridRow(architecture="ViT-B/32", pretraining="LAION-2b (CLIP)", key="CLIP ViT-B/32")
    mae = GridRow(architecture="ViT-L/16", pretraining="PTCGA200, MAE", key="kawai_mae_vit_large", is_later=True)
    deeplab = GridRow(
        architecture="DeepLabv3", pretraining="not said", key="DeepLabv3", is_later=True, segments_only=True
    )
    return (*rows, clip, mae, deeplab)


GRID = _rows()


def grid_table(known: Known, caption: str = "Known numbers of the first paper, in percent") -> Table:
    """Every row of GRID with what is known of it; raises BadInput for a number that has no place."""
    _check_places(known)
    rows = tuple((_noted(row), row.pretraining, *(_cell(known, row, b) for b in BENCHMARKS)) for row in GRID)
    return Table(
        columns=("architecture", "pretraining", *BENCHMARKS.values()),
        rows=rows,
        caption=caption,
        footnotes=(
            "Which rows the paper has is inferred from its code.",
            "Whether its mIoU is the mean over classes or over pixels is not said.",
        ),
    )


def _noted(row: GridRow) -> Cell:
    return Noted(row.architecture, (_LATER,)) if row.is_later else row.architecture


def _cell(known: Known, row: GridRow, benchmark: str) -> Cell:
    value = known.get((row.key, benchmark))
    cell = None if value is None else Spread(value)
    return Noted(cell, (_SEGMENTS_ONLY,)) if _has_no_place(row, benchmark) else cell


def _has_no_place(row: GridRow, benchmark: str) -> bool:
    return row.segments_only and not benchmark.startswith("seg")


def _check_places(known: Known) -> None:
    keys = {row.key for row in GRID}
    lost = sorted({f"{key}: {benchmark}" for key, benchmark in known if key not in keys or benchmark not in BENCHMARKS})
    if lost:
        raise BadInput(
            f"{'; '.join(lost)}: no such place in the grid; expected a key of GRID and one of {', '.join(BENCHMARKS)}"
        )


def grid_figure(known: Known, title: str = "Known numbers of the first paper, percent") -> Figure:
    """The grid as a picture: a number where one is known, hatching where none is, a dash where there can be none."""
    _check_places(known)
    figure = Figure(figsize=(9, 0.9 + 0.26 * len(GRID)), layout="constrained")
    axes = figure.subplots()
    for line, row in enumerate(GRID):
        for column, benchmark in enumerate(BENCHMARKS):
            value = known.get((row.key, benchmark))
            is_outside = _has_no_place(row, benchmark)
            fill = {"facecolor": PALE} if value is not None else {"facecolor": "none", "edgecolor": PALE}
            hatch = "" if is_outside or value is not None else "////"
            axes.add_patch(Rectangle((column - 0.48, line - 0.42), 0.96, 0.84, hatch=hatch, linewidth=0, **fill))
            words = "–" if is_outside else "" if value is None else f"{value:.2f}"
            axes.text(column, line, words, ha="center", va="center", fontsize=9, color=INK)
        if line and GRID[line - 1].architecture != row.architecture:
            axes.axhline(line - 0.5, color=SOFT, linewidth=0.5)
    names = [f"{row.architecture}, {row.pretraining}{' (later)' if row.is_later else ''}" for row in GRID]
    axes.set_yticks(range(len(GRID)), names, fontsize=8)
    axes.set_xticks(range(len(BENCHMARKS)), BENCHMARKS.values(), fontsize=8)
    axes.set(xlim=(-0.5, len(BENCHMARKS) - 0.5), ylim=(len(GRID) - 0.5, -0.5))
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_title(title, fontsize=10)
    axes.set_xlabel("hatched: not known    –: not meant for it", fontsize=8, color=SOFT)
    return figure
