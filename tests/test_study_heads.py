"""A study of joint training: one multi-task run on all sets, each of them tested by the head that the run has for it."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from raypath.benchmarks import load_images
from raypath.data.images import Frame, read_pixels
from raypath.models import load_encoder
from raypath.protocols.own_head import own_head
from raypath.study.published.from_study import RESULTS
from raypath.study.published.results import read_results
from raypath.study.results import load_results
from tests.test_study import NAMES, TINY, finished, started, toml, write_set

SPLITS = {
    6: "val",
    7: "val",
    8: "test",
    9: "test",
    10: "test",
    11: "test",
}  # by number of the patient; all others are train


@pytest.fixture(scope="module")
def sets(tmp_path_factory) -> Path:
    """Three sets that bring their division by patient."""
    home = tmp_path_factory.mktemp("sets")
    for number, name in enumerate(NAMES):
        write_set(home / name, number)
        place = home / name / "manifest.csv"
        head, *lines = place.read_text().splitlines()
        divided = [f"{line},{SPLITS.get(int(line.rsplit('p', 1)[1]), 'train')}" for line in lines]
        place.write_text("\n".join([f"{head},split", *divided]) + "\n")
    return home


def text_of(sets: Path, **encoder) -> str:
    pool = ",".join(str(sets / name) for name in NAMES)
    joint = {"name": "joint", "recipe": "multitask_small", "settings": [*TINY, f"pool={pool}"]}
    transfer = ["extent_px=32", "evaluation=given", "max_near_duplicate_samples=0"]
    encoders = [joint | encoder, {"name": "colour", "source": "colour"}]
    text = toml(sets, encoders, names=NAMES[:2], transfer=transfer, protocols=["head"], waive=["near_duplicate"])
    return text.replace("?val=0.2", "")


@pytest.mark.ray
def test_joint_training_is_scored_by_its_own_heads(sets, tmp_path):
    place = tmp_path / "joint.toml"
    place.write_text(text_of(sets))
    finished(place, tmp_path / "runs")
    results = load_results(tmp_path / "runs" / "studies" / "joint")
    assert results.failures == {}
    assert len(list((tmp_path / "runs" / "pretrainings").glob("*.json"))) == 1  # for all sets
    for name in NAMES[:2]:
        place = results.place("joint", name, "head")
        benchmark = load_images(sets / name, name=name)
        tested = benchmark.table.filter(np.array(benchmark.table["split"].to_pylist()) == "test")
        for one in place.scored:
            assert one.record["how"] == [f"its own head of {name}"]
            assert one.nulls == ()
            source = one.record["source"]
            images = torch.from_numpy(read_pixels(tested, Frame(extent_px=32)))
            with torch.no_grad():
                values = load_encoder(Path(source)).eval()(images).numpy()
            expected = own_head(source, name, benchmark.classes).probability(values)
            (said,) = one.said
            row_of = {sample: row for row, sample in enumerate(tested["sample"].to_pylist())}
            own = expected[[row_of[sample] for sample in said.sample]]
            np.testing.assert_allclose(said.probability, own, atol=1e-4)
        assert results.place("colour", name, "head").scored[0].record["config"]["protocol"]["kind"] == "probe"
    rows = read_results(results.folder / RESULTS)
    assert [(row.task, row.method, row.num_repeats) for row in rows] == [(name, "joint", 1) for name in NAMES[:2]]
    assert json.loads((results.folder / "failures.json").read_text()) == {}


@pytest.mark.ray
def test_an_encoder_that_leaves_the_task_out_is_refused_before_anything_is_trained(sets, tmp_path):
    place = tmp_path / "joint.toml"
    place.write_text(text_of(sets, leave_out=True))
    process = started(place, tmp_path / "runs", "--plan")
    assert process.wait(timeout=300) == 2
    assert (
        "joint by its own head on stripes: stripes is no task that it is trained on"
        in (tmp_path / "runs.log").read_text()
    )
    assert not (tmp_path / "runs" / "pretrainings").exists()
