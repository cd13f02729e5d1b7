import json
import shutil
from dataclasses import replace
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from raypath.cli import app
from raypath.embed_job import EmbedSettings, _wanted, embed_slides
from raypath.errors import BadInput
from raypath.hashing import file_sha256
from raypath.models import ColourEncoder, EncoderSettings
from raypath.slides import Slide, TileSpec
from tests.protocols import small
from tests.slides import forge


def call(*arguments):
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert "Traceback" not in result.output
    return result


def stamps(folder):
    return {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in folder.glob("*.h5")}


@pytest.mark.ray
def test_slides_become_files_bad_ones_are_set_aside_and_a_second_call_does_nothing(
    phantom_folder, ray_instance, tmp_path
):
    slides, out = tmp_path / "slides", tmp_path / "out"
    slides.mkdir()
    for name in ("phantom-0001", "phantom-0002"):
        shutil.copy(phantom_folder / f"{name}.svs", slides)
    shutil.copy(phantom_folder / "phantom-0003.svs", slides / "cut.svs")
    forge.truncate(slides / "cut.svs", 40_000)
    weights = small.write_encoder(tmp_path / "tiny.safetensors")
    ask = ("embed", slides, "--encoder", weights, "--out", out, "--mpp", 1.0)

    first = call(*ask)
    assert first.exit_code == 3, first.output
    assert "1 of 3 slides were set aside (33%), allowed are 10%; the features of the others" in first.stderr
    assert (
        "tiny.safetensors: 16 features of tiles of 32 px (the encoder's) at 1 um per px (as asked for)" in first.stdout
    )
    assert f"  cut: {slides / 'cut.svs'}: " in first.stdout
    assert "2 of 3, 0 of them done before" in first.stdout
    assert "tiles/s" in first.stdout
    assert [json.loads(line)["reason"] for line in (out / "quarantine.jsonl").read_text().splitlines()] == [
        "SlideTruncated"
    ]
    made = stamps(out)
    assert set(made) == {"phantom-0001.h5", "phantom-0002.h5"}
    with h5py.File(out / "phantom-0001.h5") as file:
        assert file["features"].shape == (len(file["coords"]), 16)
        assert file.attrs["raypath_encoder_sha256"] == file_sha256(weights)

    again = call(*ask, "--max-bad-share", 0.5)
    assert again.exit_code == 0, again.output
    assert "2 of 3, 2 of them done before" in again.stdout
    assert "tiles/s" not in again.stdout
    assert stamps(out) == made

    (slides / "phantom-0002.svs").write_bytes(b"")  # what is bad now keeps no features of better days
    assert call(*ask, "--max-bad-share", 1.0).exit_code == 0
    assert stamps(out) == {"phantom-0001.h5": made["phantom-0001.h5"]}


@pytest.mark.ray
def test_the_tiles_of_a_given_index_are_taken_as_they_are(phantom_index, tmp_path):
    ask = ("embed", phantom_index.folder, "--encoder", "colour", "--out", tmp_path, "--extent-px", 64, "--mpp", 0.5)
    result = call(*ask)
    assert result.exit_code == 0, result.output
    assert f"{phantom_index.num_tiles.sum():,} of 64 px at 0.5 um per px" in result.stdout
    assert not (tmp_path / "index").exists()
    for number in range(len(phantom_index)):
        row = phantom_index.row(number)
        x_l0, y_l0 = phantom_index.corners(number, np.arange(phantom_index.num_tiles[number]))
        with h5py.File(tmp_path / f"{row['slide']}.h5") as file:
            assert (file["coords"][:] == np.stack([x_l0, y_l0], 1)).all()
            last = file["features"][-1]
        with Slide.open(row["path"], row["mpp"]) as slide:
            tile = slide.read(int(x_l0[-1]), int(y_l0[-1]), 64, 64)
        assert np.abs(ColourEncoder()(torch.from_numpy(tile[None])).numpy()[0] - last).max() < 1e-5


def encoder_of(**settings):
    return SimpleNamespace(settings=EncoderSettings(**settings))


def test_the_encoder_says_its_tiles_and_an_option_overrules_it():
    ask = EmbedSettings(encoder="runs/1", out="out")
    spec, why = _wanted(ask, encoder_of(input_px=96, mpp=0.25, mpp_max=1.0), None)
    assert spec == TileSpec(extent_px=96, mpp=0.625, stride_px=96, min_tissue=0.5, max_upsample=1.3)
    assert why == "96 px (the encoder's) at 0.625 um per px (the middle of the encoder's 0.25 to 1)"
    spec, why = _wanted(replace(ask, extent_px=64, mpp=2.0), encoder_of(input_px=96, mpp=0.5, mpp_max=0.5), None)
    assert (spec.extent_px, spec.mpp, spec.stride_px) == (64, 2.0, 64)
    assert why == "64 px (as asked for) at 2 um per px (as asked for)"
    given = SimpleNamespace(spec=TileSpec(extent_px=8, mpp=1, stride_px=8, min_tissue=0.0, max_upsample=2.0))
    spec, _ = _wanted(ask, encoder_of(input_px=96, mpp=0.5, mpp_max=0.5), given)
    assert spec == TileSpec(extent_px=96, mpp=0.5, stride_px=96, min_tissue=0.0, max_upsample=2.0)
    assert _wanted(replace(ask, min_tissue=0.9), encoder_of(mpp=0.5), given)[0].min_tissue == 0.9


def test_what_is_not_known_is_asked_for_before_anything_starts(tmp_path):
    weights = small.write_encoder(tmp_path / "tiny.safetensors")
    for arguments, message in (
        (("--encoder", weights), "its um per px are not known; say them with --mpp"),
        (("--encoder", "colour", "--mpp", 0.5), "say which with --extent-px"),
        (("--encoder", "file", "--mpp", 0.5, "--extent-px", 64), "cannot take tiles alone"),
        (("--encoder", f"random_bn:{weights}", "--mpp", 0.5), "cannot take tiles alone"),
        (("--encoder", weights, "--mpp", 0.5, "--layout", "clma"), "expected one of trident, clam, stamp"),
        (("--encoder", weights, "--mpp", 0.5, "--max-bad-share", 2), "max_bad_share = 2.0 is not possible"),
        (("--encoder", weights, "--mpp", 0.5, "--extent-px", 0), "extent_px = 0 is not possible"),
        (("--encoder", "random:vit_tiny_patch16_224", "--mpp", 0.5, "--extent-px", 100), "cannot take tiles of 100 px"),
        (("--encoder", weights, "--mpp", 0.5), "there is no such manifest, slide, or folder of slides"),
    ):
        result = call("embed", tmp_path / "nowhere", *arguments, "--out", tmp_path / "out")
        assert (result.exit_code, message in result.stderr) == (2, True), (message, result.output)
    assert not (tmp_path / "out").exists()


def test_an_index_is_no_place_for_features(tmp_path):
    (tmp_path / "index.json").write_text("{}")
    with pytest.raises(BadInput, match="is an index; give the features a folder of their own"):
        embed_slides(tmp_path, EmbedSettings(encoder="colour", out=str(tmp_path)), None, lambda: None)
