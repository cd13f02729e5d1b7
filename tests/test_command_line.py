"""Words become settings in one way only: what is forgotten is refused, and nothing is taken for something else."""

import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parents[1] / "experiments"))

from command_line import FLAGS, SWITCHES, as_settings, pick, pick_flag, split_arguments, words_and_settings

from raypath.errors import BadInput

KEYS = st.from_regex(r"[a-z]{1,8}(\.[a-z]{1,8})?", fullmatch=True).filter(lambda key: key not in SWITCHES)
PATHS = st.from_regex(r"[./~][ -~]*|[a-z0-9][a-z0-9.,:@/ -]*", fullmatch=True)


@given(KEYS, PATHS | st.integers().map(str) | st.floats(allow_nan=False, allow_infinity=False).map(str))
def test_an_option_is_a_setting_however_it_is_written(key, value):
    for written in ([f"--{key}", value], [f"--{key}={value}"], [f"{key}={value}"]):
        assert as_settings(["word", *written, "other=1"]) == ["word", f"{key}={value}", "other=1"]


def test_values_that_look_odd_are_kept_as_they_are():
    odd = ["runs/a=b", '{"protocol.lr": [0.1, 0.2]}', "-1", "-.5", "", "../data/my set", "x,y:z@w.pth"]
    for value in odd:
        assert as_settings(["--key", value]) == as_settings([f"--key={value}"]) == [f"key={value}"]
    assert as_settings(["--key=--other", "--key=a=b"]) == ["key=--other", "key=a=b"]
    assert as_settings(["--num-steps", "3", "--a-b=c-d"]) == ["num_steps=3", "a_b=c-d"]


@pytest.mark.parametrize(
    "arguments", [["--encoder"], ["--encoder", "--test"], ["--encoder", "-h"], ["--encoder", "benchmark.path=x"]]
)
def test_a_forgotten_value_is_refused_and_swallows_nothing(arguments):
    with pytest.raises(
        BadInput, match=r"^--encoder: expected a value after it.*only --test, --reopen, --retry, --plan stand alone$"
    ):
        as_settings(arguments)


@pytest.mark.parametrize("word", ["-e", "--", "-encoder=x", "--=x", "-"])
def test_a_word_with_a_dash_that_is_no_option_is_refused(word):
    with pytest.raises(BadInput, match="expected --key value or key=value, or one of --list, --help, -h"):
        as_settings([word, "runs/ID"])


def test_switches_stand_alone_and_flags_stay():
    assert as_settings(["--test", "../data/set"]) == ["test=true", "../data/set"]
    assert as_settings(["--reopen", "--test"]) == ["reopen=true", "test=true"]
    assert as_settings(["--test", "false", "--reopen=False", "probe"]) == ["test=false", "reopen=False", "probe"]
    assert as_settings(list(FLAGS)) == list(FLAGS)


def test_words_and_settings_are_told_apart_by_the_sign():
    assert words_and_settings(["a=1", "../set", "b=x=y", "probe"]) == (["../set", "probe"], ["a=1", "b=x=y"])


def test_one_name_and_then_settings():
    assert split_arguments([], "demo") == ("demo", [])
    assert split_arguments(["a=1", "other", "b=x=y"], "demo") == ("other", ["a=1", "b=x=y"])
    with pytest.raises(BadInput, match="one two: expected one name and then key=value settings"):
        split_arguments(["one", "two", "a=1"], "demo")


def test_a_setting_of_the_script_is_taken_out_of_those_of_the_config():
    assert pick(["a=1", "resume=runs/x=y", "b=2"], "resume") == ("runs/x=y", ["a=1", "b=2"])
    assert pick(["a=1"], "resume") == (None, ["a=1"])
    assert pick(["seed=1", "seed=2"], "seed") == ("2", [])
    assert pick(["seeds=1"], "seed") == (None, ["seeds=1"])


def test_a_flag_is_true_or_false_and_nothing_else():
    assert pick_flag(["a=1", "test=true"], "test") == (True, ["a=1"])
    assert pick_flag(["test=False"], "test") == (False, [])
    assert pick_flag([], "test") == (False, [])
    for wrong in ("yes", "1", ""):
        with pytest.raises(BadInput, match=f"test={wrong}: expected test=true or test=false"):
            pick_flag([f"test={wrong}"], "test")
