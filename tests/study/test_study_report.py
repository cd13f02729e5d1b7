"""The report of a study: one file that holds every number of the tables, and shows what went wrong as well."""

import base64
import csv
import io
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import roc_auc_score

from raypath.study.cells import write_json
from raypath.study.comparisons import comparisons
from raypath.study.ranks import rank_test
from raypath.study.results import load_results
from raypath.study.robustness import AS_IS, curves
from raypath.study.sections_curves import equal_compute, robustness, scale_curve
from raypath.study.sections_scores import ranks
from raypath.study.sections_trust import costs, leakage, lineage
from raypath.study.study_figures import colour_of
from raypath.study.study_report import write_report
from raypath.study.study_tables import absent, altered_table, matrix_table, three, without_constants
from raypath.study.tables import Range, Table
from tests.study.synthetic_study import CONFIG, SETS, rank_study, rewrite, write_study


class Page(HTMLParser):
    """Tags with their attributes, headings, and the words of every table row."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.rows, self.headings, self.words = [], [], [], []
        self.inside = ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self.inside = tag if tag in ("h2", "style") else self.inside
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
            self.inside = tag

    def handle_endtag(self, tag):
        self.inside = "" if tag == self.inside else self.inside

    def handle_data(self, data):
        if self.inside == "style":
            return
        if self.inside == "h2":
            self.headings.append(data)
        if self.inside in ("td", "th"):
            self.rows[-1][-1] += data
        self.words.append(data)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = write_study(tmp_path_factory.mktemp("study"))
    (place / "pictures").mkdir()
    Image.new("RGB", (300, 200), (200, 100, 150)).save(place / "pictures" / "gains-worst.jpg")
    sheet = {"benchmark": "gains", "title": "Worst tiles", "caption": "20 samples", "file": "pictures/gains-worst.jpg"}
    write_json(place / "pictures.json", [sheet, sheet | {"file": "pictures/not-there.jpg", "title": "Gone"}])
    points = np.random.default_rng(0).normal(size=(40, 2)).tolist()
    known = {"benchmark": "gains", "encoder": "ours", "points": points, "label": ["a", "b"] * 20}
    write_json(place / "maps.json", [known | {"group": ["p1", "p2", None, "p3"] * 10}])
    found = {"benchmark": "gains", "encoder": "ours", "words": "site can be read from the features"}
    write_json(place / "confounders.json", [found])
    write_report(place)
    return place


@pytest.fixture(scope="module")
def results(folder):
    return load_results(folder)


@pytest.fixture(scope="module")
def page(folder):
    return Page((folder / "report.html").read_text(encoding="utf-8"))


def numbers(text):
    return [number.replace("−", "-") for number in re.findall(r"[-−]?\d+\.\d{3}\b", text)]


def test_nothing_is_loaded_from_anywhere(folder, page):
    assert {tag for tag, _ in page.tags}.isdisjoint({"script", "link", "iframe", "object", "embed", "base"})
    sources = [attributes["src"] for tag, attributes in page.tags if tag == "img"]
    assert len(sources) >= 10
    assert all(source.startswith("data:image/") for source in sources)
    text = re.sub(r"data:image/[a-z+]+;base64,[A-Za-z0-9+/=]+", "", (folder / "report.html").read_text())
    assert "http" not in text
    assert "url(" not in text
    ids = {attributes.get("id") for _, attributes in page.tags}
    links = [attributes["href"] for tag, attributes in page.tags if tag == "a"]
    assert links
    assert all(link.startswith("#") and link[1:] in ids for link in links)


def test_pictures_of_the_folder_are_inside_and_what_is_gone_is_left_out(page):
    jpegs = [a["src"] for tag, a in page.tags if tag == "img" and a["src"].startswith("data:image/jpeg")]
    assert len(jpegs) == 1
    with Image.open(io.BytesIO(base64.b64decode(jpegs[0].partition(",")[2]))) as picture:
        assert picture.size == (300, 200)


def test_it_holds_every_number_of_the_csv(folder, page):
    with (folder / "table.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 4 * len(SETS) * 2
    shown = {tuple(row[:3]): row for row in page.rows if len(row) == 10}
    for row in rows:
        cells = shown[row["benchmark"], row["encoder"], row["labels"]]
        wanted = [row[name] for name in row if name.startswith(("test", "null", "minus"))]
        assert numbers(" ".join(cells)) == [number for number in wanted if number not in ("", "failed")]
        assert cells[-1] == (row["against random"] or "–")
        assert cells[4:7] == [row[name] or "–" for name in ("n", "pretraining seeds", "fits")]


def test_the_csv_holds_the_intervals_of_the_results(folder, results):
    with (folder / "table.csv").open(encoding="utf-8") as file:
        rows = {(row["encoder"], row["benchmark"], row["labels"]): row for row in csv.DictReader(file)}
    for place in results.places:
        own, row = results.interval(place), rows[place.encoder, place.benchmark, f"{place.fraction:.0%}"]
        got = [float(row[name]) for name in ("test [95 %]", "test [95 %] low", "test [95 %] high")]
        assert got == pytest.approx([own.estimate, own.low, own.high], abs=0.0006)


def test_the_csv_holds_the_nulls_and_the_differences(folder, results):
    with (folder / "table.csv").open(encoding="utf-8") as file:
        rows = {(row["encoder"], row["benchmark"], row["labels"]): row for row in csv.DictReader(file)}
    nulls = [null for one in results.place("ours", "images", "probe").scored for null in one.nulls]
    areas = [roc_auc_score(null.label, null.probability[:, 1]) for null in nulls]
    assert float(rows["ours", "images", "100%"]["null"]) == pytest.approx(np.mean(areas), abs=0.0006)
    assert rows["ours", "glands", "100%"]["null"] == ""
    for one in comparisons(results, "probe", 0.25):
        own, row = one.to_reference, rows[one.place.encoder, one.place.benchmark, "25%"]
        got = [float(row[name]) for name in ("minus random", "minus random low", "minus random high")]
        assert got == pytest.approx([own.estimate, own.low, own.high], abs=0.0006)
        assert row["against random"] == one.word


def test_every_verdict_stands_there_with_its_population(results, page):
    verdicts = {row[1] for row in page.rows if len(row) == 5}
    for fraction in CONFIG.fractions:
        for one in comparisons(results, "probe", fraction):
            assert one.verdict.words in verdicts
            assert one.verdict.population in one.verdict.words


def test_the_failed_cell_and_its_reason_are_shown(page):
    assert ["images", "other", "25%", "failed", *["–"] * 6] in page.rows
    assert "Failed: 1" in page.headings
    assert "other (seed 0) on images, probe, 25% of labels: Diverged: loss is NaN" in page.words


@pytest.mark.parametrize(
    ("failure", "state"),
    [
        ("other (seed 0) on images, probe, 25% of labels", "failed"),
        ("other, seed 0 on images", "failed"),
        ("other", "failed"),
        ("other (seed 0) on images, probe", "not scored"),
        ("ours, seed 0 on images", "not scored"),
        ("other, seed 0 on even", "not scored"),
    ],
)
def test_a_place_is_failed_only_by_what_it_needs(results, failure, state):
    table = matrix_table(replace(results, failures={failure: "Diverged"}), [])
    (row,) = [row for row in table.rows if row[:4] == ("images", "other", "probe", "25%")]
    assert row[5] == state


def test_the_second_opening_of_a_test_is_shown_with_its_reason(results, page):
    words = leakage(results).words
    assert words[0] == (
        "Tests were opened 21 times for 20 pairs of an encoder and a test (a fold has its own); 1 of them again:"
    )
    assert "again: labels were mended" in words[1]
    assert set(words) <= set(page.words)
    resumed = leakage(
        replace(results, openings=[*results.openings[:-1], results.openings[0] | {"resumed": True}])
    ).words
    assert resumed[0].endswith("(a fold has its own), 1 of them resumed after an interruption, each once.")
    once = leakage(replace(results, openings=results.openings[:-1])).words
    assert once == (
        "Tests were opened 20 times for 20 pairs of an encoder and a test (a fold has its own), each once.",
    )


def test_remarks_stand_at_their_cells(folder):
    with (folder / "table.csv").open(encoding="utf-8") as file:
        notes = {
            (row["encoder"], row["benchmark"]): row["notes"] for row in csv.DictReader(file) if row["labels"] == "100%"
        }
    assert notes["ours", "gains"] == ""
    assert notes["other", "gains"] == "pretraining and test: transductive"
    assert notes["ours", "few"] == "too few patients (below 8)"
    assert notes["ours", "images"].startswith("image-level")
    assert notes["ours", "even"] == "split: waived patient"


def test_a_pretraining_seed_that_is_missing_is_remarked(results):
    ours = results.place("ours", "gains", "probe")
    others = [replace(place, scored=place.scored[:2]) if place is ours else place for place in results.places]
    row = matrix_table(results.with_places(others), []).rows[0]
    assert row[5].notes == ("2 of 3 pretraining seeds",)


def test_sections_stand_in_the_order_of_reading(page):
    assert page.headings == [
        "Scores",
        "Failed: 1",
        "Against random, 100% of labels",
        "Against random, 25% of labels",
        "Ranks over benchmarks",
        "What could be seen (said before a test was opened)",
        "How many labels",
        "How much pretraining",
        "Equal compute",
        "Altered test images",
        "Robustness",
        "To look at",
        "Confounders",
        "Leakage, contamination and the seal of the tests",
        "Cost",
        "Lineage",
    ]


def test_hostile_words_are_shown_and_not_obeyed(folder, page):
    assert "Does it help <here> & there?" in "".join(page.words)
    assert "here" not in {tag for tag, _ in page.tags}


def test_it_is_the_same_when_made_again_by_another_process(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "copy")
    for name in ("report.html", "table.csv", "table.tex"):
        (copy / name).unlink()
    code = "import sys; from raypath.study.study_report import write_report; write_report(sys.argv[1])"
    subprocess.run(
        [sys.executable, "-c", code, str(copy)], check=True, timeout=300, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    for name in ("report.html", "table.csv", "table.tex"):
        assert (copy / name).read_bytes() == (folder / name).read_bytes()


def test_with_few_benchmarks_it_is_said_why_there_are_no_ranks(page):
    assert any("No test over benchmarks" in words and "here are 5 and 4." in words for words in page.words)


def test_how_often_ranks_hold_is_told_as_a_description(results, page):
    table = ranks(results, "probe").tables[0]
    assert table.rows[0][0] == "ours"
    assert [row[2] for row in table.rows] == sorted(row[2] for row in table.rows)
    first = [int(row[3].rstrip("%")) for row in table.rows]
    assert first[0] > 50  # it is far better on two sets of five
    assert 98 <= sum(first) <= 102
    assert table.footnotes[0].startswith("A description, no test: share of 200 draws of the patients of 5 benchmarks")
    shown = [row[0] for row in page.rows if len(row) == 5 and row[3].endswith("%")]
    assert shown == [row[0] for row in table.rows]


def test_ranks_are_tested_from_ten_benchmarks_on(tmp_path):
    config, sets = rank_study()
    folder = write_study(tmp_path, config, sets)
    text = write_report(folder).read_text(encoding="utf-8")
    results = load_results(folder)
    encoders = ("first", "random", "colour")
    scores = [
        [results.interval(results.place(encoder, one.name, "probe")).estimate for encoder in encoders] for one in sets
    ]
    test = rank_test(np.array(scores))
    assert test.mean_ranks.argmin() == 0
    assert f"10 benchmarks, Friedman&#39;s test p = {test.friedman_p:.2g}: encoders differ" in text
    assert f"farther apart than {test.critical_difference:.2f} differ" in text
    assert "Critical differences" in text
    assert "draws of the patients of 10 benchmarks" in text
    assert "In every row: protocol probe, labels 100%." in text
    assert "Metric: balanced accuracy." in text
    assert "How many labels" not in text
    rewrite(folder, "cells.json", lambda asked: dict(list(asked.items())[1:]))  # one place is gone
    text = write_report(folder).read_text(encoding="utf-8")
    assert "here are 9 and 3." in text
    assert "Left out, not scored for every encoder: set 00." in text
    assert "not scored" in text


def test_the_search_of_a_grid_is_billed_and_said_to_be_outside_the_budget(folder, tmp_path):
    place = shutil.copytree(folder, tmp_path / "study")
    assert len(costs(load_results(place)).tables) == 1
    took = {
        "pretraining": {"tiles_seen": 240_000, "cpu_hours": 36.0},
        "scoring": {"tiles_seen": 9_000, "gpu_hours": 1.5},
    }
    write_json(place / "search.json", {"ours": {"num_combinations": 24, "num_trainings": 120} | took})
    results = load_results(place)
    (row,) = costs(results).tables[1].rows
    assert row == ("ours", 24, 120, 240_000, *map(three, (36.0, 0.0)), 9_000, *map(three, (0.0, 1.5)))
    assert "Not in the budget: the search by which settings of ours were selected; it stands under Cost." in (
        equal_compute(results).words
    )


def test_lineage_has_every_command_and_the_commits_of_the_cells(results):
    rows = dict(lineage(results).tables[0].rows)
    command = "cd /home/me && RAYPATH_RUNS=/runs python experiments/study.py"
    assert rows["command to repeat"] == f"{command} /runs/studies/synthetic/study.json"
    assert rows["command of 2026-11-21T10:00:00+00:00"] == f"{command} my.toml (commit c1)"
    assert rows["command of 2026-11-22T10:00:00+00:00"] == f"{command} my.toml (commit c2)"
    num_colour = len(SETS) * 2  # two shares of labels
    num_done = len(json.loads((results.folder / "cells.json").read_text())) - 1  # one has failed
    assert rows[f"commit of {num_colour} cells"] == "c1"
    assert rows[f"commit of {num_done - num_colour} cells"] == "c2"
    assert rows[f"torch of {num_done} cells"] == "2.x"


def test_a_cell_that_knows_its_commit_alone_or_not_even_that_says_so(folder, tmp_path):
    place = shutil.copytree(folder, tmp_path / "study")
    (place / "commands.jsonl").unlink()
    first, second, *_ = (p for p in sorted(place.glob("cells/*/cell.json")) if '"done"' in p.read_text())
    for cell, known in ((first, {"commit": "c0"}), (second, {})):
        write_json(cell, json.loads(cell.read_text()) | known | {"versions": None})
    rows = lineage(load_results(place)).tables[0].rows
    assert dict(rows)["command to repeat"] is None
    assert {value for name, value in rows if name == "commit of 1 cell"} == {"c0", "not written down"}


def test_a_curve_that_lacks_points_says_how_many(results):
    assert scale_curve(results).words == ()
    without = replace(results, on_the_way=results.on_the_way[1:])
    first = results.on_the_way[0]
    (words,) = scale_curve(without).words
    asked = {"ours": 3, "other": 2}[first.encoder]
    there = asked - len(first.scored)
    assert words == (
        f"Points are missing, see what failed: {first.encoder} on {first.benchmark}, probe: {there} of {asked} checkpoints on"
        " the way."
    )
    assert scale_curve(replace(results, on_the_way=())).pictures == ()


def test_robustness_is_of_the_first_fit_of_each_encoder(results):
    section = robustness(results)
    assert [title for title, *_ in section.pictures] == [
        f"Robustness: {one.name}" for one in SETS if one.name != "glands"
    ]
    one = results.place("ours", "gains", "probe").scored[0]
    wanted = curves({AS_IS: one.said[0], **one.altered}, "balanced_accuracy", num_resamples=200)
    assert [curve.kind for curve in wanted] == ["grey", "hed", "blur"]
    assert f"gains, ours. {'; '.join(map(str, wanted))}." in section.texts[0][1]
    figure = section.pictures[0][2]
    drawn = dict(zip(("ours", "other", "random", "colour"), figure.legends[0].get_lines()))
    assert {name: line.get_color() for name, line in drawn.items()} == {
        name: colour_of(results, name) for name in drawn
    }
    without = replace(results, config=replace(CONFIG, has_robustness=False))
    assert robustness(without) is None


def test_altered_scores_stand_beside_those_of_images_as_they_are(results):
    table = altered_table(results)
    assert table.columns[4:] == ("as they are", "grey", "hed=0.05")
    (row,) = [row for row in table.rows if row[:2] == ("gains", "random") and row[3] == "100%"]
    as_is, grey = row[4].mean, row[5].mean
    said = results.place("random", "gains", "probe").scored[0]
    is_right = said.altered["grey"].predicted == said.altered["grey"].label
    label = said.said[0].label
    assert grey == pytest.approx((is_right[label == 0].mean() + is_right[label == 1].mean()) / 2)
    assert grey < as_is


def test_what_was_asked_and_is_not_there_is_named(results):
    assert absent(results) == [("other", "images", "probe", 0.25)]


def test_columns_that_say_the_same_everywhere_are_said_once():
    rows = (("a", "probe", "5%", Range(1, 0, 2)), ("b", "probe", "10%", None))
    table, words = without_constants(Table(columns=("x", "protocol", "labels", "y"), rows=rows), ("protocol", "labels"))
    assert words == "In every row: protocol probe."
    assert table.columns == ("x", "labels", "y")
    assert table.rows == (("a", "5%", Range(1, 0, 2)), ("b", "10%", None))
