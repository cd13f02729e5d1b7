"""Pictures of a study that need the images: what was seen worst, what two encoders disagree about, what looks alike, a map.

    pictures/BENCHMARK-worst.jpg  -disagreements.jpg  -neighbours.jpg     sheets of thumbnails, listed in pictures.json
    maps.json     positions by t-SNE, with class, site and patient

One decision: for each benchmark one encoder is looked at, the best one that has weights of its own and is not the reference; sheets
of all of them would be looked at by nobody. Everything is kept in the study's folder, for a report on another machine.
"""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from launch import say
from PIL import Image
from scoring import features_root
from sklearn.manifold import TSNE
from study_benchmarks import SITE, Loaded

from raypath.benchmarks import Predictions
from raypath.benchmarks.benchmark import groups_of
from raypath.config import from_dict
from raypath.data.images import Frame, read_pixels
from raypath.data.neighbour_sheet import neighbour_sheet
from raypath.data.sample_sheet import sample_sheet
from raypath.errors import RaypathError
from raypath.protocols.fitting import embedder_of
from raypath.protocols.probe import ProbeSettings
from raypath.protocols.trained import TRAINED
from raypath.protocols.transfer import OF_PIXELS, TransferConfig, feeding
from raypath.study.cells import Said, write_json
from raypath.study.places import Place
from raypath.study.results import StudyResults, load_results

NUM_SHOWN, NUM_MAPPED, THUMB_PX = 20, 600, 144
_UNTRAINED = ("colour", "random", "random_bn", "file")


def draw_pictures(folder: Path, benchmarks: list[Loaded]) -> None:
    """All pictures of a study; what cannot be drawn is said and left out."""
    results, sheets, maps = load_results(folder), [], []
    for one in benchmarks:
        place = looked_at(results, one.name)
        if place is None:
            continue
        try:
            sheets += sheets_of(folder, results, one, place)
            maps += map_of(results, one, place)
        except (RaypathError, ValueError, OSError) as error:
            say(f"{one.name}: pictures are left out: {str(error).splitlines()[0]}")
    write_json(folder / "pictures.json", sheets)
    write_json(folder / "maps.json", maps)


def looked_at(results: StudyResults, benchmark: str) -> Place | None:
    """The place whose encoder is looked at: the best of those with weights, on all labels; None where there is none."""
    places = [
        p for p in results.places if p.benchmark == benchmark and p.fraction == results.full and has_weights(results, p)
    ]
    others = [place for place in places if place.encoder != results.config.reference] or places
    return max(others, key=lambda place: results.interval(place).estimate, default=None)


def has_weights(results: StudyResults, place: Place) -> bool:
    """Whether an encoder has learned anything."""
    return results.config.entry(place.encoder).source.partition(":")[0] not in _UNTRAINED


def sheets_of(folder: Path, results: StudyResults, one: Loaded, place: Place) -> list[dict[str, str]]:
    """Worst samples, disagreements with the reference, and nearest neighbours, as files and what they show."""
    (folder / "pictures").mkdir(exist_ok=True)
    said, found = place.said[0][0], []
    sure = sureness(said)
    worst = np.argsort(sure, kind="stable")[:NUM_SHOWN]
    words = [words_of(said, row) for row in worst]
    about = f"{place.encoder}, {place.protocol}: the {len(worst)} samples of the test that it got most wrong"
    found.append(
        kept(folder, one, "worst", "Worst tiles", about, sheet_of(one, said, worst, words, "Worst tiles", about))
    )
    other = results.place(results.config.reference, one.name, place.protocol, place.fraction)
    if other is not None and other.encoder != place.encoder:
        row_of = {sample: row for row, sample in enumerate(other.said[0][0].sample)}
        of_other = sureness(other.said[0][0])[[row_of[sample] for sample in said.sample]]
        apart = np.argsort(-abs(sure - of_other), kind="stable")[:NUM_SHOWN]
        words = [
            (*words_of(said, row)[:1], f"{place.encoder} {sure[row]:.2f}", f"{other.encoder} {of_other[row]:.2f}")
            for row in apart
        ]
        about = f"how sure {place.encoder} and {other.encoder} are of the label, where they differ most"
        sheet = sheet_of(one, said, apart, words, "Disagreements", about)
        found.append(kept(folder, one, "disagreements", "Disagreements", about, sheet))
    if one.benchmark.kind == "classification":
        rows, values = features_of(one, place)
        pixels = read_pixels(rows, Frame(extent_px=THUMB_PX))
        unit = "patient" if one.benchmark.has_patients else "image"
        title = f"Nearest neighbours by {place.encoder} on {one.name}"
        sheet = neighbour_sheet(pixels, values, groups_of(rows), title=title, group=unit, one="sample")
        found.append(
            kept(folder, one, "neighbours", "Nearest neighbours", f"by the features of {place.encoder}", sheet)
        )
    return found


