"""The slides that a study pretrains on: an index without the slides on which a benchmark is validated and tested.

One decision: nothing of the test is seen unless the study says so. Where slides or patients of an index stand in the val or test of
a benchmark, the encoder that is scored there is pretrained on a copy of the index in which these have the split `held back`; the
copy has the same tiles and the same hash, and a pretraining takes its `splits` as ever. With nested folds there is a pretraining
for each. `transductive = true` pretrains on all of them, which the first paper's rows on PTCGA200 do, and the contamination tag
says so.

Costs a copy of the index's Parquet file for each such benchmark.
"""

import hashlib
import shutil
from pathlib import Path, PurePosixPath

import pyarrow as pa
import pyarrow.parquet as pq

from raypath.benchmarks import Benchmark
from raypath.data.index import Index
from raypath.data.joined_index import split_folders
from raypath.study.barcodes import case_of

HELD_BACK = "held back"  # a split that no recipe trains on
_TELLING = 4  # characters that a name needs to be somebody's name: sets number their patients 1, 2, 3


def held_back(benchmark: Benchmark) -> set[str]:
    """Names of slides, paths and patients in val and test."""
    table = benchmark.table
    columns = [table[name].to_pylist() for name in ("slide", "patient")]
    rows = zip(table["split"].to_pylist(), *columns, strict=True)
    return {name for split, *own in rows if split != "train" for text in own for name in names_of(text)}


def names_of(text: str | None) -> set[str]:
    """What a slide, path or patient may be called elsewhere: as it is, without folder and ending, by its TCGA case."""
    names = {text, PurePosixPath(text).stem, case_of(text)} - {None} if text else set()
    return {name for name in names if len(name) >= _TELLING or not name.isdigit()}


def is_touched(index: str, benchmark: Benchmark) -> bool:
    """Whether any slide of the index is held back."""
    return any(_rows(Index(Path(folder)), held_back(benchmark)) for folder in split_folders(index))


def without_test_slides(index: str, benchmark: Benchmark, root: Path) -> str:
    """The index (or several) as copies under `root` in which what is held back has a split of its own."""
    names = held_back(benchmark)
    return ",".join(str(_copied(Path(folder), names, root)) for folder in split_folders(index))


def _rows(index: Index, names: set[str]) -> list[int]:
    columns = [index.slides[name].to_pylist() for name in ("slide", "path", "patient")]
    return [row for row, own in enumerate(zip(*columns)) if any(names & names_of(text) for text in own)]


def _copied(folder: Path, names: set[str], root: Path) -> Path:
    index = Index(folder)
    rows = _rows(index, names)
    chosen = sorted(index.slides["slide"][row].as_py() for row in rows)
    digest = hashlib.sha256(" ".join([index.hash, *chosen]).encode()).hexdigest()[:16]
    target = root / f"{folder.name}-{digest}"
    if (target / "index.json").exists():
        return target
    target.mkdir(parents=True, exist_ok=True)
    file = pq.ParquetFile(folder / "index.parquet")
    place, start = file.schema_arrow.get_field_index("split"), 0
    with pq.ParquetWriter(target / "index.parquet", file.schema_arrow) as writer:
        for group in range(file.num_row_groups):
            table = file.read_row_group(group)
            splits = table["split"].to_pylist()
            for row in rows:
                if start <= row < start + len(table):
                    splits[row - start] = HELD_BACK
            writer.write_table(table.set_column(place, file.schema_arrow.field("split"), pa.array(splits, pa.string())))
            start += len(table)
    for name in ("manifest.csv", "quarantine.jsonl", "index.json"):
        if (folder / name).exists():
            shutil.copyfile(folder / name, target / name)
    return target
