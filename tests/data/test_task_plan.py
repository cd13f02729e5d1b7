"""The invariants of a pool's plan: fair draws, exact shares, and any slice by itself, on the second paper's 22 tasks."""

import itertools
import time
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from raypath.config import config_hash
from raypath.data.positions import digest_of
from raypath.data.task_plan import TaskPlan, TaskSettings
from raypath.errors import BadInput

# Images of the second paper's 22 tasks, all splits (thesis of Mormont, tables `datasets` and `final_datasets`): 882 to 292 226.
PAPER = [
    882, 1857, 3637, 4284, 5420, 6331, 29213, 23032, 17523, 1291, 31725,
    3402, 24870, 277524, 2244, 64873, 2500, 292226, 77853, 2313, 4800, 5000,
]  # fmt: skip
IID, STRATIFIED = TaskSettings(), TaskSettings(tasks="stratified")


def consumed(plan, first, last):
    tasks, images = plan.samples(np.arange(first, last))
    return list(zip(tasks.tolist(), images.tolist()))


def test_iid_draws_every_task_equally_often_whatever_its_size():
    """Weights of 1 / (T n_i): without them the largest task would have 331 times the draws of the smallest."""
    tasks, _ = TaskPlan(PAPER, IID, seed=0).samples(np.arange(200_000))
    counts = np.bincount(tasks, minlength=len(PAPER))
    assert chisquare(counts).pvalue > 0.01
    by_size = np.array(PAPER) / sum(PAPER) * 200_000
    assert chisquare(counts, by_size).pvalue < 1e-6  # so the check above can fail


