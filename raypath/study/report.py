"""The report: one HTML file that opens offline, prints, and can be mailed.

One decision: pictures are embedded and nothing is loaded from anywhere; a reader gets the question and the answer first, then the
numbers, then what they were made from. No script: a picture is enlarged by a hidden checkbox, so a strict mail client shows all of
it. The same contents give the same bytes.
"""

import base64
import io
import json
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

import matplotlib
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup
from PIL import Image

_LARGEST_PX = 1600


@dataclass(frozen=True, kw_only=True)
class Report:
    """What a report says; `pictures` are (title, caption, path | matplotlib figure | PIL image)."""

    title: str
    question: str
    verdict: str
    columns: tuple[str, ...]
    rows: list[tuple[str, ...]]
    notes: list[str] = field(default_factory=list)
    pictures: list[tuple[str, str, Any]] = field(default_factory=list)
    lineage: dict[str, str] = field(default_factory=dict)
    """Where it comes from; a value that is a JSON object is folded away."""

    def write(self, path: Path) -> Path:
        """Write the HTML file; returns its path."""
        template = files("raypath.study").joinpath("report.html.j2").read_text(encoding="utf-8")
        environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
        pictures = [(title, caption, embedded(picture)) for title, caption, picture in self.pictures]
        lineage = [(name, *_unfolded(value)) for name, value in self.lineage.items()]
        html = environment.from_string(template).render(report=self, pictures=pictures, lineage=lineage)
        path.write_text(html, encoding="utf-8")
        return path


def _unfolded(value: str) -> tuple[str, bool]:
    """(text, whether it is long): a JSON object is written with a line for each key."""
    if not value.startswith("{"):
        return value, False
    try:
        return json.dumps(json.loads(value), indent=1), True
    except json.JSONDecodeError:
        return value, False


def embedded(picture: Any) -> Markup:
    """A picture as a data URI: figures as SVG, photographs as JPEG."""
    buffer = io.BytesIO()
    if hasattr(picture, "savefig"):
        with matplotlib.rc_context({"svg.hashsalt": "raypath"}):  # else its ids are random
            picture.savefig(buffer, format="svg", metadata={"Date": None})
        kind = "svg+xml"
    else:
        image = picture if isinstance(picture, Image.Image) else Image.open(picture)
        image = image.convert("RGB")
        image.thumbnail((_LARGEST_PX, _LARGEST_PX))
        image.save(buffer, format="JPEG", quality=88)
        kind = "jpeg"
    return Markup(f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}")  # noqa: S704 - base64 of our own
