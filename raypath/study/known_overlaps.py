"""Which public sets were cut from which: what neither file names nor pixels tell.

One decision: only what somebody published stands here, with where. A set is named as papers name it (`PCam`, `TCGA`); it is
`whole`ly of its source, or `partly` where it has others too or nobody says which images are. A set without a line has no *known*
source, which is no proof that it has none: for MHIST, BACH, BreaKHis, GlaS, MITOS-ATYPIA-14, Kather's and Janowczyk's other sets
none of the sources above is named where they are published.

What it costs: names only. Two sets of one source may still have no patient in common; where ids or barcodes exist, comparing them
(`contamination`) says more.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from raypath.study.barcodes import find_barcode

Share = Literal["whole", "partly"]


@dataclass(frozen=True)
class Source:
    """One line of the table."""

    of: str
    """The set."""
    source: str
    """What it was cut from."""
    share: Share
    stated: str
    """Where it is said."""


KNOWN = (
    Source("PCam", "CAMELYON16", "whole", "Veeling et al. 2018, arXiv 1806.03962; github.com/basveeling/pcam"),
    Source("PCam200", "CAMELYON16", "whole", "Kawai et al. 2023, arXiv 2303.15693"),
    Source("CAMELYON17", "CAMELYON16", "partly", "camelyon17.grand-challenge.org/Data: its lesion-level training data"),
    Source("PTCGA200", "TCGA", "whole", "Kawai et al. 2023, arXiv 2303.15693"),
    Source("segPANDA200", "PANDA", "whole", "Kawai et al. 2023, arXiv 2303.15693"),
    Source("MoNuSeg", "TCGA", "whole", "Kumar et al. 2017, IEEE TMI 36(7); its images are named by their barcodes"),
    Source(
        "PanNuke", "TCGA", "partly", "its dataset card, huggingface.co/datasets/Angelou0516/PanNuke: TCGA and others"
    ),
    Source("TUPAC16 slides", "TCGA", "whole", "tupac.grand-challenge.org/Dataset: 500 breast cases, under other names"),
    # the mitoses of the same challenge, which the benchmark tupac is made of, are not said to be of TCGA
    Source("TUPAC16 mitoses", "AMIDA13", "partly", "Veta et al. 2019, Medical Image Analysis 54: cases 1 to 23"),
    Source("Janowczyk5", "AMIDA13", "partly", "nowhere: its twelve patients are numbered as AMIDA13's first ones"),
)

_ALSO_CALLED = {"tupac": ("TUPAC16 mitoses",), "tupac16": ("TUPAC16 slides", "TUPAC16 mitoses")}
_CAMELYON16 = re.compile(r"(normal|tumor|test)_\d{3}", re.IGNORECASE)  # normal_001.tif to test_130.tif
_CAMELYON17 = re.compile(r"patient_\d{3}_node_\d", re.IGNORECASE)


@dataclass(frozen=True)
class Overlap:
    """Why two sets have images in common, or may have."""

    share: Share
    """whole: all of the second set is of the first; partly: some of it is, or both are parts of one source."""
    words: str


def overlap(seen: str, asked: str) -> Overlap | None:
    """What the set `asked` has of the set `seen`, by the table; None where nothing is known.

    Names may be written in any capitals, and the name of a variant counts as its set's (pannuke-tissue, ptcga200_tiles).
    """
    for asked_set in sets_called(asked):
        sources = _sources(asked_set)
        for seen_set in sets_called(seen):
            of = _find(seen_set, sources)
            if of is not None:
                share, stated = sources[of]
                if of == asked_set:
                    return Overlap("whole", f"{of} itself")
                return Overlap(share, f"{asked_set} is {'' if share == 'whole' else 'partly '}from {of}{stated}")
            shared = [name for name in _sources(seen_set) if _find(name, sources)]
            if shared:
                return Overlap("partly", f"{asked_set} and {seen_set} are both from {shared[0]}")
    return None


def sets_called(name: str) -> tuple[str, ...]:
    """The sets of the table that a name means; itself where it is in none."""
    spelled = {_plain(one): one for line in KNOWN for one in (line.of, line.source)}
    for text in (name, re.split(r"[-_ ]", name)[0]):
        if _plain(text) in _ALSO_CALLED:
            return _ALSO_CALLED[_plain(text)]
        if _plain(text) in spelled:
            return (spelled[_plain(text)],)
    return (name,)


def corpora_of(names: Iterable[str]) -> tuple[str, ...]:
    """The public collections that slides are of, by the form of their names: TCGA, CAMELYON16, CAMELYON17."""
    found = set()
    for name in names:
        if find_barcode(name):
            found.add("TCGA")
        elif _CAMELYON17.fullmatch(name):
            found.add("CAMELYON17")
        elif _CAMELYON16.fullmatch(name):
            found.add("CAMELYON16")
    return tuple(sorted(found))


def _sources(name: str) -> dict[str, tuple[Share, str]]:
    """The set itself and all that it is cut from: the share, and where that is stated."""
    found: dict[str, tuple[Share, str]] = {name: ("whole", "")}
    for line in KNOWN:
        if line.of == name:
            for source, (share, _) in _sources(line.source).items():
                both = "whole" if share == line.share == "whole" else "partly"
                found.setdefault(source, (both, f" ({line.stated})"))
    return found


def _find(name: str, sources: Iterable[str]) -> str | None:
    return next((source for source in sources if _plain(source) == _plain(name)), None)


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())
