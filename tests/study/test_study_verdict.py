"""The words that numbers earn."""

from dataclasses import replace

import numpy as np
import pytest

from raypath.study.statistics import Difference
from raypath.study.verdict import verdict


def difference(estimate, low, high, **changed):
    fields = {"num_patients": 44, "num_samples": 400, "level": "patient", "method": "bootstrap-t"} | changed
    return Difference(estimate=estimate, low=low, high=high, **fields)


ABOVE, BELOW, UNCLEAR = (
    difference(0.031, 0.012, 0.049, num_seeds=5),
    difference(-0.031, -0.049, -0.012),
    difference(0.004, -0.012, 0.02),
)
TO_COLOUR = difference(0.02, 0.003, 0.038)


def test_better_needs_colour():
    found = verdict("ssl", "imagenet", ABOVE, TO_COLOUR)
    assert found.words == (
        "ssl better than imagenet by 3.1 points [1.2, 4.9]; n = 44 patients, 5 fits; better than colour by 2.0 [0.3, 3.8];"
        " this checkpoint (one pretraining seed; patients resampled)"
    )
    assert (found.is_better, found.is_worse, found.is_image_level) == (True, False, False)
    withheld = verdict("ssl", "imagenet", ABOVE, UNCLEAR)
    assert not withheld.is_better
    assert "ssl minus imagenet +3.1 [1.2, 4.9] points, no verdict" in withheld.words
    assert "not separable from colour (+0.4 [-1.2, 2.0])" in withheld.words
    below = verdict("ssl", "imagenet", ABOVE, BELOW)
    assert not below.is_better
    assert "worse than colour (-3.1 [-4.9, -1.2])" in below.words
    absent = verdict("ssl", "imagenet", ABOVE, None)
    assert not absent.is_better
    assert "not compared with colour, which withholds the word better" in absent.words
    assert "better than" not in absent.words


def test_against_colour_itself_the_difference_is_enough():
    found = verdict("ssl", "colour", ABOVE, None)
    assert found.is_better
    assert found.words.startswith("ssl better than colour by 3.1 points [1.2, 4.9]; n = 44")
    assert found.words.count("colour") == 1
    assert verdict("ssl", "grey mean", ABOVE, None, colour="grey mean").is_better


def test_worse_and_not_separable():
    worse = verdict("ssl", "imagenet", BELOW, UNCLEAR)
    assert (worse.is_better, worse.is_worse) == (False, True)
    assert worse.words.startswith(
        "ssl worse than imagenet by 3.1 points [1.2, 4.9]; n = 44 patients; not separable from"
    )
    neither = verdict("ssl", "imagenet", UNCLEAR, TO_COLOUR)
    assert (neither.is_better, neither.is_worse) == (False, False)
    assert neither.words.startswith("ssl not separable from imagenet (+0.4 [-1.2, 2.0]); n = 44 patients;")
    alike = verdict("ssl", "imagenet", difference(0.0, 0.0, 0.0, remark="no patient tells them apart"), TO_COLOUR)
    assert "not separable from imagenet (+0.0 [0.0, 0.0]); n = 44 patients, no patient tells them apart;" in alike.words
    nothing = verdict("ssl", "imagenet", difference(np.nan, np.nan, np.nan), TO_COLOUR)
    assert "no score" in nothing.words
    assert not nothing.is_better


@pytest.mark.parametrize(
    ("num", "words", "is_better"),
    [(7, "too few patients for a verdict (7)", False), (8, "few patients (8)", True), (19, "few patients (19)", True)],
)
def test_few_patients(num, words, is_better):
    found = verdict("ssl", "imagenet", replace(ABOVE, num_patients=num), replace(TO_COLOUR, num_patients=num))
    assert words in found.words
    assert found.is_better == is_better
    assert not verdict("ssl", "imagenet", replace(BELOW, num_patients=7), TO_COLOUR).is_worse
    assert "few" not in verdict("ssl", "imagenet", replace(ABOVE, num_patients=20), TO_COLOUR).words


def test_an_adjusted_p_of_a_twentieth_or_more_withholds_it_and_says_so():
    sure = verdict("ssl", "imagenet", ABOVE, TO_COLOUR, adjusted_p=0.0312)
    assert sure.is_better
    assert "adjusted p = 0.031;" in sure.words
    for p in (0.05, 0.2, float("nan")):
        unsure = verdict("ssl", "imagenet", ABOVE, TO_COLOUR, adjusted_p=p)
        assert not unsure.is_better
        assert f"withheld: adjusted p = {p:.2g} over all comparisons" in unsure.words
        assert not verdict("ssl", "imagenet", BELOW, TO_COLOUR, adjusted_p=p).is_worse
    assert "withheld" not in verdict("ssl", "imagenet", UNCLEAR, TO_COLOUR, adjusted_p=0.2).words


def test_each_verdict_names_its_population():
    recipe = replace(ABOVE, population="recipe", num_checkpoints=5)
    assert verdict("ssl", "imagenet", recipe, TO_COLOUR).words.endswith(
        "this recipe (5 pretraining seeds; seeds and patients resampled)"
    )
    both = verdict("ssl", "moco", replace(recipe, num_checkpoints_b=3), TO_COLOUR)
    assert both.population == "this recipe (5 and 3 pretraining seeds; seeds and patients resampled)"
    fixed = verdict("ssl", "moco", replace(ABOVE, num_checkpoints=3), TO_COLOUR)
    assert fixed.population == "these checkpoints (3 pretraining seeds, not resampled; patients resampled)"
    images = verdict("ssl", "moco", replace(ABOVE, level="image", num_patients=400), TO_COLOUR)
    assert images.is_image_level
    assert "n = 400 images, 5 fits, image-level" in images.words
    assert images.population == "this checkpoint (one pretraining seed; images resampled)"
