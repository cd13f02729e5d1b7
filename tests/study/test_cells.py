"""A cell is found again by what it is made of, and a finished one is whole."""

import json
from dataclasses import replace

import numpy as np
import pytest

from raypath.benchmarks import PixelPredictions, Predictions
from raypath.benchmarks.settings import ImagesSettings
from raypath.errors import BadInput
from raypath.protocols.probe import ProbeSettings
from raypath.protocols.transfer import TransferConfig
from raypath.study import cells as cells_module
from raypath.study.cells import Cell, CellFolder, Checkpoint, Cost, asked_of, facts_of, keys_of

TRANSFER = TransferConfig(
    name="probe", encoder="runs/a", benchmark=ImagesSettings(path="/data/set"), protocol=ProbeSettings()
)
CHECKPOINT = Checkpoint(encoder="ours", seed=0, source="runs/a", weights="abc")
CELL = Cell(
    checkpoint=CHECKPOINT, benchmark="set", protocol="probe", fraction=1.0, config=TRANSFER, seeds=(1, 2), data_hash="d"
)
PREDICTIONS = Predictions(["a", "b"], ["p", "q"], [0, 1], [[0.75, 0.25], [0.5, 0.5]], ["x", "y"])
PIXELS = PixelPredictions(["a", "b"], ["p", "q"], np.arange(8).reshape(2, 2, 2), ["x", "y"])


@pytest.mark.parametrize(
    "same",
    [
        replace(CELL, benchmark="renamed"),
        replace(CELL, protocol="renamed"),
        replace(CELL, checkpoint=replace(CHECKPOINT, encoder="renamed", source="elsewhere/a")),
        replace(CELL, checkpoint=replace(CHECKPOINT, step=100, left_out=("set",), cost=Cost(tiles_seen=7))),
        replace(CELL, config=replace(TRANSFER, name="renamed", encoder="elsewhere/a")),
        replace(CELL, config=replace(TRANSFER, benchmark=ImagesSettings(path="/elsewhere/set", name="renamed"))),
    ],
)
def test_names_and_places_do_not_change_the_key(same):
    assert same.key == CELL.key


def test_everything_that_decides_a_score_changes_the_key(monkeypatch):
    others = [
        replace(CELL, data_hash="e"),
        replace(CELL, seeds=(1, 3)),
        replace(CELL, seeds=(2, 1)),
        replace(CELL, alterations=("grey",)),
        replace(CELL, num_nulls=0),
        replace(CELL, checkpoint=replace(CHECKPOINT, weights="abd")),
        replace(CELL, checkpoint=replace(CHECKPOINT, read_as="deit_tiny_patch16_224")),
        replace(CELL, checkpoint=replace(CHECKPOINT, seed=1)),
        replace(CELL, config=replace(TRANSFER, fraction_train=0.5)),
        replace(CELL, config=replace(TRANSFER, extent_px=112)),
        replace(CELL, config=replace(TRANSFER, protocol=ProbeSettings(num_c=5))),
        replace(CELL, config=replace(TRANSFER, benchmark=ImagesSettings(path="/data/set", drop_classes=("x",)))),
    ]
    keys = {CELL.key, *(cell.key for cell in others)}
    monkeypatch.setattr(cells_module, "PROTOCOL_VERSION", cells_module.PROTOCOL_VERSION + 1)
    assert len(keys | {CELL.key}) == len(others) + 2


def test_what_an_opening_was_for_has_one_name_in_any_order():
    other = replace(CELL, seeds=(4,))
    assert keys_of([CELL, other]) == keys_of([other, CELL]) != keys_of([CELL])


def test_a_cell_has_words():
    assert CELL.words == "ours (seed 0) on set, probe"
    late = replace(CELL, fraction=0.25, checkpoint=replace(CHECKPOINT, step=1500))
    assert late.words == "ours (seed 0) at step 1,500 on set, probe, 25% of labels"


def test_equal_weights_under_two_names_are_one_cell_that_is_asked_for_twice():
    twin = replace(CELL, checkpoint=replace(CHECKPOINT, encoder="the same again"))
    asked = asked_of([CELL, twin, CELL])
    assert asked == {CELL.key: [facts_of(CELL), facts_of(twin)]}


