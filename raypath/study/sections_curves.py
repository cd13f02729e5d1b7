"""The parts of a report that show on what a score depends: labels, tiles seen, compute, and alterations of the test images.

One decision: curves are of saved predictions, each point with its own interval; nothing is fitted through them.
"""

from collections.abc import Iterable

from raypath.study.cells import Said
from raypath.study.comparisons import at_budget, comparisons
from raypath.study.places import Place
from raypath.study.results import StudyResults
from raypath.study.robustness import AS_IS, Curve, curves
from raypath.study.robustness_figures import robustness_figure
from raypath.study.section import Section
from raypath.study.statistics import Interval
from raypath.study.study_figures import colour_of, curve_figure
from raypath.study.study_tables import altered_table, three, without_constants
from raypath.study.tables import Range, Table

Lines = dict[str, dict[str, list[tuple[float, Interval]]]]
"""(x, score) by benchmark and encoder."""


def label_curve(results: StudyResults) -> Section | None:
    """Score against the share of labels."""
    if len(results.config.fractions) < 2:
        return None
    pictures = []
    for protocol in results.protocols:
        own = [place for place in results.places if place.protocol == protocol]
        lines = _lines(results, ((100 * place.fraction, place) for place in own))
        picture = curve_figure(results, lines, label="% of the training labels", is_log=True)
        caption = f"{protocol}. Bands are 95 % intervals; smaller shares are parts of larger ones."
        pictures.append(("Score by labels", caption, picture))
    return Section(title="How many labels", pictures=tuple(pictures))


def scale_curve(results: StudyResults) -> Section | None:
    """Score against tiles seen, from checkpoints on the way."""
    pictures, names = [], {(p.encoder, p.benchmark) for p in results.on_the_way}
    for protocol in results.protocols:
        own = [
            (place.spent("tiles_seen"), place)
            for place in (*results.on_the_way, *results.places)
            if (place.encoder, place.benchmark) in names
            and (place.protocol, place.fraction) == (protocol, results.full)
        ]
        if own:
            picture = curve_figure(results, _lines(results, own), label="tiles seen in pretraining")
            pictures.append(("Score by tiles seen", f"{protocol}, saved checkpoints of each pretraining.", picture))
    missing = "; ".join(_missing(results))
    words = (f"Points are missing, see what failed: {missing}.",) if missing else ()
    return Section(title="How much pretraining", words=words, pictures=tuple(pictures)) if pictures or words else None


def _missing(results: StudyResults) -> list[str]:
    """How many of the checkpoints on the way are there, where some that were asked for are not."""
    lines = []
    for end in (place for place in results.places if place.fraction == results.full):
        entry, name = results.config.entry(end.encoder), (end.encoder, end.benchmark, end.protocol, end.fraction)
        own = (p for p in results.on_the_way if (p.encoder, p.benchmark, p.protocol, p.fraction) == name)
        asked, there = entry.curve_points * entry.num_seeds, sum(len(place.scored) for place in own)
        if there < asked:
            lines.append(f"{end.encoder} on {end.benchmark}, {end.protocol}: {there} of {asked} checkpoints on the way")
    return lines


def _lines(results: StudyResults, points: Iterable[tuple[float, Place]]) -> Lines:
    """Points as lines, each from left to right."""
    lines: Lines = {}
    for x, place in sorted(points, key=lambda point: point[0]):
        lines.setdefault(place.benchmark, {}).setdefault(place.encoder, []).append((x, results.interval(place)))
    return lines


def equal_compute(results: StudyResults) -> Section | None:
    """The matrix at the smallest budget of all pretrainings, with verdicts of its own."""
    if results.config.budget == "none" or not any(entry.recipe for entry in results.config.encoders):
        return None
    what, places = at_budget(results)
    if not places:
        return Section(title="Equal compute", words=(what,))
    equal = results.with_places(places)
    found = {
        id(one.place): one
        for p in equal.protocols
        for f in results.config.fractions
        for one in comparisons(equal, p, f)
    }
    rows = []
    for place in places:
        own, step, one = equal.interval(place), place.scored[0].record["step"], found.get(id(place))
        place_on_the_way = "the end" if step is None else f"step {step:,}"
        score = Range(own.estimate, own.low, own.high)
        names = (place.benchmark, place.encoder, place.protocol, f"{place.fraction:.0%}", place_on_the_way)
        word = one.word if one else "reference" if place.encoder == results.config.reference else None
        hours = (three(place.spent(unit)) for unit in _HOURS)
        rows.append((*names, round(place.spent("tiles_seen")), *hours, score, word))
    columns = (
        "benchmark",
        "encoder",
        "protocol",
        "labels",
        "checkpoint",
        "tiles seen",
        "CPU h",
        "GPU h",
        "test [95 %]",
    )
    table = Table(
        columns=(*columns, f"against {results.config.reference}"),
        rows=tuple(rows),
        missing="not compared",
        footnotes=("Tiles and hours: of one pretraining, the mean over folds and seeds.",),
    )
    table, words = without_constants(table, ("protocol", "labels"))
    lines = [what, words]
    if searched := ", ".join(results.read("search.json", {})):
        lines.append(
            f"Not in the budget: the search by which settings of {searched} were selected; it stands under Cost."
        )
    return Section(title="Equal compute", words=tuple(filter(None, lines)), tables=(table,))


_HOURS = ("cpu_hours", "gpu_hours")


def altered(results: StudyResults) -> Section | None:
    """Grey and stain-jittered test images."""
    table = altered_table(results)
    if table is None:
        return None
    table, words = without_constants(table, ("protocol", "labels"))
    return Section(title="Altered test images", words=(words,) if words else (), tables=(table,))


def robustness(results: StudyResults) -> Section | None:
    """Curves under stain, blur, JPEG and um per px, of the first fit of the first checkpoint of each encoder."""
    if not results.config.has_robustness:
        return None
    pictures, words = [], []
    colours = {entry.name: colour_of(results, entry.name) for entry in results.config.encoders}
    for benchmark, facts in results.benchmarks.items():
        protocol = next((p for p in results.protocols if p in facts.get("protocols", results.protocols)), "")
        own = {
            place.encoder: _curves(results, place)
            for place in results.places
            if (place.benchmark, place.protocol, place.fraction) == (benchmark, protocol, results.full)
        }
        own = {encoder: found for encoder, found in own.items() if found}
        if own:
            caption = f"{protocol}, the first fit: the same fit on altered test images. Lines are guides for the eye."
            pictures.append((f"Robustness: {benchmark}", caption, robustness_figure(own, colours=colours)))
            words += [f"{benchmark}, {encoder}. {'; '.join(map(str, found))}." for encoder, found in own.items()]
    if not pictures:
        return None
    text = ("What costs most, of each kind", "\n".join(words))
    return Section(title="Robustness", pictures=tuple(pictures), texts=(text,))


def _curves(results: StudyResults, place: Place) -> list[Curve]:
    """Of one place; empty where nothing was altered."""
    one = place.scored[0]
    said: dict[str, Said] = {AS_IS: one.said[0], **one.altered}
    return curves(said, place.metric, num_resamples=results.config.num_resamples, seed=results.config.seed)
