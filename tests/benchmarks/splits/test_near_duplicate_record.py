import json

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

from raypath.benchmarks import IMAGE_SCHEMA, Benchmark
from raypath.benchmarks.splits import near_duplicate_record as module
from raypath.benchmarks.splits.near_duplicate_record import recorded
from raypath.errors import BadInput


@pytest.fixture
def benchmark(tmp_path):
    """Six pictures of six patients: the first is in train and, mirrored, in test; the third in train twice."""
    rows = []
    for number, picture in enumerate([0, 0, 2, 2, 4, 5]):
        noise = gaussian_filter(np.random.default_rng(picture).normal(size=(96, 96, 3)), (2.5, 2.5, 0))
        pixels = np.uint8(np.clip(128 + 40 * noise / noise.std(), 0, 255))
        path = tmp_path / f"{number}.png"
        Image.fromarray(pixels[:, ::-1] if number % 2 else pixels).save(path)
        split = "test" if number == 1 else "train"
        rows.append(
            {
                "sample": path.name,
                "label": 0,
                "split": split,
                "path": str(path),
                "patient": f"p{number}",
                "content": "c",
            }
        )
    table = pa.Table.from_pylist(rows, schema=IMAGE_SCHEMA)
    return Benchmark(
        name="set", classes=("x", "y"), primary="accuracy", mpp=None, table=table, data_hash="hash", split_note=""
    )


def pairs_of(pairs):
    return [{pair.first["sample"], pair.second["sample"]} for pair in pairs]


def test_a_set_is_searched_once_for_each_question_and_the_answer_is_the_same(benchmark, tmp_path, monkeypatch):
    home = tmp_path / "near"
    pairs, sheet = recorded(benchmark, home)
    assert pairs_of(pairs) == [{"0.png", "1.png"}]
    assert pairs[0].is_mirrored
    with Image.open(sheet) as image:
        assert image.height > 192
    apart, other_sheet = recorded(benchmark, home, between_groups=True)
    assert sorted(map(sorted, pairs_of(apart))) == [["0.png", "1.png"], ["2.png", "3.png"]]
    assert other_sheet != sheet

    monkeypatch.setattr(module, "find", lambda *a, **k: pytest.fail("searched again"))
    assert recorded(benchmark, home) == (pairs, sheet)
    assert recorded(benchmark, home, between_groups=True) == (apart, other_sheet)


def test_a_set_without_any_has_no_sheet_and_is_remembered_too(benchmark, tmp_path, monkeypatch):
    few = Benchmark(
        **{name: getattr(benchmark, name) for name in ("name", "classes", "primary", "mpp", "split_note")},
        table=benchmark.table.slice(4),
        data_hash="few",
    )
    assert recorded(few, tmp_path, between_groups=True) == ([], None)
    monkeypatch.setattr(module, "find", lambda *a, **k: pytest.fail("searched again"))
    assert recorded(few, tmp_path, between_groups=True) == ([], None)


def test_other_rules_search_anew_and_a_damaged_record_is_named(benchmark, tmp_path):
    pairs, _ = recorded(benchmark, tmp_path)
    path = tmp_path / "hash.splits.json"
    path.write_text(json.dumps({"rules": [0, 0.9], "pairs": []}))
    assert recorded(benchmark, tmp_path)[0] == pairs
    path.write_text("{")
    with pytest.raises(BadInput, match=r"hash\.splits\.json: no record of near-duplicates"):
        recorded(benchmark, tmp_path)
