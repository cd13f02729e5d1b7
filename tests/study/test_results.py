"""A study's folder is read whole, under the names that this study uses, or says in one line what is wrong with it."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

from raypath.errors import BadInput
from raypath.study.cells import Cost
from raypath.study.results import load_results
from raypath.study.statistics import score_interval
from tests.study.synthetic_study import COST, SETS, rewrite, write_study


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    return write_study(tmp_path_factory.mktemp("study"))


@pytest.fixture
def folder(written, tmp_path):
    return shutil.copytree(written, tmp_path / "study")


def names(results):
    return [(place.benchmark, place.fraction, place.encoder) for place in results.places]


def test_places_stand_in_the_order_of_reading(written):
    found = names(load_results(written))
    encoders = ("ours", "other", "random", "colour")
    wanted = [(one.name, fraction, encoder) for one in SETS for fraction in (1.0, 0.25) for encoder in encoders]
    wanted.remove(("images", 0.25, "other"))  # which failed
    assert found == wanted


def test_a_place_has_all_checkpoints_and_fits_and_what_it_cost(written):
    results = load_results(written)
    place = results.place("ours", "gains", "probe")
    assert [one.record["pretraining_seed"] for one in place.scored] == [0, 1, 2]
    assert [len(fits) for fits in place.said] == [2, 2, 2]
    for seed, own in enumerate(place.said):
        for fit, said in enumerate(own):
            np.testing.assert_array_equal(said.probability, SETS[0].said("ours", seed, None, 1.0, fit + 1).probability)
    assert place.pretraining == Cost(tiles_seen=3 * 2_000, cpu_hours=3 * 2.0)
    assert place.fitting == Cost(
        tiles_seen=3 * COST.tiles_seen, cpu_hours=3 * COST.cpu_hours, num_trials=3 * COST.num_trials
    )
    assert (place.spent("tiles_seen"), place.spent("cpu_hours")) == (2_000, 2.0)
    assert sorted(place.scored[0].altered) == ["blur=1", "blur=2", "grey", "hed=0.05"]
    assert results.place("ours", "glands", "probe").scored[0].nulls == ()


def test_of_weights_for_each_fold_one_pretraining_is_what_was_spent(written):
    place = load_results(written).place("ours", "gains", "probe")
    own = place.scored[0]
    tenfold = own.record["pretraining_cost"] | {"tiles_seen": 20_000}
    by_fold = replace(own, record=own.record | {"pretraining_cost": tenfold, "num_trainings": 10})
    place = replace(place, scored=(by_fold, *place.scored[1:]))
    assert place.spent("tiles_seen") == 2_000
    assert place.pretraining.tiles_seen == 24_000


def test_the_population_is_the_recipe_from_three_seeds_on(written):
    results = load_results(written)
    assert {p.population for p in results.places if p.encoder == "ours"} == {"recipe"}
    assert {p.population for p in results.places if p.encoder != "ours"} == {"checkpoint"}
    place = results.place("ours", "gains", "probe")
    assert replace(place, scored=place.scored[:2]).population == "checkpoint"


def test_checkpoints_on_the_way_are_no_places_of_the_matrix(written):
    results = load_results(written)
    steps = {(place.encoder, place.scored[0].record["step"]) for place in results.on_the_way}
    assert steps == {("ours", 10), ("other", 10), ("other", 20)}
    assert all(one.record["step"] is None for place in results.places for one in place.scored)


@pytest.mark.parametrize(("encoder", "benchmark"), [("ours", "gains"), ("other", "images"), ("random", "glands")])
def test_intervals_are_those_of_an_independent_call(written, encoder, benchmark):
    results = load_results(written)
    place = results.place(encoder, benchmark, "probe")
    wanted = score_interval(place.said, place.metric, population=place.population, num_resamples=200)
    assert results.interval(place) == wanted
    assert results.interval(place) is results.interval(place)  # computed once


def test_a_failed_cell_is_told_once(written):
    failures = load_results(written).failures
    assert failures == {"other (seed 0) on images, probe, 25% of labels": "Diverged: loss is NaN"}


def test_work_that_failed_before_its_cells_is_told_as_well(folder):
    rewrite(folder, "failures.json", lambda told: told | {"pretrain x": "BadInput: no index"})
    assert load_results(folder).failures == {
        "pretrain x": "BadInput: no index",
        "other (seed 0) on images, probe, 25% of labels": "Diverged: loss is NaN",
    }


def test_a_cell_of_another_study_is_read_under_the_names_of_this_one(folder):
    for place in (folder / "cells").glob("*/cell.json"):
        record = json.loads(place.read_text())
        if record["encoder"] == "random":
            place.write_text(json.dumps(record | {"encoder": "what it was called elsewhere", "step": 7}))
    results = load_results(folder)
    assert results.place("random", "gains", "probe") is not None
    assert "what it was called elsewhere" not in {place.encoder for place in (*results.places, *results.on_the_way)}


def test_a_cell_with_two_names_is_two_places(folder):
    config = json.loads((folder / "study.json").read_text())
    twin = config["encoders"][2] | {"name": "twin"}
    rewrite(folder, "study.json", lambda values: values | {"encoders": [*values["encoders"], twin]})

    def doubled(asked):
        twins = {key: [f | {"encoder": "twin"} for f in own if f["encoder"] == "random"] for key, own in asked.items()}
        return {key: own + twins[key] for key, own in asked.items()}

    rewrite(folder, "cells.json", doubled)
    results = load_results(folder)
    first, second = (results.interval(results.place(name, "gains", "probe")) for name in ("random", "twin"))
    assert first == second


def test_only_what_this_study_asks_for_is_read(folder):
    rewrite(folder, "study.json", lambda values: values | {"encoders": values["encoders"][1:]})
    rewrite(folder, "cells.json", lambda asked: dict(sorted(asked.items())[::2]))
    results = load_results(folder)
    assert "ours" not in {place.encoder for place in results.places}
    assert 0 < sum(len(place.scored) for place in results.places) < 20


def test_a_study_that_has_only_begun_has_no_places(folder):
    for name in ("cells.json", "failures.json", "openings.json", "benchmarks.json"):
        (folder / name).unlink()
    results = load_results(folder)
    assert (results.places, results.failures, results.openings, results.protocols) == ((), {}, [], [])


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        (
            "cells.json",
            '["an old list"]',
            r"cells\.json: cannot be read \(expected a dict\); run the study's command again",
        ),
        ("openings.json", "[", r"openings\.json: cannot be read"),
        ("study.json", '{"encoders": 3}', r"encoders"),
    ],
)
def test_a_broken_file_is_one_clear_line(folder, name, text, words):
    (folder / name).write_text(text)
    with pytest.raises(BadInput, match=words):
        load_results(folder)


def test_a_study_of_another_version_is_read_without_the_settings_that_are_gone(folder):
    values = json.loads((folder / "study.json").read_text())
    values["has_null"] = True
    values["encoders"][0]["gone"] = 1
    (folder / "study.json").write_text(json.dumps(values))
    results = load_results(folder)
    assert results.of_another_version == ["encoders.0.gone", "has_null"]
    assert results.places
    assert results.config.encoders[0].name == results.places[0].encoder


def test_predictions_that_are_gone_are_named(folder):
    place = next((folder / "cells").glob("*/seed-2.parquet"))
    place.unlink()
    with pytest.raises(BadInput, match=rf"{place.parent.name}: not all of seeds \[1, 2\] are there; remove the folder"):
        load_results(folder)


def test_a_folder_without_a_study_is_refused(tmp_path):
    with pytest.raises(BadInput, match=r"no study here \(no study\.json\)"):
        load_results(tmp_path)
