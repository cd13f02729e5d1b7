import json
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest

from raypath.benchmarks import IMAGE_SCHEMA, Benchmark, open_test
from raypath.errors import BadInput

OPENER = """
import sys
from pathlib import Path
sys.path.insert(0, str(Path("tests/benchmarks").resolve()))
from raypath.benchmarks import open_test
from raypath.errors import BadInput
from test_opening import make_benchmark
for number in range(20):
    encoder = f"encoder{number}"
    try:
        open_test(make_benchmark(), encoder, sys.argv[1], ledger=Path(sys.argv[2]))
        print(encoder)
    except BadInput:
        pass
"""


def make_benchmark(data_hash="h"):
    rows = [
        {"sample": f"s{i}", "label": i % 2, "patient": None, "split": split, "path": "x"}
        for i, split in enumerate(["train", "val", "test", "test"])
    ]
    return Benchmark(
        name="tiny",
        classes=("a", "b"),
        primary="balanced_accuracy",
        mpp=None,
        table=pa.Table.from_pylist(rows, schema=IMAGE_SCHEMA),
        data_hash=data_hash,
        split_note="",
    )


def test_the_first_opening_gives_the_rows_and_is_written_down(tmp_path):
    ledger = tmp_path / "study" / "openings.jsonl"
    rows = open_test(make_benchmark(), "imagenet", "final table", ledger=ledger)
    assert rows["sample"].to_pylist() == ["s2", "s3"]
    (entry,) = map(json.loads, ledger.read_text().splitlines())
    assert entry.pop("time").endswith("+00:00")
    assert entry == {
        "benchmark": "tiny",
        "data_hash": "h",
        "encoder": "imagenet",
        "reason": "final table",
        "opening": 1,
    }


def test_a_second_opening_names_the_first_and_is_counted_when_asked_for(tmp_path):
    ledger = tmp_path / "openings.jsonl"
    open_test(make_benchmark(), "imagenet", "final table", ledger=ledger)
    with pytest.raises(BadInput, match=r"already opened for encoder 'imagenet' at 20.* \(final table\).*reopen=true"):
        open_test(make_benchmark(), "imagenet", "again", ledger=ledger)
    open_test(make_benchmark(), "moco", "final table", ledger=ledger)
    open_test(make_benchmark("other data"), "imagenet", "final table", ledger=ledger)
    open_test(make_benchmark(), "imagenet", "a bug in the metric", ledger=ledger, reopen=True)
    assert [json.loads(line)["opening"] for line in ledger.read_text().splitlines()] == [1, 1, 1, 2]


def test_a_run_that_died_goes_on_with_its_opening(tmp_path):
    ledger = tmp_path / "openings.jsonl"
    open_test(make_benchmark(), "moco", "table 1", ledger=ledger, unless="table 1")
    open_test(make_benchmark(), "moco", "table 1", ledger=ledger, unless="table 1")
    open_test(make_benchmark(), "moco", "table 2", ledger=ledger, reopen=True, unless="table 2")
    open_test(make_benchmark(), "moco", "table 2", ledger=ledger, reopen=True, unless="table 2")
    lines = [json.loads(line) for line in ledger.read_text().splitlines()]
    found = [(line["opening"], line.get("resumed", False)) for line in lines]
    assert found == [(1, False), (1, True), (2, False), (2, True)]


def test_reasons_are_asked_for_and_a_damaged_ledger_is_not_overlooked(tmp_path):
    ledger = tmp_path / "openings.jsonl"
    with pytest.raises(BadInput, match="reason is empty"):
        open_test(make_benchmark(), "imagenet", " ", ledger=ledger)
    ledger.write_text('{"time": "now"}\n')
    with pytest.raises(BadInput, match=r"openings.jsonl: line 1 is no opening"):
        open_test(make_benchmark(), "imagenet", "final", ledger=ledger)


def test_two_processes_share_a_ledger(tmp_path):
    ledger = tmp_path / "openings.jsonl"
    command = [sys.executable, "-c", OPENER]
    root = Path(__file__).parents[2]
    processes = [
        subprocess.Popen([*command, who, str(ledger)], cwd=root, stdout=subprocess.PIPE, text=True) for who in "xy"
    ]
    opened = [process.communicate(timeout=60)[0].split() for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert sorted(opened[0] + opened[1]) == sorted(f"encoder{n}" for n in range(20))
    assert len(ledger.read_text().splitlines()) == 20
