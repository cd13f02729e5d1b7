"""Settings: frozen dataclasses in, a validated config and its hash out.

One decision: settings are plain frozen dataclasses that stand beside their owner, and this module is only the mechanism at
the edge: `key=value` overrides (the same from a shell and from a sweep), validation by pydantic, canonical JSON, a sha256 over
it. A field declared with `setting(..., identity=False)` (paths, workers, prefetch, logging) changes how a run is carried out,
not what it computes: it is left out of the hash and may differ on resume.
"""

import dataclasses
import difflib
import hashlib
import json
import re
import typing
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from raypath.errors import BadInput

Config = TypeVar("Config")
_MAX_CLOSE, _MAX_LISTED = 3, 12  # names that a person is shown: like the one they typed, or all there are


def setting(default: Any = dataclasses.MISSING, *, identity: bool = True, **kwargs: Any) -> Any:
    """A dataclass field; `identity=False` keeps it out of the config hash."""
    return dataclasses.field(default=default, metadata={"identity": identity}, **kwargs)


def to_dict(config: Any) -> dict[str, Any]:
    """The resolved config as nested plain values, as written to `config.json`."""
    return json.loads(json.dumps(dataclasses.asdict(config)))


def from_dict(config_type: type[Config], values: Mapping[str, Any]) -> Config:
    """Build and validate a config; every wrong key or type is named in one BadInput.

    A value is taken for what the field says and never bent to it: no "3" for 3, no 1.0 for True.
    """
    unknown = [_no_such_key(_dotted(place), str(place[-1]), names) for place, names in _unknown(config_type, values)]
    if unknown:
        raise BadInput("\n".join(unknown))
    try:
        return TypeAdapter(config_type).validate_json(json.dumps(values), strict=True)
    except ValidationError as error:
        raise BadInput("\n".join(_lines(error.errors()))) from None


def from_older(config_type: type[Config], values: Mapping[str, Any]) -> tuple[Config, list[str]]:
    """(config, keys that were passed over) of values that another version wrote, for who only reads them. Raises as `from_dict`."""
    kept, unknown = json.loads(json.dumps(values)), [place for place, _ in _unknown(config_type, values)]
    for *parents, last in unknown:
        node = kept
        for part in parents:
            node = node[part]
        del node[last]
    return from_dict(config_type, kept), [_dotted(place) for place in unknown]


def override(config: Config, assignments: Iterable[str] | Mapping[str, Any]) -> Config:
    """A copy of `config` with dotted keys replaced, e.g. `["optim.lr=0.1", "objective.temperature=0.2"]`.

    Strings on the right of `=` are read as JSON where they parse (`0.1`, `true`, `null`, `[1, 2]`), else kept as text.
    Raises BadInput naming an unknown key's valid neighbours, or a value of the wrong type.
    """
    pairs = list(assignments.items() if isinstance(assignments, Mapping) else map(_split_assignment, assignments))
    values = to_dict(config)
    # A kind comes before the settings that belong to it, in whatever order they were given, and brings their defaults.
    kinds = sorted((pair for pair in pairs if _is_kind(pair[0])), key=lambda pair: pair[0].count("."))
    for key, value in kinds:
        _set_dotted(values, key, value)
        values = to_dict(from_dict(type(config), values))
    for key, value in (pair for pair in pairs if not _is_kind(pair[0])):
        _set_dotted(values, key, value)
    return from_dict(type(config), values)


def config_hash(config: Any) -> str:
    """sha256 (hex) over the canonical JSON of every field that is part of the identity."""
    return hashlib.sha256(canonical_json(identity(config)).encode()).hexdigest()


def identity(config: Any) -> dict[str, Any]:
    """The nested values without the fields that only say how a run is carried out."""
    kept = {}
    for field in dataclasses.fields(config):
        if field.metadata.get("identity", True):
            value = getattr(config, field.name)
            kept[field.name] = identity(value) if dataclasses.is_dataclass(value) else value
    return kept


def canonical_json(value: Any) -> str:
    """The one spelling of a value: sorted keys, no spaces, shortest floats; NaN is refused."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=True)


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """`{"optim": {"lr": 1}}` as `{"optim.lr": 1}`, for parameters in MLflow and for comparing two configs."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def differences(old: Any, new: Any) -> list[str]:
    """One line for every identity field in which two configs differ."""
    before, after = flatten(identity(old)), flatten(identity(new))
    keys = sorted(before.keys() | after.keys())
    return [f"{k}: {before.get(k)!r} -> {after.get(k)!r}" for k in keys if before.get(k) != after.get(k)]


