"""A head is read from its checkpoint as it was trained, found by the names of its task and classes, and nothing is fitted."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from raypath.benchmarks import Benchmark, load_images, open_test
from raypath.config import to_dict
from raypath.data.images import Frame, read_pixels
from raypath.data.pool import load_pool
from raypath.errors import BadInput
from raypath.models import build_encoder
from raypath.objectives import MultitaskSettings, SupervisedSettings
from raypath.objectives.multitask import Multitask
from raypath.protocols import HeadSettings, fit, open_encoder
from raypath.protocols.own_head import own_head
from raypath.protocols.transfer import TransferConfig, check_protocol
from raypath.training.checkpoint import save_checkpoint
from raypath.training.loop import TrainState
from raypath.training.settings import PretrainConfig
from tests.protocols import small


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Two tasks, of two and of three classes, and a checkpoint of a multi-task objective that has a head for each."""
    home = tmp_path_factory.mktemp("heads")
    small.write_set(home / "colours")
    rng = np.random.default_rng(3)
    for number in range(9):
        place = home / "shades" / "train" / f"shade{number % 3}" / f"{number}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (32, 32, 3)).astype(np.uint8)).save(place)
    write_checkpoint(home, MultitaskSettings())
    return home


def write_checkpoint(home, objective, pool=("shades", "colours")):
    spec = ",".join(str(home / name) for name in pool)
    config = PretrainConfig(objective=objective, pool=spec, encoder=small.TINY)
    torch.manual_seed(7)
    model = Multitask(MultitaskSettings(), build_encoder(small.TINY, seed=1), (3, 2))
    state = TrainState(model, torch.optim.SGD(model.parameters(), lr=0.1))
    about = {"config": to_dict(config), "index_hash": load_pool(spec, config.splits).hash}
    save_checkpoint(home / "run" / "checkpoints", state, about)
    return model


@pytest.fixture(scope="module")
def benchmark(home) -> Benchmark:
    return load_images(home / "colours", name="colours")


def config_of(home, **protocol) -> TransferConfig:
    return TransferConfig(encoder=str(home / "run"), protocol=HeadSettings(**protocol), evaluation="given")


@pytest.mark.ray
def test_it_says_what_the_model_said_when_it_was_trained(home, benchmark, ray_instance, tmp_path):
    model = write_checkpoint(home, MultitaskSettings()).eval()
    fitted = fit(config_of(home, task="colours"), benchmark, features_root=None, device=torch.device("cpu"))
    rows = open_test(benchmark, "joint", "test", ledger=tmp_path / "ledger")
    images = torch.from_numpy(read_pixels(rows, Frame(extent_px=32)))
    with torch.no_grad():
        expected = model.logits(images, 1).softmax(1).numpy()
    np.testing.assert_allclose(fitted.predict(rows).probability, expected, atol=1e-5)
    assert fitted.val.sample == tuple(benchmark.rows("val")["sample"].to_pylist())
    assert fitted.how == "its own head of colours"
    changed = fitted.predict(rows, "grey").probability
    assert np.abs(changed - expected).max() > 1e-3


def test_classes_go_by_their_names(home):
    values = np.random.default_rng(0).normal(size=(5, open_encoder(str(home / "run"), seed=0).width)).astype(np.float32)
    straight = own_head(str(home / "run"), "colours", ("blue", "red")).probability(values)
    turned = own_head(str(home / "run"), "colours", ("red", "blue")).probability(values)
    np.testing.assert_allclose(straight[:, ::-1], turned)
    np.testing.assert_allclose(straight.sum(1), 1, rtol=1e-6)
    assert own_head(str(home / "run"), "shades", ("shade0", "shade1", "shade2")).probability(values).shape == (5, 3)


def test_what_has_no_such_head_is_refused(home, tmp_path):
    with pytest.raises(BadInput, match="one of shades, colours"):
        own_head(str(home / "run"), "", ("blue", "red"))
    with pytest.raises(BadInput, match="has the classes shade0, shade1, shade2, the benchmark blue, red"):
        own_head(str(home / "run"), "shades", ("blue", "red"))
    bare = small.write_encoder(tmp_path / "encoder.safetensors")
    with pytest.raises(BadInput, match="no checkpoint about it"):
        own_head(str(bare), "colours", ("blue", "red"))


def test_a_run_of_one_task_has_no_heads_of_tasks(home, tmp_path):
    small.write_set(tmp_path / "shades")
    small.write_set(tmp_path / "colours")
    write_checkpoint(tmp_path, SupervisedSettings())
    with pytest.raises(BadInput, match="trained by supervised"):
        own_head(str(tmp_path / "run"), "colours", ("blue", "red"))


@pytest.mark.parametrize(
    "wrong", [{"evaluation": "nested"}, {"fraction_train": 0.5}, {"batch_norm": "recalibrate"}, {"encoder": "colour"}]
)
def test_what_a_head_cannot_be_asked_is_refused(home, benchmark, wrong):
    config = config_of(home, task="colours")
    check_protocol(config, benchmark)
    with pytest.raises(BadInput, match="head"):
        check_protocol(replace(config, **wrong), benchmark)
