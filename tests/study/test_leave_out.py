"""Leave-one-task-out: the paper's sets and counts, and a choice that does not know what it is judged by."""

import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

sys.path.insert(0, str(Path(__file__).parents[2] / "experiments"))

from recipes.mormont2020 import GRID

from raypath.benchmarks.pool22 import TASKS
from raypath.errors import BadInput
from raypath.study.leave_out import (
    PAPER_EVALUATED,
    PAPER_TOGETHER,
    LeaveOutPlan,
    TransferScores,
    average_ranks,
    left_out_sets,
    select,
    transfer_ranks,
)

POOL = tuple(task.name for task in TASKS)


def scores_of(values, networks=None, tasks=None):
    values = np.asarray(values, dtype=float)
    return TransferScores(
        combinations=tuple(f"c{k}" for k in range(len(values))),
        networks=tuple(networks or ["net"] * len(values)),
        tasks=tuple(tasks or [f"t{k}" for k in range(values.shape[1])]),
        values=values,
    )


def test_the_papers_sets_and_trainings():
    full, reduced = (left_out_sets(POOL, PAPER_TOGETHER, evaluated=e) for e in (None, PAPER_EVALUATED))
    assert len(full) == 20
    assert sorted(task for one in full for task in one) == sorted(POOL)
    assert set(reduced) == {
        ("Breast1", "Breast2"),
        ("ProliferativePattern", "CellInclusion"),
        ("MouseLba",),
        ("HumanLba",),
        ("Necrosis",),
        ("Lung",),
        ("Glomeruli",),
        ("BoneMarrow",),
    }
    assert set(left_out_sets(PAPER_EVALUATED, PAPER_TOGETHER)) == {
        tuple(sorted(one, key=PAPER_EVALUATED.index)) for one in reduced
    }
    assert len(GRID) == 48
    plan = LeaveOutPlan(tasks=POOL, left_out=reduced, combinations=tuple(GRID), num_seeds=5)
    assert (plan.num_trainings, plan.num_trainings // len(reduced)) == (1_920, 240)
    assert len(set(plan.trainings())) == 1_920
    whole = LeaveOutPlan(tasks=POOL, left_out=full, combinations=tuple(GRID), num_seeds=5)
    assert whole.num_trainings == 4_800


def test_a_pool_has_all_but_its_set_and_the_table_says_so():
    plan = LeaveOutPlan(tasks=("a", "b", "c"), left_out=(("a", "b"), ("c",)), combinations=("x", "y"), num_seeds=3)
    assert plan.pool_of(plan.set_of("b")) == ("c",)
    assert plan.table().csv().splitlines() == [
        "left out,num tasks in the pool,pool,trainings",
        '"a, b",1,c,6',
        'c,2,"a, b",6',
        "all sets,,,12",
    ]
    with pytest.raises(BadInput, match="d: never left out"):
        plan.set_of("d")


def test_a_relative_is_left_out_also_where_nobody_reports_on_it():
    assert left_out_sets(("a", "b", "c"), (("c", "a"),), evaluated=("a",)) == (("a", "c"),)


@pytest.mark.parametrize(
    ("tasks", "together", "evaluated", "message"),
    [
        (("a", "a"), (), None, "a: named twice in the pool"),
        (("a", "b", "c"), (("a", "b"), ("b", "c")), None, "b: named twice in the groups"),
        (("a", "b"), (("a", "d"),), None, "d: no task of the pool; expected some of a, b"),
        (("a", "b"), (), ("e",), "e: no task of the pool"),
        (("a", "b"), (("a", "b"),), None, "leaves no task to train on"),
    ],
)
def test_what_cannot_be_left_out_is_named(tasks, together, evaluated, message):
    with pytest.raises(BadInput, match=message):
        left_out_sets(tasks, together, evaluated=evaluated)


@given(st.integers(1, 8), st.data())
def test_the_sets_are_the_pool_divided(num_tasks, data):
    tasks = [f"t{k}" for k in range(num_tasks)] + ["rest"]
    ends = data.draw(st.integers(0, num_tasks))
    together = (tuple(reversed(tasks[:ends])),) if ends else ()
    sets = left_out_sets(tasks, together)
    assert sorted(task for one in sets for task in one) == sorted(tasks)
    assert len(sets) == len(tasks) - max(0, ends - 1)


def test_ranks_are_those_of_a_slow_count():
    values = np.random.default_rng(0).integers(0, 4, (7, 5)) / 4  # with ties
    slow = np.empty((7, 5))
    for (k, t), value in np.ndenumerate(values):
        slow[k, t] = 1 + np.sum(values[:, t] > value) + (np.sum(values[:, t] == value) - 1) / 2
    np.testing.assert_array_equal(transfer_ranks(values), slow)
    assert transfer_ranks(np.array([[0.9], [0.1], [0.5]])).ravel().tolist() == [1, 3, 2]


def test_the_choice_does_not_know_the_reported_task():
    # c0 is far the best on t0 and second elsewhere; c1 is best elsewhere and last on t0
    scores = scores_of([[0.99, 0.70, 0.70], [0.10, 0.71, 0.71], [0.50, 0.60, 0.60], [0.40, 0.50, 0.50]])
    assert scores.combinations[np.argmin(average_ranks(scores))] == "c0"  # ranks 1, 2, 2 against 4, 1, 1
    assert select(scores, reported_task="t0", network="net") == "c1"
    assert select(scores, reported_task="t1", network="net") == "c0"


def test_the_other_network_has_no_say():
    """Ranked together, n's second and third place lie far apart on t0 because m's stand between them."""
    mine = [[0.50, 0.90, 0], [0.90, 0.80, 0]]  # a tie of ranks; the second has the higher mean
    other = [[0.95, 0.85, 0]] + [[0.40, 0.85, 0]] * 3
    scores = scores_of(mine + other, networks=["n", "n", "m", "m", "m", "m"])
    together = average_ranks(scores, excluding=("t2",))
    assert together[0] < together[1]
    assert select(scores, reported_task="t2", network="n") == "c1"
    assert select(scores, reported_task="t2", network="m") == "c2"


def test_ties_go_to_the_higher_mean_and_then_to_the_first_name():
    assert select(scores_of([[0, 0.6, 0.7], [0, 0.5, 0.9]]), reported_task="t0", network="net") == "c1"
    assert select(scores_of([[9, 0.5, 0.5], [0, 0.5, 0.5]]), reported_task="t0", network="net") == "c0"


SCORES = arrays(float, st.tuples(st.integers(1, 6), st.integers(2, 5)), elements=st.integers(0, 3).map(lambda i: i / 4))


@given(SCORES, st.data())
def test_the_choice_ignores_the_reported_task_and_the_order(values, data):
    scores = scores_of(values)
    reported = data.draw(st.sampled_from(scores.tasks))
    chosen = select(scores, reported_task=reported, network="net")
    changed = values.copy()
    changed[:, scores.tasks.index(reported)] = data.draw(arrays(float, len(values), elements=st.floats(-1, 1)))
    assert select(scores_of(changed), reported_task=reported, network="net") == chosen
    rows, columns = (data.draw(st.permutations(range(n))) for n in values.shape)
    shuffled = TransferScores(
        combinations=tuple(scores.combinations[r] for r in rows),
        networks=scores.networks,
        tasks=tuple(scores.tasks[c] for c in columns),
        values=values[np.ix_(rows, columns)],
    )
    assert select(shuffled, reported_task=reported, network="net") == chosen
    ranks = average_ranks(scores, excluding=(reported,))
    assert ranks[scores.combinations.index(chosen)] == ranks.min()


@given(SCORES)
def test_ranks_of_a_task_sum_to_those_of_a_list(values):
    num = len(values)
    np.testing.assert_allclose(transfer_ranks(values).sum(axis=0), num * (num + 1) / 2)


def test_a_relative_can_be_kept_out_of_the_choice():
    scores = scores_of([[0, 0.9, 0.1], [0, 0.1, 0.2]])
    assert select(scores, reported_task="t0", network="net") == "c0"
    assert select(scores, reported_task="t0", network="net", also_excluding=("t1",)) == "c1"


def test_what_is_missing_or_unknown_is_named():
    with pytest.raises(BadInput, match="no transfer score of c1 on t0; c1 on t1; ranks need"):
        scores_of([[1, 2], [np.nan, np.inf]])
    with pytest.raises(BadInput, match="and 2 more"):
        scores_of(np.full((6, 2), np.nan))
    scores = scores_of([[1, 2], [3, 4]])
    with pytest.raises(BadInput, match="t7: has no transfer scores; expected one of t0, t1"):
        select(scores, reported_task="t7", network="net")
    with pytest.raises(BadInput, match="vgg: no combination has this network; expected one of net"):
        select(scores, reported_task="t0", network="vgg")
    with pytest.raises(BadInput, match="no task is left without t0, t1"):
        select(scores, reported_task="t0", network="net", also_excluding=("t1",))
    with pytest.raises(ValueError, match="do not fit"):
        scores_of([[1, 2]], tasks=["a"])
