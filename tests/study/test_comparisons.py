"""Comparisons are those of independent calls, and their words are earned."""

from dataclasses import replace

import numpy as np
import pytest

from raypath.study.comparisons import at_budget, comparisons, difference, size_of_family, summary
from raypath.study.permutation import holm, permutation_p
from raypath.study.results import load_results
from raypath.study.sections_curves import equal_compute, scale_curve
from raypath.study.statistics import paired_difference
from tests.study.synthetic_study import CONFIG, SETS, write_study


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    return load_results(write_study(tmp_path_factory.mktemp("study")))


@pytest.fixture(scope="module")
def found(results):
    return comparisons(results, "probe")


def of(found, encoder, benchmark):
    return next(one for one in found if (one.place.encoder, one.place.benchmark) == (encoder, benchmark))


def test_every_encoder_is_compared_with_the_reference_everywhere(found):
    pairs = [(one.place.benchmark, one.place.encoder) for one in found]
    assert pairs == [(one.name, encoder) for one in SETS for encoder in ("ours", "other", "colour")]


@pytest.mark.parametrize("benchmark", ["gains", "images", "glands"])
@pytest.mark.parametrize(("encoder", "population"), [("ours", "recipe"), ("other", "checkpoint")])
def test_differences_are_those_of_an_independent_call(results, found, encoder, population, benchmark):
    own = results.place(encoder, benchmark, "probe")
    for other, got in (("random", "to_reference"), ("colour", "to_colour")):
        baseline = results.place(other, benchmark, "probe")
        wanted = paired_difference(own.said, baseline.said, own.metric, population=population, num_resamples=200)
        assert getattr(of(found, encoder, benchmark), got) == wanted


def test_holm_runs_over_all_comparisons_that_are_read_together(results, found):
    alone = [
        permutation_p(one.place.said, results.place("random", one.place.benchmark, "probe").said, one.place.metric)
        for one in found
    ]
    p_values = [one.p_value for one in found]
    np.testing.assert_allclose(p_values, alone, atol=0.06)  # of other, and more, permutations
    np.testing.assert_allclose([one.adjusted_p for one in found], holm(p_values))


def test_the_size_of_the_family_is_known_beforehand(results, found):
    assert size_of_family(CONFIG, [CONFIG.protocols] * len(SETS)) == len(found)
    two = replace(CONFIG, protocols=("probe", "knn"))
    colour_by_probe = replace(CONFIG.entry("colour"), protocols=("probe",))
    two = replace(two, encoders=(*(entry for entry in two.encoders if entry.name != "colour"), colour_by_probe))
    assert size_of_family(two, [("probe", "knn"), ("probe",)]) == 3 + 2 + 3


def test_a_large_family_gets_permutations_enough_to_say_anything(results):
    few = replace(results, config=replace(CONFIG, num_permutations=100))
    one = of(comparisons(few, "probe"), "ours", "gains")
    assert one.word == "better"  # of 100 permutations the least p is 0.0099, and 15 times that is above 0.05
    assert one.adjusted_p < 0.05


def test_the_words_are_those_of_the_truth(found):
    assert of(found, "ours", "gains").word == "better"
    assert of(found, "ours", "even").word == "not separable"
    assert of(found, "ours", "few").word == "no verdict"  # the difference is true, and six patients are too few
    assert of(found, "colour", "gains").to_colour is None
    assert "too few patients for a verdict" in of(found, "ours", "few").verdict.words
    assert of(found, "ours", "images").verdict.is_image_level


def test_without_colour_nothing_is_better(results):
    without = results.with_places(place for place in results.places if place.encoder != "colour")
    one = of(comparisons(without, "probe"), "ours", "gains")
    assert (one.word, one.to_colour) == ("no verdict", None)
    assert one.to_reference == of(comparisons(results, "probe"), "ours", "gains").to_reference


def test_what_lacks_a_reference_is_left_out(results):
    without = results.with_places(p for p in results.places if (p.encoder, p.benchmark) != ("random", "gains"))
    assert "gains" not in {one.place.benchmark for one in comparisons(without, "probe")}


def test_two_pretraining_seeds_are_no_recipe(results):
    ours, random = (results.place(name, "gains", "probe") for name in ("ours", "random"))
    two = replace(ours, scored=ours.scored[:2])
    assert difference(results, two, random).population == "checkpoint"
    assert difference(results, ours, two).population == "checkpoint"
    assert difference(results, ours, random).population == "recipe"
    assert difference(results, random, ours).estimate == pytest.approx(-difference(results, ours, random).estimate)


