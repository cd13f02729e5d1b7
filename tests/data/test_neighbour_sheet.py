import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raypath.data import neighbour_sheet as sheets
from raypath.data.neighbour_sheet import nearest, neighbour_sheet, spread_over_slides


def slow_nearest(features, slides, query, num):
    """(from other slides, from the query's own), by cosine, one tile at a time."""

    def cosine(j):
        return features[query] @ features[j] / np.linalg.norm(features[query]) / np.linalg.norm(features[j])

    tiles = sorted((j for j in range(len(slides)) if j != query), key=cosine, reverse=True)
    own = [j for j in tiles if slides[j] == slides[query]]
    return [[(j, cosine(j)) for j in found[:num]] for found in ([j for j in tiles if j not in own], own)]


def test_neighbours_are_those_of_a_slow_search():
    rng = np.random.default_rng(0)
    features, slides = rng.normal(size=(30, 5)), [f"slide {n}" for n in rng.integers(0, 3, 30)]
    queries = [4, 17, 2]
    others, own = nearest(features, slides, queries, 4)
    for row, query in enumerate(queries):
        for found, expected in zip((others[row], own[row]), slow_nearest(features, slides, query, 4)):
            assert [tile for tile, _ in found] == [tile for tile, _ in expected]
            np.testing.assert_allclose([c for _, c in found], [c for _, c in expected], rtol=1e-6)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.sampled_from("abcd"), min_size=1, max_size=30), st.integers(1, 40))
def test_queries_are_spread_evenly(slides, num):
    queries = spread_over_slides(slides, num)
    assert len(set(queries)) == len(queries) == min(num, len(slides))
    counts = {name: sum(slides[q] == name for q in queries) for name in slides}
    for name, count in counts.items():  # a slide has fewer than another only if it has no more tiles
        assert count >= max(counts.values()) - 1 or count == slides.count(name)
    assert queries == spread_over_slides(slides, num)


def test_the_sheet_shows_query_and_neighbours_in_their_places():
    colours = np.array([[200, 0, 0], [0, 200, 0], [0, 0, 200], [200, 200, 0], [0, 200, 200]], np.uint8)
    images = np.broadcast_to(colours[:, None, None], (5, 16, 16, 3))
    features = np.array([[1, 0], [1, 0.1], [1, 0.2], [1, 0.3], [1, 0.4]])  # nearer in order
    slides = ["one", "two", "one", "two", "two"]
    sheet = np.asarray(neighbour_sheet(images, features, slides, num_queries=2, num_neighbours=2, title="a title"))
    queries = spread_over_slides(slides, 2)
    others, own = nearest(features, slides, queries, 2)
    tile, gap, top = sheets._TILE_PX, sheets._GAP_PX, sheets._TITLE_PX + sheets._HEADS_PX + sheets._TILE_PX // 2
    lefts = [sheets._MARGIN_PX, sheets._MARGIN_PX + tile + sheets._BLOCK_GAP_PX]
    lefts.append(lefts[1] + 2 * tile + gap + sheets._BLOCK_GAP_PX)
    for row, query in enumerate(queries):
        line = sheet[top + row * (tile + sheets._CAPTION_PX)]
        assert (line[lefts[0] + tile // 2] == colours[query]).all()
        for left, found in zip(lefts[1:], (others[row], own[row])):
            for place in range(2):
                expected = colours[found[place][0]] if place < len(found) else [255, 255, 255]
                assert (line[left + place * (tile + gap) + tile // 2] == expected).all()
    assert len(own[0]) == 1  # slide "one" has one other tile: the second place is empty


def test_one_slide_zeros_and_long_names_make_a_sheet():
    images = np.zeros((3, 8, 8, 3), np.uint8)
    sheet = neighbour_sheet(images, np.zeros((3, 4), np.float32), ["a very long name " * 9] * 3, num_neighbours=3)
    wider = neighbour_sheet(images, np.zeros((3, 4), np.float32), ["a"] * 3, num_neighbours=4)
    assert wider.size == sheet.size  # two others each: no further column


def heads_of(monkeypatch, slides, num=4, **words):
    """(what is said above the columns, the width of each column) of a sheet of one-coloured images."""
    drawn = []
    monkeypatch.setattr(sheets, "_draw_heads", lambda sheet, title, about, heads: drawn.append((about, heads)))
    features = np.random.default_rng(0).normal(size=(len(slides), 3))
    neighbour_sheet(np.zeros((len(slides), 8, 8, 3), np.uint8), features, slides, num_neighbours=num, **words)
    about, heads = drawn[0]
    step = sheets._TILE_PX + sheets._GAP_PX
    return about, {head: (width + sheets._GAP_PX) / step for head, (_, width) in heads.items()}


def test_columns_that_would_be_empty_are_left_out_with_a_sentence(monkeypatch):
    both = {"Query": 1, "Nearest from other slides": 3, "Nearest from the same slide": 2}
    assert heads_of(monkeypatch, list("aaabbb")) == ("6 tiles of 2 slides", both)
    about, heads = heads_of(monkeypatch, list("aaaaaaa"))
    assert (about, heads) == (
        "7 tiles of 1 slide; no other slide to look in",
        {"Query": 1, "Nearest from the same slide": 4},
    )
    about, heads = heads_of(monkeypatch, list("abc"))
    assert (about, heads) == (
        "3 tiles of 3 slides; one tile of each slide",
        {"Query": 1, "Nearest from other slides": 2},
    )


def test_a_pool_has_sets_and_images(monkeypatch):
    about, heads = heads_of(monkeypatch, list("aabb"), one="image", group="set")
    assert about == "4 images of 2 sets"
    assert list(heads) == ["Query", "Nearest from other sets", "Nearest from the same set"]


def test_numbers_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="3 images, 2 features, 3 slides"):
        neighbour_sheet(np.zeros((3, 8, 8, 3), np.uint8), np.zeros((2, 4)), ["a"] * 3)
    with pytest.raises(ValueError, match="0 images"):
        neighbour_sheet(np.zeros((0, 8, 8, 3), np.uint8), np.zeros((0, 4)), [])
