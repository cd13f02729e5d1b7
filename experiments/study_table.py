"""What a study is doing, while it does it: a table that follows on a terminal, a line for every change in a log.

One decision: rows are encoders, columns are benchmarks, and a place says how far it is: what waits, runs, is done or has failed.
"""

import time
from collections import Counter

import launch
from launch import say
from rich.live import Live
from rich.table import Table

from raypath.study.graph import Graph, Node, State

_SIGNS = {"waiting": ".", "running": "*", "done": "ok", "failed": "FAILED", "skipped": "-"}
_STYLES = {"running": "bold", "failed": "red", "done": "green", "waiting": "dim", "skipped": "dim"}


class LiveTable:
    """Follows a graph; use it with `with`."""

    def __init__(self, graph: Graph, title: str):
        self.graph, self.title, self.began = graph, title, time.monotonic()
        self.started: dict[str, float] = {}
        self.live = Live(console=launch.console, auto_refresh=False) if launch.console.is_terminal else None

    def __enter__(self) -> "LiveTable":
        if self.live:
            self.live.start()
        return self

    def __exit__(self, *error) -> None:
        if self.live:
            self.live.update(self.table(), refresh=True)
            self.live.stop()

    def change(self, node: Node, state: State, reason: str) -> None:
        """Show that a node is now in a state; `reason`: why it failed."""
        took = time.monotonic() - self.started.setdefault(node.name, time.monotonic())
        if self.live:
            self.live.update(self.table(), refresh=True)
        if self.live is None or state == "failed":
            num_done = sum(one in ("done", "failed", "skipped") for one in self.graph.states.values())
            seconds = "" if state in ("running", "skipped") else f" in {took:.0f} s"
            why = f": {reason}" if reason else ""
            say(f"[{num_done} of {len(self.graph.nodes)}] {node.name}: {state}{seconds}{why}")

    def table(self) -> Table:
        """Encoders down, benchmarks across; pretrainings in the first column."""
        benchmarks = list(dict.fromkeys(n.work[1].name for n in self.graph.nodes.values() if n.kind != "pretrain"))
        rows: dict[str, dict[str, Counter]] = {}
        for name, node in self.graph.nodes.items():
            point = node.work if node.kind == "pretrain" else node.work[0]
            column = "pretraining" if node.kind == "pretrain" else node.work[1].name
            rows.setdefault(point.entry.name, {}).setdefault(column, Counter())[self.graph.states[name]] += 1
        table = Table(title=f"{self.title}, {time.monotonic() - self.began:.0f} s")
        for column in ("encoder", "pretraining", *benchmarks):
            table.add_column(column, justify="left" if column == "encoder" else "center")
        for encoder, places in rows.items():
            table.add_row(encoder, *(_told(places.get(column, Counter())) for column in ("pretraining", *benchmarks)))
        return table


def _told(states: Counter) -> str:
    """What the seeds of one place are doing."""
    total = sum(states.values())
    parts = [f"[{_STYLES[s]}]{_SIGNS[s]}{f' {n}/{total}' if total > 1 else ''}[/]" for s, n in states.items()]
    return " ".join(parts)
