"""A benchmark from phantoms: tiles of synthetic slides, labelled by the tissue that covers them.

One decision: the label of a tile is the class of the mask that covers at least `min_share` of its area, computed exactly from
the mask's squares of 16x16 level-0 pixels and not from its centre; tiles that are mixed or mostly background are left out. So a
wrong answer is the encoder's and not the border's. The split is the manifest's, by patient.

What it costs: one read of every mask and of every slide's header and bytes (for the hash); no tile is cut here.
"""

from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raypath.benchmarks.benchmark import TILE_SCHEMA, Benchmark, hash_rows, primary_metric, with_contents
from raypath.benchmarks.splits.leakage import check_leaks, find_leaks
from raypath.benchmarks.splits.making import check_classes, keyed, label_budget
from raypath.data.manifest import SlideRow, read_manifest
from raypath.errors import BadInput
from raypath.hashing import file_sha256
from raypath.slides import Slide, TileGrid, TileSpec
from raypath.slides.phantom import CLASSES, MANIFEST_NAME, MASK_DOWNSAMPLE, read_class_mask

BACKGROUND = 0  # of CLASSES


def load_phantoms(
    folder: str | Path,
    *,
    extent_px: int,
    mpp: float,
    stride_px: int | None = None,
    min_share: float = 0.8,
    max_per_class_and_slide: int | None = None,
    per_class_train: int | None = None,
    name: str = "phantoms",
    seed: int = 0,
) -> Benchmark:
    """The benchmark of a folder that `write_phantoms` made.

    `extent_px` at `mpp` um per px is the tile, `stride_px` (else `extent_px`) the distance of neighbours. `min_share`: the part
    of a tile that its class must cover. `max_per_class_and_slide` makes patients weigh alike; `per_class_train` is a label
    budget (`label_budget`: nested). Both choose by a key of (seed, tile).

    Raises BadInput where the manifest or a mask is missing, a patient is in two splits, or a class is not in every split.
    """
    spec = TileSpec(extent_px=extent_px, mpp=mpp, stride_px=stride_px or extent_px, min_tissue=0.0)
    if not 0.5 < min_share <= 1:
        raise BadInput(f"{name}: min_share = {min_share!r}; expected above 0.5 (one class only) and at most 1")
    slides = read_manifest(Path(folder) / MANIFEST_NAME)
    without = [row.slide for row in slides if row.split is None]
    if without:
        raise BadInput(f"{folder}/{MANIFEST_NAME}: no split for {', '.join(without[:10])}; expected train, val or test")
    rows = [tile for row in slides for tile in _tiles_of(row, spec, min_share, max_per_class_and_slide, seed)]
    table = pa.Table.from_pylist(rows, schema=TILE_SCHEMA).sort_by("sample")
    if per_class_train is not None:
        is_train = pc.equal(table["split"], "train")
        chosen = label_budget(table.filter(is_train), per_class_train, seed=seed)
        table = pa.concat_tables([chosen, table.filter(pc.invert(is_train))]).sort_by("sample")
    classes = CLASSES[BACKGROUND + 1 :]
    columns = {column: table[column].to_pylist() for column in ("sample", "label", "patient", "split", "slide")}
    labels, splits = columns["label"], columns["split"]
    check_leaks(find_leaks(table), (), name=name)
    check_classes(labels, splits, classes, name=name)
    sha256 = {row.path: file_sha256(row.path) for row in slides}
    content = [f"{sha256[slide]} {extent_px} {mpp}" for slide in columns["slide"]]
    return Benchmark(
        name=name,
        classes=classes,
        primary=primary_metric(labels, len(classes)),
        mpp=mpp,
        table=with_contents(table, sha256),
        data_hash=hash_rows(zip(columns["sample"], labels, splits, columns["patient"], content, strict=True), classes),
        split_note=_note(spec, min_share, splits),
    )


def class_shares(mask: np.ndarray, x_l0: np.ndarray, y_l0: np.ndarray, extent_l0: int) -> np.ndarray:
    """The part of every tile that each class covers, float64 [N, len(CLASSES)], exact for tiles between mask squares.

    `mask`: uint8 [h, w], one value of CLASSES per 16x16 level-0 px. Summed areas, read at fractional places: inside one square
    the summed area is bilinear, so interpolation is no approximation.
    """
    edges = [np.asarray(v, dtype=np.float64) / MASK_DOWNSAMPLE for v in (x_l0, y_l0)]
    side = extent_l0 / MASK_DOWNSAMPLE
    left, top, right, bottom = edges[0], edges[1], edges[0] + side, edges[1] + side
    shares = []
    for number in range(len(CLASSES)):
        area = np.pad(np.cumsum(np.cumsum(mask == number, axis=0), axis=1), ((1, 0), (1, 0))).astype(np.float64)
        corners = _at(area, bottom, right) - _at(area, top, right) - _at(area, bottom, left) + _at(area, top, left)
        shares.append(corners / side**2)
    return np.stack(shares, axis=1)


def _at(area: np.ndarray, row: np.ndarray, column: np.ndarray) -> np.ndarray:
    """Bilinear values of a grid at fractional places; beyond its edge the last value (nothing is added there)."""
    row, column = np.clip(row, 0, area.shape[0] - 1), np.clip(column, 0, area.shape[1] - 1)
    i, j = np.minimum(row.astype(int), area.shape[0] - 2), np.minimum(column.astype(int), area.shape[1] - 2)
    u, v = row - i, column - j
    above = area[i, j] * (1 - v) + area[i, j + 1] * v
    below = area[i + 1, j] * (1 - v) + area[i + 1, j + 1] * v
    return above * (1 - u) + below * u


def _tiles_of(row: SlideRow, spec: TileSpec, min_share: float, max_per_class: int | None, seed: int) -> list[dict]:
    """The labelled tiles of one slide as table rows, at most `max_per_class` of each class."""
    with Slide.open(row.path) as slide:
        native_mpp, size_l0 = slide.mpp, slide.size_l0
    spec.require_fine(row.path, native_mpp)
    grid = TileGrid.of(size_l0, native_mpp, spec)
    x_l0, y_l0 = grid.corners(np.arange(grid.num_cells))
    shares = class_shares(read_class_mask(row.path), x_l0, y_l0, grid.extent_l0)
    winner = shares.argmax(axis=1)
    tiles = [
        {
            "sample": f"{row.slide}/{x}-{y}",
            "label": int(winner[cell]) - 1,
            "patient": row.patient,
            "split": row.split,
            "slide": row.path,
            "slide_mpp": native_mpp,
            "x_l0": x,
            "y_l0": y,
            "extent_l0": grid.extent_l0,
        }
        for cell, (x, y) in enumerate(zip(x_l0.tolist(), y_l0.tolist(), strict=True))
        if winner[cell] != BACKGROUND and shares[cell, winner[cell]] >= min_share
    ]
    return tiles if max_per_class is None else _capped(tiles, max_per_class, seed)


def _capped(tiles: list[dict], max_per_class: int, seed: int) -> list[dict]:
    taken: Counter[int] = Counter()
    kept = []
    for tile in sorted(tiles, key=lambda t: keyed(seed, "tile", t["sample"])):
        taken[tile["label"]] += 1
        if taken[tile["label"]] <= max_per_class:
            kept.append(tile)
    return kept


def _note(spec: TileSpec, min_share: float, splits: list[str]) -> str:
    counts = Counter(splits)
    listed = ", ".join(f"{counts[s]} {s}" for s in ("train", "val", "test"))
    return (
        f"split of the phantom manifest, by patient ({listed} tiles of {spec.extent_px} px, class share >= {min_share})"
    )
