"""What differs between two runs, and whether their scores differ by more than noise."""

import json
import shutil
from pathlib import Path

import pytest

from raypath.errors import BadInput
from raypath.study.cells import CellFolder, load_said, write_json
from raypath.study.diff import diff_runs
from raypath.study.permutation import permutation_p
from raypath.study.statistics import paired_difference
from tests.study.synthetic_study import SETS, write_study

GAINS, EVEN = SETS[0], SETS[1]


def run(folder: Path, config: dict, said=None, **record) -> Path:
    """A run as `runs/ID` has it."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "run.json").write_text(json.dumps(record))
    if said is not None:
        said.save(folder / "gains.test.parquet")
    return folder


def test_settings_and_facts_that_differ_are_named_and_no_others(tmp_path):
    a = run(tmp_path / "a", {"optim": {"lr": 0.1, "name": "sgd"}, "name": "x"}, index_hash="1", commit="c", odd=1)
    b = run(tmp_path / "b", {"optim": {"lr": 0.2, "name": "sgd"}, "more": [1]}, index_hash="2", commit="c", odd=2)
    found = diff_runs(a, b)
    assert found.settings == ["optim.lr: 0.1 -> 0.2", "name: 'x' -> not there", "more: not there -> [1]"]
    assert found.facts == ["index_hash: '1' -> '2'"]
    assert found.scores == []
    assert found.notes == ["no predictions in both: nothing is said about scores"]


def test_a_value_that_is_null_is_not_one_that_is_absent(tmp_path):
    a, b = run(tmp_path / "a", {"mpp": None}), run(tmp_path / "b", {})
    assert diff_runs(a, b).settings == ["mpp: None -> not there"]


@pytest.mark.parametrize(
    ("encoders", "verdict"), [(("ours", "random"), "more than noise"), (("random", "colour"), "no more")]
)
def test_scores_are_those_of_independent_calls(tmp_path, encoders, verdict):
    said = [GAINS.said(encoder) for encoder in encoders]
    a, b = (run(tmp_path / name, {}, one) for name, one in zip("ab", said))
    (scores,) = diff_runs(a, b).scores
    assert scores.difference == paired_difference(*said)
    assert scores.p_value == permutation_p(*said)
    assert verdict in scores.words
    assert "balanced_accuracy" in scores.words
    assert "30 patients" in scores.words


def test_two_cells_are_compared_once_by_all_their_fits(tmp_path):
    folder = write_study(tmp_path / "study")
    cells = {}
    for place in (folder / "cells").iterdir():
        record = CellFolder(place).record
        if (record["benchmark"], record["fraction"], record["step"]) == ("images", 1.0, None):
            cells.setdefault(record["encoder"], place)
    found = diff_runs(cells["random"], cells["colour"])
    (scores,) = found.scores
    fits = [[[load_said(cells[name] / f"seed-{seed}.parquet") for seed in (1, 2)]] for name in ("random", "colour")]
    assert scores.difference == paired_difference(*fits, "auroc")
    assert scores.p_value == permutation_p(*fits, "auroc")
    assert scores.words.startswith("first run (2 seeds) minus second run (2 seeds), auroc: ")
    assert "60 images" in scores.words
    assert found.settings == ["encoder: 'runs/random-0' -> 'runs/colour-0'"]
    assert found.facts == ["weights: 'random0None' -> 'colour0None'"]


def test_fits_with_other_seeds_and_other_numbers_of_them_are_compared_too(tmp_path):
    a, b = run(tmp_path / "a", {}), run(tmp_path / "b", {})
    for folder, seeds in ((a, (1, 2, 3)), (b, (4, 5))):
        for seed in seeds:
            GAINS.said("random", folder.name, seed).save(folder / f"seed-{seed}.parquet")
    (scores,) = diff_runs(a, b).scores
    assert scores.num_fits == (3, 2)
    assert "no more than noise" in scores.words


def test_no_set_in_both_is_said(tmp_path):
    a, b = run(tmp_path / "a", {}, GAINS.said("random")), run(tmp_path / "b", {})
    for name in ("one.test", "two.test"):
        GAINS.said("random").save(b / f"{name}.parquet")
    found = diff_runs(a, b)
    assert found.scores == []
    assert found.notes == [
        "predictions of gains.test and of one.test, two.test: no set in both, nothing is said about scores"
    ]


def test_segmentations_are_compared_by_pixels(tmp_path):
    glands = SETS[-1]
    a, b = (run(tmp_path / name, {}, glands.said(encoder)) for name, encoder in zip("ab", ("random", "colour")))
    (scores,) = diff_runs(a, b).scores
    assert scores.metric == "miou_macro"


def test_other_samples_are_no_ground_for_a_comparison(tmp_path):
    a, b = run(tmp_path / "a", {}, GAINS.said("random")), run(tmp_path / "b", {}, EVEN.said("random"))
    found = diff_runs(a, b)
    assert found.scores == []
    assert "expected predictions for the same samples" in found.notes[0]


def test_a_folder_that_is_no_run_is_one_clear_line(tmp_path):
    a = run(tmp_path / "a", {})
    with pytest.raises(BadInput, match=r"no run here \(no config\.json, no cell\.json\)"):
        diff_runs(a, tmp_path)
    (a / "config.json").write_text("{")
    with pytest.raises(BadInput, match=r"a/config\.json: cannot be read"):
        diff_runs(a, a)


def test_fits_are_read_in_the_turn_of_their_numbers_and_their_draws_have_a_say(tmp_path):
    folder = write_study(tmp_path / "study")
    cell = next(place for place in (folder / "cells").iterdir() if (place / "seed-2.parquet").exists())
    other = next(
        place
        for place in (folder / "cells").iterdir()
        if place != cell
        and (place / "seed-2.parquet").exists()
        and CellFolder(place).record["benchmark"] == CellFolder(cell).record["benchmark"]
    )
    for place in (cell, other):
        shutil.copy(place / "seed-2.parquet", place / "seed-10.parquet")
        write_json(place / "cell.json", CellFolder(place).record | {"num_draws": 3})
    (scores,) = diff_runs(cell, other).scores
    fits = [[[load_said(place / f"seed-{seed}.parquet") for seed in (1, 2, 10)]] for place in (cell, other)]
    assert scores.difference == paired_difference(*fits, scores.metric, num_draws=3)
    assert scores.difference != paired_difference(*fits, scores.metric)
