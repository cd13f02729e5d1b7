"""The invariants of DESIGN's plan, on slides of uneven size, with and without quotas, weights and groups."""

import itertools
import time
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raypath.data.plan import Plan, PlanSettings, slots_per_slide
from raypath.data.positions import digest_of
from raypath.errors import BadInput

SMALL = PlanSettings(chunk_tiles=8, num_shards=6, chunks_per_shard=2)


def consumed(plan, first, last):
    slides, tiles = plan.samples(np.arange(first, last))
    return list(zip(slides.tolist(), tiles.tolist()))


@settings(max_examples=60, deadline=None)
@given(
    counts=st.lists(st.integers(0, 300), min_size=1, max_size=12).filter(any),
    group=st.integers(0, 5),
    seed=st.integers(0, 1000),
    epoch=st.integers(0, 3),
)
def test_an_epoch_is_a_bijection(counts, group, seed, epoch):
    plan = Plan(counts, PlanSettings(chunk_tiles=8, num_shards=6, chunks_per_shard=2, group_slides=group), seed=seed)
    rows = consumed(plan, epoch * plan.epoch_length, (epoch + 1) * plan.epoch_length)
    assert sorted(rows) == [(s, t) for s, n in enumerate(counts) for t in range(n)]


def test_epochs_and_seeds_differ():
    plan = Plan([500, 700], SMALL, seed=1)
    first, second = consumed(plan, 0, 1200), consumed(plan, 1200, 2400)
    assert first != second
    assert first != consumed(Plan([500, 700], SMALL, seed=2), 0, 1200)


@pytest.mark.parametrize("group", [0, 3])
def test_windows_cover_every_position_once_from_anywhere(group):
    plan = Plan([500, 700, 31, 12, 900], PlanSettings(chunk_tiles=8, num_shards=6, group_slides=group), seed=1)
    for start in (0, 1, 777, plan.epoch_length - 1, plan.epoch_length, 10 * plan.epoch_length + 5):
        spans = list(itertools.islice(plan.windows(start), 40))
        assert spans[0][0] == start
        assert all(a < b for a, b in spans)
        assert all(left[1] == right[0] for left, right in itertools.pairwise(spans))
        assert spans[1:] == list(itertools.islice(plan.windows(spans[0][1]), 39))


