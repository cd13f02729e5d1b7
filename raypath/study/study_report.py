"""The report of a study: question and verdict first, then everything that a reviewer asks for, in one file.

    report.html     opens offline, prints, reads on a phone; pictures are inside
    table.csv, table.tex     the matrix with intervals, patients, seeds and footnotes

One decision: it is made from the study's folder alone (`results`), so `raypath report` makes the same file on a machine without
images, and a number of the report can be traced to a file of predictions.

What it costs: intervals and permutation tests for every place, a minute for some hundred of them.
"""

from collections.abc import Iterable
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, StrictUndefined

from raypath.study.comparisons import Comparison, comparisons, summary
from raypath.study.report import embedded
from raypath.study.results import StudyResults, load_results
from raypath.study.study_sections import all_sections
from raypath.study.study_tables import matrix_table


def write_report(folder: Path) -> Path:
    """Make the report and the tables of a study's folder; returns the path of the HTML file.

    Raises BadInput for a folder that is no study.
    """
    folder = Path(folder)
    results = load_results(folder)
    found = {protocol: comparisons(results, protocol) for protocol in results.protocols}
    table = matrix_table(results, found)
    (folder / "table.csv").write_text(table.csv(), encoding="utf-8")
    (folder / "table.tex").write_text(table.latex(), encoding="utf-8")
    parts = all_sections(results, found, table)
    template = files("raypath.study").joinpath("study.html.j2").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    html = environment.from_string(template).render(
        title=results.config.name,
        question=results.config.question,
        verdicts=verdict_lines(results, found),
        sections=[(part, [(t, c, embedded(picture)) for t, c, picture in part.pictures]) for part in parts],
    )
    place = folder / "report.html"
    place.write_text(html, encoding="utf-8")
    return place


def verdict_lines(results: StudyResults, found: dict[str, Iterable[Comparison]]) -> list[str]:
    """The answer, a sentence for each encoder and protocol."""
    lines = []
    for protocol, own in found.items():
        prefix = f"{protocol}: " if len(found) > 1 else ""
        lines += [f"{prefix}{line}" for line in summary(results, own)]
    return lines or ["Nothing was scored that can be compared."]
