"""Near-duplicates that only features give away: kept in one fold, an error across a given split, seen on a pretraining's slides."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1] / "experiments"))

from study_benchmarks import divided, load_benchmarks
from study_copies import TAG, look_by_features, tiles_of

from raypath.config import override
from raypath.data.images import Frame, read_pixels
from raypath.errors import BadInput
from raypath.models import EncoderSettings, build_encoder
from raypath.models.weights import save_encoder
from raypath.study.settings import BenchmarkEntry, EncoderEntry, StudyConfig
from tests.study.test_feature_near_duplicates import texture

ORIGINAL, COPY = "a/03.png", "a/copy.png"


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    place = tmp_path_factory.mktemp("weights") / "some.safetensors"
    save_encoder(build_encoder(EncoderSettings(architecture="resnet10t", input_px=64), seed=0), place)
    return place


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """48 textures of two classes; one has a copy that is turned and faded into another: too faint for the rings alone."""
    monkeypatch.setenv("RAYPATH_RUNS", str(tmp_path / "runs"))
    for number in range(48):
        home = tmp_path / "set" / "ab"[number % 2 if number != 3 else 0]
        home.mkdir(parents=True, exist_ok=True)
        (tinted(texture(3)) if number == 3 else texture(number)).save(home / f"{number:02}.png")
    turned = texture(3).transpose(Image.Transpose.ROTATE_90)
    tinted(Image.blend(texture(77), turned, 0.38)).save(tmp_path / "set" / COPY)
    return tmp_path / "set"


def tinted(picture: Image.Image) -> Image.Image:
    """A colour of its own, which any encoder sees."""
    return Image.fromarray(np.uint8(np.asarray(picture) * np.array([1, 0.5, 0.5])))


def study(folder: Path, weights: Path | None, *settings: str, **how) -> StudyConfig:
    source = [EncoderEntry(name="some", source=str(weights))] if weights else []
    encoders = (*source, *how.pop("encoders", ()), EncoderEntry(name="colour", source="colour"))
    benchmark = BenchmarkEntry(path=str(folder), settings=how.pop("benchmark", ()))
    config = StudyConfig(encoders=encoders, benchmarks=(benchmark,), transfer=("num_folds=4", *settings), **how)
    return override(config, [])


def test_a_pair_that_features_and_pixels_find_is_kept_in_one_fold(folder, weights, ray_instance, tmp_path):
    config = study(folder, weights)
    (before,) = load_benchmarks(config)
    assert before.together == ()  # to the rings alone they are strangers
    (after,) = look_by_features(config, [before], 64, tmp_path)
    assert after.by_features == ((ORIGINAL, COPY),)
    assert divided(after, after.by_features) == []
    assert after.found[TAG] == "1 pairs, 1 of them not kept together by the search before, kept together now"
    assert after.folds_hash != before.folds_hash  # other folds: other cells
    (line,) = json.loads((tmp_path / "copies.json").read_text())
    assert line["listed"][0].startswith(f"{ORIGINAL} and {COPY}, correlation 0.4")


def test_no_pair_that_was_found_is_divided_by_the_folds_that_are_drawn_anew(folder, weights, ray_instance, tmp_path):
    for number, colour in zip((5, 7, 9, 11, 13, 15, 17), np.random.default_rng(0).dirichlet((0.3, 0.3, 0.3), 7)):
        own = texture(number)
        faded = Image.blend(texture(100 + number), own.transpose(Image.Transpose.ROTATE_90), 0.38)
        for name, picture in ((f"{number:02}", own), (f"{number:02}-copy", faded)):
            Image.fromarray(np.uint8(np.asarray(picture) * colour / colour.max())).save(folder / "b" / f"{name}.png")
    config = study(folder, weights)
    (one,) = look_by_features(config, load_benchmarks(config), 64, tmp_path)
    assert len(one.by_features) > 4
    assert divided(one, one.by_features) == []


def test_the_folds_stay_when_the_study_gets_another_encoder_first(folder, weights, ray_instance, tmp_path):
    config = study(folder, weights)
    (before,) = look_by_features(config, load_benchmarks(config), 64, tmp_path)
    other = tmp_path / "other.safetensors"
    save_encoder(build_encoder(EncoderSettings(architecture="resnet10t", input_px=64), seed=1), other)
    grown = study(folder, other, encoders=(EncoderEntry(name="first", source=str(weights)),))
    (after,) = look_by_features(grown, load_benchmarks(grown), 64, tmp_path)
    assert after.folds_hash == before.folds_hash
    (line,) = json.loads((tmp_path / "copies.json").read_text())
    assert line["encoder"] == str(weights)


def test_across_a_given_split_it_is_an_error_unless_it_is_waived(folder, weights, ray_instance, tmp_path):
    names = sorted(str(path.relative_to(folder)) for path in folder.rglob("*.png"))
    split = {name: ("train", "val", "test")[number // 2 % 3] for number, name in enumerate(names)}
    split |= {ORIGINAL: "train", COPY: "test"}
    lines = ["path,label,split", *(f"{name},{name[0]},{split[name]}" for name in names)]
    (folder / "manifest.csv").write_text("\n".join(lines) + "\n")
    config = study(folder / "manifest.csv", weights, "evaluation=given")
    with pytest.raises(
        BadInput, match=rf"1 pairs of near-duplicates by features .* {ORIGINAL} and {COPY}, .*split\.waive"
    ):
        look_by_features(config, load_benchmarks(config), 64, tmp_path)
    waived = study(folder / "manifest.csv", weights, "evaluation=given", benchmark=('split.waive=["near_duplicate"]',))
    (one,) = look_by_features(waived, load_benchmarks(waived), 64, tmp_path)
    assert one.found[TAG].endswith("waived")
    assert one.benchmark.waived == ("near_duplicate",)
    as_messages_write_it = ('benchmark.split.waive=["near_duplicate"]',)
    again = study(folder / "manifest.csv", weights, "evaluation=given", benchmark=as_messages_write_it)
    assert load_benchmarks(again)[0].benchmark.data_hash == one.benchmark.data_hash


def test_without_weights_before_pretraining_nothing_is_searched_and_it_is_said(folder, tmp_path):
    config = study(folder, None)
    (one,) = look_by_features(config, load_benchmarks(config), 64, tmp_path)
    assert one.found[TAG].startswith("not searched: no encoder of the study has weights")


def test_samples_that_tiles_of_pretraining_slides_show_are_found_and_no_others(
    folder, weights, phantom_index, ray_instance, tmp_path
):
    tiles = tiles_of(phantom_index, 5)
    assert len(tiles) == 5
    for number, pixels in enumerate(read_pixels(tiles, Frame(extent_px=64))):
        Image.fromarray(pixels).save(folder / "b" / f"cut-{number}.png")
    index = str(phantom_index.folder)
    recipe = EncoderEntry(name="ours", recipe="simclr_small", settings=(f"index={index}",))
    config = study(folder, weights, encoders=(recipe,))
    (one,) = look_by_features(config, load_benchmarks(config), 64, tmp_path)
    shown = {tile.sample: tile.slide for tile in one.seen_tiles}
    cut = {f"b/cut-{number}.png": slide for number, slide in enumerate(tiles["slide"].to_pylist())}
    assert cut.items() <= shown.items()
    assert set(shown) == set(cut)
