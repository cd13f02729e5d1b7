import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from raypath.cli import app
from raypath.data.index import Index
from tests.slides import forge
from tests.study.synthetic_study import write_study

ROOT = Path(__file__).parents[1]
BAD = {"empty": "SlideEmpty", "text": "SlideUnsupported", "cut": "SlideTruncated", "unsaid": "SlideMppMissing"}


def call(*arguments):
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert "Traceback" not in result.output
    return result


@pytest.fixture(scope="module")
def mixed(phantom_folder, tmp_path_factory):
    """Three good phantoms, four bad slides, and their manifest."""
    folder = tmp_path_factory.mktemp("mixed")
    good = ["phantom-0001", "phantom-0002", "phantom-0003"]
    for name in good:
        shutil.copy(phantom_folder / f"{name}.svs", folder)
    (folder / "empty.svs").touch()
    (folder / "text.svs").write_text("slide,label\n")
    shutil.copy(phantom_folder / "phantom-0004.svs", folder / "cut.svs")
    forge.truncate(folder / "cut.svs", 40_000)
    forge.write_svs(folder / "unsaid.svs", forge.picture(256, 256), mpp=None)
    lines = ["slide,path", *(f"{name},{name}.svs" for name in [*good, *BAD])]
    (folder / "manifest.csv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.mark.ray
def test_bad_slides_are_named_with_their_reason_and_the_good_ones_indexed(mixed, ray_instance, tmp_path):
    out = tmp_path / "index"
    result = call("index", mixed / "manifest.csv", "--out", out, "--extent-px", 64)
    assert result.exit_code == 3
    assert "TooManyQuarantined: 4 of 7 slides were set aside (57%), allowed are 10%" in result.stderr
    assert "max_bad_share" in result.stderr
    for name, reason in BAD.items():
        assert f"{reason} (1)" in result.stdout
        assert f"  {name}: {mixed / name}.svs: " in result.stdout
    assert "3 of 7" in result.stdout
    assert f"raypath preview {out}" in result.stdout
    lines = [json.loads(line) for line in (out / "quarantine.jsonl").read_text().splitlines()]
    assert {line["slide"]: line["reason"] for line in lines} == BAD
    assert Index(out).column("slide").tolist() == ["phantom-0001", "phantom-0002", "phantom-0003"]

    again = call("index", mixed / "manifest.csv", "--out", out, "--extent-px", 64, "--max-bad-share", 0.9)
    assert again.exit_code == 0, again.output
    assert "3 of 7, 3 taken unchanged" in again.stdout
    assert f"pretrain.py simclr_tiles index={out}" in again.stdout


@pytest.mark.ray
def test_a_folder_is_a_manifest_too_and_preview_draws_its_index(mixed, ray_instance, tmp_path):
    folder = tmp_path / "slides"
    folder.mkdir()
    for name in ("phantom-0001", "phantom-0002"):
        shutil.copy(mixed / f"{name}.svs", folder)
    made = call("index", folder, "--out", tmp_path / "index", "--extent-px", 128, "--stride-px", 64)
    assert made.exit_code == 0, made.output
    assert Index(tmp_path / "index").spec.stride_px == 64
    drawn = call("preview", tmp_path / "index", "--slides", 1, "--tiles", 4)
    assert drawn.exit_code == 0, drawn.output
    assert str(tmp_path / "index" / "preview") in drawn.stdout
    assert (tmp_path / "index" / "preview" / "tiles.png").exists()


def test_a_manifest_is_judged_whole_before_anything_starts(mixed, tmp_path):
    manifest = tmp_path / "wrong.csv"
    manifest.write_text(f"slide,path,colour\na,{mixed}/empty.svs,red\na,{mixed}/text.svs,\nb,gone.svs,\n")
    result = call("index", manifest, "--out", tmp_path / "index")
    assert result.exit_code == 2
    for fault in ("BadInput: ", "column 'colour': unknown", "already on line 2", "no such file"):
        assert fault in result.stderr
    assert not (tmp_path / "index").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["index", "nowhere.csv", "--out", "x"], 2, "BadInput: nowhere.csv: there is no such manifest"),
        (
            ["index", "nowhere.csv", "--out", "x", "--mpp", "0.001"],
            2,
            "BadInput: TileSpec: mpp = 0.001 is not possible",
        ),
        (["index", "nowhere.csv", "--out", "x", "--max-bad-share", "7"], 2, "BadInput: max_bad_share = 7.0"),
        (["preview", "nowhere"], 2, "BadInput: nowhere: no finished index here"),
        (["phantoms", "nowhere", "--slides", "2"], 2, "BadInput: num_slides=2: at least 3"),
        (["check", "nowhere.svs"], 2, "BadInput: 1 of 1 slide(s) are bad"),
    ],
)
def test_what_goes_wrong_is_one_line_and_an_exit_code(arguments, code, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = call(*arguments)
    assert result.exit_code == code
    assert message in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_a_cluster_that_is_not_there_is_said_at_once(mixed, tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    result = call("index", mixed / "manifest.csv", "--out", tmp_path / "index")
    assert result.exit_code == 2
    assert "RAY_ADDRESS=127.0.0.1:1: nothing answers there" in result.stderr


def test_an_operating_system_error_is_a_line_too(tmp_path):
    (tmp_path / "file").touch()
    result = call("phantoms", tmp_path / "file", "--slides", 3, "--size", 512)
    assert result.exit_code == 1
    assert "FileExistsError" in result.stderr


def test_check_says_of_every_slide_what_it_is(mixed):
    result = call("check", mixed, mixed / "nowhere.svs")
    assert result.exit_code == 2
    lines = result.stdout.splitlines()
    assert len(lines) == 8
    sound = [line for line in lines if line.startswith("sound")]
    assert len(sound) == 3
    assert "768 x 768 px, 0.5 um per px (file:openslide.mpp-x), levels 1, 2" in sound[0]
    for reason in [*BAD.values(), "SlideMissing"]:
        assert sum(reason in line for line in lines) == 1
    assert call("check", mixed / "phantom-0001.svs").exit_code == 0


def test_check_takes_the_mpp_of_a_manifest(mixed, tmp_path):
    (tmp_path / "manifest.csv").write_text(f"slide,path,mpp\nunsaid,{mixed}/unsaid.svs,0.4\n")
    result = call("check", tmp_path / "manifest.csv")
    assert result.exit_code == 0
    assert "0.4 um per px (override)" in result.stdout


def test_phantoms_are_written_and_the_next_command_named(tmp_path):
    result = call("phantoms", tmp_path, "--slides", 3, "--size", 512, "--seed", 5, "--no-texture")
    assert result.exit_code == 0, result.output
    assert (tmp_path / "manifest.csv").exists()
    assert f"raypath index {tmp_path / 'manifest.csv'} --out" in result.stdout


def test_help_comes_without_importing_ray_or_torch():
    code = (
        "import sys; from typer.testing import CliRunner; from raypath.cli import app;"
        "assert CliRunner().invoke(app, ['index', '--help']).exit_code == 0;"
        "print([m for m in ('ray', 'torch', 'mlflow', 'openslide') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"


def test_the_experiment_says_how_it_is_called_and_names_a_wrong_key(mixed, tmp_path):
    def experiment(*arguments):
        command = [sys.executable, str(ROOT / "experiments" / "index.py"), *arguments]
        return subprocess.run(
            command, capture_output=True, text=True, cwd=tmp_path, env={**os.environ, "RAY_ADDRESS": ""}
        )

    wrong = experiment(str(mixed / "manifest.csv"), "out=x", "extend_px=64")
    assert wrong.returncode == 2
    assert "did you mean 'extent_px'" in wrong.stderr
    assert experiment().returncode == 2


def test_a_report_is_made_anew_from_a_studys_folder_alone(tmp_path):
    folder = write_study(tmp_path / "study")
    result = call("report", folder)
    assert result.exit_code == 0, result.output
    assert f"report {folder}/report.html" in result.output.replace("\n", "")
    assert "<table" in (folder / "report.html").read_text()
    assert (folder / "table.csv").read_text().count("\n") > 10
    assert (folder / "table.tex").read_text().startswith("%")


def test_a_folder_that_is_no_study_is_named(tmp_path):
    result = call("report", tmp_path)
    assert result.exit_code == 2
    assert "no study here" in result.output


def test_diff_says_what_differs_and_whether_scores_do(tmp_path):
    cells = write_study(tmp_path / "study") / "cells"
    by_encoder = {}
    for place in sorted(cells.iterdir()):
        record = json.loads((place / "cell.json").read_text())
        if (record["benchmark"], record["state"], record["step"], record["fraction"]) == ("gains", "done", None, 1):
            by_encoder.setdefault(record["encoder"], place)
    result = call("diff", by_encoder["ours"], by_encoder["random"])
    assert result.exit_code == 0, result.output
    assert "weights: " in result.output
    assert "more than noise" in result.output
    assert call("diff", by_encoder["ours"], tmp_path).exit_code == 2
