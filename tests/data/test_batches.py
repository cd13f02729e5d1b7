"""The consumer trusts nobody: late blocks wait, repeated ones are dropped, a gap is an error."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raypath.data.batches import OutOfOrder, batch_digest, in_order, rank_batches, same_slide_share
from raypath.data.plan import Plan, PlanSettings

PLAN = Plan([100, 37, 263], PlanSettings(chunk_tiles=4, num_shards=6), seed=2)


def block(first, num, step):
    positions = first + step * np.arange(num)
    slides, tiles = PLAN.samples(positions)
    return {"position": positions, "slide": slides, "tile": tiles, "image": np.stack([positions % 251] * 3, axis=1)}


def cut_into(sizes, first, step):
    """Blocks of the given sizes, one after the other."""
    starts = first + step * np.concatenate([[0], np.cumsum(sizes)[:-1]])
    return [block(int(start), size, step) for start, size in zip(starts, sizes)]


def positions_of(blocks):
    return np.concatenate([b["position"] for b in blocks]).tolist()


def test_late_blocks_wait_and_repeated_ones_are_dropped():
    a, b, c, d = cut_into([3, 2, 4, 1], first=5, step=2)
    expected = list(range(5, 25, 2))
    for order in itertools.permutations([a, b, c, d]):
        assert positions_of(in_order(iter(order), first=5, step=2)) == expected
    for repeated in ([a, a, b, c, d], [a, b, a, c, b, d, d], [c, c, a, b, b, d, a]):
        assert positions_of(in_order(iter(repeated), first=5, step=2)) == expected


def test_a_block_is_given_on_as_soon_as_it_is_due():
    a, b, c = cut_into([2, 2, 2], first=0, step=1)
    seen = []

    def source():
        for item in (b, a, c):
            seen.append(item)
            yield item

    ordered = in_order(source(), first=0, step=1)
    assert next(ordered) is a
    assert len(seen) == 2  # c was not asked for
    assert next(ordered) is b
    assert len(seen) == 2


def test_empty_blocks_are_nothing():
    a, b = cut_into([2, 3], first=0, step=3)
    assert positions_of(in_order(iter([block(0, 0, 3), a, block(9, 0, 3), b]), first=0, step=3)) == list(
        range(0, 15, 3)
    )


def test_a_gap_is_an_error_that_names_the_position():
    a, _, c = cut_into([2, 2, 2], first=0, step=1)
    ordered = in_order(iter([a, c]), first=0, step=1)
    assert next(ordered) is a
    with pytest.raises(OutOfOrder, match="position 2 never came; the next one there is 4"):
        next(ordered)


def test_a_gap_inside_a_block_is_an_error():
    broken = block(0, 4, 1)
    broken["position"] = np.array([0, 1, 3, 4])
    with pytest.raises(OutOfOrder, match=r"positions 0\.\.4 do not go on by 1"):
        list(in_order(iter([broken]), first=0, step=1))
    with pytest.raises(OutOfOrder, match="do not go on by 2"):  # rows of another rank
        list(in_order(iter([block(0, 4, 1)]), first=0, step=2))


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 13), min_size=1, max_size=12),
    batch=st.integers(1, 9),
    world=st.sampled_from([1, 2, 3]),
    rank_=st.integers(0, 2),
    start=st.integers(0, 7),
    draw=st.randoms(use_true_random=False),
)
def test_batches_have_the_exact_size_whatever_the_blocks(sizes, batch, world, rank_, start, draw):
    rank = rank_ % world
    first = start + (rank - start) % world  # the first position at or after `start` that is this rank's
    sizes[-1] += -sum(sizes) % batch
    blocks = cut_into(sizes, first, world)
    draw.shuffle(blocks)
    batches = list(rank_batches(iter(blocks), start=start, rank=rank, world_size=world, batch=batch))
    assert [len(b["position"]) for b in batches] == [batch] * (sum(sizes) // batch)
    expected = first + world * np.arange(sum(sizes))
    got = np.concatenate([b["position"].numpy() for b in batches])
    assert got.tolist() == expected.tolist()
    assert all((b["image"].numpy() == b["position"].numpy()[:, None] % 251).all() for b in batches)  # rows stay whole


def test_rows_left_over_are_an_error():
    batches = rank_batches(iter(cut_into([5, 4], 0, 1)), start=0, rank=0, world_size=1, batch=4)
    assert [len(next(batches)["position"]), len(next(batches)["position"])] == [4, 4]
    with pytest.raises(OutOfOrder, match="3 rows short of a batch of 4"):
        next(batches)


def test_batches_own_their_memory():
    """Blocks are views on shared memory that Ray takes back."""
    source = block(0, 6, 1)
    (batch,) = rank_batches(iter([source]), start=0, rank=0, world_size=1, batch=6)
    source["image"][:] = 0
    assert batch["image"].numpy().sum() == 3 * sum(range(6))


def test_digests_of_all_ranks_add_up_to_the_plans():
    total = 0
    for rank in range(3):
        blocks = cut_into([7, 50, 43], first=rank, step=3)
        batches = rank_batches(iter(blocks), start=0, rank=rank, world_size=3, batch=10)
        total += sum(map(batch_digest, batches))
    assert total % 2**64 == PLAN.digest(0, 300)


@pytest.mark.parametrize(
    ("slides", "share"),
    [([1, 2, 3, 4], 0.0), ([7, 7, 7], 1.0), ([1, 1, 2, 2], 4 / 12), ([0, 0, 0, 5], 6 / 12), ([3], 0.0), ([], 0.0)],
)
def test_same_slide_share_counts_ordered_pairs(slides, share):
    assert same_slide_share(np.array(slides, dtype=np.int64)) == pytest.approx(share)
