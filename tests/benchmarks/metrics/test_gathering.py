from dataclasses import replace

import numpy as np
import pytest
import torch.distributed as dist

from raypath.benchmarks import Predictions, score
from raypath.benchmarks.metrics.gathering import gathered
from raypath.benchmarks.metrics.objects import compare_objects
from raypath.benchmarks.metrics.pixels import PixelPredictions, pixel_confusion, score_pixels
from raypath.errors import BadInput
from tests.training.gloo_ranks import run_ranks

NAMES = [f"image-{i:02d}" for i in range(23)]  # 2 ranks get 12 and 11, in batches of 4: 4 4 4 and 4 4 3
CLASSES = ("benign", "in situ", "invasive")


def classify(names):
    """What a fixed encoder says about images; a pure function of each, as an encoder in eval mode is."""
    drawn = [np.random.default_rng(int(name[-2:])) for name in names]
    label = [int(rng.integers(3)) for rng in drawn]
    return Predictions(
        names, [f"p{int(n[-2:]) // 4}" for n in names], label, [r.dirichlet([1] * 3) for r in drawn], CLASSES
    )


def segment(names):
    """The same for masks of 6 x 5 px."""
    masks = [np.random.default_rng(int(name[-2:])).integers(3, size=(2, 6, 5), dtype=np.uint8) for name in names]
    objects = [compare_objects(t, p) for t, p in masks]
    return PixelPredictions(names, [None] * len(names), [pixel_confusion(t, p, 3) for t, p in masks], CLASSES, objects)


def share_of_a_rank(rank, predictors, world_size, batch):
    """Each rank predicts every `world_size`-th image batch by batch, and all hand their parts to all."""
    own = NAMES[rank::world_size]
    results = []
    for predict in predictors:
        parts = [predict(own[i : i + batch]) for i in range(0, len(own), batch)]
        everybody = [None] * world_size
        dist.all_gather_object(everybody, parts)
        together = gathered([part for ranks in everybody for part in ranks], NAMES)
        results.append(([len(part.sample) for part in parts], together))
    return results


def test_two_processes_score_what_one_does():
    ranks = run_ranks(share_of_a_rank, 2, (classify, segment), 2, 4)
    for rank, batches in zip(ranks, ([4, 4, 4], [4, 4, 3]), strict=True):
        for (sizes, together), predict, judge in zip(rank, (classify, segment), (score, score_pixels), strict=True):
            alone = predict(NAMES)
            assert sizes == batches
            assert (together.sample, together.patient, together.classes) == (alone.sample, alone.patient, alone.classes)
            assert repr(judge(together)) == repr(judge(alone)), "equal to the last bit"


@pytest.mark.parametrize("predict", [classify, segment])
def test_workers_and_order_leave_no_trace(predict):
    shuffled = np.random.default_rng(0).permutation(NAMES).tolist()
    parts = [predict(shuffled[:1]), predict(shuffled[1:20]), predict(shuffled[20:])]
    together = gathered(parts, NAMES)
    assert together.sample == tuple(NAMES)
    values = "confusion" if predict is segment else "probability"
    assert np.array_equal(getattr(together, values), getattr(predict(NAMES), values))
    assert getattr(together, "objects", None) == getattr(predict(NAMES), "objects", None)


def test_objects_that_only_some_counted_are_refused():
    parts = segment(NAMES[:9]), replace(segment(NAMES[9:]), objects=None)
    with pytest.raises(BadInput, match="some parts have objects and some do not"):
        gathered(parts, NAMES)
    assert gathered([replace(part, objects=None) for part in parts], NAMES).objects is None


def test_folds_are_kept_and_those_that_only_some_have_are_refused():
    parts = [replace(classify(NAMES[:9]), fold=np.zeros(9)), replace(classify(NAMES[9:]), fold=np.ones(len(NAMES) - 9))]
    assert gathered(parts, NAMES[::-1]).fold.tolist() == [1] * (len(NAMES) - 9) + [0] * 9
    with pytest.raises(BadInput, match="some parts have fold and some do not"):
        gathered([parts[0], replace(parts[1], fold=None)], NAMES)


@pytest.mark.parametrize("predict", [classify, segment])
def test_duplicates_and_gaps_are_refused(predict):
    whole = predict(NAMES[:20])
    for parts, message in (
        ([whole, predict([*NAMES[20:], NAMES[0]])], "1 samples came more than once, e.g. 'image-00'.*do not pad"),
        ([whole, predict(NAMES[20:22])], "1 samples came from no worker, e.g. 'image-22'"),
        ([whole, predict([*NAMES[20:], "image-77", "image-55"])], "2 samples were not asked for, e.g. 'image-55'"),
        ([], "no worker predicted anything; expected 23 samples"),
        ([whole, (segment if predict is classify else classify)(NAMES[20:])], "beside"),
    ):
        with pytest.raises(BadInput, match=message):
            gathered(parts, NAMES)
    with pytest.raises(BadInput, match="1 samples are asked for twice, e.g. 'image-03'"):
        gathered([whole], [*NAMES[:20], NAMES[3]])


def test_classes_must_be_the_same():
    other = Predictions(["image-01"], [None], [0], [[1, 0]], ("a", "b"))
    with pytest.raises(BadInput, match="Predictions of classes a, b beside Predictions of benign, in situ, invasive"):
        gathered([classify(["image-00"]), other], NAMES[:2])
