import numpy as np
import pytest
import torch

from raypath.data import embedding
from raypath.models import ColourEncoder, build_encoder
from raypath.protocols import features
from tests.protocols import small

CPU = torch.device("cpu")


@pytest.mark.parametrize("encoder", [ColourEncoder(), build_encoder(small.TINY, seed=0)], ids=["colour", "resnet"])
def test_the_size_of_the_batches_changes_nothing(encoder, monkeypatch):
    images = small.samples(10, seed=0).images
    whole = features.features_of(encoder, images, CPU)
    assert whole.shape == (10, encoder.width)
    assert whole.dtype == np.float32
    monkeypatch.setattr(embedding, "_BATCH", 3)
    np.testing.assert_allclose(features.features_of(encoder, images, CPU), whole, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("is_training", [True, False])
def test_the_encoder_is_left_as_it_was(is_training):
    encoder = build_encoder(small.TINY, seed=0).train(is_training)
    before = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    made = features.features_of(encoder, small.samples(6, seed=0).images, CPU)
    assert encoder.training is is_training
    assert all(torch.equal(tensor, before[name]) for name, tensor in encoder.state_dict().items())
    expected = encoder.eval()(torch.from_numpy(small.samples(6, seed=0).images)).detach().numpy()
    np.testing.assert_allclose(made, expected, rtol=1e-5, atol=1e-6)


def test_read_only_images_are_taken_as_they_are():
    images = small.samples(4, seed=0).images
    images.flags.writeable = False  # as Ray's object store hands them out
    assert features.features_of(ColourEncoder(), images, CPU).shape == (4, 30)
