"""A part of a study's report: a heading, and below it words, pictures, tables and long texts.

One decision: a part is a value, made by a function of the results (`sections_*`), and the template alone knows how it looks.
"""

from dataclasses import dataclass
from typing import Any

from raypath.study.tables import Table


@dataclass(frozen=True, kw_only=True)
class Section:
    """A part of the report."""

    title: str
    words: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()
    pictures: tuple[tuple[str, str, Any], ...] = ()
    """(title, caption, path | matplotlib figure | PIL image)."""
    texts: tuple[tuple[str, str], ...] = ()
    """(name, long text that is folded away)."""