def test_iid_draws_every_image_of_a_task_equally_often():
    tasks, images = TaskPlan(PAPER, IID, seed=1).samples(np.arange(400_000))
    smallest, largest = images[tasks == 0], images[tasks == 17]
    assert chisquare(np.bincount(smallest, minlength=882)).pvalue > 0.01
    in_tenths = np.bincount(largest * 10 // 292226, minlength=10)
    assert chisquare(in_tenths).pvalue > 0.01
    assert (largest.min(), largest.max()) < (200, 292226)


def test_iid_draws_are_independent_of_each_other():
    """Pairs of neighbouring tasks, and task against image, are as frequent as chance has them."""
    tasks, images = TaskPlan([300] * 5, IID, seed=2).samples(np.arange(100_001))
    pairs = np.bincount(tasks[:-1] * 5 + tasks[1:], minlength=25)
    assert chisquare(pairs).pvalue > 0.01
    both = np.bincount(tasks * 3 + images // 100, minlength=15)
    assert chisquare(both).pvalue > 0.01


def test_a_batch_of_64_leaves_some_of_22_tasks_out_as_often_as_chance_does():
    """The paper's B = 64 and T = 22: P(all tasks drawn) = 0.29 (inclusion and exclusion), so heads idle in 71 % of batches."""
    tasks, _ = TaskPlan(PAPER, IID, seed=3).samples(np.arange(64 * 4000))
    is_short = [len(set(batch)) < 22 for batch in tasks.reshape(-1, 64).tolist()]
    assert np.mean(is_short) == pytest.approx(0.71, abs=0.03)


def test_stratified_has_every_task_once_in_t_positions_in_changing_order():
    tasks, _ = TaskPlan(PAPER, STRATIFIED, seed=0).samples(np.arange(22 * 3000))
    groups = tasks.reshape(-1, 22)
    assert (np.sort(groups, axis=1) == np.arange(22)).all()
    assert len(set(map(tuple, groups.tolist()))) == 3000
    for place in (0, 21):
        assert chisquare(np.bincount(groups[:, place], minlength=22)).pvalue > 0.01


@settings(max_examples=40, deadline=None)
@given(counts=st.lists(st.integers(1, 60), min_size=1, max_size=6), seed=st.integers(0, 1000))
def test_stratified_shows_every_image_once_in_each_own_epoch(counts, seed):
    plan = TaskPlan(counts, STRATIFIED, seed=seed)
    tasks, images = plan.samples(np.arange(len(counts) * 3 * max(counts)))
    for task, num in enumerate(counts):
        epochs = images[tasks == task][: 3 * num].reshape(3, num)
        assert (np.sort(epochs, axis=1) == np.arange(num)).all()


def test_own_epochs_differ():
    tasks, images = TaskPlan([50, 70], STRATIFIED, seed=0).samples(np.arange(400))
    first, second = images[tasks == 0][:100].reshape(2, 50).tolist()
    assert first != second


def test_one_task_stratified_is_a_shuffle_per_epoch():
    plan = TaskPlan([100], STRATIFIED, seed=0)
    assert plan.epoch_length == 100
    assert sorted(consumed(plan, 100, 200)) == [(0, image) for image in range(100)]


@pytest.mark.parametrize("kind", ["iid", "stratified"])
@settings(max_examples=40, deadline=None)
@given(
    counts=st.lists(st.integers(1, 500), min_size=1, max_size=8),
    positions=st.lists(st.integers(0, 10**12), min_size=1, max_size=30),
    seed=st.integers(0, 2**63),
)
def test_samples_are_a_function_of_seed_and_position(kind, counts, positions, seed):
    """Any choice of positions, in any order and shape, gives what each gives alone: so no rank, window or resume changes it."""
    plan = TaskPlan(counts, TaskSettings(tasks=kind), seed=seed)
    tasks, images = plan.samples(np.array(positions))
    alone = [consumed(plan, position, position + 1)[0] for position in positions]
    assert list(zip(tasks.tolist(), images.tolist())) == alone
    assert tasks.dtype == images.dtype == np.int64
    assert all(0 <= image < counts[task] for task, image in alone)


@pytest.mark.parametrize("kind", ["iid", "stratified"])
def test_seeds_and_kinds_differ_and_window_and_shards_do_not_matter(kind):
    plan = TaskPlan([50, 70, 3], TaskSettings(tasks=kind), seed=0)
    first = consumed(plan, 0, 300)
    assert first != consumed(TaskPlan([50, 70, 3], TaskSettings(tasks=kind), seed=1), 0, 300)
    other = TaskSettings(tasks=kind, num_shards=2, window_images=10)
    assert first == consumed(TaskPlan([50, 70, 3], other, seed=0), 0, 300)
    assert config_hash(other) == config_hash(plan.settings)
    assert config_hash(IID) != config_hash(STRATIFIED)
    assert TaskPlan([50, 70, 3], IID, seed=0).hash != TaskPlan([50, 70, 3], STRATIFIED, seed=0).hash


@pytest.mark.parametrize("kind", ["iid", "stratified"])
@pytest.mark.parametrize("num_workers", [2, 3, 8])
def test_global_batches_are_equal_for_every_number_of_workers(kind, num_workers):
    plan, batch = TaskPlan(PAPER, TaskSettings(tasks=kind), seed=3), 48
    plan.check_world(num_workers, batch)
    for step in (0, 7, 10**6):
        positions = np.arange(step * batch, (step + 1) * batch)
        dealt = [plan.samples(positions[positions % num_workers == rank]) for rank in range(num_workers)]
        rows = Counter(pair for tasks, images in dealt for pair in zip(tasks.tolist(), images.tolist()))
        assert rows == Counter(consumed(plan, step * batch, (step + 1) * batch))


def test_a_number_of_workers_that_does_not_divide_is_refused_with_the_valid_ones():
    with pytest.raises(BadInput, match="workers.num_workers to 1, 2, 4 or 8"):
        TaskPlan([100], IID, seed=0).check_world(5, 64)


def test_windows_cover_every_position_once_from_anywhere():
    plan = TaskPlan([50, 70], TaskSettings(num_shards=6, window_images=60), seed=1)
    for start in (0, 1, 59, 60, 12_345):
        spans = list(itertools.islice(plan.windows(start), 10))
        assert spans[0] == (start, plan.window_end(start))
        assert all(left[1] == right[0] for left, right in itertools.pairwise(spans))
        assert all(last - first == 60 for first, last in spans[1:])
        assert spans[1:] == list(itertools.islice(plan.windows(spans[0][1]), 9))


@pytest.mark.parametrize("kind", ["iid", "stratified"])
def test_substitutes_are_other_images_of_the_same_task(kind):
    plan = TaskPlan([5, 900], TaskSettings(tasks=kind), seed=9)
    tasks, images = plan.samples(np.arange(50))
    for position in range(50):
        others = plan.substitutes(position, 200)
        assert set(others[0].tolist()) == {tasks[position]}
        assert images[position] not in others[1]
        assert 0 <= others[1].min() <= others[1].max() < plan.image_counts[tasks[position]]
        assert len(set(others[1].tolist())) >= 4
        assert np.array_equal(plan.substitutes(position, 7)[1], others[1][:7])
    assert TaskPlan([1], IID, seed=0).substitutes(3, 2)[1].tolist() == [0, 0]  # there is no other


def test_places_are_uniform_and_never_zero():
    places = TaskPlan([5], IID, seed=0).places(np.arange(100_000))
    assert (places > 0).all()
    assert (places <= 1).all()
    assert chisquare(np.bincount(np.ceil(places * 20).astype(int))[1:]).pvalue > 0.01


@pytest.mark.parametrize("kind", ["iid", "stratified"])
def test_the_digest_counts_every_position_once_in_any_order(kind):
    plan = TaskPlan([700, 30, 5], TaskSettings(tasks=kind), seed=9)
    parts = [np.arange(rank, 2500, 3) for rank in range(3)]
    assert sum(digest_of(p, *plan.samples(p)) for p in parts) % 2**64 == plan.digest(0, 2500)
    assert (plan.digest(0, 1100) + plan.digest(1100, 2500)) % 2**64 == plan.digest(0, 2500)
    assert plan.digest(0, 2499) != plan.digest(0, 2500)


@pytest.mark.parametrize("kind", ["iid", "stratified"])
def test_a_resume_at_a_far_position_is_immediate(kind):
    """Not a timing of the machine: work that grew with the position would take hours here."""
    started = time.perf_counter()
    TaskPlan(PAPER, TaskSettings(tasks=kind), seed=0).samples(np.arange(10**14, 10**14 + 3072))
    assert time.perf_counter() - started < 10


@pytest.mark.parametrize("counts", [[], [5, 0]])
def test_a_pool_with_an_empty_task_is_refused(counts):
    with pytest.raises(BadInput, match="every task needs at least one"):
        TaskPlan(counts, IID, seed=0)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"tasks": "uniform"}, "tasks=uniform: expected iid or stratified"),
        ({"num_shards": 0}, "num_shards=0: expected 1 or more"),
        ({"window_images": 100}, "window_images=100: expected a multiple of num_shards=24"),
    ],
)
def test_settings_that_mean_nothing_are_refused(wrong, said):
    with pytest.raises(ValueError, match=said):
        TaskSettings(**wrong)


def test_golden_order():
    """Every run ever made was trained in this order: it may change only together with permutation.VERSION."""
    positions = np.arange(0, 10_000, 997)
    found = {}
    for kind in ("iid", "stratified"):
        plan = TaskPlan([1000, 3000, 50, 7], TaskSettings(tasks=kind), seed=5)
        tasks, images = plan.samples(positions)
        others = plan.substitutes(3, 4)[1]
        found[kind] = (tasks.tolist(), images.tolist(), others.tolist(), plan.digest(0, 10_000))
        assert plan.places(positions[:3]) == pytest.approx([0.863, 0.445, 0.172], abs=1e-3)
    assert found == {
        "iid": (
            [0, 0, 3, 0, 0, 0, 3, 2, 2, 1, 2],
            [466, 490, 0, 539, 172, 754, 6, 39, 34, 2934, 13],
            [1, 5, 1, 5],
            17955524246129921331,
        ),
        "stratified": (
            [0, 2, 2, 0, 2, 2, 3, 3, 1, 2, 0],
            [630, 18, 21, 606, 13, 43, 3, 3, 2995, 16, 488],
            [1850, 1939, 998, 434],
            3534709126965593369,
        ),
    }
