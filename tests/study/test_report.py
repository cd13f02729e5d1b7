"""A report is one file that needs nothing else, and says hostile names instead of obeying them."""

import base64
import json
import re
from html.parser import HTMLParser

import pytest
from matplotlib.figure import Figure
from PIL import Image

from raypath.study.report import Report

HOSTILE = '"><script>alert(1)</script><img src=http://evil.example/x onerror=alert(2)>'
FOREIGN = re.compile(r"(?:src|href|srcset|action|poster|data|background)\s*=\s*[\"']?\s*(?!data:)[^\s\"'>]+", re.I)


class Tags(HTMLParser):
    """Every tag with its attributes."""

    def __init__(self, html):
        super().__init__()
        self.tags = []
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def of(self, name):
        return [attributes for tag, attributes in self.tags if tag == name]


def line_figure():
    figure = Figure(figsize=(2, 1))
    figure.subplots().plot([0, 1], [1, 0])
    return figure


def make(name="pretrained", pictures=()):
    return Report(
        title=f"title {name}",
        question=f"question {name}",
        verdict=f"verdict {name}",
        columns=("encoder", f"val {name}", "how"),
        rows=[(name, "0.512 [0.41, 0.60]", "probe"), ("colour", "", "probe")],
        notes=[f"note {name}"],
        pictures=list(pictures),
        lineage={"run": name, "config": json.dumps({"name": name, "optim": {"lr": 0.1}}), "odd": "{not json"},
    )


@pytest.fixture
def html(tmp_path):
    photograph = Image.new("RGB", (2400, 800), (200, 100, 150))
    photograph.save(tmp_path / "tile.png")
    pictures = [("A", "a figure", line_figure()), ("B", "an image", photograph), ("C", "a file", tmp_path / "tile.png")]
    return make(pictures=pictures).write(tmp_path / "report.html").read_text(encoding="utf-8")


def test_nothing_is_loaded_from_anywhere(html):
    tags = Tags(html)
    assert {tag for tag, _ in tags.tags}.isdisjoint({"script", "link", "iframe", "object", "embed", "base", "a"})
    without_pictures = re.sub(r"data:image/[a-z+]+;base64,[A-Za-z0-9+/=]+", "data:", html)
    assert "http" not in without_pictures
    assert "url(" not in without_pictures
    assert "@import" not in without_pictures
    assert not FOREIGN.search(without_pictures)


def test_every_picture_is_embedded_and_can_be_decoded(html, tmp_path):
    sources = [attributes["src"] for attributes in Tags(html).of("img")]
    kinds = [re.match(r"data:image/([a-z+]+);base64,", source)[1] for source in sources]
    assert kinds == ["svg+xml", "jpeg", "jpeg"]
    svg, *photographs = (base64.b64decode(source.partition(",")[2]) for source in sources)
    assert b"<svg" in svg
    for number, content in enumerate(photographs):
        (tmp_path / f"{number}.jpg").write_bytes(content)
        with Image.open(tmp_path / f"{number}.jpg") as picture:
            assert picture.size == (1600, 533)  # larger ones are reduced
    assert all(attributes["alt"] for attributes in Tags(html).of("img"))


def test_hostile_names_are_shown_and_not_obeyed(tmp_path):
    pictures = [(HOSTILE, HOSTILE, line_figure())]
    text = make(HOSTILE, pictures).write(tmp_path / "report.html").read_text(encoding="utf-8")
    tags = Tags(text)
    assert tags.of("script") == []
    assert all(attributes["src"].startswith("data:image/") for attributes in tags.of("img"))
    assert not [key for _, attributes in tags.tags for key in attributes if key.startswith("on")]
    plain = (
        make("plain", [("plain", "plain", line_figure())]).write(tmp_path / "plain.html").read_text(encoding="utf-8")
    )
    assert [tag for tag, _ in tags.tags] == [tag for tag, _ in Tags(plain).tags]
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text


def test_a_config_is_folded_away_and_other_values_stay(html):
    assert html.count("<details>") == 1
    assert "&#34;lr&#34;: 0.1" in html
    assert "{not json" in html


def test_the_same_contents_give_the_same_bytes(tmp_path):
    first, second = (make(pictures=[("A", "b", line_figure())]).write(tmp_path / name) for name in ("1", "2"))
    assert first.read_bytes() == second.read_bytes()


def test_parts_that_are_empty_leave_no_heading(tmp_path):
    report = Report(title="t", question="q", verdict="v", columns=("a",), rows=[("b",)])
    text = report.write(tmp_path / "report.html").read_text(encoding="utf-8")
    assert re.findall(r"<h2>(.*?)</h2>", text) == ["Scores"]
