"""Words for a benchmark and a protocol: what is recognised, what is refused, and which protocol a segmentation gets."""

import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1] / "experiments"))

import finetune
import launch
import sweep
from recipes.transfers import TRANSFERS
from transfer_words import DEFAULT, KIND_NAMES, SEGMENTATION_DEFAULT, asked_for

from raypath.benchmarks import ImagesSettings
from raypath.benchmarks.masks import MasksSettings
from raypath.benchmarks.published.glas import GlaSSettings
from raypath.config import override
from raypath.errors import BadInput
from raypath.protocols.segment import SegmentSettings
from tests.benchmarks.published import test_glas
from tests.benchmarks.test_masks_benchmark import write_pairs
from tests.protocols import segmented, small


@pytest.fixture
def home(tmp_path, monkeypatch):
    """`glas/`: the published set in small; `cells/`: two class folders; `blobs/`: images with masks. The place one is in."""
    (tmp_path / "glas").mkdir()
    test_glas.write(tmp_path / "glas")
    for label in ("normal", "tumor"):
        (tmp_path / "cells" / label).mkdir(parents=True)
        for number in range(5):
            Image.new("RGB", (6, 3), (number, len(label), 0)).save(tmp_path / "cells" / label / f"{number}.png")
    write_pairs(tmp_path / "blobs", [f"{number}" for number in range(10)])
    monkeypatch.chdir(tmp_path)
    return tmp_path


def asked(*arguments: str):
    return asked_for(list(arguments)).config("finetune")


def test_no_name_may_mean_two_things():
    assert not set(TRANSFERS) & set(KIND_NAMES)
    assert len(set(KIND_NAMES)) == len(KIND_NAMES)


def test_a_folder_is_the_set_that_is_recognised_in_it_and_a_line_says_so(home, capsys):
    assert asked("./glas", "benchmark.target=grade").benchmark == GlaSSettings(path="./glas", target="grade")
    assert capsys.readouterr().out == "glas is GlaS (Warwick-QU): benchmark.kind=glas\n"
    assert asked("cells").benchmark == ImagesSettings(path="cells")
    assert capsys.readouterr().out == "cells is a set of labelled images: benchmark.kind=images\n"
    assert asked("blobs/").benchmark == MasksSettings(path="blobs/")
    assert capsys.readouterr().out == "blobs is a set of images with masks: benchmark.kind=masks\n"
    assert asked("./glas").benchmark.load(0).name == "glas"


def test_a_manifest_is_a_benchmark_too_and_its_columns_say_of_what(home):
    lines = [f"images/{number}.jpg,masks/{number}.png" for number in range(10)]
    (home / "blobs" / "mine.csv").write_text("\n".join(["image,mask", *lines]) + "\n")
    config = asked("blobs/mine.csv")
    assert config.benchmark == MasksSettings(path="blobs/mine.csv")
    assert len(config.benchmark.load(0).table) == 10
    (home / "blobs" / "mine.csv").write_text("\n".join(["image,mask,label", *(f"{one},a" for one in lines)]) + "\n")
    assert asked("blobs/mine.csv").benchmark == ImagesSettings(path="blobs/mine.csv")


def test_a_path_is_text_even_if_it_reads_as_a_number(home):
    (home / "cells").rename(home / "2024")
    assert asked("2024").benchmark == ImagesSettings(path="2024")


def test_a_benchmark_and_a_protocol_in_either_order(home):
    wanted = override(TRANSFERS["mormont_svm"](), ["benchmark.path=cells", "protocol.num_folds=3"])
    assert asked("cells", "mormont_svm", "protocol.num_folds=3") == wanted
    assert asked("mormont_svm", "protocol.num_folds=3", "cells") == wanted
    assert asked("mormont_svm", "protocol.num_folds=3", "benchmark.path=cells") == wanted
    assert asked("seed=3") == override(TRANSFERS["finetune"](), ["seed=3"])