def _is_kind(key: str) -> bool:
    return key.rpartition(".")[2] == "kind"


def _split_assignment(assignment: str) -> tuple[str, Any]:
    key, equals, text = assignment.partition("=")
    if not equals or not key:
        raise BadInput(f"{assignment!r}: expected key=value, e.g. optim.lr=0.1")
    try:
        return key, json.loads(text)
    except json.JSONDecodeError:
        return key, text


def _set_dotted(values: dict[str, Any], key: str, value: Any) -> None:
    """Put `value` at `key`; whether the last key exists is for `from_dict` to say, which knows the types."""
    node = values
    *parents, last = key.split(".")
    for part in parents:
        if part not in node:
            raise BadInput(_no_such_key(key, part, list(node)))
        node = node[part]
        if not isinstance(node, dict):
            raise BadInput(_no_such_key(key, last, []))
    if last == "kind" and value != node.get("kind"):
        node.clear()  # another kind has other settings: start from its defaults
    node[last] = value


def _no_such_key(key: str, part: str, names: list[str]) -> str:
    if not names:
        return f"{key}: there is no setting {part!r} here, this is a value"
    near = closest(part, names)
    hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else "."
    shown = "" if near and len(names) > _MAX_LISTED else f" Valid: {', '.join(names)}"
    return f"{key}: there is no setting {part!r} here{hint}{shown}"


def closest(name: str, names: Iterable[str]) -> list[str]:
    """At most three of `names` that look like `name` or begin with it, the likest first."""
    names = list(names)
    near = difflib.get_close_matches(name, names, n=_MAX_CLOSE)
    return (near or [one for one in names if one.startswith(name)])[:_MAX_CLOSE]


def _unknown(
    config_type: Any, values: Mapping[str, Any], place: tuple[str | int, ...] = ()
) -> Iterator[tuple[tuple[str | int, ...], list[str]]]:
    """(where, the names there are) of keys that no field answers to; pydantic alone would drop them silently."""
    owner = _member(config_type, values)
    types = typing.get_type_hints(owner) if owner else {}
    for key, value in values.items() if owner else ():
        if key not in types:
            yield (*place, key), list(types)
        elif isinstance(value, Mapping):
            yield from _unknown(types[key], value, (*place, key))
        elif isinstance(value, list | tuple) and typing.get_args(types[key]):
            member = typing.get_args(types[key])[0]  # tuple[Entry, ...]
            for number, one in enumerate(value):
                if isinstance(one, Mapping):
                    yield from _unknown(member, one, (*place, key, number))


def _dotted(place: tuple[str | int, ...]) -> str:
    return ".".join(map(str, place))


def _member(config_type: Any, values: Mapping[str, Any]) -> Any:
    """The dataclass behind an annotation: itself, or the member of a union whose `kind` is the one given."""
    if dataclasses.is_dataclass(config_type):
        return config_type
    for member in filter(dataclasses.is_dataclass, typing.get_args(config_type)):
        kinds = [f.default for f in dataclasses.fields(member) if f.name == "kind"]
        if not kinds or kinds == [values.get("kind")]:
            return member
    return None


def _lines(errors: list[dict[str, Any]]) -> list[str]:
    """A line for each error; where a value may be of several kinds, only what its own kind says, by the keys people type."""
    others = {e["loc"][:-1] for e in errors if e["loc"][-1:] == ("kind",) and e["type"] == "literal_error"}
    own = [e for e in errors if e["loc"][:-1] not in others] or errors
    return [_line(error) for error in own]


def _line(error: dict[str, Any]) -> str:
    """What was wrong, and the value; a section that refused itself has named its values in its own words."""
    where, said = _location(error["loc"]), error["msg"]
    if error["type"] == "value_error":
        said = str(error["ctx"]["error"])
        return f"{where}.{said}" if where != "config" and re.match(r"\w+=", said) else f"{where}: {said}"
    if error["type"] in ("tuple_type", "list_type"):
        example = f" ('{where}={json.dumps([error['input']])}')" if isinstance(error["input"], str) else ""
        said = f"expected a list in square brackets{example}"
    return f"{where}: {said}, got {error['input']!r}"


def _location(loc: tuple[Any, ...]) -> str:
    # the class, or the kind of list, that a union was tried with
    keys = [str(part) for part in loc if not (str(part).endswith("Settings") or "[" in str(part))]
    return ".".join(keys) or "config"
