import re
from pathlib import Path

import pytest
import torch

from raypath.errors import BadInput
from raypath.models import ColourEncoder, load_encoder
from raypath.protocols.encoders import encoder_id, input_px, open_encoder, short_name
from tests.protocols import small


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> Path:
    return small.write_encoder(tmp_path_factory.mktemp("encoders") / "mine.safetensors", seed=5)


def weights(encoder):
    return torch.cat([p.detach().flatten() for p in encoder.parameters()])


def test_a_file_is_loaded_whole(file):
    encoder = open_encoder(str(file), seed=0)
    assert torch.equal(weights(encoder), weights(load_encoder(file)))
    assert input_px(encoder) == small.EXTENT_PX
    assert short_name(str(file)) == "mine.safetensors"


def test_colour_needs_nothing_and_takes_any_size():
    encoder = open_encoder("colour", seed=0)
    assert isinstance(encoder, ColourEncoder)
    assert input_px(encoder) is None
    assert encoder_id("colour", seed=0) == encoder_id("colour", seed=7) == "colour"


def test_random_is_the_architecture_of_another_with_weights_of_its_seed(file):
    like, same, other = (open_encoder(f"random:{file}", seed=s) for s in (0, 0, 1))
    assert like.settings == load_encoder(file).settings
    assert torch.equal(weights(like), weights(same))
    assert not torch.equal(weights(like), weights(other))
    assert not torch.equal(weights(like), weights(load_encoder(file)))
    assert short_name(f"random:{file}") == "random (mine.safetensors)"


def test_the_id_follows_the_weights_and_not_the_place(file, tmp_path):
    moved = tmp_path / "mine.safetensors"
    moved.write_bytes(file.read_bytes())
    other = small.write_encoder(tmp_path / "other.safetensors", seed=6)
    assert encoder_id(str(file), seed=0) == encoder_id(str(moved), seed=1)
    assert re.fullmatch(r"mine\.safetensors [0-9a-f]{12}", encoder_id(str(file), seed=0))
    assert encoder_id(str(file), seed=0) != encoder_id(str(other), seed=0)
    ids = {encoder_id(f"random:{path}", seed=seed) for path in (file, other) for seed in (0, 1)}
    assert len(ids) == 2  # the same architecture: only the seed tells random weights apart
    assert all(text.startswith("random resnet10t ") for text in ids)


def test_a_checkpoint_is_called_by_its_run():
    assert short_name("runs/demo-1/checkpoints/step-00000050/encoder.safetensors") == "demo-1"
    assert short_name("runs/demo-1") == "demo-1"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("random", "say whose architecture"),
        ("random:", "say whose architecture"),
        (
            "nowhere.safetensors",
            "encoder=nowhere.safetensors: expected runs/ID, a .safetensors file, an export's folder",
        ),
        ("resnet50", "expected runs/ID"),
        ("", "no valid checkpoint in this run|expected runs/ID"),
    ],
)
def test_what_is_no_encoder_says_what_would_be(source, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadInput, match=message):
        open_encoder(source, seed=0)


def test_a_run_without_a_checkpoint_says_so(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(BadInput, match="no valid checkpoint in this run"):
        open_encoder(str(tmp_path), seed=0)


def test_a_file_that_is_no_encoder_is_refused(tmp_path):
    path = tmp_path / "x.safetensors"
    path.write_bytes(b"\x80\x04K\x01.")
    with pytest.raises(BadInput, match="not a sound safetensors file"):
        open_encoder(str(path), seed=0)
