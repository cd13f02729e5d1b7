"""What the words of `experiments/study.py` mean, before anything is read or started."""

import json
import math
import shlex
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "experiments"))

from recipes.studies import STUDIES
from study import main, study_of
from study_checks import check_words
from study_lineage import record_command

from raypath.config import to_dict
from raypath.errors import BadInput
from raypath.run_folder import RunFolder
from raypath.study.cells import write_json
from raypath.study.settings import check_study


def test_words_become_encoders_benchmarks_protocols_and_shares(tmp_path):
    words = ["encoders=imagenet:resnet18,simclr_small*3,runs/a-1,random,colour", f"benchmarks={tmp_path},breakhis"]
    config = study_of("transfer", [*words, "protocols=probe,knn", "fractions=0.1,1", "num_seeds=2"])
    named = {entry.name: (entry.source, entry.recipe, entry.num_seeds) for entry in config.encoders}
    assert named == {
        "imagenet:resnet18": ("imagenet:resnet18", "", 1),
        "simclr_small": ("", "simclr_small", 3),
        "a-1": ("runs/a-1", "", 1),
        "random": ("random", "", 1),
        "colour": ("colour", "", 1),
    }
    assert [(one.path, one.kind) for one in config.benchmarks] == [(str(tmp_path), ""), ("", "breakhis")]
    assert (config.protocols, config.fractions, config.num_seeds) == (("probe", "knn"), (0.1, 1.0), 2)
    assert config.reference == "imagenet:resnet18"


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("nothing", [], "there is no such study"),
        (
            "transfer",
            ["benchmarks=nowhere"],
            "benchmarks: there is no folder or file nowhere; expected one, or a kind: .*breakhis",
        ),
        ("transfer", ["encoders=colour,colour"], "a name of its own"),
        ("transfer", ["fractions=0"], "more than 0"),
        ("transfer", ["protocol=probe"], "did you mean 'protocols'"),
        ("absent.toml", [], "expected a study as a TOML file"),
    ],
)
def test_words_that_mean_nothing_are_refused_in_one_line(name, settings, message):
    with pytest.raises(BadInput, match=message):
        study_of(name, settings)


def test_the_command_to_repeat_gives_the_same_study(tmp_path, monkeypatch):
    """Words, a grid and a name of its own; then the command that stands in the report."""
    monkeypatch.setenv("RAYPATH_RUNS", str(tmp_path))
    monkeypatch.setenv("RAYPATH_WEIGHTS", "some weights")
    grid = 'leave_out.grid={"optim.lr": [0.1, 0.01]}'
    config = study_of("transfer", ["encoders=simclr_small*3,colour", f"benchmarks={tmp_path}", "name=mine", grid])
    folder = tmp_path / "studies" / "a folder"
    folder.mkdir(parents=True)
    write_json(folder / "study.json", to_dict(config))
    for words in (["mine.toml", "name=mine"], [str(folder)]):
        monkeypatch.setattr(sys, "argv", ["experiments/study.py", *words])
        record_command(folder)
    first, second = RunFolder(folder).read_lines("commands.jsonl")
    assert first["command"].endswith(" python experiments/study.py mine.toml name=mine")
    assert first["folder"] == str(Path.cwd())
    assert first["versions"].keys() >= {"commit", "torch", "python"}
    assert first["repeat"] == second["repeat"] == second["command"]
    runs, weights, python, script, *words = shlex.split(first["repeat"])
    assert (runs, weights) == (f"RAYPATH_RUNS={tmp_path}", "RAYPATH_WEIGHTS=some weights")
    assert (python, script) == ("python", "experiments/study.py")
    assert study_of(words[0], words[1:]) == study_of(str(folder / "study.json"), []) == config


def test_what_needs_no_image_is_checked_first_and_all_at_once(tmp_path):
    encoders = "encoders=" + json.dumps(
        [
            {"name": "ours", "recipe": "simclr_smal"},
            {"name": "tuned", "recipe": "simclr_small", "settings": ["optim.rate=1"]},
            {"name": "colour", "source": "colour"},
        ]
    )
    benchmarks = "benchmarks=" + json.dumps([{"path": str(tmp_path)}, {"path": "no/where", "sites": "none.csv"}])
    config = study_of("transfer", [encoders, benchmarks, "protocols=probe,linear"])
    with pytest.raises(BadInput) as error:
        check_words(config)
    expected = (
        "protocols: 'linear' is none",
        "ours: 'simclr_smal': there is no such recipe; did you mean simclr_small",
        "tuned: ",
        "no/where: there is no such folder",
        "none.csv: no such",
    )
    lines = str(error.value).splitlines()
    assert [line.startswith(words) for line, words in zip(lines, expected, strict=True)] == [True] * 5
    assert "optim.rate" in lines[2]


def test_a_pretraining_shorter_than_its_warm_up_is_told_of_before_it_begins(tmp_path, capsys):
    settings = '["loop.num_steps=5", "optim.warmup_steps=10"]'
    encoders = f'encoders=[{{"name": "ours", "recipe": "simclr_small", "settings": {settings}}}]'
    check_words(study_of("transfer", [encoders, f"benchmarks={tmp_path}"]))
    assert "ours: 10 steps of warm-up, but loop.num_steps=5" in capsys.readouterr().out


def test_a_study_without_colour_or_without_benchmarks_is_none(tmp_path):
    with pytest.raises(BadInput, match="benchmarks=..."):
        check_study(study_of("transfer", ["encoders=runs/x,colour"]))
    with pytest.raises(BadInput, match="without it nothing can be called better"):
        check_study(study_of("transfer", ["encoders=runs/x", f"benchmarks={tmp_path}"]))


def test_opening_a_test_again_asks_for_words():
    with pytest.raises(BadInput, match="a few words"):
        main(["transfer", "encoders=colour", "benchmarks=breakhis", "reopen=true"])


def test_the_studies_of_the_second_paper_have_its_numbers():
    num_combinations = 0
    for network in ("resnet50", "densenet121"):
        study = STUDIES[f"mormont_{network}"]()
        (multitask,) = [entry for entry in study.encoders if entry.leave_out]
        assert multitask.num_seeds == 5
        num_combinations += math.prod(map(len, study.leave_out.grid.values()))
    assert num_combinations == 48