def test_a_kind_goes_by_its_name_unless_it_is_a_folder_here(home, capsys):
    assert asked("glas", "benchmark.path=../x/glas").benchmark == GlaSSettings(path="../x/glas")
    assert asked("masks", "probe").benchmark == MasksSettings()
    assert capsys.readouterr().out == ""
    assert asked("glas").benchmark == GlaSSettings(path="glas")
    (home / "glas").rename(home / "monuseg")
    with pytest.raises(BadInput, match=r"benchmark\.path: where is the set"):
        asked("glas").benchmark.load(0)
    assert asked("monuseg").benchmark == GlaSSettings(path="monuseg")  # what it is, not how it is called
    (home / "probe").mkdir()
    assert asked("probe", "./probe").benchmark == ImagesSettings(path="./probe")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["glas", "benchmark.kind=pcam"], r"glas: is GlaS \(Warwick-QU\) \(benchmark.kind=glas\), but benchmark.kind=pcam"),
        (["pcam", "benchmark.kind=glas"], "pcam: a kind of benchmark, but benchmark.kind=glas says another"),
        (["cells", "benchmark.path=blobs"], "cells: a benchmark, but benchmark.path=blobs says another"),
        (["probe", "protocol.kind=knn"], "probe: a protocol, but protocol.kind=knn says another"),
        (["cells", "blobs"], "cells, blobs: expected one benchmark"),
        (["probe", "cells", "knn"], r"probe, knn: expected one protocol; a folder of that name is written \./probe"),
        (["mormont_smv", "cells"], r"mormont_smv: there is no such .*; did you mean the protocol mormont_svm\?"),
        (["monusek"], r"monusek: .*did you mean the kind of benchmark monuseg\?"),
        (["./cels"], r"\./cels: .*did you mean cells\?"),
        (["../nowhere/xyz"], r"xyz: there is no such .*; Kinds: images, .*glas.*; --list prints the protocols"),
        (["."], r"\.: holds several sets: glas; name one of them, e\.g\. glas"),
        (["cells", "protocol.head=unet"], r"no setting 'head' here.* \(no protocol is named: this is finetune\)"),
    ],
)  # fmt: skip
def test_a_word_that_says_nothing_or_otherwise_is_refused(arguments, message, home):
    with pytest.raises(BadInput, match=message) as caught:
        asked(*arguments)
    assert "\n" not in str(caught.value)


def test_settings_that_agree_with_the_word_are_no_contradiction(home):
    wanted = GlaSSettings(path="glas")
    assert asked("glas", "benchmark.kind=glas", f"benchmark.path={home}/glas").benchmark == GlaSSettings(
        path=f"{home}/glas"
    )
    assert asked("glas", "benchmark.kind=glas").benchmark == wanted
    assert asked("cells", "benchmark.kind=masks").benchmark == MasksSettings(
        path="cells"
    )  # one's own set is what one says


def test_where_several_sets_are_recognised_the_kind_decides(home):
    (home / "glas" / "train.csv").touch()
    (home / "glas" / "train_label_masks").mkdir()
    with pytest.raises(BadInput, match=r"may be GlaS .*\(benchmark.kind=glas\) or .*\(benchmark.kind=segpanda200\)"):
        asked("./glas")
    assert asked("./glas", "benchmark.kind=glas").benchmark == GlaSSettings(path="./glas")


def test_a_segmentation_gets_its_protocol_only_where_none_is_named(home, capsys):
    dense, labelled = (SimpleNamespace(name="set", kind=kind) for kind in ("segmentation", "classification"))
    left_open = asked_for(["cells", "protocol.num_steps=7", "seed=2"])
    config = left_open.config("finetune")
    capsys.readouterr()
    assert left_open.suited(config, labelled) == config
    assert capsys.readouterr().out == ""
    suited = left_open.suited(replace(config, encoder="/absolute/x.safetensors"), dense)
    assert (suited.name, suited.protocol, suited.seed) == ("segment", SegmentSettings(num_steps=7), 2)
    assert suited.encoder == "/absolute/x.safetensors"
    assert suited.benchmark == config.benchmark
    assert capsys.readouterr().out == "set is a segmentation: protocol.kind=segment\n"
    for named in (["finetune"], ["protocol.kind=finetune"], ["knn"]):
        one = asked_for(["cells", *named])
        assert one.suited(one.config("finetune"), dense).protocol.kind in (*named, "finetune")


