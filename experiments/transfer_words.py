"""What the words in front of a transfer's settings mean: a benchmark, a protocol, both in either order, or none.

    ../data/my_set     a folder or a manifest: what it is, is recognised as `raypath audit` does
    glas               a kind of benchmark; where it is, is said by benchmark.path=DIR
    mormont_finetune   a protocol of `recipes.transfers`

One decision: a word is a setting that is said shorter, so one that contradicts a setting is refused, and what is recognised is
printed. A protocol's name is always the protocol (a folder of that name is written ./probe); a kind's name is the folder of that
name where there is one, unless benchmark.path says where the set is.
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path

from command_line import pick, words_and_settings
from launch import say
from recipes.transfers import TRANSFERS

from raypath.benchmarks import Benchmark
from raypath.benchmarks.audit import PUBLISHED, kinds_of, sets_in
from raypath.benchmarks.settings import KINDS
from raypath.config import closest, override
from raypath.errors import BadInput
from raypath.protocols.transfer import TransferConfig

DEFAULT, SEGMENTATION_DEFAULT = "finetune", "segment"
KIND_NAMES = tuple(kind().kind for kind in KINDS)


@dataclass(frozen=True)
class Asked:
    """A transfer as it was asked for: settings, over a protocol that may have been left open."""

    protocol: str | None
    """Its name among TRANSFERS; None: not given by name."""
    settings: list[str]

    @property
    def is_protocol_named(self) -> bool:
        """Whether there is a word or a setting that says which protocol."""
        keys = {one.partition("=")[0] for one in self.settings}
        return self.protocol is not None or not keys.isdisjoint({"protocol", "protocol.kind"})

    def config(self, *defaults: str) -> TransferConfig:
        """The settings over the named protocol, else over the first of `defaults` that has them all.

        Raises BadInput for a setting that is none; with several defaults, as the first of them says it.
        """
        if self.is_protocol_named:
            return override(TRANSFERS[self.protocol or defaults[0]](), self.settings)
        refusals = []
        for default in defaults:
            try:
                return override(TRANSFERS[default](), self.settings)
            except BadInput as error:
                refusals.append(str(error))
        note = f" (no protocol is named: this is {defaults[0]})" if refusals[0].startswith("protocol.") else ""
        raise BadInput(refusals[0] + note)

    def suited(self, config: TransferConfig, benchmark: Benchmark) -> TransferConfig:
        """`config`; where no protocol was named, the settings over the one that the benchmark, now that it is read, asks for.

        The encoder stays as `config` has it.
        """
        default = SEGMENTATION_DEFAULT if benchmark.kind == "segmentation" else DEFAULT
        if self.is_protocol_named:
            return config
        if default != DEFAULT:
            say(f"{benchmark.name} is a segmentation: protocol.kind={TRANSFERS[default]().protocol.kind}")
        return replace(self.config(default), encoder=config.encoder)


def asked_for(arguments: list[str]) -> Asked:
    """The words and settings of a command line, understood, with a line for a set that was recognised.

    Raises BadInput for a word that is neither a path nor a name, for two of a sort, and for a word that contradicts a setting.
    """
    words, settings = words_and_settings(arguments)
    protocols = [word for word in words if word in TRANSFERS]
    benchmarks = [word for word in words if word not in TRANSFERS]
    for word in benchmarks:
        if word not in KIND_NAMES and not Path(word).exists():
            raise BadInput(unknown_benchmark(word))
    if len(protocols) > 1:
        raise BadInput(
            f"{', '.join(protocols)}: expected one protocol; a folder of that name is written ./{protocols[0]}"
        )
    if len(benchmarks) > 1:
        raise BadInput(
            f"{', '.join(benchmarks)}: expected one benchmark: its folder, or its kind and benchmark.path=DIR"
        )
    kind, _ = pick(settings, "protocol.kind")
    if protocols and kind not in (None, TRANSFERS[protocols[0]]().protocol.kind):
        raise BadInput(f"{protocols[0]}: a protocol, but protocol.kind={kind} says another; leave one out")
    chosen = _benchmark(benchmarks[0], settings) if benchmarks else []
    return Asked(protocols[0] if protocols else None, [*chosen, *settings])


def _benchmark(word: str, settings: list[str]) -> list[str]:
    """The settings that a word for a benchmark stands for."""
    (kind, _), (path, _) = pick(settings, "benchmark.kind"), pick(settings, "benchmark.path")
    place = Path(word)
    if word in KIND_NAMES and (path is not None or not place.exists()):
        if kind not in (None, word):
            raise BadInput(f"{word}: a kind of benchmark, but benchmark.kind={kind} says another; leave one out")
        return [f"benchmark.kind={word}"]
    if path is not None and Path(path).resolve() != place.resolve():
        raise BadInput(f"{word}: a benchmark, but benchmark.path={path} says another; leave one out")
    return [f"benchmark.kind={_kind_at(place, kind)}", f"benchmark.path={json.dumps(word)}"]


def _kind_at(place: Path, given: str | None) -> str:
    """The kind of the set at `place`; `given`: what benchmark.kind says, which decides where nothing or several are recognised."""
    kinds = {kind().kind: kind for kind in kinds_of(place)}
    is_published = any(kind in PUBLISHED for kind in kinds.values())
    if given is not None and (given in kinds or not is_published):
        return given
    titles = " or ".join(f"{kind.FACTS.title} (benchmark.kind={name})" for name, kind in kinds.items() if is_published)
    if given is not None:
        raise BadInput(
            f"{place}: is {titles}, but benchmark.kind={given} is given; leave it out, or say benchmark.path={place}"
        )
    if len(kinds) > 1:
        raise BadInput(f"{place}: may be {titles}: which one? Set benchmark.kind")
    if place.is_dir() and sets_in(place)[0] != [place]:
        found = ", ".join(path.name for path in sets_in(place)[0])
        raise BadInput(f"{place}: holds several sets: {found}; name one of them, e.g. {sets_in(place)[0][0]}")
    ((name, kind),) = kinds.items()
    own = "a set of images with masks" if name == "masks" else "a set of labelled images"
    say(f"{place} is {kind.FACTS.title if is_published else own}: benchmark.kind={name}")
    return name


def unknown_benchmark(word: str) -> str:
    """What may have been meant by a word that means nothing."""
    place = Path(word)
    beside = [path.name for path in place.parent.iterdir()] if place.parent.is_dir() else []
    near = [str(place.parent / name) for name in closest(place.name, beside)]
    near += [f"the kind of benchmark {name}" for name in closest(word, KIND_NAMES)]
    near += [f"the protocol {name}" for name in closest(word, TRANSFERS)]
    hint = (
        f"did you mean {' or '.join(near)}?" if near else f"Kinds: {', '.join(KIND_NAMES)}; --list prints the protocols"
    )
    return f"{word}: there is no such folder or manifest, kind of benchmark, or protocol; {hint}"
