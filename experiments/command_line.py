"""The words of a command line as `key=value` settings, and what a script takes out of them for itself.

    key=value    --key value    --key=value     the same, for every experiment
    --test       --reopen                       test=true, reopen=true; also --test true, --test=false
    --list       --help         -h              stay as they are

One decision: which word is a value is never guessed. `--key` takes the word after it, and only the SWITCHES stand alone; a value
that was forgotten is an error, and never the option or the setting behind it.
"""

import re

from raypath.errors import BadInput

FLAGS = ("--list", "--help", "-h")
SWITCHES = ("test", "reopen", "retry", "plan")
_NO_VALUE = re.compile(r"--?[A-Za-z]|[\w.]+=")  # another option or setting; -1 and a/b=c may be values


def as_settings(arguments: list[str]) -> list[str]:
    """The arguments with every `--key value` and `--key=value` as `key=value`; a dash within a key is an underscore.

    Raises BadInput for a `--key` without a value and for any other word that begins with a dash.
    """
    settings, rest = [], list(arguments)
    while rest:
        word = rest.pop(0)
        option, equals, value = word.partition("=")
        key = option.removeprefix("--").replace("-", "_")
        if word in FLAGS or not word.startswith("-"):
            settings.append(word)
        elif not option.startswith("--") or not key:
            raise BadInput(f"{word}: expected --key value or key=value, or one of {', '.join(FLAGS)}")
        elif equals:
            settings.append(f"{key}={value}")
        elif key in SWITCHES:
            is_said = bool(rest) and rest[0].lower() in ("true", "false")
            settings.append(f"{key}={rest.pop(0) if is_said else 'true'}")
        elif not rest or rest[0] in FLAGS or _NO_VALUE.match(rest[0]):
            found = f", found {rest[0]} (write {word}={rest[0]} if that is the value)" if rest else ""
            raise BadInput(f"{word}: expected a value after it{found}; only --{', --'.join(SWITCHES)} stand alone")
        else:
            settings.append(f"{key}={rest.pop(0)}")
    return settings


def words_and_settings(arguments: list[str]) -> tuple[list[str], list[str]]:
    """The words without a `=`, and the key=value settings."""
    return [a for a in arguments if "=" not in a], [a for a in arguments if "=" in a]


def split_arguments(arguments: list[str], default: str) -> tuple[str, list[str]]:
    """The one name in front (else `default`) and the key=value settings after it."""
    names, assignments = words_and_settings(arguments)
    if len(names) > 1:
        raise BadInput(f"{' '.join(names)}: expected one name and then key=value settings")
    return (names[0] if names else default), assignments


def pick(assignments: list[str], key: str) -> tuple[str | None, list[str]]:
    """Take `key=value` out of the assignments: its value (None if it is not there) and the others."""
    found = [a.partition("=")[2] for a in assignments if a.partition("=")[0] == key]
    return (found[-1] if found else None), [a for a in assignments if a.partition("=")[0] != key]


def pick_flag(assignments: list[str], key: str, *, default: bool = False) -> tuple[bool, list[str]]:
    """As `pick`, for `key=true` or `key=false`; `default` if it is not there."""
    text, others = pick(assignments, key)
    if text is not None and text.lower() not in ("true", "false"):
        raise BadInput(f"{key}={text}: expected {key}=true or {key}=false")
    return (default if text is None else text.lower() == "true"), others
