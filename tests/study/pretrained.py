"""Runs and indexes on disk in their real format, without a training: what a study finds of a pretraining."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from raypath.config import to_dict
from raypath.data.index import SCHEMA, IndexHash
from raypath.data.joined_index import load_index
from raypath.data.pool import load_pool
from raypath.hashing import file_sha256
from raypath.objectives import MultitaskSettings, SimCLRSettings, SupervisedSettings
from raypath.run_folder import RunFolder
from raypath.slides import TileSpec
from raypath.training.settings import PretrainConfig

SPEC = TileSpec(extent_px=64, mpp=0.5, stride_px=64, min_tissue=0.5)
KINDS = {"simclr": SimCLRSettings(), "supervised": SupervisedSettings(), "multitask": MultitaskSettings()}


def write_index(folder: Path, slides: list[dict]) -> Path:
    """An index of slides, each a dict with slide, path and what else is known; every slide has two tiles unless it says `cells`."""
    folder.mkdir(parents=True)
    rows = []
    for slide in slides:
        path = Path(slide["path"])
        row = {"patient": slide["slide"], "sha256": file_sha256(path), "size_bytes": path.stat().st_size, "mpp": 0.5}
        row |= {"width_l0": 768, "height_l0": 768, "cells": [0, 1]} | slide
        rows.append(row | {"num_tiles": len(row["cells"]), "tissue": np.ones(len(row["cells"]), np.float16)})
    table = pa.Table.from_pylist(rows, schema=SCHEMA)
    pq.write_table(table, folder / "index.parquet")
    digest = IndexHash(SPEC)
    digest.add(table.combine_chunks())
    (folder / "index.json").write_text(json.dumps({"hash": digest.hex(), "spec": asdict(SPEC)}))
    return folder


def write_run(root: Path, name: str, *, kind="simclr", init="random", index=None, pool=None, splits=("train",)) -> Path:
    """A run of that name and kind; `index` one or several folders, `pool` a spec."""
    folders = ",".join(map(str, index if isinstance(index, list) else [index])) if index else ""
    config = PretrainConfig(name=name, objective=KINDS[kind], init=str(init), index=folders, splits=tuple(splits))
    config = replace(config, pool=str(pool)) if pool else config
    run = RunFolder.create(root, name, config)
    rows = load_pool(config.pool, config.splits) if pool else load_index(config.index)
    run.write("config.json", to_dict(config))
    run.write("run.json", {"index_hash": rows.hash})
    return run.path
