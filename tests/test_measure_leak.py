"""What `experiments/measure_leak.py` compares: divisions of equal size, and a difference only where neighbours are alike."""

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "experiments"))

import measure_leak
from measure_leak import NUM_BLOCKS, NUM_FOLDS, blocks_of, difference, divisions, number_of

from raypath.errors import BadInput
from raypath.protocols.features import Features
from raypath.protocols.probe import ProbeSettings


def features_of_slides(num_slides, *, is_in_order, seed=0):
    """Two classes of 60 images; their slide is far louder in them than their class. Numbered slide by slide, or not."""
    rng = np.random.default_rng(seed)
    values, labels, names = [], [], []
    for label in (0, 1):
        slides = np.repeat(np.arange(num_slides), 60 // num_slides)
        slides = slides if is_in_order else rng.permutation(slides)
        of_slide = rng.normal(size=(num_slides, 24)) * 3
        values.append(of_slide[slides] + 0.3 * label + 0.3 * rng.normal(size=(60, 24)))
        labels += [label] * 60
        names += [f"{label}/image_{'AB'[label]}_{7 * n}.png" for n in range(60)]
    return Features(
        np.concatenate(values).astype(np.float32), np.array(labels), tuple(names), (None,) * 120, ("a", "b")
    )


def test_blocks_are_runs_of_neighbours_in_number():
    features = features_of_slides(10, is_in_order=True)
    order = np.random.default_rng(1).permutation(len(features))
    mixed = Features(
        features.values[order],
        features.labels[order],
        tuple(features.names[n] for n in order),
        (None,) * 120,
        ("a", "b"),
    )
    blocks = blocks_of(mixed)
    for label in (0, 1):
        rows = np.flatnonzero(mixed.labels == label)
        numbers = {b: [number_of(mixed.names[row]) for row in rows if blocks[row] == b] for b in range(NUM_BLOCKS)}
        assert all(len(found) == 6 for found in numbers.values())
        assert all(max(numbers[b]) < min(numbers[b + 1]) for b in range(NUM_BLOCKS - 1))


def test_both_divisions_have_the_same_folds_in_size_and_classes_and_blocks_are_whole():
    features = features_of_slides(10, is_in_order=True)
    blocks = blocks_of(features)
    folds = divisions(features.labels, blocks, seed=3)
    for label in (0, 1):
        counts = [
            np.bincount(found[features.labels == label], minlength=NUM_FOLDS).tolist() for found in folds.values()
        ]
        assert counts[0] == counts[1] == [12] * NUM_FOLDS
        for block in range(NUM_BLOCKS):
            is_one = (features.labels == label) & (blocks == block)
            assert len(set(folds["blocks"][is_one])) == 1
    assert not np.array_equal(folds["random"], folds["blocks"])
    assert not np.array_equal(folds["random"], divisions(features.labels, blocks, seed=4)["random"])


@pytest.mark.parametrize("is_in_order", [True, False])
def test_the_difference_is_there_where_numbers_follow_slides_and_only_there(is_in_order, monkeypatch):
    monkeypatch.setattr(measure_leak, "PROBE", ProbeSettings(lowest_c=0.1, highest_c=0.1, num_c=1))
    features = features_of_slides(10, is_in_order=is_in_order)
    blocks = blocks_of(features)
    folds = divisions(features.labels, blocks, seed=0)
    scored = {name: [measure_leak.tested_once(features, found)] for name, found in folds.items()}
    found = difference(scored, features.names)
    assert found.num_patients == len(features)
    if is_in_order:
        assert found.low > 0.2
    else:
        assert abs(found.estimate) < 0.1


def test_a_name_without_a_number_is_refused():
    with pytest.raises(BadInput, match=r"ends in no number; expected one like image_AC_2062\.jpg"):
        number_of("a/tile.png")
    assert number_of("serrated/image_S_0012b.jpg") == 12
