import json
import re
import shutil

import pytest

from raypath.errors import BadInput
from raypath.hashing import file_sha256
from raypath.study.seen import Seen, Training, seen_by
from tests.study.pretrained import write_index, write_run


@pytest.fixture
def slides(tmp_path):
    """Four files that stand for slides: two of train, one of test, one without a split."""
    rows = []
    for number, split in enumerate(("train", "train", "test", None)):
        path = tmp_path / f"slide{number}.svs"
        path.write_bytes(bytes([number]) * (number + 5))
        rows.append({"slide": path.stem, "path": str(path), "patient": f"p{number // 2}", "split": split, "site": "s"})
    return rows


@pytest.fixture
def index(tmp_path, slides):
    return write_index(tmp_path / "index", slides)


def write_pool(folder):
    folder.mkdir()
    for name in "abcd":
        (folder / f"{name}.png").write_bytes(name.encode())
    lines = ["a.png,x,train,pa", "b.png,y,train,", "c.png,x,val,pc", "d.png,y,test,pd"]
    (folder / "manifest.csv").write_text("\n".join(["path,label,split,patient", *lines]) + "\n")
    return folder


@pytest.mark.parametrize("source", ["colour", "file", "random:resnet18", "random_bn:runs/x", "imagenet:resnet18"])
def test_weights_that_never_saw_a_slide_have_seen_nothing(source):
    assert seen_by(source) == Seen()
    assert str(seen_by(source)) == "no slide and no labelled image of pathology"


def test_a_run_has_seen_the_slides_of_its_splits_and_those_without_one(tmp_path, index, slides):
    run = write_run(tmp_path / "runs", "ssl", index=index)
    (training,) = seen_by(str(run)).trainings
    assert [slide.slide for slide in training.slides] == ["slide0", "slide1", "slide3"]
    first = training.slides[0]
    assert (first.path, first.patient, first.site, first.split) == (slides[0]["path"], "p0", "s", "train")
    assert (first.sha256, first.size_bytes) == (file_sha256(slides[0]["path"]), 5)
    assert (training.uses_labels, training.unknown, training.name) == (False, "", run.name)
    assert str(training) == f"{run.name}: 3 slides of 2 patients (without labels)"
    both = write_run(tmp_path / "runs", "both", index=index, splits=("train", "test"))
    assert len(seen_by(str(both)).trainings[0].slides) == 4


def test_a_slide_without_tiles_was_not_seen_and_one_of_two_scales_counts_once(tmp_path, slides):
    empty = [slides[0] | {"cells": []}, slides[1]]
    indexes = [write_index(tmp_path / "fine", empty), write_index(tmp_path / "coarse", slides[1:2])]
    run = write_run(tmp_path / "runs", "ssl", index=indexes)
    assert [slide.slide for slide in seen_by(str(run)).trainings[0].slides] == ["slide1"]


def test_what_a_run_started_from_counts_and_its_labels_are_its_own(tmp_path, index):
    first = write_run(tmp_path / "runs", "ssl", index=index)
    start = first / "checkpoints" / "step-00000020" / "encoder.safetensors"
    second = write_run(tmp_path / "runs", "sup", kind="supervised", index=index, init=start, splits=("test",))
    for source in (
        second,
        second / "checkpoints" / "step-1" / "encoder.safetensors",
        second / "best" / "encoder.safetensors",
    ):
        newer, older = seen_by(str(source)).trainings
        assert (newer.name, newer.uses_labels) == (second.name, True)
        assert (older.name, older.uses_labels) == (first.name, False)
        assert [slide.slide for slide in newer.slides] == ["slide2", "slide3"]


def test_weights_of_imagenet_end_the_chain_and_others_are_unknown_until_declared(tmp_path, index, monkeypatch):
    weights = tmp_path / "weights"
    weights.mkdir()
    for name in ("resnet18.safetensors", "strange.safetensors"):
        (weights / name).write_bytes(b"w")
    monkeypatch.setenv("RAYPATH_WEIGHTS", str(weights))
    natural = write_run(tmp_path / "runs", "natural", index=index, init=weights / "resnet18.safetensors")
    config = json.loads((natural / "config.json").read_text())
    config["encoder"]["architecture"] = "resnet18"
    (natural / "config.json").write_text(json.dumps(config))
    assert [training.name for training in seen_by(str(natural)).trainings] == [natural.name]

    strange = write_run(tmp_path / "runs", "strange", index=index, init=weights / "strange.safetensors")
    own, foreign = seen_by(str(strange)).trainings
    assert not own.unknown
    assert foreign.unknown.startswith("trained elsewhere: declare the collections")
    declared = seen_by(str(strange), corpora=["TCGA"], uses_labels=True).trainings[1]
    assert declared == Training(name="strange.safetensors", uses_labels=True, corpora=("TCGA",))
    assert seen_by(f"vit_tiny@{weights / 'strange.safetensors'}").trainings[0].unknown
    assert not seen_by(str(weights / "strange.safetensors"), corpora=()).trainings[0].unknown


def test_what_cannot_be_looked_up_any_more_is_unknown_and_says_why(tmp_path, index, slides):
    run = write_run(tmp_path / "runs", "ssl", index=index)
    shutil.rmtree(index)
    assert "no finished index here" in seen_by(str(run)).trainings[0].unknown
    write_index(index, slides[:2])
    assert seen_by(str(run)).trainings[0].unknown == f"{index}: another index than the run was trained on"
    second = write_run(tmp_path / "runs", "next", index=index, init=run / "checkpoints" / "s" / "encoder.safetensors")
    shutil.rmtree(run)
    assert "its run or file is gone" in seen_by(str(second)).trainings[1].unknown


def test_a_pool_is_seen_in_its_splits_with_the_contents_of_its_files(tmp_path):
    pool = write_pool(tmp_path / "set")
    run = write_run(tmp_path / "runs", "multi", kind="multitask", pool=pool)
    (training,) = seen_by(str(run)).trainings
    assert training.uses_labels
    assert [(image.task, image.patient) for image in training.images] == [("set", "pa"), ("set", None)]
    assert [image.sha256 for image in training.images] == [file_sha256(pool / name) for name in ("a.png", "b.png")]
    (pool / "a.png").write_bytes(b"z")
    assert seen_by(str(run)).trainings[0].unknown == f"{pool}: other images than the run was trained on"
    shutil.rmtree(pool)
    assert seen_by(str(run)).trainings[0].unknown


def test_a_run_that_starts_from_itself_or_has_no_readable_config_is_one_clear_line(tmp_path, index):
    run = write_run(tmp_path / "runs", "ssl", index=index)
    config = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps(config | {"init": str(run / "checkpoints")}))
    with pytest.raises(BadInput, match="starts from itself"):
        seen_by(str(run))
    (run / "config.json").write_text('{"protocol": "probe"}')
    with pytest.raises(BadInput, match="no pretraining"):
        seen_by(str(run))
    (run / "config.json").write_text("{")
    with pytest.raises(BadInput, match=re.escape(f"{run / 'config.json'}: cannot be read")):
        seen_by(str(run))


def test_a_declaration_where_all_is_known_is_refused(tmp_path, index):
    run = write_run(tmp_path / "runs", "ssl", index=index)
    for source in (str(run), "colour"):
        with pytest.raises(BadInput, match="leave out corpora=TCGA"):
            seen_by(source, corpora=["TCGA"])
