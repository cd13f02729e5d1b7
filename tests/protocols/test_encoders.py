import re
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from raypath.errors import BadInput
from raypath.export_job import export
from raypath.hashing import file_sha256
from raypath.models import ColourEncoder, load_encoder
from raypath.protocols.encoders import encoder_id, input_px, open_encoder, read_as, short_name
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


def test_weights_of_a_bare_architecture_are_taken_from_any_file_and_from_the_folder_of_imagenet(tmp_path, monkeypatch):
    theirs = timm.create_model("resnet10t", num_classes=0)
    path = tmp_path / "resnet10t.any.safetensors"
    save_file(theirs.state_dict(), path)
    monkeypatch.setenv("RAYPATH_WEIGHTS", str(tmp_path))
    one, other = open_encoder(f"resnet10t@{path}", seed=0), open_encoder("imagenet:resnet10t", seed=0)
    assert torch.equal(weights(one), weights(other))
    assert torch.equal(weights(one), weights(theirs))
    assert one.settings.mean == (0.485, 0.456, 0.406)  # timm's for this name
    assert short_name(f"resnet10t@{path}") == "resnet10t@resnet10t.any.safetensors"
    assert short_name("imagenet:resnet10t") == "imagenet:resnet10t"
    assert encoder_id("imagenet:resnet10t", seed=0).endswith(file_sha256(path)[:12])
    random = open_encoder("random_bn:imagenet:resnet10t", seed=3)
    assert random.settings == other.settings
    with pytest.raises(BadInput, match=r"encoder=resnet10t@/nowhere/x\.pth: there is no file /nowhere/x\.pth"):
        open_encoder("resnet10t@/nowhere/x.pth", seed=0)
    with pytest.raises(
        BadInput, match=r"encoder=imagenet:resnet18: no file resnet18\*.*or name a file of weights instead"
    ):
        open_encoder("imagenet:resnet18", seed=0)


def test_an_export_is_an_encoder_as_it_was(file, tmp_path):
    export(file, tmp_path / "out")
    encoder, own = open_encoder(str(tmp_path / "out"), seed=0), load_encoder(file)
    images = torch.from_numpy(small.samples(4, seed=0).images)
    torch.testing.assert_close(encoder.eval()(images), own.eval()(images))
    assert (encoder.settings.input_px, encoder.settings.mean) == (own.settings.input_px, own.settings.mean)


def test_one_file_read_as_two_architectures_is_two_encoders(file, tmp_path):
    foreign = tmp_path / "foreign.safetensors"
    save_file({"head": torch.zeros(1)}, foreign)
    sources = [f"vit_tiny_patch16_224@{foreign}", f"deit_tiny_patch16_224@{foreign}"]
    assert encoder_id(sources[0], seed=0).split()[-1] == encoder_id(sources[1], seed=0).split()[-1]
    assert [read_as(source) for source in sources] == ["vit_tiny_patch16_224", "deit_tiny_patch16_224"]
    assert read_as(str(file)) == read_as("colour") == ""  # the file says it itself; there is none
    export(file, tmp_path / "export")
    card = tmp_path / "export" / "config.json"
    before = read_as(str(tmp_path / "export"))
    card.write_text(card.read_text() + " ")
    assert before
    assert read_as(str(tmp_path / "export")) != before


def test_random_weights_may_be_like_a_name_of_timm():
    assert open_encoder("random:resnet10t", seed=0).settings.architecture == "resnet10t"
    with pytest.raises(BadInput, match="random:resnet10x: there is no such run or file, and as a name of timm"):
        open_encoder("random:resnet10x", seed=0)


def test_the_file_has_numbers_but_no_pixels():
    encoder = open_encoder("file", seed=0)
    assert encoder_id("file", seed=3) == "file"
    assert encoder.width == 4
    with pytest.raises(TypeError, match="from the file, not from pixels"):
        encoder(torch.zeros(1, 8, 8, 3, dtype=torch.uint8))
