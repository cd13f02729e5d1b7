import json
import subprocess
import sys
from dataclasses import dataclass, field, replace
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raypath import config as cfg
from raypath.errors import BadInput


@dataclass(frozen=True, kw_only=True)
class Simple:
    kind: Literal["simple"] = "simple"
    temperature: float = 0.1


@dataclass(frozen=True, kw_only=True)
class Other:
    kind: Literal["other"] = "other"
    num_layers: int = 2


@dataclass(frozen=True, kw_only=True)
class Optim:
    lr: float = 0.5
    betas: tuple[float, float] = (0.9, 0.99)


@dataclass(frozen=True, kw_only=True)
class Run:
    name: str = "run"
    num_steps: int = 10
    is_fast: bool = False
    optim: Optim = field(default_factory=Optim)
    objective: Simple | Other = field(default_factory=Simple)
    weights: dict[str, float] = field(default_factory=dict)
    stages: tuple[Optim, ...] = ()
    num_workers: int = cfg.setting(2, identity=False)


def test_overrides_reach_nested_keys_and_read_json():
    run = cfg.override(Run(), ["optim.lr=0.1", "num_steps=3", "is_fast=true", "name=a=b", "optim.betas=[0.5,0.6]"])
    assert run == Run(optim=Optim(lr=0.1, betas=(0.5, 0.6)), num_steps=3, is_fast=True, name="a=b")


def test_a_whole_number_for_a_fraction_hashes_like_the_fraction():
    assert cfg.config_hash(cfg.override(Run(), ["optim.lr=1"])) == cfg.config_hash(Run(optim=Optim(lr=1.0)))


def test_open_mappings_take_new_keys():
    assert cfg.override(Run(), ["weights.site-a=2"]).weights == {"site-a": 2.0}


def test_another_kind_starts_from_its_own_defaults():
    assert cfg.override(Run(), ["objective.kind=other", "objective.num_layers=5"]).objective == Other(num_layers=5)


@pytest.mark.parametrize(
    ("assignment", "said"),
    [
        ("optim.lrr=1", "did you mean 'lr'"),
        ("nosuch=1", "num_steps"),
        ("optim.lr.x=1", "this is a value"),
        ("num_steps=2.5", "num_steps"),
        ("num_steps=true", "num_steps"),
        ("is_fast=1", "is_fast"),
        ("objective.num_layers=1", "num_layers"),
        ("objective.kind=third", "objective"),
        ("noequals", "expected key=value"),
    ],
)
def test_a_wrong_override_is_one_clear_error(assignment, said):
    with pytest.raises(BadInput, match=said) as caught:
        cfg.override(Run(), [assignment])
    assert caught.value.exit_code == 2


def test_an_unknown_key_in_a_saved_config_is_refused():
    values = cfg.to_dict(Run())
    values["objective"]["extra"] = 1
    with pytest.raises(BadInput, match="objective.extra"):
        cfg.from_dict(Run, values)


def test_an_unknown_key_in_a_list_of_sections_is_refused():
    with pytest.raises(BadInput, match=r"stages\.1\.ls: there is no setting 'ls' here"):
        cfg.from_dict(Run, {"stages": [{"lr": 0.1}, {"ls": 0.1}]})


def test_who_only_reads_passes_over_what_another_version_wrote():
    values = {"num_steps": 3, "gone": 1, "optim": {"lr": 0.1, "old": 2}, "stages": [{"lr": 0.1, "old": 3}]}
    run, passed = cfg.from_older(Run, values)
    assert run == Run(num_steps=3, optim=Optim(lr=0.1), stages=(Optim(lr=0.1),))
    assert sorted(passed) == ["gone", "optim.old", "stages.0.old"]
    with pytest.raises(BadInput, match="num_steps"):
        cfg.from_older(Run, {"num_steps": "3"})


def test_round_trip_and_differences():
    run = Run(optim=Optim(lr=0.25))
    assert cfg.from_dict(Run, json.loads(json.dumps(cfg.to_dict(run)))) == run
    assert cfg.differences(Run(), run) == ["optim.lr: 0.5 -> 0.25"]
    assert cfg.differences(Run(), replace(Run(), num_workers=9)) == []


def test_the_hash_ignores_how_a_run_is_carried_out_and_is_equal_in_every_process():
    assert cfg.config_hash(Run()) == cfg.config_hash(Run(num_workers=7))
    assert cfg.config_hash(Run()) != cfg.config_hash(Run(num_steps=11))
    code = "from raypath.config import canonical_json as c; print(c({'b': 0.1, 'a': [1, None, 'é']}))"
    spelled = {subprocess.check_output([sys.executable, "-c", code], text=True) for _ in range(2)}
    assert spelled == {cfg.canonical_json({"a": [1, None, "é"], "b": 0.1}) + "\n"}


@given(st.dictionaries(st.text(min_size=1), st.integers() | st.text() | st.booleans()))
def test_canonical_json_does_not_depend_on_the_order_of_keys(values):
    assert cfg.canonical_json(values) == cfg.canonical_json(dict(reversed(values.items())))
