"""Work is done in order, within limits, and a failure takes with it only what needs it."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raypath.errors import BadInput, Preempted
from raypath.study.graph import Graph, Node, run_graph


class Work:
    """Pieces of work that end when they are waited for, in an order that `pick` decides."""

    def __init__(self, failing=(), refused=(), pick=lambda num: 0):
        self.failing, self.refused, self.pick = set(failing), set(refused), pick
        self.running, self.started, self.log, self.most = [], [], [], {}

    def start(self, node):
        if node.name in self.refused:
            raise BadInput(f"{node.name} cannot be started")
        self.running.append(node)
        self.started.append(node.name)
        now = sum(other.kind == node.kind for other in self.running)
        self.most[node.kind] = max(self.most.get(node.kind, 0), now)
        return node.name

    def wait(self, handles):
        assert sorted(handles) == sorted(node.name for node in self.running)
        node = self.running.pop(self.pick(len(self.running)))
        return node.name, f"{node.name} broke" if node.name in self.failing else None

    def note(self, node, state):
        self.log.append((node.name, state))


def carry_out(graph, work, **limits):
    run_graph(graph, start=work.start, wait=work.wait, limits=limits, on_change=work.note)
    return graph.states


def test_a_node_starts_after_what_it_needs_in_the_order_given():
    nodes = [Node("score b", "score", ("train",)), Node("train", "train"), Node("score a", "score", ("train",))]
    work = Work()
    states = carry_out(Graph.of(nodes), work, train=1, score=1)
    assert work.started == ["train", "score b", "score a"]
    assert set(states.values()) == {"done"}
    assert work.log[:3] == [("train", "running"), ("train", "done"), ("score b", "running")]


def test_a_failure_takes_only_what_needs_it_and_says_why():
    nodes = [
        Node("a", "train"),
        Node("b", "train"),
        Node("a1", "score", ("a",)),
        Node("a2", "score", ("a1",)),
        Node("ab", "score", ("a", "b")),
        Node("b1", "score", ("b",)),
    ]
    graph, work = Graph.of(nodes), Work(failing=["a"])
    states = carry_out(graph, work, train=2, score=2)
    assert states == {"a": "failed", "b": "done", "a1": "skipped", "a2": "skipped", "ab": "skipped", "b1": "done"}
    assert graph.reasons["a"] == "a broke"
    assert graph.reasons["a2"] == graph.reasons["ab"] == "a failed: a broke"
    assert ("a2", "skipped") in work.log
    assert "b1" not in graph.reasons


def test_what_cannot_be_started_has_failed_and_the_rest_goes_on():
    nodes = [Node("a", "train"), Node("b", "train"), Node("a1", "score", ("a",)), Node("b1", "score", ("b",))]
    graph = Graph.of(nodes)
    states = carry_out(graph, Work(refused=["a"]), train=1, score=1)
    assert states == {"a": "failed", "b": "done", "a1": "skipped", "b1": "done"}
    assert graph.reasons["a"] == "a cannot be started"


@pytest.mark.parametrize("error", [Preempted("stop"), KeyError("a mistake of ours")])
def test_a_stop_and_a_mistake_of_ours_are_no_failure_of_the_node(error):
    def start(node):
        raise error

    with pytest.raises(type(error)):
        run_graph(Graph.of([Node("a", "train")]), start=start, wait=Work().wait, limits={})


def test_a_kind_without_a_limit_runs_one_at_a_time_and_a_limit_of_none_is_refused():
    work = Work()
    carry_out(Graph.of([Node(name, "train") for name in "abc"]), work)
    assert work.most == {"train": 1}
    with pytest.raises(ValueError, match=r"limits\['train'\] = 0: expected 1 or more"):
        carry_out(Graph.of([Node("a", "train")]), Work(), train=0)


@pytest.mark.parametrize(
    ("nodes", "words"),
    [
        ([Node("a", "k", ("b",)), Node("b", "k", ("c",)), Node("c", "k", ("a",)), Node("d", "k")], "a, b, c need each"),
        ([Node("a", "k", ("a",))], "a need each other in a circle"),
        ([Node("a", "k", ("b",))], "a needs b, which is not in the graph"),
        ([Node("a", "k"), Node("a", "k")], "a: two nodes of this name"),
    ],
)
def test_graphs_that_are_none_are_refused(nodes, words):
    with pytest.raises(ValueError, match=words):
        Graph.of(nodes)


@st.composite
def graphs(draw):
    """(nodes in any order, names that fail, names that cannot be started, limits)."""
    num = draw(st.integers(0, 14))
    names = [f"n{number}" for number in range(num)]
    nodes = [
        Node(
            name, draw(st.sampled_from("xyz")), tuple(draw(st.sets(st.sampled_from(names[:number]))) if number else ())
        )
        for number, name in enumerate(names)
    ]
    some = st.sets(st.sampled_from(names), max_size=4) if names else st.just(set())
    limits = {kind: draw(st.integers(1, 3)) for kind in "xyz"}
    return draw(st.permutations(nodes)), draw(some), draw(some), limits


@settings(deadline=None, max_examples=60)
@given(graphs(), st.randoms(use_true_random=False))
def test_any_graph_with_any_failures_comes_to_an_end(drawn, random):
    nodes, failing, refused, limits = drawn
    graph, work = Graph.of(nodes), Work(failing, refused, random.randrange)
    states = carry_out(graph, work, **limits)
    assert set(states.values()) <= {"done", "failed", "skipped"}
    assert len(set(work.started)) == len(work.started)
    broken = failing | refused
    for node in nodes:
        is_cut_off = any(states[need] in ("failed", "skipped") for need in node.needs)
        wanted = "skipped" if is_cut_off else "failed" if node.name in broken else "done"
        assert states[node.name] == wanted
        assert (node.name in graph.reasons) == (wanted != "done")
        if node.name in work.started:
            place = work.log.index((node.name, "running"))
            assert all(work.log.index((need, "done")) < place for need in node.needs)
    assert all(work.most[kind] <= limits[kind] for kind in work.most)
    final = {name: state for name, state in work.log if state != "running"}
    assert final == states  # whoever follows the changes knows how it ended
