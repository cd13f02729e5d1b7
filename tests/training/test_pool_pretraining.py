"""Multi-task training under Ray Train on a pool of labelled images: two workers, a monitor, val rows, then a resume of its end."""

import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from raypath.data.views import ViewSettings
from raypath.errors import BadInput
from raypath.export_job import export
from raypath.import_job import import_encoder
from raypath.models import load_encoder
from raypath.objectives import MultitaskSettings
from raypath.protocols.encoders import monitors_of
from raypath.protocols.monitor import check_not_monitored, open_monitor
from raypath.run_folder import RunFolder
from raypath.training.checkpoint import newest_valid, verify
from raypath.training.health import HealthSettings
from raypath.training.loop import LoopSettings
from raypath.training.optim import OptimSettings
from raypath.training.pretrain import pretrain
from raypath.training.saving import read_best
from raypath.training.settings import MonitorSettings
from raypath.training.source import open_source
from raypath.training.validation import PoolValidation

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """Labelled sets whose classes differ in brightness; train and val folders of 12 and 6 images a class."""
    root, generator = tmp_path_factory.mktemp("sets"), np.random.default_rng(0)
    for name, classes in (("cells", 3), ("stroma", 2), ("watched", 2)):
        for split, num in (("train", 12), ("val", 6), ("test", 6)):
            for label in range(classes):
                folder = root / name / split / f"class{label}"
                folder.mkdir(parents=True)
                for number in range(num):
                    pixels = generator.integers(0, 60, (32, 32, 3)) + label * 80
                    Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number}.png")
    return root


@pytest.fixture(scope="module")
def pool_config(config, sets):
    return replace(
        config,
        name="pool",
        index="",
        pool=f"{sets / 'cells'},{sets / 'stroma'}",
        objective=MultitaskSettings(tau=2.0, conflict_every=2),
        views=ViewSettings(extent_px=32, num_views=1, min_scale=1.0, jitter_p=0.0, gray_p=0.0, blur_p=0.0),
        adapt_batch_norm=2,
        validate_every=4,
        health=HealthSettings(every=4, grace=4),
        monitor=MonitorSettings(path=str(sets / "watched"), every=4),
        loop=LoopSettings(num_steps=12, global_batch=24, checkpoint_every=6),
        optim=OptimSettings(name="adamw", lr=5e-3, has_cosine=False),
    )


@pytest.fixture(scope="module")
def finished(pool_config, ray_instance, tmp_path_factory):
    run = RunFolder.create(tmp_path_factory.mktemp("pool"), "pool", pool_config)
    monitor = open_monitor(pool_config.monitor, pool_config.encoder.input_px)
    run.write("run.json", {"monitors": [monitor.declared]})
    pretrain(pool_config, run, monitor)
    return run


def test_it_learns_its_tasks_and_logs_what_it_saw(pool_config, finished):
    lines = [json.loads(line)["metrics"] for line in finished.metrics.read_text().splitlines()]
    assert len(lines) == 12
    assert {"loss", "num_inactive_heads", "has_inactive_heads", "task_accuracy/0", "conflict/mean_cosine"} <= lines[
        0
    ].keys()
    looks = [number for number, line in enumerate(lines, start=1) if "val/mean" in line]
    assert looks == [1, 4, 8, 12]  # before the first step stands with it
    assert {"val/cells", "val/stroma", "monitor/knn", "monitor/colour", "health/rankme"} <= lines[3].keys()
    assert lines[-1]["val/mean"] > 0.7 > lines[0]["val/mean"]
    assert read_best(finished)["score"] == max(line["monitor/knn"] for line in lines if "monitor/knn" in line)


def test_every_image_is_accounted_for_and_the_checkpoint_says_what_it_is(pool_config, finished):
    manifest = verify(newest_valid(finished.checkpoints))
    source = open_source(pool_config)
    state = json.loads((newest_valid(finished.checkpoints) / "state.json").read_text())
    assert state["digest"] == source.plan.digest(0, 12 * 24)
    assert manifest["index_hash"] == source.rows.hash
    assert manifest["exported_copy"] == "encoder"
    assert manifest["classes"] == [["class0", "class1", "class2"], ["class0", "class1"]]


def test_the_watched_set_is_no_benchmark_for_this_encoder(finished, sets):
    from raypath.benchmarks import load_images

    encoder = newest_valid(finished.checkpoints) / "encoder.safetensors"
    (declared,) = monitors_of(str(finished.path))
    assert declared["name"] == "watched"
    assert monitors_of(str(encoder)) == monitors_of(str(finished.path / "best" / "encoder.safetensors")) == [declared]
    assert monitors_of("colour") == monitors_of(f"random:{finished.path}") == []
    with pytest.raises(BadInput, match="this set was watched while the encoder was pretrained"):
        check_not_monitored(declared, load_images(sets / "watched"))
    check_not_monitored(declared, load_images(sets / "cells"))


def test_the_watched_set_travels_with_an_export_and_an_import_of_it(finished, tmp_path):
    export(finished.path, tmp_path / "out")
    file = tmp_path / "out" / "model.safetensors"
    architecture = load_encoder(newest_valid(finished.checkpoints) / "encoder.safetensors").settings
    settings = {"architecture": architecture.architecture, "options": architecture.options}
    encoder, _, _ = import_encoder(file, tmp_path / "in", settings)
    declared = monitors_of(str(finished.path))
    assert monitors_of(str(file)) == monitors_of(str(encoder)) == declared
    assert len(declared) == 1
    assert "## Watched while training\n\n| | |\n|---|---|\n| watched |" in (tmp_path / "out" / "README.md").read_text()
    export(encoder, tmp_path / "out")  # and on, in the place of the first
    assert monitors_of(str(file)) == declared


def test_val_rows_are_those_of_the_same_tasks(pool_config):
    validation = PoolValidation.open(pool_config)
    assert validation.names == ("cells", "stroma")
    assert [images.shape for images in validation.images] == [(18, 32, 32, 3), (12, 32, 32, 3)]
    assert validation.labels[0].tolist() == [0] * 6 + [1] * 6 + [2] * 6


def test_another_pool_under_the_same_run_is_refused(pool_config, finished, sets, tmp_path):
    other = replace(pool_config, pool=f"{sets / 'cells'}", objective=MultitaskSettings())
    run = RunFolder.create(tmp_path, "run", other)
    run.write("run.json", finished.read("run.json"))
    with pytest.raises(BadInput, match="the index or pool holds other data than when the run was started"):
        pretrain(other, run)
