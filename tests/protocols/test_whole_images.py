import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from raypath.models import build_encoder
from raypath.models.segmentation import Segmenter
from raypath.protocols.whole_images import at_extent, probability_map, starts
from tests.protocols import small

CPU = torch.device("cpu")


class Pointwise(nn.Module):
    """Says of each pixel what its own colour says: windows cannot change it."""

    def forward(self, images):
        return images.permute(0, 3, 1, 2).float() / 64


class EdgeBlind(nn.Module):
    """Is right in the middle of its window and wrong on its four outermost pixels."""

    def forward(self, images):
        is_inner = torch.zeros(images.shape[:3])
        is_inner[:, 4:-4, 4:-4] = 1
        return torch.stack([4 * is_inner, 4 * (1 - is_inner)], dim=1)


def image_of(height, width):
    return np.random.default_rng(height * width).integers(0, 256, (height, width, 3), dtype=np.uint8)


def direct(model, image):
    with torch.no_grad():
        return model(torch.from_numpy(image)[None]).softmax(1)[0].numpy()


@settings(deadline=None, max_examples=60)
@given(
    height=st.integers(1, 90),
    width=st.integers(1, 90),
    extent_px=st.integers(2, 40),
    overlap=st.floats(0, 0.9),
    batch=st.integers(1, 9),
)
def test_every_pixel_has_a_probability_of_its_own_whatever_the_windows(height, width, extent_px, overlap, batch):
    image = image_of(height, width)
    made = probability_map(Pointwise(), image, extent_px=extent_px, overlap=overlap, batch=batch, device=CPU)
    assert made.shape == (3, height, width)
    np.testing.assert_allclose(made, direct(Pointwise(), image), rtol=1e-3, atol=1e-5)


@settings(deadline=None)
@given(length=st.integers(1, 2000), extent_px=st.integers(1, 600), overlap=st.floats(0, 0.95))
def test_windows_begin_at_0_end_at_the_end_and_overlap_as_asked(length, extent_px, overlap):
    made = starts(length, extent_px, overlap)
    assert made[0] == 0
    assert made[-1] == max(0, length - extent_px)
    steps = np.diff(made)
    assert (steps > 0).all()
    assert (steps <= max(1, extent_px * (1 - overlap))).all()


@pytest.mark.parametrize("size", [(64, 64), (40, 64), (33, 50)])
def test_an_image_of_one_crop_is_what_the_model_says_bit_for_bit(size):
    model = Segmenter(build_encoder(small.TINY, seed=0), 3, decoder="unet").eval()
    image = image_of(*size)
    made = probability_map(model, image, extent_px=64, overlap=0.25, batch=4, device=CPU)
    np.testing.assert_array_equal(made, direct(model, image))


def test_what_is_said_near_the_edge_of_a_window_counts_little():
    made = probability_map(EdgeBlind(), image_of(120, 120), extent_px=40, overlap=0.5, batch=4, device=CPU)
    inner = made[0, 4:-4, 4:-4]
    assert inner.min() > 0.8  # averaged without weights it would be down to one half
    assert made[0, 0].max() < 0.1  # the image's own edge has no other witness


def test_the_model_is_left_in_its_mode_and_unchanged():
    model = Segmenter(build_encoder(small.TINY, seed=0), 2).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    probability_map(model, image_of(80, 80), extent_px=64, overlap=0.25, batch=2, device=CPU)
    assert model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def triangles(old, new):
    """float64 [new, old]: the weight of each old pixel in each new one, of triangles as wide as the coarser of the two."""
    scale = old / new
    places = (np.arange(old) + 0.5)[None] - ((np.arange(new) + 0.5) * scale)[:, None]
    weights = np.maximum(0, 1 - np.abs(places) / max(scale, 1))
    return weights / weights.sum(axis=1, keepdims=True)


@settings(max_examples=30, deadline=None)
@given(*[st.integers(1, 40)] * 4)
def test_probabilities_at_another_extent_are_those_of_triangles(height, width, new_height, new_width):
    logits = np.random.default_rng([height, width]).normal(0, 3, (3, height, width))
    probability = (np.exp(logits) / np.exp(logits).sum(0)).astype(np.float32)
    found = at_extent(probability, (new_height, new_width))
    expected = triangles(height, new_height) @ probability.astype(np.float64) @ triangles(width, new_width).T
    np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_allclose(found.sum(0), 1, atol=1e-5)
    assert at_extent(probability, (height, width)) is probability
