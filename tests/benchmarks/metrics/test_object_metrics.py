import math
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.spatial.distance import directed_hausdorff

from raypath.benchmarks.metrics.objects import compare_objects, label_objects, score_objects
from raypath.errors import BadInput

REAL = Path(os.environ.get("RAYPATH_REAL_DATA", Path(__file__).parents[4] / "shared" / "data")) / "masks" / "glas"


def rectangles(*boxes, shape=(10, 12)):
    """A mask of objects 1, 2, ... that are (top, left, height, width)."""
    mask = np.zeros(shape, np.int32)
    for number, (y, x, height, width) in enumerate(boxes, start=1):
        mask[y : y + height, x : x + width] = number
    return mask


def judge(truth, predicted):
    return score_objects([compare_objects(truth, predicted, with_hausdorff=True)])


def test_one_gland_shifted_by_hand():
    scores = judge(rectangles((2, 2, 4, 4)), rectangles((2, 3, 4, 4)))  # 12 of 16 px are shared
    assert (scores["object_f1"], scores["num_true_objects"], scores["num_predicted_objects"]) == (1, 1, 1)
    assert scores["object_dice"] == pytest.approx(2 * 12 / 32)
    assert scores["object_hausdorff_px"] == pytest.approx(1)


def test_a_gland_found_one_missed_and_one_invented():
    truth = rectangles((0, 0, 4, 4), (6, 0, 2, 2))
    predicted = rectangles((0, 0, 4, 4), (6, 8, 2, 4))
    scores = judge(truth, predicted)
    assert (scores["object_precision"], scores["object_recall"], scores["object_f1"]) == (1 / 2, 1 / 2, 1 / 2)
    assert scores["object_dice"] == pytest.approx((16 / 20 + 16 / 24) / 2)
    # both lack a partner. The missed one takes the large gland, whose corner (0, 3) is farthest from it, from (6, 1); the invented
    # one is 10 from either true gland: from (0, 0) to (6, 8), and from (6, 11) to (6, 1)
    missed, invented = math.hypot(6, 2), 10
    assert scores["object_hausdorff_px"] == pytest.approx((4 / 20 * missed + 8 / 24 * invented) / 2)


def test_more_than_half_of_the_gland_has_to_be_covered():
    truth = rectangles((0, 0, 4, 4))
    assert judge(truth, rectangles((0, 0, 4, 2)))["object_f1"] == 0, "half is not more than half"
    halves = judge(truth, rectangles((0, 0, 4, 2), (0, 2, 4, 2)))
    assert halves["object_f1"] == 0, "two halves are no gland"
    assert halves["object_dice"] == pytest.approx(2 * 8 / 24)
    assert judge(truth, rectangles((0, 0, 3, 3)))["object_f1"] == 1
    # one prediction over two glands belongs to the larger share alone
    merged = judge(rectangles((0, 0, 4, 4), (0, 5, 4, 3)), rectangles((0, 0, 4, 8)))
    assert (merged["object_precision"], merged["object_recall"]) == (1, 1 / 2)


def test_a_set_is_pooled_and_not_averaged():
    large = compare_objects(rectangles((0, 0, 8, 10)), rectangles((0, 0, 8, 10)))
    small = compare_objects(rectangles((0, 0, 1, 1), (4, 4, 1, 1)), rectangles((8, 8, 1, 1)))
    scores = score_objects([large, small])
    assert scores["object_f1"] == pytest.approx(2 * 1 / (3 + 2))
    assert scores["object_dice"] == pytest.approx((80 / 82 + 80 / 81) / 2)
    assert scores["object_hausdorff_px"] is None  # not measured
    assert scores == score_objects([small, large])


def test_masks_without_objects():
    none, gland = rectangles(), rectangles((1, 1, 2, 2))
    nothing = judge(none, none)
    assert all(math.isnan(nothing[name]) for name in ("object_f1", "object_dice", "object_hausdorff_px"))
    for truth, predicted in ((gland, none), (none, gland)):
        scores = judge(truth, predicted)
        assert (scores["object_f1"], scores["object_dice"], scores["object_hausdorff_px"]) == (0, 0, math.inf)
        found = compare_objects(gland, gland, with_hausdorff=True)
        missed = compare_objects(truth, predicted, with_hausdorff=True)
        assert score_objects([found, missed])["object_hausdorff_px"] == math.inf
    # an image of nothing adds nothing to a set
    both = [compare_objects(gland, gland, with_hausdorff=True), compare_objects(none, none, with_hausdorff=True)]
    assert score_objects(both) == score_objects(both[:1])
    with pytest.raises(BadInput, match="no image was compared"):
        score_objects([])


