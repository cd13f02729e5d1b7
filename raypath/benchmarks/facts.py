"""What is published of a labelled set, and what was found of it in a folder.

One decision: published counts stand beside the reader, each with its source, and are compared with what was built every time. A set
that differs is used all the same, but says so: its runs are tagged "not the paper's data", and no number of theirs stands unmarked
beside a published one.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from raypath.data.image_rows import ImageRow


@dataclass(frozen=True)
class Count:
    """A number that was built, beside the published one (None: not published)."""

    what: str
    built: int
    published: int | None

    @property
    def is_equal(self) -> bool:
        """Whether the two agree, or nobody published one."""
        return self.published is None or self.built == self.published

    def __str__(self) -> str:
        if self.published is None:
            return f"{self.what} {self.built:,}"
        return f"{self.what} {self.built:,}" + ("" if self.is_equal else f" (published: {self.published:,})")


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What its authors say of a set."""

    title: str
    source: str
    """Paper and place."""
    licence: str
    """As stated where the set is published; "not stated" where it is not."""
    mpp: float | None
    """um per px of the images as they lie in the files; None: not known."""
    counts: Mapping[str, int] = field(default_factory=dict)
    """Published numbers of samples: "images" (all of them), "patients", "slides", a split, or a class by its name."""
    note: str = ""
    """What a user should know: traps, other sources of the same images."""


def compare(rows: Sequence[ImageRow], facts: Facts) -> tuple[Count, ...]:
    """Every published count beside what the rows have; "images" and "patients" also where nobody published them."""
    found = Counter({"images": len(rows)})
    for name in ("patient", "slide"):
        found[f"{name}s"] = len({getattr(row, name) for row in rows} - {None})
    found.update(row.label for row in rows)
    found.update(row.split for row in rows if row.split)
    always = ["images"] + (["patients"] if found["patients"] else [])
    return tuple(Count(what, found[what], facts.counts.get(what)) for what in dict.fromkeys([*always, *facts.counts]))
