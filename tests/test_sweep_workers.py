"""Sweeps of segmentation, and trials that several workers of Ray Train share, on real Tune."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from raypath.benchmarks.metrics.pixels import score_pixels
from raypath.errors import BadInput
from raypath.protocols import FinetuneSettings, SegmentSettings
from raypath.protocols.transfer import SweepSettings, TransferConfig
from raypath.sweep import check_sweep, sweep
from raypath.sweep.space import most_looks
from raypath.sweep.trial import KEPT
from tests.protocols import small
from tests.protocols.test_ranks import masked
from tests.test_sweep import DIVERGING, GOOD, USELESS, data, logged_sweep, steps_of, transfer

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def encoder(tmp_path_factory) -> Path:
    return small.write_encoder(tmp_path_factory.mktemp("encoder") / "tiny.safetensors")


@pytest.fixture(scope="module")
def shared(ray_instance, encoder, tmp_path_factory):
    """The learning rates of `test_sweep.swept` (what seed 2 draws), each trial on two workers."""
    home = tmp_path_factory.mktemp("shared")
    config = transfer(encoder, epochs=3, lrs=[GOOD, USELESS, DIVERGING], num_trials=3, workers_per_trial=2)
    return home, *logged_sweep(replace(config, seed=2), home)


@pytest.mark.ray
def test_trials_on_several_workers_end_as_they_should(shared):
    home, winner, tracker, children = shared
    by_lr = {float(run.data.params["protocol.lr"]): run for run in children.values()}
    assert {lr: run.info.status for lr, run in by_lr.items()} == {
        GOOD: "FINISHED",
        USELESS: "KILLED",
        DIVERGING: "FAILED",
    }
    assert steps_of(tracker, by_lr[GOOD]) == [1, 2, 3]
    assert steps_of(tracker, by_lr[USELESS])[-1] < 3
    assert "lower protocol.lr=1e+30" in by_lr[DIVERGING].data.tags["raypath.error"]
    assert (winner.params, winner.num_trials, winner.num_failed) == ({"protocol.lr": GOOD}, 3, 1)
    assert [path.name for path in winner.folder.parent.iterdir()] == [winner.folder.name]
    assert winner.folder.parents[1] == home / KEPT


@pytest.mark.ray
def test_what_several_workers_learnt_is_what_is_kept(shared, encoder):
    _, winner, _, _ = shared
    config = transfer(encoder, epochs=3, lrs=[GOOD])
    again = winner.predict(config, data()[1], CPU)
    np.testing.assert_allclose(again.probability, winner.val.probability, atol=1e-5)


@pytest.mark.ray
def test_a_segmentation_is_swept(ray_instance, encoder, tmp_path):
    protocol = SegmentSettings(
        crop_px=32, num_steps=24, batch=4, validate_every=12, head="unet", keep="last", jitter=0.0
    )
    settings = SweepSettings(search="grid", space={"protocol.lr": [USELESS, GOOD]}, cpus_per_trial=2.0)
    config = TransferConfig(encoder=str(encoder), protocol=protocol, sweep=settings)
    val = masked(3, seed=2)
    winner = sweep(config, masked(8, seed=1), val, metric="miou_macro", folder=tmp_path)
    assert winner.params == {"protocol.lr": GOOD}
    assert winner.place == "update 24 of 24"
    assert winner.val.sample == val.names
    again = winner.predict(config, val, CPU)
    np.testing.assert_array_equal(again.confusion, winner.val.confusion)
    assert score_pixels(again)["miou_macro"] > 0.6


def test_the_longest_trial_that_can_be_drawn_is_known_to_the_scheduler():
    def looks(space, **protocol):
        return most_looks(TransferConfig(protocol=FinetuneSettings(**protocol), sweep=SweepSettings(space=space)))

    assert looks({"protocol.lr": [1e-3]}, epochs=7) == 7
    assert looks({"protocol.epochs": [5, 30]}, epochs=7) == 30
    assert looks({"protocol.num_steps": [90, 400]}, num_steps=100, validate_every=50) == 8
    both = {"protocol.num_steps": [90, 400], "protocol.validate_every": [50, 20]}
    assert looks(both, num_steps=100, validate_every=50) == 20


@pytest.mark.parametrize(
    ("sweep_settings", "message"),
    [
        ({"workers_per_trial": 0}, r"sweep\.workers_per_trial=0: expected 1 or more"),
        (
            {"workers_per_trial": 4, "gpus_per_trial": 2.0},
            r"gpus_per_trial=2 with sweep\.workers_per_trial=4: expected one GPU",
        ),
    ],
)
def test_workers_that_cannot_share_a_trial_are_refused(sweep_settings, message):
    with pytest.raises(BadInput, match=message):
        check_sweep(TransferConfig(sweep=SweepSettings(**sweep_settings)))
    check_sweep(TransferConfig(sweep=SweepSettings(workers_per_trial=4, gpus_per_trial=4.0)))
