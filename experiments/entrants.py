"""The encoders of a comparison: from the words of a command line to transfers that are alike.

One decision: an entrant is the first one's transfer with another encoder in it. Extent, protocol, search and data are the same for
all; only what has nothing to fine-tune is probed.
"""

import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from scoring import transfer_tags

from raypath.benchmarks import Benchmark
from raypath.errors import BadInput
from raypath.protocols import FinetuneSettings, HeadSettings, ProbeSettings, SegmentSettings, open_encoder
from raypath.protocols.encoders import IMAGENET, RANDOM, RANDOM_BN, WITHOUT_WEIGHTS, encoder_id, input_px, weights_id
from raypath.protocols.pixel_colour import PixelColourSettings
from raypath.protocols.transfer import OF_PIXELS, TransferConfig, check_protocol

# what is done with an encoder that has no weights, where others are trained or bring a head
BASELINES = {FinetuneSettings: ProbeSettings(), HeadSettings: ProbeSettings(), SegmentSettings: PixelColourSettings()}


@dataclass(frozen=True)
class Entrant:
    """An encoder that takes part: how people call it, and its transfer."""

    label: str
    config: TransferConfig
    benchmark: Benchmark
    study: str | None = None
    found: dict[str, str] = field(default_factory=dict)
    """Tags of what was found in the benchmark."""

    @property
    def stem(self) -> str:
        """A file name for what is made of it, different for different weights."""
        return re.sub(r"[^A-Za-z0-9._@()-]+", "-", self.identity)

    @property
    def identity(self) -> str:
        """The name with the hash of the weights: what a test is opened for."""
        return encoder_id(self.config.encoder, seed=self.config.seed)

    @property
    def tags(self) -> dict[str, Any]:
        """The lineage tags of its runs."""
        return transfer_tags(self.config, self.benchmark) | self.found | {"study": self.study}


def expand_encoders(text: str) -> list[str]:
    """`runs/ID,random,colour` as sources; a bare `random` or `random_bn` is like the first one."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names or names[0] in (*WITHOUT_WEIGHTS, RANDOM, RANDOM_BN):
        raise BadInput(
            f"encoder={text!r}: begin with runs/ID or a .safetensors file, e.g. encoder=runs/ID,random,colour"
        )
    return [absolute_source(f"{name}:{names[0]}" if name in (RANDOM, RANDOM_BN) else name) for name in names]


def absolute_source(source: str) -> str:
    """A source that means the same in a trial, which runs in a folder of its own, and when a sweep is resumed from elsewhere."""
    kind, colon, rest = source.partition(":")
    if kind in (RANDOM, RANDOM_BN):
        return f"{kind}{colon}{absolute_source(rest)}"
    architecture, at, file = source.partition("@")
    if at and not Path(source).exists():
        return f"{architecture}{at}{Path(file).absolute()}"
    is_path = kind != IMAGENET and ("/" in source or source.endswith(".safetensors") or Path(source).exists())
    return str(Path(source).absolute()) if is_path else source


def entrants_of(
    config: TransferConfig, sources: list[str], labels: list[str], benchmark: Benchmark, study: str | None
) -> list[Entrant]:
    """The same transfer for every source, at the extent of the first; what has nothing to fine-tune is probed."""
    is_dense = isinstance(config.protocol, OF_PIXELS)
    extent_px = 0 if is_dense else config.extent_px or input_px(open_encoder(sources[0], seed=config.seed)) or 0
    baseline = BASELINES.get(type(config.protocol), config.protocol)
    entrants = []
    for source, label in zip(sources, labels):
        protocol = baseline if source in WITHOUT_WEIGHTS else config.protocol
        own = replace(config, encoder=source, extent_px=extent_px, protocol=protocol)
        entrants.append(Entrant(label, own, benchmark, study))
    return entrants


def check_entrants(entrants: list[Entrant]) -> None:
    """Raise BadInput for a protocol that is none for an encoder, and for the same weights twice."""
    for entrant in entrants:
        check_protocol(entrant.config, entrant.benchmark)
    weights = [weights_id(entrant.config.encoder, seed=entrant.config.seed) for entrant in entrants]
    twice = next((own.config.encoder for own, one in zip(entrants, weights) if weights.count(one) > 1), None)
    if twice:
        raise BadInput(f"encoder={twice}: the same weights are given twice; a test is opened once for each encoder")