def _slow_scores(pairs):
    """The challenge's definitions object by object, over the objects of all images."""
    found, totals = 0, []
    num_true = sum(len(np.unique(t[t > 0])) for t, _ in pairs)
    num_predicted = sum(len(np.unique(p[p > 0])) for _, p in pairs)
    for side in (0, 1):
        dice, distance, whole = 0.0, 0.0, sum((pair[side] > 0).sum() for pair in pairs)
        for pair in pairs:
            own_mask, other_mask = pair[side], pair[1 - side]
            for number in sorted(set(own_mask[own_mask > 0].tolist())):
                own = own_mask == number
                touched = other_mask[own]
                touched = touched[touched > 0]
                others = [other_mask == n for n in sorted(set(other_mask[other_mask > 0].tolist()))]
                if touched.size:
                    partner = other_mask == np.bincount(touched).argmax()
                    shared = (own & partner).sum()
                    dice += own.sum() / whole * 2 * shared / (own.sum() + partner.sum())
                    found += side == 1 and shared / partner.sum() > 0.5
                    others = [partner]
                points = np.argwhere(own)
                distance += (own.sum() / whole) * min(
                    max(directed_hausdorff(points, np.argwhere(o))[0], directed_hausdorff(np.argwhere(o), points)[0])
                    for o in others
                )
        totals.append((dice, distance))
    return {
        "object_f1": 2 * found / (num_true + num_predicted),
        "object_precision": found / num_predicted,
        "object_recall": found / num_true,
        "object_dice": (totals[0][0] + totals[1][0]) / 2,
        "object_hausdorff_px": (totals[0][1] + totals[1][1]) / 2,
        "num_true_objects": num_true,
        "num_predicted_objects": num_predicted,
    }


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 3))
def test_equal_to_a_slow_reference(seed, num_images):
    rng = np.random.default_rng(seed)
    pairs = []
    for _ in range(num_images):
        boxes = np.concatenate([rng.integers(8, size=(6, 2)), rng.integers(1, 6, size=(6, 2))], axis=1)
        moved = np.clip(boxes[:5] + rng.integers(-1, 2, size=(5, 4)), [0, 0, 1, 1], None)
        pairs.append((rectangles(*boxes), rectangles(*moved[rng.permutation(5)])))
    scores = score_objects([compare_objects(t, p, with_hausdorff=True) for t, p in pairs])
    assert scores == pytest.approx(_slow_scores(pairs))


def test_numbers_are_names_only():
    truth, predicted = rectangles((0, 0, 4, 4), (5, 5, 3, 3)), rectangles((1, 0, 4, 4), (5, 6, 3, 3))
    renamed = np.array([0, 70_000, 9])[truth], np.array([0, 3, 200])[predicted].astype(np.uint8)
    assert judge(*renamed) == pytest.approx(judge(truth, predicted))


def test_objects_of_a_mask():
    mask = np.array([[1, 1, 0, 0, 0], [0, 0, 1, 0, 1], [0, 0, 0, 0, 1]], bool)
    assert label_objects(mask).tolist() == [[1, 1, 0, 0, 0], [0, 0, 1, 0, 2], [0, 0, 0, 0, 2]]


def test_what_is_no_mask_is_refused():
    mask = rectangles((0, 0, 2, 2))
    for truth, predicted, message in (
        (mask, mask[1:], r"truth is \(10, 12\), the prediction \(9, 12\)"),
        (mask / 2, mask, "the truth is no mask of objects"),
        (mask, -mask, "the prediction is no mask of objects"),
    ):
        with pytest.raises(ValueError, match=message):
            compare_objects(truth, predicted)


@pytest.mark.real
@pytest.mark.skipif(not REAL.is_dir(), reason="no real data")
def test_real_glands():
    masks = [np.array(Image.open(path)) for path in sorted((REAL / "masks").glob("*.png"))[:4]]
    assert masks
    same = score_objects([compare_objects(m, m, with_hausdorff=True) for m in masks])
    assert (same["object_f1"], same["object_hausdorff_px"]) == (1, 0)
    assert same["object_dice"] == pytest.approx(1)
    moved = [(m[:, :-5], m[:, 5:]) for m in masks]
    scores = score_objects([compare_objects(t, p, with_hausdorff=True) for t, p in moved])
    assert 0.8 < scores["object_dice"] < 1
    assert 4 < scores["object_hausdorff_px"] < 30
