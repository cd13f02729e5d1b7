"""The report of a study: question and verdict first, then everything that a reviewer asks for, in one file.

    report.html     opens offline, prints, reads on a phone; pictures are inside
    table.csv, table.tex     the matrix with intervals, patients, seeds and footnotes

One decision: it is made from the study's folder alone (`results`), so `raypath report` makes the same file on a machine without
images, and a number of the report can be traced to a file of predictions.

What it costs: intervals and permutation tests for every place, a minute for some hundred of them.
"""

from dataclasses import replace
from importlib.resources import files
from itertools import chain
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from raypath.study.comparisons import comparisons, summary
from raypath.study.report import embedded
from raypath.study.results import StudyResults, load_results
from raypath.study.study_sections import Found, all_sections
from raypath.study.study_tables import matrix_table
from raypath.study.tables import Table


def write_report(folder: Path) -> Path:
    """Make the report and the tables of a study's folder; returns the path of the HTML file.

    Raises BadInput for a folder that is no study.
    """
    folder = Path(folder)
    results = load_results(folder)
    shares = sorted(results.config.fractions, reverse=True)
    found = {
        (protocol, share): comparisons(results, protocol, share) for protocol in results.protocols for share in shares
    }
    table = matrix_table(results, chain.from_iterable(found.values()))
    (folder / "table.csv").write_text(table.csv(), encoding="utf-8")
    (folder / "table.tex").write_text(table.latex(), encoding="utf-8")
    parts = all_sections(results, found, table)
    template = files("raypath.study").joinpath("study.html.j2").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    html = environment.from_string(template).render(
        title=results.config.name,
        question=results.config.question,
        verdicts=verdict_lines(results, found),
        sections=[(part, list(map(shown, part.tables)), list(map(drawn, part.pictures))) for part in parts],
    )
    place = folder / "report.html"
    place.write_text(html, encoding="utf-8")
    return place


def shown(table: Table) -> Markup:
    """A table on the page, which has said its caption already."""
    return replace(table, caption="").html()


def drawn(picture: tuple[str, str, Any]) -> tuple[str, str, Markup]:
    """A picture with its title and caption, inside the page."""
    title, caption, source = picture
    return title, caption, embedded(source)


def verdict_lines(results: StudyResults, found: Found) -> list[str]:
    """The answer, a sentence for each protocol and encoder, on all labels; first of all, if it is not the last word."""
    lines = unfinished(results)
    for (protocol, fraction), own in found.items():
        if fraction == results.full:
            prefix = f"{protocol}: " if len(results.protocols) > 1 else ""
            lines += [f"{prefix}{line}" for line in summary(results, own)]
    return lines if any(found.values()) else [*lines, "Nothing was scored that can be compared."]


def unfinished(results: StudyResults) -> list[str]:
    """A warning where the study has not come to its end."""
    progress = results.read("progress.json", {})
    ended, steps = progress.get("ended", 0), progress.get("steps", 0)
    if ended >= steps:
        return []
    return [
        f"Not finished: {ended} of {steps} pretrainings and scorings have ended. What follows is of these alone and will change;"
        " p-values are corrected for fewer comparisons than there will be. The study's command goes on with it."
    ]
