"""A study: encoders x benchmarks x protocols x shares of labels x seeds, with intervals, verdicts and a report.

    python experiments/study.py STUDY [key=value ...]

    python experiments/study.py my-study.toml                       a study in a file (README, "Studies")
    python experiments/study.py runs/studies/NAME                   one that was begun, as its settings were then
    python experiments/study.py transfer encoders=runs/ID,imagenet:resnet18,random,colour benchmarks=../data/a,../data/b
    python experiments/study.py transfer ... protocols=probe,finetune fractions=0.1,0.25,1 transfer='["sweep.num_trials=8"]'
    python experiments/study.py --list

Of encoders, each word is a source as in a sweep (runs/ID, imagenet:ARCHITECTURE, random, colour, ...) or the name of a
recipe, which the study pretrains; `simclr_small*3` trains it with three seeds. The same command goes on with a study that was
stopped or killed: what is finished is kept. `reopen="why"` opens tests a second time, which the report shows; `retry=true` runs
failed cells again. `--plan` says what would be done, and what each benchmark can show; it trains, scores and opens nothing.

Pretrainings run first, each once; an encoder on a benchmark is scored as soon as its weights are there. `--key value` is key=value.
"""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import launch
from command_line import pick, pick_flag, split_arguments
from launch import say
from recipes import PRETRAINING
from recipes.studies import STUDIES
from study_run import Study

from raypath.benchmarks.settings import KINDS
from raypath.config import override, to_dict
from raypath.errors import BadInput
from raypath.protocols.encoders import short_name
from raypath.run_folder import runs_root
from raypath.study.settings import EncoderEntry, StudyConfig, check_study, read_study


def main(arguments: list[str]) -> None:
    """Carry a study out, or go on with it."""
    if not arguments or "-h" in arguments or "--help" in arguments:
        say(__doc__)
        return
    if "--list" in arguments:
        launch.list_recipes(STUDIES)
        return
    name, assignments = split_arguments(arguments, default="transfer")
    reopen, assignments = pick(assignments, "reopen")
    if reopen and reopen.lower() in ("true", "false"):
        raise BadInput(
            f"reopen={reopen}: a study says why it opens tests again: reopen='a few words', which its report shows"
        )
    retry, assignments = pick_flag(assignments, "retry")
    is_plan, assignments = pick_flag(assignments, "plan")
    config = study_of(name, assignments)
    check_study(config)
    folder = runs_root() / "studies" / config.name
    with locked(folder):
        study = Study(config, folder, reopen or "", retry)
        study.plan() if is_plan else study.run()


def study_of(name: str, assignments: list[str]) -> StudyConfig:
    """The study of a name or a file, with `key=value` over it. Raises BadInput for one that is none."""
    known = Path(name) / "study.json"
    if name.endswith((".toml", ".json")) or known.is_file():
        config = read_study(known if known.is_file() else Path(name))
    elif name in STUDIES:
        config = STUDIES[name]()
    else:
        raise BadInput(
            f"{name!r}: there is no such study; expected a .toml file, the folder of a study that was begun (runs/studies/NAME), or"
            f" one of {', '.join(STUDIES)}"
        )
    words = {key: pick(assignments, key)[0] for key in ("encoders", "benchmarks", "protocols", "fractions")}
    values: dict[str, Any] = {}
    for key, text in words.items():
        if text is not None and not text.lstrip().startswith("["):
            assignments = pick(assignments, key)[1]
            values[key] = [_word(key, one.strip()) for one in text.split(",") if one.strip()]
    return override(override(config, assignments), values)


def _word(key: str, word: str) -> Any:
    """What a word of a list on the command line stands for."""
    if key == "encoders":
        place, star, num = word.partition("*")
        what = {"recipe": place} if place in PRETRAINING else {"source": place}
        return to_dict(EncoderEntry(name=_plain(place), **what, num_seeds=int(num) if star else 1))
    if key == "benchmarks":
        if Path(word).exists():
            return {"path": word}
        kinds = [one.__dataclass_fields__["kind"].default for one in KINDS]
        if word not in kinds:
            raise BadInput(
                f"benchmarks: there is no folder or file {word}; expected one, or a kind: {', '.join(kinds)}"
            )
        return {"kind": word}
    return float(word) if key == "fractions" else word


def _plain(place: str) -> str:
    """What an encoder is called: a run by its id, a file by its name, everything else as it was typed."""
    return short_name(place) if "/" in place and ":" not in place else place


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Nobody else carries the study out meanwhile; released by the death of the process too. Raises BadInput if somebody does."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise BadInput(f"{folder}: another process carries this study out; wait for it, or stop it") from None
        yield


if __name__ == "__main__":
    launch.run(main)
