"""k-NN, probe and SVM on one table of features, made by Ray Data and kept; batch norm and the file as encoders."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from raypath.benchmarks import load_images, open_test, score
from raypath.data.embedding import embed_rows
from raypath.data.images import Frame, read_pixels
from raypath.errors import BadInput
from raypath.models import build_encoder, save_encoder
from raypath.protocols import KnnSettings, ProbeSettings, SvmSettings, fit, fitting, frozen, transfer
from raypath.protocols.features import features_of
from raypath.protocols.fitting import embedder_of
from raypath.protocols.transfer import TransferConfig, feeding
from tests.protocols import small

pytestmark = pytest.mark.ray
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def home(tmp_path_factory, ray_instance):
    home = tmp_path_factory.mktemp("frozen")
    small.write_encoder(home / "tiny.safetensors")
    small.write_set(home / "set", train=40, val=20, test=20)
    return home


@pytest.fixture(scope="module")
def benchmark(home):
    return load_images(home / "set", name="tiny-set")


@pytest.fixture
def config(home):
    return TransferConfig(encoder=str(home / "tiny.safetensors"))


def test_features_are_those_of_the_encoder_in_the_order_of_the_rows(benchmark):
    rows = benchmark.rows("train").take(np.random.default_rng(0).permutation(40))
    encoder, frame = build_encoder(small.TINY, seed=1), Frame(extent_px=32)
    told = []
    made = embed_rows(encoder, rows, frame, progress=lambda done, total: told.append((done, total)))
    np.testing.assert_allclose(made, features_of(encoder, read_pixels(rows, frame), CPU), rtol=1e-5, atol=1e-6)
    assert told[-1] == (40, 40)


@pytest.mark.parametrize("protocol", [KnnSettings(k=5), ProbeSettings(), SvmSettings()])
def test_every_protocol_learns_the_set_and_predicts_opened_rows(home, benchmark, config, protocol, tmp_path):
    own = replace(config, encoder="colour", protocol=protocol)
    fitted = fit(own, benchmark, features_root=home / "kept", device=CPU)
    assert score(fitted.val)["accuracy"] >= 0.9
    rows = open_test(benchmark, "colour", "test", ledger=tmp_path / "ledger")
    predictions = fitted.predict(rows)
    assert predictions.sample == tuple(rows["sample"].to_pylist())
    assert score(predictions)["accuracy"] >= 0.9
    assert fitted.how.startswith({"knn": "k-NN, k=5", "probe": "probe, C=", "svm": "SVM, C="}[protocol.kind])


def test_protocols_and_splits_share_features_and_batch_norm_has_its_own(home, benchmark, config, monkeypatch, tmp_path):
    computed, own = [], frozen.embed_rows

    def counted(encoder, rows, *args, **kwargs):
        computed.append(len(rows))
        return own(encoder, rows, *args, **kwargs)

    monkeypatch.setattr(frozen, "embed_rows", counted)
    for protocol in (KnnSettings(), ProbeSettings()):
        fit(replace(config, protocol=protocol), benchmark, features_root=tmp_path, device=CPU)
    assert computed == [60]  # train and val in one pass
    other_split = load_images(home / "set", name="other", ignore_split=True)
    fit(replace(config, protocol=KnnSettings()), other_split, features_root=tmp_path, device=CPU)
    assert 0 < sum(computed[1:]) <= 20  # only what was in the first split's test
    before = len(computed)
    recalibrated = replace(config, encoder=f"random_bn:{config.encoder}", protocol=KnnSettings())
    fit(recalibrated, benchmark, features_root=tmp_path, device=CPU)
    assert computed[before:] == [60]


def test_an_encoder_is_opened_once_to_be_fed_and_to_be_embedded(benchmark, config, monkeypatch, tmp_path):
    opened, own = [], fitting.open_encoder

    def counted(source, *, seed):
        opened.append(source)
        return own(source, seed=seed)

    for module in (fitting, transfer):
        monkeypatch.setattr(module, "open_encoder", counted)
    fit(replace(config, protocol=KnnSettings()), benchmark, features_root=tmp_path, device=CPU)
    assert opened == [config.encoder]


def test_random_with_recalibrated_batch_norm_is_random_with_other_statistics(benchmark, config):
    embedders = {}
    for kind in ("random", "random_bn"):
        own = replace(config, encoder=f"{kind}:{config.encoder}", protocol=KnnSettings())
        embedders[kind] = embedder_of(own, benchmark, feeding(own, benchmark), None)
    one, other = (embedders[kind].encoder.state_dict() for kind in ("random", "random_bn"))
    changed = {name for name in one if not torch.equal(one[name], other[name])}
    assert {name.rpartition(".")[2] for name in changed} <= {"running_mean", "running_var", "num_batches_tracked"}
    assert {name for name in one if name.endswith("running_mean")} <= changed
    assert embedders["random"].identity != embedders["random_bn"].identity


@pytest.mark.parametrize("protocol", [KnnSettings(k=5), ProbeSettings()])
def test_an_encoder_that_has_diverged_is_refused_in_one_line(benchmark, config, protocol, tmp_path):
    broken = build_encoder(small.TINY, seed=0)
    next(broken.parameters()).data.fill_(float("nan"))
    save_encoder(broken, tmp_path / "broken.safetensors")
    own = replace(config, encoder=str(tmp_path / "broken.safetensors"), protocol=protocol)
    with pytest.raises(
        BadInput, match="features of 60 of 60 samples are not finite, first .*: the encoder has diverged"
    ):
        fit(own, benchmark, features_root=tmp_path, device=CPU)


def test_the_file_alone_tells_classes_apart_that_were_saved_differently(tmp_path, config):
    for seed, split in enumerate(("train", "val", "test")):
        for label, quality in (("coarse", 20), ("fine", 95)):
            (tmp_path / split / label).mkdir(parents=True)
            for number, image in enumerate(small.samples(12, seed=seed).images):
                Image.fromarray(image).save(tmp_path / split / label / f"{number}.jpg", quality=quality)
    benchmark = load_images(tmp_path, name="jpegs")
    own = replace(config, encoder="file", protocol=ProbeSettings())
    fitted = fit(own, benchmark, features_root=None, device=CPU)
    assert score(fitted.val)["accuracy"] == 1


def test_the_svm_chooses_c_with_copies_of_an_image_on_one_side(tmp_path, config, monkeypatch):
    for seed, split in enumerate(("train", "val", "test")):
        for label, shade in (("dark", 60), ("light", 180)):
            (tmp_path / split / label).mkdir(parents=True)
            for number in range(12):
                image = np.full((32, 32, 3), shade + number // 2 + 10 * seed, np.uint8)  # each written twice
                Image.fromarray(image).save(tmp_path / split / label / f"{number:02}.png")
    seen, own = [], frozen.fit_svm

    def spied(train, *args, **kwargs):
        seen.append(train)
        return own(train, *args, **kwargs)

    monkeypatch.setattr(frozen, "fit_svm", spied)
    fit(
        replace(config, encoder="colour", protocol=SvmSettings(num_folds=3)),
        load_images(tmp_path, name="copies"),
        features_root=None,
        device=CPU,
    )
    chosen, refitted = seen
    assert (len(set(chosen.groups)), len(set(refitted.groups))) == (12, 24)
    assert list(chosen.names) == sorted(chosen.names)
    assert (chosen.groups[::2] == chosen.groups[1::2]).all()
