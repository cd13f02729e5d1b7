import json

import pytest
import torch

from raypath.benchmarks import PhantomsSettings
from raypath.config import config_hash, from_dict, override, to_dict
from raypath.errors import BadInput
from raypath.protocols import FinetuneSettings, ProbeSettings
from raypath.protocols.transfer import TransferConfig, transfer_encoder
from tests.protocols import small


def test_another_kind_starts_from_its_own_defaults():
    tuned = override(TransferConfig(), ["protocol.lr=0.5"])
    config = override(tuned, ["protocol.kind=probe", "benchmark.kind=phantoms"])
    assert config.protocol == ProbeSettings()
    assert config.benchmark == PhantomsSettings()
    for either_order in (["protocol.kind=finetune", "protocol.lr=0.1"], ["protocol.lr=0.1", "protocol.kind=finetune"]):
        assert override(config, either_order).protocol == FinetuneSettings(lr=0.1)
    with pytest.raises(BadInput, match="protocol.lr: there is no setting 'lr' here"):
        override(tuned, ["protocol.lr=0.1", "protocol.kind=probe"])


def test_a_search_space_comes_from_the_command_line_as_json():
    config = override(TransferConfig(), ['sweep.space={"protocol.lr": [0.001, 0.01]}', "sweep.search=grid"])
    assert config.sweep.space == {"protocol.lr": [0.001, 0.01]}
    assert from_dict(TransferConfig, json.loads(json.dumps(to_dict(config)))) == config


def test_what_decides_a_score_is_in_the_hash_and_where_things_lie_is_not():
    config = TransferConfig()
    same = ["encoder=x", "benchmark.path=/a", "name=other", "sweep.cpus_per_trial=3"]
    other = ["protocol.lr=0.1", "seed=1", "per_class_train=5", "extent_px=64", "scale=native", "fraction_train=0.5"]
    assert {config_hash(override(config, [a])) for a in same} == {config_hash(config)}
    assert len({config_hash(override(config, [a])) for a in other} | {config_hash(config)}) == len(other) + 1


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("protocol.learning_rate=1", "protocol.learning_rate: there is no setting 'learning_rate' here"),
        ("protocl.lr=1", "did you mean 'protocol'"),
        ("protocol.lr=fast", "protocol.*lr"),
        ("seed=1.5", "seed"),
        ("protocol.kind=forest", "protocol"),
        ("sweep.search=bayes", "sweep.search"),
    ],
)
def test_what_is_no_setting_is_named(assignment, message):
    with pytest.raises(BadInput, match=message):
        override(TransferConfig(), [assignment])


def test_batch_norm_before_a_transfer_is_kept_adapted_or_recalibrated(tmp_path):
    """Adapted: the same features, other statistics; recalibrated: other features; both from train images alone."""
    path = small.write_encoder(tmp_path / "encoder.safetensors")
    train = small.samples(96, seed=1)
    tiles = torch.from_numpy(train.images[:16])

    def images_at(numbers):
        return train.images[numbers]

    encoders = {
        how: transfer_encoder(TransferConfig(encoder=str(path), batch_norm=how), 96, images_at).eval()
        for how in ("keep", "adapt", "recalibrate")
    }
    features = {how: encoder(tiles).detach() for how, encoder in encoders.items()}
    means = {how: encoder.trunk.conv1[1].running_mean for how, encoder in encoders.items()}
    assert torch.equal(means["keep"], torch.zeros_like(means["keep"]))
    torch.testing.assert_close(means["adapt"], means["recalibrate"], rtol=0.05, atol=0.05)
    torch.testing.assert_close(features["adapt"], features["keep"], rtol=1e-3, atol=1e-4)
    assert (features["recalibrate"] - features["keep"]).abs().mean() > 0.1
    again = transfer_encoder(TransferConfig(encoder=str(path), batch_norm="recalibrate"), 96, images_at)
    assert torch.equal(again.eval()(tiles), features["recalibrate"])


def test_a_trunk_without_batch_norm_stays_as_it_is():
    colour = transfer_encoder(TransferConfig(encoder="colour", batch_norm="adapt"), 8, None)
    assert colour.width == 30