def test_what_is_kept_comes_back_as_what_it_was(tmp_path):
    folder = CellFolder(tmp_path / "cells" / "k")
    folder.keep("seed-1", PREDICTIONS)
    folder.keep("altered/hed=0.05", PIXELS)
    assert isinstance(folder.said("seed-1"), Predictions)
    np.testing.assert_array_equal(folder.said("seed-1").probability, PREDICTIONS.probability)
    assert isinstance(folder.said("altered/hed=0.05"), PixelPredictions)
    np.testing.assert_array_equal(folder.said("altered/hed=0.05").confusion, PIXELS.confusion)
    assert folder.said("null-1") is None
    assert not list(tmp_path.rglob("*.draft"))


def test_the_record_comes_last_and_takes_the_folds_with_it(tmp_path):
    folder = CellFolder(tmp_path / "k")
    (folder.fold(0) / "done.json").write_text("{}")
    assert (folder.record, folder.is_done) == (None, False)
    folder.finish({"state": "failed", "reason": "no"})
    assert not folder.is_done
    folder.finish({"state": "done"})
    assert folder.is_done
    assert [path.name for path in folder.path.iterdir()] == ["cell.json"]


def test_a_record_that_cannot_be_written_leaves_the_old_one(tmp_path):
    folder = CellFolder(tmp_path / "k")
    folder.finish({"state": "failed", "reason": "no"})
    (folder.fold(1) / "done.json").write_text("{}")
    with pytest.raises(TypeError):
        folder.finish({"state": "done", "odd": object()})
    assert folder.record == {"state": "failed", "reason": "no"}
    assert (folder.path / "fold-01" / "done.json").exists()


@pytest.mark.parametrize("text", ['{"state": "do', "[]", "{}", '{"state": "almost"}'])
def test_a_broken_record_is_one_clear_line(tmp_path, text):
    folder = CellFolder(tmp_path / "k")
    folder.path.mkdir()
    (folder.path / "cell.json").write_text(text)
    with pytest.raises(
        BadInput, match=r"k/cell\.json: no record of a cell .*; remove the folder, the cell is run again$"
    ):
        _ = folder.is_done


def test_broken_predictions_are_one_clear_line(tmp_path):
    folder = CellFolder(tmp_path / "k")
    folder.keep("seed-1", PREDICTIONS)
    place = folder.path / "seed-1.parquet"
    place.write_bytes(place.read_bytes()[:100])
    with pytest.raises(BadInput, match=r"seed-1\.parquet: no predictions of labels and none of pixels") as error:
        folder.said("seed-1")
    assert "\n" not in str(error.value)


def finished(root, said=PREDICTIONS):
    folder = CellFolder(root / "k")
    folder.keep("seed-1", said)
    folder.finish({"state": "done", "at": len(said.sample)})
    return folder


def test_a_copy_is_what_is_finished_and_follows_it(tmp_path):
    folder, root = finished(tmp_path / "runs"), tmp_path / "study"
    (folder.path / "tuned-00").mkdir()
    folder.copy_to(root)
    assert sorted(path.name for path in (root / "k").iterdir()) == ["cell.json", "seed-1.parquet"]
    place = root / "k" / "seed-1.parquet"
    before = place.stat().st_ino
    folder.copy_to(root)
    assert place.stat().st_ino == before  # nothing has changed, nothing is copied
    finished(tmp_path / "runs", PREDICTIONS.take([0])).copy_to(root)
    assert CellFolder(root / "k").said("seed-1").sample == ("a",)
    assert [path.name for path in root.iterdir()] == ["k"]


def test_a_copy_that_breaks_off_is_no_cell(tmp_path, monkeypatch):
    folder, root = finished(tmp_path / "runs"), tmp_path / "study"

    def breaks_off(source, target, **kwargs):
        target.mkdir(parents=True)
        (target / "cell.json").write_text((source / "cell.json").read_text())
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(cells_module.shutil, "copytree", breaks_off)
        with pytest.raises(OSError, match="disk full"):
            folder.copy_to(root)
    assert CellFolder(root / "k").record is None
    folder.copy_to(root)
    assert CellFolder(root / "k").said("seed-1").sample == ("a", "b")


def test_costs_add_up_and_records_are_json():
    assert Cost(tiles_seen=2, cpu_hours=0.5) + Cost(tiles_seen=3, num_trials=1) == Cost(
        tiles_seen=5, cpu_hours=0.5, num_trials=1
    )
    assert json.loads(json.dumps(facts_of(CELL)))["pretraining_cost"] == {
        "tiles_seen": 0,
        "cpu_hours": 0.0,
        "gpu_hours": 0.0,
        "num_trials": 0,
    }
