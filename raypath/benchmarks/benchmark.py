"""What a score is measured on: samples with labels, patients and a split, and the number that counts.

One decision: a benchmark is a table. Each row is one sample: `sample` (text id), `label` (class number), `patient` (text or
null), `split`, and where its pixels are: a `path` (with `item`, its number in a file of many, and `box`, the part of the image
that is meant), or a tile of a slide (`slide`, `slide_mpp`, `x_l0`, `y_l0`, `extent_l0`). Where classes belong to pixels, `mask`
is the file that says them, and `label` is only what splits are stratified by. Nothing is read or decoded here, so a benchmark of
a million tiles is some columns of numbers.

The test rows are behind `open_test`: `rows("test")` is an error, because every look at them is a draw from the same urn and has
to be written down. What it costs: code that wants all rows at once (a leakage audit) takes `table` and says so by that name.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raypath.benchmarks.facts import Count
from raypath.benchmarks.splits.making import write_split
from raypath.data.manifest import SPLITS
from raypath.data.masks import MaskRule
from raypath.errors import BadInput

SAMPLE_FIELDS = (
    pa.field("sample", pa.string()),
    pa.field("label", pa.int64()),
    pa.field("patient", pa.string()),
    pa.field("split", pa.string()),
    pa.field("content", pa.string()),  # sha256 of what the pixels come from, to know features again by; null: not known
)
IMAGE_SCHEMA = pa.schema(
    [
        *SAMPLE_FIELDS,
        pa.field("path", pa.string()),
        pa.field("slide", pa.string()),
        pa.field("item", pa.int64()),
        pa.field("box", pa.list_(pa.int64())),  # left, top, width, height in px
        pa.field("mask", pa.string()),
    ]
)
TILE_SCHEMA = pa.schema(
    [
        *SAMPLE_FIELDS,
        pa.field("slide", pa.string()),
        pa.field("slide_mpp", pa.float64()),
        pa.field("x_l0", pa.int64()),
        pa.field("y_l0", pa.int64()),
        pa.field("extent_l0", pa.int64()),
        pa.field("mask", pa.string()),
    ]
)
LARGEST_SHARE = (
    0.6  # above it, one class of a binary set is so common that a fixed threshold says little: take the AUROC
)

Primary = Literal["balanced_accuracy", "auroc", "quadratic_kappa", "accuracy", "miou_macro", "dice_macro"]
Kind = Literal["classification", "segmentation"]


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """One labelled set, ready to be scored; made by the settings of its kind (`settings.KINDS`)."""

    name: str
    kind: Kind = "classification"
    classes: tuple[str, ...]
    """Class names; a label, or a pixel of a mask, is an index into them."""
    primary: Primary
    """The metric that model selection and verdicts use."""
    mpp: float | None
    """um per px of the images; None: nobody knows."""
    table: pa.Table = field(repr=False)
    """IMAGE_SCHEMA or TILE_SCHEMA, every split."""
    data_hash: str
    """sha256 over samples, labels, split, patients and file contents."""
    split_note: str
    """Where the split comes from, and what is odd about the data, for the report."""
    mask_rule: MaskRule = "none"
    """How the values of a mask file become classes (see `raypath.data.masks`)."""
    has_objects: bool = False
    """Whether its masks number objects (glands, nuclei): objects are scored too then, beside pixels."""
    strata: tuple[str, ...] = ()
    """What `label` numbers where classes belong to pixels; else empty, and `label` numbers `classes`."""
    built: tuple[Count, ...] = ()
    """What was found beside what was published, for a set that is known."""
    is_of_one_patient: bool = False
    """Whether all samples are of one patient, whatever their groups are called: tagged on every run."""
    is_split_chosen: bool = False
    """Whether this division was asked for by name (a published fold, one of k folds): it stands, however small the set is."""
    waived: tuple[str, ...] = ()
    """Rules that somebody waived by name, e.g. "patient": tagged on every run."""

    def __post_init__(self) -> None:
        if self.table.schema not in (IMAGE_SCHEMA, TILE_SCHEMA):
            raise ValueError(
                f"{self.name}: table columns {self.table.schema.names}, expected IMAGE_SCHEMA or TILE_SCHEMA"
            )
        if self.has_objects and (self.mask_rule != "binary" or "path" not in self.table.column_names):
            raise ValueError(f"{self.name}: numbered objects need masks of images, and mask_rule binary")

    def rows(self, split: str) -> pa.Table:
        """The rows of "train" or "val". Raises BadInput for "test": that is opened through `open_test`."""
        if split == "test":
            raise BadInput(
                f"{self.name}: test rows are not handed out by rows(); use "
                "raypath.benchmarks.open_test(benchmark, encoder, reason, ledger=...), which writes the opening down"
            )
        if split not in SPLITS:
            raise BadInput(f"{self.name}: unknown split {split!r}; expected one of train, val")
        return self.table.filter(pc.equal(self.table["split"], split))

    def groups(self, split: str) -> list[str]:
        """What belongs together in "train" or "val", one per row: the patient, or the image itself ("image-level")."""
        return groups_of(self.rows(split))

    @property
    def has_patients(self) -> bool:
        """Whether any sample names its patient; without, intervals are image-level and too narrow."""
        return self.table["patient"].null_count < len(self.table)

    def counts(self) -> dict[str, dict[str, int]]:
        """Samples per split and class, the test included (a count tells nothing about a prediction)."""
        labels = self.table["label"].to_numpy()
        splits = np.array(self.table["split"].to_pylist(), dtype=str)
        names = self.strata or self.classes
        return {s: {c: int(np.sum((splits == s) & (labels == k))) for k, c in enumerate(names)} for s in SPLITS}

    @property
    def tags(self) -> dict[str, str]:
        """What must be seen beside any score: rules that were waived, data that are not the paper's."""
        wrong = [str(count) for count in self.built if not count.is_equal]
        found = {"raypath.data": f"not the paper's data: {'; '.join(wrong)}"} if wrong else {}
        found |= {"raypath.patients": "one patient"} if self.is_of_one_patient else {}
        return found | ({"raypath.waived": ", ".join(self.waived)} if self.waived else {})

    def write_split(self, folder: Path) -> Path:
        """Write `split.csv` (sample, label, patient, split) into a folder; returns its path."""
        return write_split(self.table, self.strata or self.classes, folder)


