"""Draws of the folds in a study: who has how many, and which fits and shuffles of labels they get."""

import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1] / "experiments"))

from study_benchmarks import NUM_DRAWS, load_benchmarks
from study_cells import cells_of
from study_fits import fits_of

from raypath.config import override
from raypath.errors import BadInput
from raypath.study.cells import Checkpoint
from raypath.study.settings import BenchmarkEntry, EncoderEntry, StudyConfig

COLOUR = EncoderEntry(name="colour", source="colour")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """40 images of 20 patients."""
    monkeypatch.setenv("RAYPATH_RUNS", str(tmp_path / "runs"))
    rng, lines = np.random.default_rng(0), ["path,label,patient"]
    (tmp_path / "set").mkdir()
    for number in range(40):
        pixels = rng.integers(0, 255, (32, 32, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "set" / f"{number:02}.png")
        lines.append(f"{number:02}.png,{'ab'[number % 2]},p{number % 20}")
    (tmp_path / "set" / "manifest.csv").write_text("\n".join(lines) + "\n")
    return tmp_path / "set"


def loaded(folder, *settings, protocols=("probe", "finetune"), **how):
    config = StudyConfig(
        encoders=(COLOUR,),
        benchmarks=(BenchmarkEntry(path=str(folder)),),
        protocols=protocols,
        transfer=("num_folds=4", "extent_px=32", *settings),
        **how,
    )
    (one,) = load_benchmarks(override(config, []))
    return config, one


def by_protocol(config, one, checkpoint):
    return {cell.protocol: cell for cell in cells_of(config, one, checkpoint, COLOUR, 32)}


POINT = Checkpoint(encoder="colour", seed=0, source="colour", weights="colour")


def test_frozen_encoders_have_several_draws_and_trained_ones_the_first(folder):
    config, one = loaded(folder)
    assert (len(one.folds), one.folds_per_draw) == (4 * NUM_DRAWS, 4)
    cells = by_protocol(config, one, POINT)
    frozen, trained = (one.folds_of(cells[name].config) for name in ("probe", "finetune"))
    assert (frozen, trained) == (one.folds, one.folds[:4])
    assert len({fold.data_hash for fold in one.folds}) == 4 * NUM_DRAWS
    assert len(cells["probe"].seeds) == NUM_DRAWS
    assert one.num_draws_by_fold == 1


def test_an_encoder_that_is_pretrained_for_each_fold_has_one_draw_unless_more_are_asked_for(folder):
    for settings, num in ((), 1), (("num_repeats=2",), 2), (("probe.num_repeats=3",), 3):
        config, one = loaded(folder, *settings)
        assert one.num_draws_by_fold == num
        parts = tuple(replace(POINT, weights=f"fold {number}") for number in range(4 * num))
        cells = by_protocol(config, one, replace(POINT, by_fold=parts))
        asked = 2 if settings == ("num_repeats=2",) else 1
        assert (cells["probe"].config.num_repeats, cells["finetune"].config.num_repeats) == (num, asked)


@pytest.mark.parametrize(("num_draws", "num_nulls"), [(1, 3), (2, 3), (5, 3), (5, 0)])
def test_every_fit_and_every_shuffle_has_one_draw(folder, num_draws, num_nulls):
    config, one = loaded(folder, f"num_repeats={num_draws}", protocols=("probe",), num_nulls=num_nulls)
    (cell,) = cells_of(config, one, POINT, COLOUR, 32)
    fits = [fits_of(cell, one.folds[4 * draw], draw) for draw in range(num_draws)]
    names = Counter(name for own in fits for name, *_ in own)
    assert names == Counter([f"seed-{seed}" for seed in cell.seeds] + [f"null-{n + 1}" for n in range(num_nulls)])
    assert fits[0][0][0] == "seed-1"  # altered images are scored by it, on the first draw
    for draw, own in enumerate(fits):
        assert {len(labels.table) for _, _, labels in own} == {40}
        true = one.folds[4 * draw].table["label"]
        assert [labels.table["label"].equals(true) for name, _, labels in own] == [
            n.startswith("seed") for n, *_ in own
        ]
        assert {labels.table["split"].equals(one.folds[4 * draw].table["split"]) for _, _, labels in own} == {True}


def test_draws_have_equally_many_fits(folder):
    config, one = loaded(folder, "num_repeats=3", "fraction_train=0.5", protocols=("probe",), num_seeds=4)
    (cell,) = cells_of(config, one, POINT, COLOUR, 32)
    assert len(cell.seeds) % 3 == 0


def test_protocols_that_would_open_other_tests_are_refused(folder):
    with pytest.raises(BadInput, match="its protocols ask for different evaluations or num_folds"):
        loaded(folder, "finetune.num_folds=3")
    with pytest.raises(BadInput, match="its protocols ask for different evaluations"):
        loaded(folder, "finetune.evaluation=given")
    loaded(folder, "evaluation=given", "finetune.num_folds=3")  # no fold is made
