"""What features tell of sites, scanners and patients: a card for each encoder, benchmark and question.

    sites = "sites.csv"        columns `name` (of a sample, a patient or a slide), `site`, and any others: scanner, batch ...
    leave_site_out = true      every site is the test once, instead of folds of patients

One decision: nothing is guessed. Every column of the file is a question of its own; without a file the only sites are those that
barcodes of TCGA name. A sample of which nobody knows is left out of the card, and counted there.
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
from raypath.study.confounder_probe import PATIENT
from raypath.study.confounders import Confounder, confounder
from raypath.study.results import StudyResults, load_results


def record_confounders(folder: Path, benchmarks: Sequence[Loaded]) -> None:
    """What a probe reads of site, scanner and patient by the first checkpoint of each encoder, or why it cannot be asked."""
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
    asked = [(column, one.values_of(column, rows)) for column in one.groups]
    asked = [(name, group) for name, group in asked if any(group)]
    if one.benchmark.has_patients:
        asked.append((PATIENT, patients))
    return [
        _card(one.name, place.encoder, confounder(values, group, labels, patients, name=name)) for name, group in asked
    ]


def _card(benchmark: str, encoder: str, found: Confounder) -> dict[str, Any]:
    return {"benchmark": benchmark, "encoder": encoder, "words": found.words, "found": dataclasses.asdict(found)}
