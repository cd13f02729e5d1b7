"""Sites of a benchmark's samples: from a file, or from TCGA barcodes; folds that leave a site out, and what features tell of sites.

    sites = "sites.csv"        columns `name` (a sample, a patient or a slide) and `site` (or scanner)
    leave_site_out = true      every site is the test once, instead of folds of patients

One decision: nothing is guessed. Without a file the only sites are those that barcodes of TCGA name; a sample without one is left
out of the confounder card, and counted there.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from launch import say
from study_benchmarks import Loaded
from study_pictures import features_of, has_weights

from raypath.errors import RaypathError
from raypath.study.cells import write_json
from raypath.study.confounders import Confounder, confounder
from raypath.study.results import StudyResults, load_results

_NAMES = ("sample", "patient", "slide")


def record_confounders(folder: Path, benchmarks: Sequence[Loaded]) -> None:
    """What a probe reads of site and patient, for the first checkpoint of every encoder; what cannot be asked is written too."""
    results, cards = load_results(folder), []
    for one in benchmarks:
        if one.benchmark.kind != "classification":
            continue
        for place in first_places(results, one.name):
            try:
                cards += cards_of(one, place)
            except RaypathError as error:
                say(f"{place.encoder} on {one.name}: confounders are left out: {error}")
    write_json(folder / "confounders.json", cards)


def first_places(results: StudyResults, benchmark: str) -> list:
    """The first place of each encoder on all labels; random weights are not asked."""
    found: dict[str, Any] = {}
    for place in results.places:
        is_asked = has_weights(results, place) or results.config.entry(place.encoder).source == "colour"
        if place.benchmark == benchmark and place.fraction == results.full and is_asked:
            found.setdefault(place.encoder, place)
    return list(found.values())


def cards_of(one: Loaded, place) -> list[dict[str, Any]]:
    """The confounders of one encoder on one benchmark."""
    rows, values = features_of(one, place)
    patients, labels = rows["patient"].to_pylist(), rows["label"].to_numpy()
    asked: list[tuple[str, list[str | None]]] = []
    sites = known_sites(one, rows)
    if any(sites):
        asked.append(("site", sites))
    if one.benchmark.has_patients:
        asked.append(("patient", patients))
    return [
        _card(one.name, place.encoder, confounder(values, group, labels, patients, name=name)) for name, group in asked
    ]


def known_sites(one: Loaded, rows) -> list[str | None]:
    """The site of every row; None where nobody knows."""
    columns = zip(*(rows[name].to_pylist() for name in _NAMES), strict=True)
    return [next((one.site_of[name] for name in names if name in one.site_of), None) for names in columns]


def _card(benchmark: str, encoder: str, found: Confounder) -> dict[str, Any]:
    return {"benchmark": benchmark, "encoder": encoder, "words": found.words, "found": dataclasses.asdict(found)}
