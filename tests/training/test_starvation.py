import re

import pytest

from raypath.errors import BadInput
from raypath.training.settings import WorkerSettings
from raypath.training.starvation import refuse_starvation


@pytest.mark.parametrize(
    ("num_workers", "cpus_per_worker", "read_cpus", "cpus"),
    [(2, 0.5, 1.0, 2), (2, 0.5, 0.5, 2), (1, 1.0, 1.0, 2), (8, 1.0, 1.0, 9), (3, 0.5, 0.5, 2)],
)
def test_what_leaves_room_for_one_reading_task_may_start(num_workers, cpus_per_worker, read_cpus, cpus):
    workers = WorkerSettings(num_workers=num_workers, cpus_per_worker=cpus_per_worker)
    assert refuse_starvation(workers, read_cpus, [{"CPU": cpus}]) is None


@pytest.mark.parametrize(
    ("num_workers", "cpus_per_worker", "read_cpus", "cpus", "room"),
    [(2, 1.0, 1.0, 2, "0.5"), (4, 1.0, 1.0, 4, "0.75"), (2, 0.5, 1.0, 1, None)],
)
def test_what_would_wait_for_ever_is_refused_with_the_numbers_that_work(
    num_workers, cpus_per_worker, read_cpus, cpus, room
):
    workers = WorkerSettings(num_workers=num_workers, cpus_per_worker=cpus_per_worker)
    with pytest.raises(BadInput) as raised:
        refuse_starvation(workers, read_cpus, [{"CPU": float(cpus)}])
    message = str(raised.value)
    assert f"{num_workers} workers with {cpus_per_worker:g} CPUs each take" in message
    assert f"of the cluster's {cpus:g}; reading tiles needs {read_cpus:g} more" in message
    if room:
        assert f"set workers.cpus_per_worker to at most {room}, or stream.read_cpus" in message
    else:
        assert message.endswith("set stream.read_cpus or workers.num_workers lower")


@pytest.mark.parametrize(("num_workers", "read_cpus"), [(2, 0.5), (3, 0.25), (6, 1.0), (7, 0.1)])
def test_the_remedy_it_names_is_enough(num_workers, read_cpus):
    with pytest.raises(BadInput) as raised:
        refuse_starvation(WorkerSettings(num_workers=num_workers, cpus_per_worker=1.0), read_cpus, [{"CPU": 2.0}])
    named = float(re.search(r"at most ([\d.]+),", str(raised.value)).group(1))
    assert named > 0.1
    refuse_starvation(WorkerSettings(num_workers=num_workers, cpus_per_worker=named), read_cpus, [{"CPU": 2.0}])


def test_workers_that_want_a_gpu_each_need_as_many():
    workers = WorkerSettings(num_workers=2, cpus_per_worker=1.0, use_gpu=True)
    refuse_starvation(workers, 1.0, [{"CPU": 8.0, "GPU": 2.0}])
    with pytest.raises(BadInput, match=r"2 workers want a GPU each, the cluster has 1: set workers\.num_workers=1"):
        refuse_starvation(workers, 1.0, [{"CPU": 8.0, "GPU": 1.0}])
    with pytest.raises(BadInput, match=r"the cluster has 0: set workers\.use_gpu=false"):
        refuse_starvation(workers, 1.0, [{"CPU": 8.0}])
    refuse_starvation(WorkerSettings(num_workers=2, cpus_per_worker=1.0), 1.0, [{"CPU": 8.0}])


def test_a_reading_task_needs_its_room_on_one_node():
    two, three = [{"CPU": 2.0}] * 2, [{"CPU": 2.0}] * 3
    big = WorkerSettings(num_workers=2, cpus_per_worker=1.5)
    refuse_starvation(big, 1.0, three)  # one node stays free, wherever the two are
    with pytest.raises(BadInput, match=r"3 of the cluster's 4 on 2 nodes; .* 1 more on one node, .* at most 1,"):
        refuse_starvation(big, 1.0, two)
    refuse_starvation(WorkerSettings(num_workers=2, cpus_per_worker=1.0), 1.0, two)
    refuse_starvation(WorkerSettings(num_workers=2, cpus_per_worker=1.5), 0.5, two)


def test_a_worker_cannot_be_split_over_nodes():
    with pytest.raises(BadInput, match=r"take 3 of the cluster's 4 on 4 nodes"):
        refuse_starvation(WorkerSettings(num_workers=1, cpus_per_worker=3.0), 0.5, [{"CPU": 1.0}] * 4)


def test_workers_with_gpus_leave_the_other_nodes_to_reading():
    workers = WorkerSettings(num_workers=2, cpus_per_worker=4.0, use_gpu=True)
    refuse_starvation(workers, 1.0, [{"CPU": 8.0, "GPU": 2.0}, {"CPU": 4.0}])
    with pytest.raises(BadInput, match="reading tiles needs 1 more on one node"):
        refuse_starvation(workers, 1.0, [{"CPU": 8.0, "GPU": 2.0}])


def test_no_number_of_cpus_helps_where_no_node_can_read():
    with pytest.raises(BadInput, match=r"wants 1 CPUs, the largest node has 0\.5: set stream\.read_cpus lower"):
        refuse_starvation(WorkerSettings(num_workers=1, cpus_per_worker=0.1), 1.0, [{"CPU": 0.5}] * 8)