def test_settings_of_a_segmentation_wait_for_the_benchmark_to_be_one():
    dense, labelled = (SimpleNamespace(name="set", kind=kind) for kind in ("segmentation", "classification"))
    left_open = asked_for(["protocol.crop_px=64"])
    config = left_open.config(DEFAULT, SEGMENTATION_DEFAULT)
    assert left_open.suited(config, dense).protocol == SegmentSettings(crop_px=64)
    with pytest.raises(BadInput, match=r"'crop_px' here.*this is finetune"):
        left_open.suited(config, labelled)
    with pytest.raises(BadInput, match="'epoch' here; did you mean 'epochs'"):
        asked_for(["protocol.epoch=3"]).config(DEFAULT, SEGMENTATION_DEFAULT)


def test_glands_are_segmented_from_a_word_and_an_encoder_alone(tmp_path, monkeypatch, capsys):
    segmented.write_glas(tmp_path / "glands")
    small.write_encoder(tmp_path / "tiny.safetensors")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RAYPATH_RUNS", str(tmp_path / "runs"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(launch, "start_ray", lambda: None)  # nothing here needs it
    options = [
        "--encoder",
        "tiny.safetensors",
        "--protocol.num_steps",
        "2",
        "--protocol.batch=2",
        "--protocol.crop_px=64",
    ]
    monkeypatch.setattr(sys, "argv", ["finetune.py", "glands", *options])
    launch.run(finetune.main)
    said = capsys.readouterr().out
    assert said.startswith(
        "glands is GlaS (Warwick-QU): benchmark.kind=glas\nglas is a segmentation: protocol.kind=segment\n"
    )
    (folder,) = (tmp_path / "runs").glob("segment-glas-*")
    config = json.loads((folder / "config.json").read_text())
    assert (config["protocol"]["kind"], config["protocol"]["num_steps"]) == ("segment", 2)
    with pytest.raises(BadInput, match=r"protocol.kind=finetune: glas is a segmentation; set protocol.kind=segment"):
        finetune.main(["glands", "encoder=tiny.safetensors", "finetune"])


def test_a_sweep_of_a_segmentation_is_one_of_segment_for_the_encoders_that_were_named(tmp_path, monkeypatch):
    segmented.write_glas(tmp_path / "glands")
    small.write_encoder(tmp_path / "tiny.safetensors")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RAYPATH_RUNS", str(tmp_path / "runs"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(launch, "start_ray", lambda: None)  # nothing here needs it
    compared = []

    def compare(config, sources, benchmark, *_, **__):
        compared.append(
            (config.protocol.kind, config.protocol.crop_px, config.encoder.split(","), sources, benchmark.name)
        )
        raise BadInput("enough")

    monkeypatch.setattr(sweep, "compare", compare)
    with pytest.raises(BadInput, match="enough"):
        sweep.main(["glands", "encoder=tiny.safetensors,random", "protocol.crop_px=64"])
    tiny = str(tmp_path / "tiny.safetensors")
    assert compared == [("segment", 64, [tiny, f"random:{tiny}"], [tiny, f"random:{tiny}"], "glas")]


@pytest.mark.parametrize("script", [sweep, finetune])
def test_both_scripts_refuse_a_wrong_word_before_ray_starts(script, home, monkeypatch):
    monkeypatch.setattr(launch, "start_ray", lambda: pytest.fail("Ray was started"))
    with pytest.raises(BadInput, match="did you mean cells"):
        script.main(["celsl", "encoder=x.safetensors"])


REAL = Path(os.environ.get("RAYPATH_REAL_DATA", Path(__file__).parents[2] / "shared" / "data"))


@pytest.mark.real
@pytest.mark.skipif(not (REAL / "masks").is_dir(), reason="no real data: set RAYPATH_REAL_DATA")
@pytest.mark.parametrize(
    ("name", "kind"), [("labelled/idc", "images"), ("labelled/wbc_jtsc", "images"), ("masks/glas", "masks")]
)
def test_real_sets_are_what_they_are(name, kind):
    assert asked(str(REAL / name)).benchmark.kind == kind