@pytest.mark.parametrize("num_workers", [1, 2, 3, 4, 6, 8])
def test_global_batches_are_equal_for_every_number_of_workers(num_workers):
    plan, batch = Plan([5000, 800, 90], PlanSettings(chunk_tiles=8), seed=3), 48
    plan.check_world(num_workers, batch)
    for step in (0, 7, plan.epoch_length // batch):  # the last one straddles two epochs
        positions = np.arange(step * batch, (step + 1) * batch)
        dealt = [plan.samples(positions[positions % num_workers == rank]) for rank in range(num_workers)]
        assert all(len(slides) == batch // num_workers for slides, _ in dealt)
        rows = Counter(pair for slides, tiles in dealt for pair in zip(slides.tolist(), tiles.tolist()))
        assert rows == Counter(consumed(plan, step * batch, (step + 1) * batch))


def test_a_number_of_workers_that_does_not_divide_is_refused_with_the_valid_ones():
    with pytest.raises(BadInput, match="loop.global_batch=64: set workers.num_workers to 1, 2, 4 or 8") as caught:
        Plan([100], PlanSettings(), seed=0).check_world(5, 64)
    assert caught.value.exit_code == 2


def test_a_batch_that_the_workers_do_not_divide_is_refused_with_the_next_ones():
    said = "must divide the plan's 24 shards and loop.global_batch=63: set workers.num_workers to 1 or 3, or loop.global_batch to"
    with pytest.raises(BadInput, match=f"workers.num_workers=2 {said} 62 or 64$") as caught:
        Plan([100], PlanSettings(), seed=0).check_world(2, 63)
    for batch in (62, 64):
        assert str(batch) in str(caught.value)
        Plan([100], PlanSettings(), seed=0).check_world(2, batch)
    with pytest.raises(BadInput, match="loop.global_batch to 6$"):  # below is none
        Plan([100], PlanSettings(), seed=0).check_world(6, 4)


@pytest.mark.parametrize("group", [0, 30])
@pytest.mark.parametrize("num_workers", [2, 4, 8])
def test_a_rank_reads_only_its_own_chunks(num_workers, group):
    counts = np.random.default_rng(0).integers(0, 3000, 120)
    plan = Plan(counts, PlanSettings(group_slides=group), seed=1)
    assert chunk_reads(plan, num_workers) <= 1.15 * chunk_reads(plan, 1)


def chunk_reads(plan, num_workers):
    reads = 0
    for first, last in itertools.takewhile(lambda span: span[0] < plan.epoch_length, plan.windows(0)):
        positions = np.arange(first, last)
        for rank in range(num_workers):
            mine = positions[positions % num_workers == rank]
            reads += len(np.unique(plan.chunks(mine), axis=0)) if len(mine) else 0
    return reads


def test_a_chunk_is_a_run_of_neighbours():
    plan = Plan([1600, 3200], PlanSettings(chunk_tiles=16), seed=0)
    positions = np.arange(plan.epoch_length)
    numbers = plan.chunks(positions)[:, 2]
    slides, tiles = plan.samples(positions)
    for chunk in np.unique(numbers)[:50]:
        mine = numbers == chunk
        assert len(set(slides[mine].tolist())) == 1
        assert np.ptp(tiles[mine]) == 15


def test_groups_let_a_cache_of_a_fifth_of_the_slides_fetch_each_about_once():
    num_slides = 100
    counts = np.random.default_rng(2).integers(500, 4000, num_slides)
    grouped = Plan(counts, PlanSettings(group_slides=num_slides // 10), seed=4)
    mixed = Plan(counts, PlanSettings(), seed=4)
    assert fetches(grouped, capacity=num_slides // 5) <= 1.1 * num_slides
    assert fetches(mixed, capacity=num_slides // 5) > 3 * num_slides  # so the check above can fail


def test_a_slide_with_tiles_of_two_scales_is_still_fetched_once():
    num_slides = 60
    counts = np.random.default_rng(2).integers(500, 2000, 2 * num_slides)
    numbers, grouped = np.tile(np.arange(num_slides), 2), PlanSettings(group_slides=num_slides // 10)
    together, apart = Plan(counts, grouped, seed=4, slide_numbers=numbers), Plan(counts, grouped, seed=4)
    capacity = num_slides // 5
    assert fetches(together, capacity, numbers) <= 1.1 * num_slides
    assert fetches(apart, capacity, numbers) > 1.5 * num_slides
    rows = consumed(together, 0, together.epoch_length)
    assert sorted(rows) == [(s, t) for s, n in enumerate(counts.tolist()) for t in range(n)]


def fetches(plan, capacity, numbers=None):
    """Slides brought from remote storage in one epoch by a least-recently-used cache, two windows read at a time."""
    cache, count = {}, 0
    windows = list(itertools.takewhile(lambda span: span[0] < plan.epoch_length, plan.windows(0)))
    for pair in itertools.pairwise(windows):  # every window also beside the next: two tasks at work at once
        slides = np.concatenate([plan.samples(np.arange(first, last))[0] for first, last in pair])
        slides = slides if numbers is None else numbers[slides]
        for slide in np.unique(slides).tolist():
            count += slide not in cache
            cache.pop(slide, None)
            cache[slide] = True
            if len(cache) > capacity:
                del cache[next(iter(cache))]
    return count


def test_a_quota_takes_other_tiles_each_epoch_until_all_were_seen():
    plan = Plan([1000, 40], PlanSettings(chunk_tiles=8, num_shards=6, tiles_per_slide=250), seed=6)
    assert plan.epoch_length == 290
    epochs = [set(consumed(plan, e * 290, (e + 1) * 290)) for e in range(4)]
    assert all(len(rows) == 290 for rows in epochs)
    assert set.union(*epochs) == {(0, t) for t in range(1000)} | {(1, t) for t in range(40)}


def test_weights_share_out_the_epoch():
    counts = np.array([1000, 3000, 500, 0])
    equal = PlanSettings(balance_by="site")
    assert slots_per_slide(counts, equal, ["n", "n", "s", "s"]).tolist() == [563, 1687, 2250, 0]
    tripled = PlanSettings(balance_by="site", weights={"s": 3})
    assert slots_per_slide(counts, tripled, ["n", "n", "s", "s"]).tolist() == [281, 844, 3375, 0]
    plan = Plan(counts, tripled, seed=0, values=["n", "n", "s", "s"])
    seen = Counter(consumed(plan, 0, plan.epoch_length))
    assert {seen[2, t] for t in range(500)} == {
        6,
        7,
    }  # 3375 places for 500 tiles: nobody waits for a third turn of another


@pytest.mark.parametrize(
    ("values", "weights", "said"),
    [
        (None, {}, "needs a site"),
        (["n", "s"], {"x": 1.0}, "weights for x"),
        (["n", "s"], {"n": 0.0, "s": 0.0}, "above 0"),
    ],
)
def test_weights_that_mean_nothing_are_refused(values, weights, said):
    with pytest.raises(BadInput, match=said):
        Plan([10, 10], PlanSettings(balance_by="site", weights=weights), seed=0, values=values)


def test_an_empty_index_is_refused():
    with pytest.raises(BadInput, match="0 tiles"):
        Plan([0, 0], SMALL, seed=0)


def test_the_digest_counts_every_position_once_in_any_order():
    plan = Plan([700, 300], SMALL, seed=9)
    parts = [np.arange(rank, 2500, 3) for rank in range(3)]
    total = sum(digest_of(p, *plan.samples(p)) for p in parts) % 2**64
    assert total == plan.digest(0, 2500)
    assert plan.digest(0, 2499) != total
    slides, tiles = plan.samples(parts[0])
    assert digest_of(parts[0], slides, np.roll(tiles, 1)) != digest_of(parts[0], slides, tiles)


def test_substitutes_depend_on_the_position_alone_and_stay_inside():
    plan = Plan([700, 0, 300], SMALL, seed=9)
    slides, tiles = plan.substitutes(1234, 8)
    assert np.array_equal(plan.substitutes(1234, 4)[1], tiles[:4])
    assert ((tiles >= 0) & (tiles < plan.tile_counts[slides])).all()
    assert not np.array_equal(plan.substitutes(1235, 8)[1], tiles)


def test_a_billion_tiles_start_and_resume_at_once():
    """Not a timing of the machine: work that grew with the tiles instead of the slides would take minutes here."""
    started = time.perf_counter()
    plan = Plan(np.full(170_000, 7_647), PlanSettings(group_slides=1_000), seed=3)
    for position in (0, plan.epoch_length // 2 + 17):
        spans = list(itertools.islice(plan.windows(position), 256))
        slides, tiles = plan.samples(np.arange(position, spans[1][1]))
        assert len(np.unique(slides * 10_000 + tiles)) == spans[1][1] - position
    assert time.perf_counter() - started < 60


def test_golden_order():
    """Every run ever made was trained in this order: it may change only together with permutation.VERSION."""
    settings_ = PlanSettings(chunk_tiles=8, num_shards=6, chunks_per_shard=2, group_slides=2)
    plan = Plan([1000, 3000, 50, 7], settings_, seed=5)
    slides, tiles = plan.samples(np.arange(0, 10_000, 997))
    assert (slides.tolist(), tiles.tolist(), plan.digest(0, 10_000)) == (
        [1, 1, 1, 1, 0, 1, 1, 1, 1, 0, 1],
        [546, 289, 638, 1690, 820, 409, 2562, 2163, 1591, 471, 226],
        6687903971219002896,
    )