def groups_of(rows: pa.Table) -> list[str]:
    """The patient of every row; where there is none, the sample stands for itself."""
    return pc.coalesce(rows["patient"], rows["sample"]).to_pylist()


def with_contents(tiles: pa.Table, sha256: Mapping[str, str]) -> pa.Table:
    """Tiles (TILE_SCHEMA) with the column `content` filled; `sha256` of every slide, by its path."""
    places = [tiles[name].to_pylist() for name in ("slide", "slide_mpp", "x_l0", "y_l0", "extent_l0")]
    texts = [" ".join(map(str, (sha256[slide], *place))) for slide, *place in zip(*places, strict=True)]
    column = pa.array([hashlib.sha256(text.encode()).hexdigest() for text in texts], pa.string())
    return tiles.set_column(tiles.schema.get_field_index("content"), tiles.schema.field("content"), column)


def primary_metric(label: Sequence[int], num_classes: int) -> Primary:
    """Balanced accuracy; the AUROC for a binary set whose larger class exceeds 60 %."""
    share = np.bincount(np.asarray(label, dtype=np.int64), minlength=num_classes).max() / max(len(label), 1)
    return "auroc" if num_classes == 2 and share > LARGEST_SHARE else "balanced_accuracy"


def hash_rows(rows: Iterable[tuple], classes: Sequence[str]) -> str:
    """sha256 (hex) over sorted rows (sample, label, split, patient, content), independent of the order they come in."""
    digest = hashlib.sha256(json.dumps(list(classes)).encode())
    for line in sorted(json.dumps(row) for row in rows):
        digest.update(b"\n" + line.encode())
    return digest.hexdigest()