def test_the_summary_is_a_sentence_for_each_encoder(results, found):
    ours, other, colour = summary(results, found)
    gains = of(found, "ours", "gains").to_reference
    assert ours.startswith(f"ours against random, 5 benchmarks: better on 1 (gains +{100 * gains.estimate:.1f} [")
    to_colour = of(found, "ours", "gains").to_colour
    assert f"] points, against colour +{100 * to_colour.estimate:.1f} [" in ours
    assert "], n = 30 patients)" in ours
    assert "not separable on 3 (" in ours
    assert "no verdict on 1 (few +" in ours
    assert "This recipe (3 pretraining seeds; seeds and patients (or images) resampled)" in ours
    told = "gains, n = 30 patients; even, n = 25 patients; images, n = 60 images; glands, n = 20 patients"
    assert f"better on none; not separable on 4 ({told}); no verdict on 1 (few " in other
    assert colour.endswith(" This checkpoint (one pretraining seed; patients (or images) resampled). 2 fits of each.")
    assert "; this" not in ours + other  # patients and images in one sentence
    single = summary(results, [of(found, "ours", "gains")])
    assert single[0].startswith("ours against random, 1 benchmark: ")
    many = summary(results, [of(found, "ours", "gains")] * 5)[0]
    assert many.count("n = 30 patients") == many.count("against colour +") == many.count("] points") == 5
    one_fit = replace(of(found, "ours", "gains"), to_reference=replace(gains, num_seeds=1))
    assert "fits of each" not in summary(results, [one_fit])[0]


def steps(places, encoder):
    return {place.scored[0].record["step"] for place in places if place.encoder == encoder and place.fraction == 1}


def test_equal_compute_takes_the_last_checkpoint_within_the_smallest_budget(results):
    words, places = at_budget(results)
    assert "within 2,000 tiles of pretraining" in words
    assert steps(places, "ours") == {None}
    assert steps(places, "other") == {10}
    assert steps(places, "random") == steps(places, "colour") == {None}
    assert len({(p.encoder, p.benchmark) for p in places if p.fraction == 1}) == 4 * len(SETS)


def test_equal_compute_by_hours_and_what_has_no_checkpoint_is_named(results):
    hours = replace(results, config=replace(CONFIG, budget="hours"), on_the_way=())
    words, places = at_budget(hours)
    assert "within 2 CPU hours" in words
    assert words.endswith("No checkpoint as early was kept of other (100% of labels), other (25% of labels).")
    assert "other" not in {place.encoder for place in places}


def with_cost(place, num_trainings=1, **cost):
    """The place, with other costs of its pretrainings."""
    record = place.scored[0].record
    own = record | {"num_trainings": num_trainings, "pretraining_cost": record["pretraining_cost"] | cost}
    return replace(place, scored=tuple(replace(one, record=own) for one in place.scored))


def test_weights_for_each_fold_have_the_budget_of_one_of_them(results):
    """Five folds of 2,000 tiles each: every fit's encoder has seen 2,000."""

    def by_fold(place):
        tiles = 5 * place.spent("tiles_seen")
        is_ours = place.encoder == "ours" and place.benchmark == "gains"
        return with_cost(place, tiles_seen=tiles, num_trainings=5) if is_ours else place

    folds = results.with_places(map(by_fold, results.places))
    folds = replace(folds, on_the_way=tuple(map(by_fold, results.on_the_way)))
    words, places = at_budget(folds)
    assert words == at_budget(results)[0]
    assert steps(places, "ours") == {None}
    figure, known = (scale_curve(one).pictures[0][2] for one in (folds, results))
    lines, wanted = ([[list(line.get_xdata()) for line in axes.lines] for axes in one.axes] for one in (figure, known))
    assert lines == wanted


def test_hours_of_processors_and_of_gpus_are_not_held_equal(results):
    def on_gpus(*names):
        places = (with_cost(p, gpu_hours=p.spent("cpu_hours") / 4 * (p.encoder in names)) for p in results.places)
        return replace(results.with_places(places), config=replace(CONFIG, budget="hours"), on_the_way=())

    words, places = at_budget(on_gpus("ours"))
    assert words == ('Hours cannot be held equal: ours had GPUs in pretraining, other had none; budget = "tiles" can.')
    assert places == []
    section = equal_compute(on_gpus("ours"))
    assert (section.words, section.tables) == ((words,), ())
    assert "within 0.5 GPU hours" in at_budget(on_gpus("ours", "other"))[0]
    assert "within 2 CPU hours" in at_budget(on_gpus())[0]
