"""The stages of a pretraining: configs that follow each other, each from the encoder of the one before.

One decision: a stage is an ordinary run with a folder of its own; what is still to come is written into it, so that
`resume=runs/ID` of any stage goes on to the end.
"""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from raypath.config import closest, from_dict, override, to_dict
from raypath.errors import BadInput
from raypath.run_folder import RunFolder
from raypath.training.settings import PretrainConfig

PREVIOUS = "previous"
_FILE = "stages.json"


def stages_from_recipe(recipes: dict[str, Callable], name: str, assignments: list[str]) -> list[PretrainConfig]:
    """The stages of a recipe with overrides: `key=value` for all of them, `2.key=value` for the second alone."""
    if name not in recipes:
        near = closest(name, recipes)
        hint = f"; did you mean {' or '.join(near)}?" if near else ";"
        raise BadInput(f"{name!r}: there is no such recipe{hint} --list shows all {len(recipes)}")
    made = recipes[name]()
    stages = made if isinstance(made, list) else [made]
    own: dict[int, list[str]] = {number: [] for number in range(1, len(stages) + 1)}
    for assignment in assignments:
        prefixed = re.match(r"(\d+)\.(.+)", assignment)
        numbers = [int(prefixed[1])] if prefixed else list(own)
        for number in numbers:
            if number not in own:
                raise BadInput(f"{assignment}: {name} has {len(stages)} stage(s), there is no stage {number}")
            own[number].append(prefixed[2] if prefixed else assignment)
    return [override(stage, own[number]) for number, stage in enumerate(stages, start=1)]


def follow_up(config: PretrainConfig, previous: RunFolder) -> PretrainConfig:
    """A stage that starts from the encoder of the run before it."""
    return replace(config, init=str(previous.path)) if config.init == PREVIOUS else config


def write_stages(run: RunFolder, later: list[PretrainConfig], *, stage: int = 1) -> None:
    """Keep which stage this run is, and what is still to come after it."""
    run.write(_FILE, {"stage": stage, "later": [to_dict(config) for config in later]})


def place_of(run: RunFolder) -> tuple[int, int]:
    """Which stage a run is, and of how many; a run of before stages were counted is the first."""
    known = run.read(_FILE)
    stage = known.get("stage", 1)
    return stage, stage + len(known.get("later", []))


def note_next(run: RunFolder, following: RunFolder) -> None:
    """Remember the run that the next stage became."""
    run.write(_FILE, run.read(_FILE) | {"next": str(following.path)})


def later_stages(run: RunFolder) -> tuple[RunFolder | None, list[PretrainConfig]]:
    """The run that follows, if it was started, and the configs of all that come after this one."""
    known = run.read(_FILE)
    following = RunFolder(Path(known["next"])) if "next" in known else None
    return following, [from_dict(PretrainConfig, values) for values in known.get("later", [])]
