"""A study's file is read strictly, and everything that is wrong with it is said at once."""

import re
from pathlib import Path

import pytest

from raypath.config import from_dict, override, to_dict
from raypath.errors import BadInput
from raypath.study.settings import BenchmarkEntry, EncoderEntry, StudyConfig, check_study, read_study

TOML = """
question = "Does it help?"
baseline = "random"
protocols = ["probe", "finetune"]
fractions = [0.1, 1.0]
alterations = ["grey", "jpeg=30"]
budget = "tiles"

[[encoders]]
name = "ours"
recipe = "simclr_small"
settings = ["loop.num_steps=100"]
num_seeds = 3
curve_points = 2

[[encoders]]
name = "random"
source = "random"

[[encoders]]
name = "colour"
source = "colour"

[[benchmarks]]
path = "data/a"
settings = ['drop_classes=["x"]']

[leave_out]
together = [["a", "b"]]

[leave_out.grid]
"optim.lr" = [0.1, 0.01]
"""


def write(folder: Path, text: str) -> Path:
    place = folder / "my-study.toml"
    place.write_text(text)
    return place


def test_a_file_is_read_and_called_by_its_name(tmp_path):
    config = read_study(write(tmp_path, TOML))
    assert config.name == "my-study"
    assert [entry.name for entry in config.encoders] == ["ours", "random", "colour"]
    assert config.entry("ours") == EncoderEntry(
        name="ours", recipe="simclr_small", settings=("loop.num_steps=100",), num_seeds=3, curve_points=2
    )
    assert config.benchmarks == (BenchmarkEntry(path="data/a", settings=('drop_classes=["x"]',)),)
    assert config.leave_out.together == (("a", "b"),)
    assert config.leave_out.grid == {"optim.lr": [0.1, 0.01]}
    assert config.reference == "random"
    check_study(config)


def test_a_study_comes_back_from_its_folder_and_can_be_changed(tmp_path):
    config = read_study(write(tmp_path, TOML))
    assert from_dict(StudyConfig, to_dict(config)) == config
    assert override(config, ["num_seeds=5", "baseline=ours"]).reference == "ours"


def test_without_a_baseline_the_first_encoder_is_the_reference(tmp_path):
    assert read_study(write(tmp_path, TOML.replace('baseline = "random"\n', ""))).reference == "ours"


def test_everything_that_is_wrong_is_said_at_once(tmp_path):
    wrong = TOML.replace("num_seeds = 3", "num_seeds = 0").replace('source = "random"', "").replace("0.1, 1.0", '"all"')
    with pytest.raises(BadInput) as error:
        read_study(write(tmp_path, wrong))
    lines = str(error.value).splitlines()
    assert len(lines) == 3
    assert all(line.startswith(f"{tmp_path / 'my-study.toml'}: ") for line in lines)
    for words in ("num_seeds=0", "expected source or recipe", "fractions"):
        assert sum(words in line for line in lines) == 1


def test_an_unknown_key_names_those_that_are_like_it(tmp_path):
    with pytest.raises(BadInput, match=r"fractionz.*fractions"):
        read_study(write(tmp_path, TOML.replace("fractions =", "fractionz =")))


@pytest.mark.parametrize("text", ["question = ", "\xff"])
def test_a_file_that_is_no_toml_is_one_line(tmp_path, text):
    place = tmp_path / "my-study.toml"
    place.write_bytes(text.encode("latin-1"))
    with pytest.raises(BadInput, match=r"my-study\.toml: expected a study as a TOML file") as error:
        read_study(place)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["{", "[1]", "3"])
def test_a_file_that_is_no_json_object_is_one_line(tmp_path, text):
    place = tmp_path / "study.json"
    place.write_text(text)
    with pytest.raises(BadInput, match=r"study\.json: expected a study as a JSON file"):
        read_study(place)


def test_a_file_that_is_not_there_is_one_line(tmp_path):
    with pytest.raises(BadInput, match=r"none\.toml: expected a study"):
        read_study(tmp_path / "none.toml")


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"source": "random", "recipe": "simclr_small"}, "name='x': expected source or recipe, one of the two"),
        ({}, "expected source or recipe"),
        ({"source": "random", "num_seeds": 0}, "num_seeds=0"),
        ({"source": "runs/a", "settings": ("loop.num_steps=1",)}, "belong to a recipe"),
        ({"source": "runs/a", "leave_out": True}, "belong to a recipe"),
        ({"source": "runs/a", "curve_points": 3}, "belong to a recipe"),
        ({"recipe": "simclr_small", "curve_points": -1}, "curve_points=-1"),
    ],
)
def test_encoders_that_are_none_are_refused(values, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        EncoderEntry(name="x", **values)


A, B = EncoderEntry(name="a", source="random"), EncoderEntry(name="b", source="colour")


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"encoders": (A, A)}, "encoders: a more than once"),
        ({"encoders": (A, B), "baseline": "c"}, "baseline='c': expected one of a, b"),
        ({"num_seeds": 0}, "num_seeds=0: expected 1 or more"),
        ({"fractions": (0.0,)}, "fractions: 0.0: expected more than 0"),
        ({"fractions": (1.5,)}, "fractions: 1.5: expected more than 0 and at most 1"),
        ({"fractions": ()}, "fractions=[]: expected one at least"),
        ({"protocols": ("probe", "probe")}, "protocols=['probe', 'probe']: expected one at least, and none twice"),
        ({"alterations": ("gray",)}, "alteration='gray'"),
        ({"alterations": ("",)}, "images as they are are always scored"),
        ({"num_resamples": 0}, "num_resamples=0: expected 100 or more"),
    ],
)
def test_studies_that_are_none_are_refused(values, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        StudyConfig(**values)


def test_a_study_needs_something_to_compare_and_colour():
    place = BenchmarkEntry(path="data/a")
    check_study(StudyConfig(encoders=(A, B), benchmarks=(place,)))
    for config, words in (
        (StudyConfig(benchmarks=(place,)), "0 encoders and 1 benchmarks"),
        (StudyConfig(encoders=(A, B)), "2 encoders and 0 benchmarks"),
        (StudyConfig(encoders=(A,), benchmarks=(place,)), "no encoder with source=colour"),
    ):
        with pytest.raises(BadInput, match=words):
            check_study(config)