def kept(folder: Path, one: Loaded, what: str, title: str, about: str, sheet: Image.Image) -> dict[str, str]:
    """A sheet as a file of the study's folder."""
    name = f"pictures/{re.sub(r'[^A-Za-z0-9._-]+', '-', one.name)}-{what}.jpg"
    sheet.save(folder / name, quality=86)
    return {"benchmark": one.name, "title": f"{title}: {one.name}", "caption": about, "file": name}


def sheet_of(one: Loaded, said: Said, numbers: np.ndarray, words: list, title: str, about: str) -> Image.Image:
    """Thumbnails of some samples, with their words."""
    place_of = {sample: row for row, sample in enumerate(one.benchmark.table["sample"].to_pylist())}
    rows = one.benchmark.table.take(pa.array([place_of[said.sample[number]] for number in numbers]))
    return sample_sheet(read_pixels(rows, Frame(extent_px=THUMB_PX)), words, title=f"{title}: {one.name}", about=about)


def words_of(said: Said, row: int) -> tuple[str, ...]:
    """What a sample is, what was said, and who it is of."""
    who = said.patient[row] or said.sample[row]
    if isinstance(said, Predictions):
        predicted = said.probability[row].argmax()
        called = f"called {said.classes[predicted]} ({said.probability[row, predicted]:.2f})"
        return said.classes[said.label[row]], called, who
    return f"{sureness(said)[row]:.0%} of pixels right", who


def sureness(said: Said) -> np.ndarray:
    """Of every sample, how right it was: the probability of its label, or the share of pixels that are right, float [N]."""
    if isinstance(said, Predictions):
        return said.probability[np.arange(len(said.label)), said.label].astype(float)
    right = np.trace(said.confusion, axis1=1, axis2=2)
    return right / np.maximum(1, said.confusion.sum(axis=(1, 2)))


def features_of(one: Loaded, place: Place, most: int = NUM_MAPPED) -> tuple[pa.Table, np.ndarray]:
    """(rows, features) of at most so many samples of a benchmark, evenly drawn; from the cache where they are known."""
    table = one.benchmark.table
    chosen = np.unique(np.linspace(0, len(table) - 1, min(most, len(table))).astype(int))
    rows = table.take(pa.array(chosen))
    record = place.scored[0].record
    config = replace(
        from_dict(TransferConfig, record["config"]), benchmark=next(iter(one.transfers.values())).benchmark
    )
    if isinstance(config.protocol, (*TRAINED, *OF_PIXELS)):
        config = replace(config, protocol=ProbeSettings())
    fed = feeding(config, one.benchmark)
    embedder = embedder_of(config, one.benchmark, fed, features_root())
    return rows, embedder.features(one.benchmark, rows).values


def map_of(results: StudyResults, one: Loaded, place: Place) -> list[dict[str, Any]]:
    """Positions of samples by t-SNE of their features, with class, site and patient; for looking, not for concluding."""
    if one.benchmark.kind != "classification":
        return []
    rows, values = features_of(one, place)
    if len(rows) < 10:
        return []
    perplexity = min(30.0, (len(rows) - 1) / 3)
    points = TSNE(perplexity=perplexity, init="pca", random_state=0).fit_transform(values.astype(np.float32))
    return [
        {
            "benchmark": one.name,
            "encoder": place.encoder,
            "points": np.round(points, 3).tolist(),
            "label": [one.benchmark.classes[label] for label in rows["label"].to_pylist()],
            "site": one.values_of(SITE, rows),
            "group": rows["patient"].to_pylist(),
        }
    ]
