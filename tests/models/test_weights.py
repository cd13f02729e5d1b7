"""An encoder's file: the same bytes for the same weights, everywhere, and nothing loads by half."""

import json
import os

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from raypath.errors import BadInput
from raypath.hashing import file_sha256
from raypath.models import EncoderSettings, build_encoder, load_encoder, save_encoder
from tests.training.gloo_ranks import run_ranks

RESNET = EncoderSettings(
    architecture="resnet10t", options={"channels": [8, 16, 24, 32]}, input_px=64, mpp=0.5, mean=(0.7, 0.5, 0.6)
)
LITE = EncoderSettings(architecture="tf_efficientnet_lite0", input_px=64)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "encoder.safetensors"
    save_encoder(build_encoder(RESNET, seed=3), path)
    return path


@pytest.mark.parametrize("settings", [RESNET, LITE], ids=["resnet", "efficientnet"])
def test_a_round_trip_keeps_settings_features_and_bytes(tmp_path, settings):
    encoder = build_encoder(settings, seed=3)
    tiles = torch.randint(0, 256, (2, 64, 64, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    encoder(tiles)  # one batch in training mode: running statistics of batch norm are weights too
    save_encoder(encoder, tmp_path / "first")
    again = load_encoder(tmp_path / "first")
    save_encoder(again, tmp_path / "second")
    assert again.settings == settings
    assert torch.equal(again.eval()(tiles), encoder.eval()(tiles))
    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()


def test_two_processes_write_the_same_file(saved, tmp_path):
    path = tmp_path / "other.safetensors"
    assert run_ranks(save_in_another_process, 1, path) != [os.getpid()]
    assert file_sha256(path) == file_sha256(saved)


def save_in_another_process(rank, path):
    save_encoder(build_encoder(RESNET, seed=3), path)
    return os.getpid()


def test_the_card_is_the_only_metadata(saved):
    with safe_open(saved, framework="pt") as file:
        metadata = file.metadata()
    assert list(metadata) == ["encoder"]
    assert json.loads(metadata["encoder"])["mpp"] == 0.5


def rewritten(saved, path, change_tensors=lambda tensors: None, change_card=lambda card: None):
    """A copy of the file with other contents."""
    tensors = load_file(saved)
    with safe_open(saved, framework="pt") as file:
        card = json.loads(file.metadata()["encoder"])
    change_tensors(tensors)
    change_card(card)
    save_file(tensors, path, metadata={"encoder": json.dumps(card)})
    return path


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.pop("trunk.conv1.0.weight"), r"1 missing \['trunk.conv1.0.weight'\]"),
        (lambda t: t.update({"fc.weight": torch.zeros(2)}), r"1 unexpected \['fc.weight'\]"),
        (lambda t: t.update({"trunk.bn1.weight": torch.zeros(9)}), r"1 of another shape \['trunk.bn1.weight'\]"),
    ],
)
def test_tensors_that_do_not_fit_are_named(saved, tmp_path, change, said):
    with pytest.raises(BadInput, match=f"do not fit resnet10t.*{said}"):
        load_encoder(rewritten(saved, tmp_path / "other", change))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda c: c.update({"architecture": "resnet18", "options": {}}), "do not fit resnet18"),
        (lambda c: c.pop("mean"), "card does not say .* mean"),
        (lambda c: c.update({"colour_space": "lab"}), "card does not say .* colour_space"),
    ],
)
def test_a_card_that_does_not_fit_is_refused(saved, tmp_path, change, said):
    with pytest.raises(BadInput, match=said):
        load_encoder(rewritten(saved, tmp_path / "other", change_card=change))


def test_other_files_are_refused(saved, tmp_path):
    with pytest.raises(BadInput, match="there is no encoder here"):
        load_encoder(tmp_path / "nothing")
    (tmp_path / "text").write_text("not weights")
    with pytest.raises(BadInput, match="not a sound safetensors file"):
        load_encoder(tmp_path / "text")
    (tmp_path / "cut").write_bytes(saved.read_bytes()[:-100])
    with pytest.raises(BadInput, match="not a sound safetensors file"):
        load_encoder(tmp_path / "cut")
    save_file(load_file(saved), tmp_path / "no card")
    with pytest.raises(BadInput, match="no encoder card"):
        load_encoder(tmp_path / "no card")
    torch.save({"weights": torch.zeros(2)}, tmp_path / "pickle")
    with pytest.raises(BadInput, match="not a sound safetensors file"):
        load_encoder(tmp_path / "pickle")
