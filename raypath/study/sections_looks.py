"""The part of a report that people look at: confusions, sheets of samples, maps.

One decision: for each benchmark the best encoder is looked at, because sheets of all of them would be looked at by nobody.
"""

from typing import Any

from raypath.study.figures import confusion_figure
from raypath.study.results import StudyResults
from raypath.study.section import Section
from raypath.study.study_figures import map_figure


def looks(results: StudyResults) -> Section | None:
    """Confusion, sheets of samples, and maps: what people look at."""
    pictures: list[tuple[str, str, Any]] = []
    sheets = results.read("pictures.json", [])
    for benchmark in results.benchmarks:
        places = [p for p in results.places if p.benchmark == benchmark and p.fraction == results.full]
        best = max(places, key=lambda p: results.interval(p).estimate, default=None)
        if best is not None:
            title = f"Confusion: {benchmark}"
            figure = confusion_figure(best.said[0][0], f"{best.encoder} on {benchmark}")
            pictures.append((title, f"{best.encoder}, {best.protocol}, first fit: the best score here.", figure))
    for sheet in sheets:
        if (results.folder / sheet["file"]).exists():
            pictures.append((sheet["title"], sheet["caption"], results.folder / sheet["file"]))
    for known in results.read("maps.json", []):
        caption = f"t-SNE of the features of {known['encoder']}: an illustration; distances and sizes mean little."
        pictures.append((f"Map: {known['benchmark']}", caption, map_figure(known)))
    return Section(title="To look at", pictures=tuple(pictures)) if pictures else None
