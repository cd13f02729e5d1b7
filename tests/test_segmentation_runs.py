"""A segmentation from the command line's config to what is left behind."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pyarrow.compute as pc
import pytest
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1] / "experiments"))

import finetune as finetune_script
from transfers import LEDGER

from raypath.benchmarks.metrics.pixels import PixelPredictions, score_pixels
from raypath.benchmarks.published.glas import GlaSSettings
from raypath.config import config_hash, override
from raypath.errors import BadInput
from raypath.models import build_encoder, save_encoder
from raypath.protocols import FinetuneSettings, fit
from raypath.protocols.pixel_colour import PixelColourSettings
from raypath.protocols.segment import SegmentSettings
from raypath.protocols.transfer import TransferConfig, check_protocol, train_rows
from raypath.tracking import open_tracking
from tests.protocols import segmented, small

QUICK = SegmentSettings(crop_px=32, num_steps=32, batch=4, lr=1e-2, head="unet", jitter=0.0, validate_every=16)


@pytest.fixture(scope="module")
def benchmark(tmp_path_factory):
    return segmented.benchmark(tmp_path_factory.mktemp("blobs"))


@pytest.fixture
def config(tmp_path):
    return TransferConfig(encoder=str(small.write_encoder(tmp_path / "tiny.safetensors")), protocol=QUICK)


@pytest.fixture(autouse=True)
def one_thread():
    """The networks here are tiny, and threads that wait for each other on a busy machine are not."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("kind", ["segment", "pixel_colour"])
def test_a_run_leaves_scores_predictions_and_a_picture(kind, config, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("RAYPATH_RUNS", str(tmp_path / "runs"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(finetune_script.launch, "start_ray", lambda: None)  # nothing here needs it
    if kind == "pixel_colour":
        config = replace(config, encoder="colour", protocol=PixelColourSettings())
    glas = GlaSSettings(path=str(segmented.write_glas(tmp_path / "glas")))
    config = replace(config, benchmark=glas, evaluation="given")
    finetune_script.run_transfer(config, opens_test=True)
    said, benchmark = capsys.readouterr().out, config.benchmark.load(config.seed)
    (folder,) = (tmp_path / "runs").glob(f"{kind}-glas-*")
    tracker = open_tracking(f"sqlite:///{tmp_path / 'runs' / 'mlflow.db'}", "raypath")
    (mlflow_run,) = tracker.client.search_runs([tracker.experiment_id])
    assert mlflow_run.info.status == "FINISHED"
    pictures = tracker.client.list_artifacts(mlflow_run.info.run_id, "pictures")
    assert "pictures/val.png" in [picture.path for picture in pictures]
    with Image.open(folder / "val.png") as image:
        assert min(image.size) > 400
    for split in ("val", "test"):
        predictions = PixelPredictions.load(folder / f"{split}.parquet")
        scores = score_pixels(predictions)
        rows = benchmark.table.filter(pc.equal(benchmark.table["split"], split))
        assert sorted(predictions.sample) == rows["sample"].to_pylist()
        assert mlflow_run.data.metrics[f"{split}_miou_macro"] == scores["miou_macro"] > 0.5  # of one class: 0.35
        assert f"{split}: miou_macro {scores['miou_macro']:.3f}  (4 samples)" in said
        assert [image.num_true for image in predictions.objects] == [1] * 4
        assert mlflow_run.data.metrics[f"{split}_object_f1"] == scores["object_f1"] > 0
        assert mlflow_run.data.metrics[f"{split}_object_dice"] == scores["object_dice"] > 0
        assert f"{split}: object F1 {scores['object_f1']:.3f}, object Dice {scores['object_dice']:.3f}" in said
    opening = json.loads((tmp_path / "runs" / LEDGER).read_text())
    assert opening["data_hash"] == benchmark.data_hash


def test_protocol_and_benchmark_must_go_together(benchmark, config):
    labelled = SimpleNamespace(kind="classification", name="labelled")
    check_protocol(config, benchmark)
    check_protocol(replace(config, protocol=FinetuneSettings()), labelled)
    for wrong, other, message in (
        (replace(config, protocol=FinetuneSettings()), benchmark, "blobs is a segmentation; set protocol.kind=segment"),
        (config, labelled, "labelled is a classification; set protocol.kind=finetune"),
        (replace(config, protocol=PixelColourSettings()), benchmark, "set encoder=colour"),
        (replace(config, encoder="colour"), benchmark, "set protocol.kind=pixel_colour"),
        (replace(config, extent_px=64), benchmark, "extent_px=64.*in crops of protocol.crop_px"),
        (replace(config, batch_norm="adapt"), benchmark, "batch_norm=adapt"),
    ):
        with pytest.raises(BadInput, match=message):
            check_protocol(wrong, other)


def test_what_an_encoder_is_fed_with_is_said_and_the_same_scale_gives_the_same_scores(benchmark, tmp_path):
    """The blobs have 0.5 um per px."""
    quick = replace(QUICK, num_steps=2, validate_every=2)

    def fitted(scale, **options):
        path = tmp_path / f"{options}.safetensors"
        save_encoder(build_encoder(replace(small.TINY, **options), seed=0), path)
        config = TransferConfig(encoder=str(path), protocol=quick, scale=scale)
        return fit(config, benchmark, features_root=None, device=torch.device("cpu"))

    native = fitted("native", mpp=1.0)
    assert native.feeding.tags == {"raypath.um_per_px": "0.5", "raypath.scale_mismatch": "2.00"}
    inside = fitted("match_mpp", mpp=0.25, mpp_max=0.5)
    assert inside.feeding.tags == {"raypath.um_per_px": "0.5"}
    for same in (fitted("resize", mpp=1.0), inside):
        assert (same.val.confusion == native.val.confusion).all()
    coarse = fitted("match_mpp", mpp=1.0)
    assert coarse.feeding.tags == {"raypath.um_per_px": "1"}
    assert (coarse.val.confusion != native.val.confusion).any()
    told = coarse.predict(benchmark.rows("val"))
    assert (told.confusion == coarse.val.confusion).all()
    assert told.confusion.sum((1, 2)).tolist() == [64 * 80] * 4
    assert [image.shape for _, image, _, _ in coarse.looks(1)] == [(32, 40, 3)]
    with pytest.raises(BadInput, match=r"smallest is 16 px.*scale=native"):
        fitted("match_mpp", mpp=2.0)
    with pytest.raises(BadInput, match="scale=match_mpp: um per px of the encoder is not known"):
        fitted("match_mpp")


def test_a_label_budget_holds_for_images_too(benchmark, config):
    assert len(train_rows(replace(config, per_class_train=4), benchmark)) == 4
    assert len(train_rows(config, benchmark)) == 12


def test_its_settings_come_from_the_command_line_and_enter_the_hash():
    config = override(TransferConfig(), ["protocol.kind=segment", "protocol.head=upernet", "protocol.crop_px=512"])
    assert config.protocol == SegmentSettings(head="upernet", crop_px=512)
    assert config_hash(config) != config_hash(override(config, ["protocol.head=fcn"]))
    with pytest.raises(BadInput, match="protocol.head"):
        override(config, ["protocol.head=pspnet"])
