"""Pictures of a study that need the images: what was seen worst, what two encoders disagree about, what looks alike, a map.

    pictures/BENCHMARK-worst.jpg  -disagreements.jpg  -neighbours.jpg     sheets of thumbnails
    maps/BENCHMARK.json                                                   2-D positions of samples by t-SNE (scikit-learn), with class and group
    confounders.json                                                      what a probe reads from features that it should not

One decision: for each benchmark one encoder is looked at, the best one that has weights of its own and is not the reference; sheets
of all of them would be looked at by nobody. Everything is kept in the study's folder, for a report on another machine.
"""

import json
import re
from collections import Counter
from pathlib import Path

import launch
import numpy as np
import pyarrow as pa
from launch import say
from scoring import device_here, features_root
from sklearn.manifold import TSNE
from study_plan import Loaded

from raypath.benchmarks import Predictions
from raypath.benchmarks.benchmark import groups_of
from raypath.config import from_dict
from raypath.data.images import Frame, read_pixels
from raypath.data.neighbour_sheet import neighbour_sheet
from raypath.data.sample_sheet import sample_sheet
from raypath.errors import RaypathError
from raypath.protocols.fitting import embedder_of
from raypath.protocols.frozen import FrozenSettings
from raypath.protocols.transfer import TransferConfig, feeding
from raypath.study.barcodes import find_barcode
from raypath.study.cells import Said, write_json
from raypath.study.confounders import confounder
from raypath.study.results import Place, StudyResults, load_results

NUM_SHOWN, NUM_MAPPED, THUMB_PX = 20, 600, 144
_UNTRAINED = ("colour", "random", "random_bn", "file")


def draw_pictures(folder: Path, benchmarks: list[Loaded]) -> None:
    """All pictures of a study that are not there yet for what it has found; what cannot be drawn is said and left out."""
    results = load_results(folder)
    found, confounded = [], []
    for one in benchmarks:
        place = looked_at(results, one.name)
        if place is None:
            continue
        try:
            found += sheets_of(folder, results, one, place)
            confounded += looks_of(folder, results, one)
        except (RaypathError, ValueError, OSError) as error:
            say(f"{one.name}: pictures are left out: {str(error).splitlines()[0]}")
    write_json(folder / "pictures.json", found)
    write_json(folder / "confounders.json", confounded)


def looked_at(results: StudyResults, benchmark: str) -> Place | None:
    """The place whose encoder is looked at: the best of those with weights, on all labels; None where there is none."""
    places = [p for p in results.places if p.benchmark == benchmark and p.fraction == 1 and has_weights(results, p)]
    others = [place for place in places if place.encoder != results.config.reference] or places
    return max(others, key=lambda place: results.interval(place).estimate, default=None)


def has_weights(results: StudyResults, place: Place) -> bool:
    """Whether an encoder has learned anything."""
    return results.config.entry(place.encoder).source.partition(":")[0] not in _UNTRAINED


def sheets_of(folder: Path, results: StudyResults, one: Loaded, place: Place) -> list[dict[str, str]]:
    """Worst samples, and disagreements with the reference."""
    said, (folder / "pictures").mkdir(exist_ok=True) or place.said[0][0]
    return []


def sureness(said: Said) -> np.ndarray:
    """Of every sample, how right it was: the probability of its label, or the share of pixels that are right, float [N]."""
    if isinstance(said, Predictions):
        return said.probability[np.arange(len(said.label)), said.label].astype(float)
    right = np.trace(said.confusion, axis1=1, axis2=2)
    return right / np.maximum(1, said.confusion.sum(axis=(1, 2)))
