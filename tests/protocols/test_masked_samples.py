"""What is learnt from is resampled, what is scored is not."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from raypath.benchmarks.metrics.objects import compare_objects, label_objects
from raypath.benchmarks.metrics.pixels import score_pixels
from raypath.data.masked_resampling import resampled
from raypath.protocols.masked_samples import MaskedSamples
from raypath.protocols.whole_images import at_extent
from tests.protocols import segmented

MPP = segmented.FACTS.mpp


@pytest.fixture(scope="module")
def benchmark(tmp_path_factory):
    return segmented.benchmark(tmp_path_factory.mktemp("blobs"), num=10)


def samples_at(benchmark, fed_mpp):
    rows = benchmark.rows("train")
    return MaskedSamples.of(rows, benchmark.classes, benchmark.mask_rule, mpp=benchmark.mpp, fed_mpp=fed_mpp)


def equal(one, other):
    return all(np.array_equal(a, b) for pair in zip(one.masked, other.masked, strict=True) for a, b in zip(*pair))


def test_images_are_fed_at_the_scale_that_is_wanted_and_their_own_masks_are_kept(benchmark):
    own, coarse = samples_at(benchmark, None), samples_at(benchmark, 2 * MPP)
    assert own.truth is None
    for (image, mask), fed, truth in zip(own.masked, coarse.masked, coarse.truth, strict=True):
        np.testing.assert_array_equal(truth, mask)
        assert fed[1].shape == (32, 40)
        for ours, theirs in zip(fed, resampled(image, mask, 0.5)):
            np.testing.assert_array_equal(ours, theirs)


def test_the_same_scale_is_the_same_bits_and_so_is_one_that_nobody_knows(benchmark):
    own, same = samples_at(benchmark, None), samples_at(benchmark, MPP)
    unknown = samples_at(replace(benchmark, mpp=None), None)
    assert own.truth is same.truth is unknown.truth is None
    assert equal(own, same)
    assert equal(own, unknown)


@pytest.mark.parametrize("fed_mpp", [0.2, 0.31, 0.5, 0.8, 1.25])
def test_every_pixel_of_the_truth_counts_once_whatever_the_scale(benchmark, fed_mpp):
    """A model that knows the fed masks: it is right but for the edges, and as often too far left as too far right."""
    samples = samples_at(benchmark, fed_mpp)
    masks = {image.tobytes(): mask for image, mask in samples.masked}

    def knows(image):
        return np.eye(2, dtype=np.float32)[masks[image.tobytes()]].transpose(2, 0, 1).copy()

    said = samples.predictions(knows)
    assert said.confusion.sum((1, 2)).tolist() == [64 * 80] * len(samples)
    truths = samples.truth or [mask for _, mask in samples.masked]
    share = np.trace(said.confusion.sum(0)) / said.confusion.sum()
    assert share > (0.96 if fed_mpp > MPP else 0.99)
    for number, ((image, _), truth) in enumerate(zip(samples.masked, truths)):
        called = at_extent(knows(image), truth.shape).argmax(0)
        pairs = [[np.sum((truth == i) & (called == j)) for j in (0, 1)] for i in (0, 1)]
        np.testing.assert_array_equal(said.confusion[number], pairs)


def test_probabilities_come_back_before_the_largest_counts(benchmark):
    """Of three columns that become two, the middle one is decided by both: a class of each could not say how sure they were."""
    truth = np.zeros((1, 2), np.uint8)
    image = np.zeros((1, 3, 3), np.uint8)
    samples = MaskedSamples([(image, np.zeros((1, 3), np.uint8))], ("a",), (None,), ("no", "yes"), [truth])
    yes = np.array([[[0.0, 1.0, 0.4]]], np.float32)
    said = samples.predictions(lambda image: np.concatenate([1 - yes, yes]))
    weights = np.array([[8, 4, 0], [0, 4, 8]]) / 12  # triangles of 1.5 px around 0.75 and 2.25
    assert (weights @ yes[0, 0]).round(2).tolist() == [0.33, 0.6]
    assert said.confusion.tolist() == [[[1, 1], [0, 0]]]


def test_classes_that_fit_count_as_they_are_and_those_of_another_extent_are_refused(benchmark):
    own, coarse = samples_at(benchmark, None), samples_at(benchmark, 2 * MPP)
    masks = {image.tobytes(): mask for image, mask in own.masked}
    said = own.predictions(lambda image: masks[image.tobytes()])
    assert np.trace(said.confusion.sum(0)) == said.confusion.sum() == len(own) * 64 * 80
    with pytest.raises(ValueError, match=r"truth is \(64, 80\), the prediction \(32, 40\)"):
        coarse.predictions(lambda image: image[..., 0])


YES = torch.rand(2, 256, 256, generator=torch.Generator().manual_seed(0)).numpy()


def test_some_of_the_images_keep_what_belongs_to_them(benchmark):
    for fed_mpp in (None, 0.8):
        samples = samples_at(benchmark, fed_mpp)
        some = samples.take(np.array([3, 1]))
        assert some.names == (samples.names[3], samples.names[1])
        assert some.patients == (samples.patients[3], samples.patients[1])
        assert [image.tobytes() for image, _ in some.masked] == [samples.masked[k][0].tobytes() for k in (3, 1)]
        whole, part = (
            of.predictions(lambda image: YES[:, : image.shape[0], : image.shape[1]]) for of in (samples, some)
        )
        np.testing.assert_array_equal(part.confusion, whole.confusion[[3, 1]])


@pytest.fixture(scope="module")
def numbered(tmp_path_factory):
    """The ellipses cut in two by a number, 200 left of the middle and 3 right of it; above 255 in every other image."""
    folder = tmp_path_factory.mktemp("numbered")
    benchmark = segmented.benchmark(folder, num=10)
    for place, path in enumerate(benchmark.table["mask"].to_pylist()):
        with Image.open(path) as image:
            mask = np.array(image) > 0
        is_left = np.arange(mask.shape[1]) < mask.shape[1] // 2
        Image.fromarray(mask * np.where(is_left, 200 + 300 * (place % 2), 3).astype(np.uint16)).save(path)
    return replace(benchmark, has_objects=True)


def numbered_at(benchmark, fed_mpp):
    how = {"mpp": benchmark.mpp, "fed_mpp": fed_mpp, "has_objects": True}
    return MaskedSamples.of(benchmark.rows("train"), benchmark.classes, benchmark.mask_rule, **how)


def test_numbers_of_objects_are_kept_beside_the_same_classes(numbered):
    plain, own = samples_at(numbered, None), numbered_at(numbered, None)
    assert plain.objects is None
    assert equal(plain, own)
    assert {numbers.dtype for numbers in own.objects} == {np.dtype(np.uint8), np.dtype(np.uint16)}
    for (_, mask), numbers in zip(own.masked, own.objects, strict=True):
        np.testing.assert_array_equal(numbers > 0, mask == 1)
        assert len(np.unique(numbers)) == 3
    assert samples_at(numbered, 2 * MPP).truth[1].shape == numbered_at(numbered, 2 * MPP).objects[1].shape == (64, 80)


@pytest.mark.parametrize("fed_mpp", [None, 0.8])
def test_objects_are_the_connected_parts_of_what_is_said_against_the_numbers_of_the_truth(numbered, fed_mpp):
    samples = numbered_at(numbered, fed_mpp)
    masks = {image.tobytes(): mask for image, mask in samples.masked}

    def knows(image):
        return np.eye(2, dtype=np.float32)[masks[image.tobytes()]].transpose(2, 0, 1).copy()

    said = samples.predictions(knows)
    for number, (image, _) in enumerate(samples.masked):
        called = at_extent(knows(image), (64, 80)).argmax(0)
        assert said.objects[number] == compare_objects(samples.objects[number], label_objects(called == 1))
        assert (said.objects[number].num_true, said.objects[number].num_predicted) == (2, 1)
    scores = score_pixels(said)
    assert scores["object_recall"] <= 0.5, "one ellipse is said where two are drawn"
    assert 0.3 < scores["object_dice"] < 0.9 < scores["dice_macro"]
    some = samples.take(np.array([3, 1])).predictions(knows)
    assert some.objects == (said.objects[3], said.objects[1])
    assert samples_at(numbered, fed_mpp).predictions(knows).objects is None
