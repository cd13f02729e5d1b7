"""A graph of work: what needs what, what runs now, what failed, and what cannot be done because of it.

One decision: the graph knows nothing of the work. Starting a piece and waiting for one to end are two functions that are passed
in (Ray tasks in `experiments/study.py`), so order and failure are tested without a cluster. A piece that fails takes with it only
what needs it; everything else goes on.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

from raypath.errors import Preempted, RaypathError

State = Literal["waiting", "running", "done", "failed", "skipped"]


@dataclass(frozen=True)
class Node:
    """A piece of work."""

    name: str
    kind: str
    """Pieces of one kind share a limit on how many run at once."""
    needs: tuple[str, ...] = ()
    work: Any = None
    """What `start` is handed."""


@dataclass
class Graph:
    """Nodes and what became of each."""

    nodes: dict[str, Node]
    states: dict[str, State] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    """Why a node failed or was skipped."""

    @classmethod
    def of(cls, nodes: Iterable[Node]) -> "Graph":
        """Raises ValueError for a name given twice, a need that is no node, and a circle."""
        named: dict[str, Node] = {}
        for node in nodes:
            if node.name in named:
                raise ValueError(f"{node.name}: two nodes of this name")
            named[node.name] = node
        for node in named.values():
            absent = [need for need in node.needs if need not in named]
            if absent:
                raise ValueError(f"{node.name} needs {', '.join(absent)}, which is not in the graph")
        graph = cls(named, dict.fromkeys(named, "waiting"))
        graph._check_order()
        return graph

    def _check_order(self) -> None:
        reached: set[str] = set()
        while len(reached) < len(self.nodes):
            free = [n for n, node in self.nodes.items() if n not in reached and reached.issuperset(node.needs)]
            if not free:
                raise ValueError(f"{', '.join(sorted(self.nodes.keys() - reached))} need each other in a circle")
            reached.update(free)

    def ready(self) -> list[Node]:
        """Waiting nodes whose needs are done, in the order in which they were given."""
        return [
            node
            for name, node in self.nodes.items()
            if self.states[name] == "waiting" and all(self.states[need] == "done" for need in node.needs)
        ]

    def fail(self, name: str, reason: str) -> None:
        """Mark a node as failed, and as skipped whatever needs it."""
        self.states[name], self.reasons[name] = "failed", reason
        lost = {name}
        for other, node in self._in_order():
            if lost.intersection(node.needs) and self.states[other] == "waiting":
                lost.add(other)
                self.states[other] = "skipped"
                self.reasons[other] = f"{name} failed: {reason}"

    def _in_order(self) -> list[tuple[str, Node]]:
        """Every node after all that it needs."""
        order: dict[str, Node] = {}
        while len(order) < len(self.nodes):
            order |= {n: node for n, node in self.nodes.items() if n not in order and order.keys() >= set(node.needs)}
        return list(order.items())


def run_graph(
    graph: Graph,
    *,
    start: Callable[[Node], Any],
    wait: Callable[[list[Any]], tuple[Any, str | None]],
    limits: dict[str, int],
    on_change: Callable[[Node, State], None] = lambda node, state: None,
) -> None:
    """Carry a graph out: `start(node)` gives a handle, `wait(handles)` one that ended and why it failed (None: it did not).

    At most `limits[kind]` nodes of a kind run at once (1 where none is given). A `start` that raises an error which a person can
    act on fails its node; any other error, and Preempted, ends it all. Returns when nothing is left that could run. Raises
    ValueError for a limit below 1, with which nothing would ever run.
    """
    for kind, limit in limits.items():
        if limit < 1:
            raise ValueError(f"limits[{kind!r}] = {limit}: expected 1 or more")
    running: dict[Any, Node] = {}
    while running or graph.ready():
        for node in graph.ready():
            if sum(other.kind == node.kind for other in running.values()) < limits.get(node.kind, 1):
                graph.states[node.name] = "running"
                on_change(node, "running")
                try:
                    running[start(node)] = node
                except Preempted:
                    raise
                except RaypathError as error:
                    _end(graph, node, str(error), on_change)
        if running:
            handle, reason = wait(list(running))
            _end(graph, running.pop(handle), reason, on_change)


def _end(graph: Graph, node: Node, reason: str | None, on_change: Callable[[Node, State], None]) -> None:
    """Write down that a node is done or, where there is a reason, failed; every node that changes by it is told of."""
    before = dict(graph.states)
    if reason is None:
        graph.states[node.name] = "done"
    else:
        graph.fail(node.name, reason)
    for name, state in graph.states.items():
        if state != before[name]:
            on_change(graph.nodes[name], state)
