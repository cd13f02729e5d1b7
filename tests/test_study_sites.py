"""A file of sites and scanners becomes questions to the features, folds and the colours of a map."""

import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "experiments"))

import study_sites
from study_benchmarks import Loaded, groups_in

from raypath.benchmarks import load_images
from raypath.errors import BadInput
from raypath.study.study_figures import map_figure
from tests.test_study import write_set


@pytest.fixture(scope="module")
def benchmark(tmp_path_factory):
    home = tmp_path_factory.mktemp("sites") / "set"
    write_set(home, 0)
    return load_images(home, name="set")


def file_of(tmp_path, benchmark, head="Name,site,scanner") -> str:
    """Sites by patient; the scanner of all but one of them, and of one sample a scanner of its own."""
    patients = sorted(set(benchmark.table["patient"].to_pylist()))
    lines = [
        f"{p},{'north' if n < 6 else 'south'},{['', 'one', 'two'][(n > 0) * (1 + n % 2)]}"
        for n, p in enumerate(patients)
    ]
    lines.append(f"{benchmark.table['sample'][0].as_py()},,three")
    place = tmp_path / "sites.csv"
    place.write_text("\n".join([head, *lines]) + "\n")
    return str(place)


def loaded(benchmark, groups) -> Loaded:
    return Loaded("set", benchmark, "", {}, groups=groups)


def test_every_column_is_known_by_sample_before_patient(tmp_path, benchmark):
    one = loaded(benchmark, groups_in(file_of(tmp_path, benchmark), benchmark))
    assert list(one.groups) == ["site", "scanner"]
    assert set(one.site_of.values()) == {"north", "south"}
    table = benchmark.table
    scanners = one.values_of("scanner", table)
    first = sorted(set(table["patient"].to_pylist()))[0]
    assert scanners[0] == "three"
    unknown = [patient for patient, scanner in zip(table["patient"].to_pylist(), scanners) if scanner is None]
    assert set(unknown) == {first}
    assert one.values_of("site", table)[0] in ("north", "south")
    assert one.values_of("batch", table) == [None] * len(table)


def test_a_file_without_questions_or_with_patients_is_refused(tmp_path, benchmark):
    for head in ("Name", "Name,site,Patient", "Name,site,site"):
        with pytest.raises(BadInput, match="line 1"):
            groups_in(file_of(tmp_path, benchmark, head), benchmark)
    assert groups_in("", benchmark) == {"site": {}}


def test_each_column_has_a_card_with_an_interval(tmp_path, benchmark, monkeypatch):
    one = loaded(benchmark, groups_in(file_of(tmp_path, benchmark), benchmark))
    rows: pa.Table = benchmark.table
    sites = np.array(one.values_of("site", rows)) == "north"
    values = np.random.default_rng(0).normal(size=(len(rows), 8)) + 4 * sites[:, None]
    monkeypatch.setattr(study_sites, "features_of", lambda one, place: (rows, values))
    cards = study_sites.cards_of(one, type("Place", (), {"encoder": "ours"}))
    assert [card["found"]["name"] for card in cards] == ["site", "scanner", "patient"]
    site, scanner, _ = (card["found"] for card in cards)
    assert site["read"]["estimate"] > 0.9
    assert scanner["read"]["low"] < scanner["read"]["estimate"] < scanner["read"]["high"]
    assert "samples without scanner left out" in cards[1]["words"]


def titles(known) -> list[str]:
    return [axes.get_title() for axes in map_figure(known).axes]


def test_a_map_is_coloured_by_site_and_else_by_patient():
    points = np.random.default_rng(0).normal(size=(40, 2)).tolist()
    known = {"points": points, "label": ["a", "b"] * 20, "group": ["p1", "p2", None, "p3"] * 10}
    assert titles(known) == ["class", "3 patients"]
    assert titles(known | {"site": ["x", None, "y", "x"] * 10}) == ["class", "2 sites"]
    assert titles(known | {"site": [None] * 40}) == ["class", "3 patients"]
    assert titles(known | {"site": ["x"] * 40, "group": [None] * 40}) == ["class"]
    assert "illustration" in map_figure(known).get_suptitle()
