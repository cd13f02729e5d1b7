"""A study while it is carried out: what needs what, who does it, and what became of it.

One decision: the driver decides and the cluster works. Pretrainings, transfer scores and pairs of encoder and benchmark are nodes
of a graph (`raypath.study.graph`), each a task; the driver begins and ends the runs of encoders in MLflow, and tasks write scores,
cells and trials into them.
"""

import math
import os
import shlex
import sys
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import launch
import ray
from launch import say
from scoring import status_of
from study_afterwards import facts_of_benchmarks, record_finished, record_study
from study_benchmarks import Loaded, load_benchmarks
from study_cells import cells_of, extent_of, scored_by
from study_checks import check_encoders, check_words
from study_contamination import Declared
from study_copies import look_by_features
from study_fits import Tracked, forget_failed
from study_lineage import forget_opening, opening_words, record_command
from study_mlflow import StudyRuns
from study_pair import Pair
from study_plan import (
    Chosen,
    Point,
    num_of_grid,
    points_of,
    say_plan,
    stages_of,
)
from study_pretraining import pretrainings_at_once
from study_selection import select_combinations, selecting_transfer, transfer_score
from study_table import LiveTable
from study_tasks import pretrain_task, score_task, submit
from study_weights import Weights, declared_of, training_of

from raypath.config import to_dict
from raypath.errors import Incomplete, Preempted
from raypath.protocols.encoders import RANDOM_BN
from raypath.run_folder import RunFolder, runs_root
from raypath.study.cells import Cell, Checkpoint, asked_of, keys_of, write_json
from raypath.study.graph import Graph, Node, State, run_graph
from raypath.study.settings import StudyConfig

_KEEP_EVERY_S = 20.0


@dataclass
class Study:
    """A study while it is carried out."""

    config: StudyConfig
    folder: Path
    reopen: str
    retry: bool
    benchmarks: list[Loaded] = field(default_factory=list)
    chosen: Chosen = field(default_factory=dict)
    """What the grid of leave-one-task-out selects."""
    lost: dict[str, str] = field(default_factory=dict)
    """Encoders of which nothing could be selected, with the reason."""
    weights: Weights = field(init=False)
    running: dict[Any, Node] = field(default_factory=dict)
    said: dict[str, dict] = field(default_factory=dict)
    """What tasks have said at their end, by the names of their nodes."""
    search: dict[str, dict] = field(default_factory=dict)
    """What selecting among a grid took, by encoder."""
    contamination: dict[str, dict] = field(default_factory=dict)
    """By cell: what this study finds, which may declare or waive otherwise than the one that scored it."""
    asked: dict[str, tuple[Cell, ...]] = field(default_factory=dict)
    """The cells of each node."""
    cells: list[Cell] = field(default_factory=list)
    """All that was asked for."""
    kept_at: float = -math.inf
    """When the folder was last brought up to date, by the monotonic clock."""

    def __post_init__(self):
        self.weights = Weights(self.config, self.folder)

    def plan(self) -> None:
        """Read the benchmarks, check everything that can be checked, and say what is about to be done."""
        check_words(self.config)
        self.benchmarks = load_benchmarks(self.config)
        check_encoders(self.config, self.benchmarks, self.weights)
        self.extent_px = extent_of(self.config)
        nodes = self.nodes()
        scored = [node.work for node in nodes if node.kind == "score"]
        num_cells = sum(len(scored_by(self.config, one, point.entry)) for point, one, _ in scored)
        num_trainings = len(nodes) - len(scored) + num_of_grid(self.config, self.benchmarks)
        by_fold = sum(node.kind == "pretrain" and node.work.fold >= 0 for node in nodes)
        say_plan(self.config, self.benchmarks, num_trainings, num_cells, by_fold)
        self.facts = facts_of_benchmarks(self.config, self.benchmarks)

    def run(self) -> None:
        """From benchmarks to the report."""
        config = self.config
        os.environ["RAYPATH_RUNS"] = str(runs_root())  # the same for every task
        self.plan()
        self.reopen = opening_words(self.folder, self.reopen)
        write_json(self.folder / "study.json", to_dict(config))
        write_json(self.folder / "benchmarks.json", self.facts)
        record_command(self.folder)
        launch.start_ray()
        self.benchmarks = look_by_features(config, self.benchmarks, self.extent_px, self.folder)
        self.references = {one.name: ray.put(one) for one in self.benchmarks}
        self.runs = StudyRuns(config, self.folder)
        status = "FAILED"
        try:
            self.chosen = select_combinations(self)
            self.score()
            status = "FINISHED"
            forget_opening(self.folder)
        except (KeyboardInterrupt, Preempted):
            status = "KILLED"
            again = shlex.join(["python", *sys.argv])
            raise Preempted(f"interrupted; what is finished is kept: go on with {again}") from None
        except BaseException as error:
            status = status_of(error)
            raise
        finally:
            self.runs.end(status)
        report = record_study(self.folder, config, self.benchmarks, self.runs)
        say(f"report {report}\nlook at runs: make ui  (MLflow: {self.runs.tracker.place})")
        failed = RunFolder(self.folder).read("failures.json")
        if failed:
            raise Incomplete(
                f"{config.name}: {len(failed)} parts failed, the first {next(iter(failed))}; the report has all of them, with the"
                " reasons; run again (--retry: what failed as well)"
            )

    def score(self) -> None:
        """Pretrain what is to be pretrained, and score every encoder on every benchmark."""
        graph = Graph.of(self.nodes())
        write_json(self.folder / "progress.json", {"steps": len(graph.nodes), "ended": 0})
        self.carry_out(graph)
        self.keep(graph)

    def keep(self, graph: Graph) -> None:
        """Put what has ended so far into the study's folder: `raypath report` can be asked at any time, and after a kill."""
        ended = sum(state not in ("waiting", "running") for state in graph.states.values())
        write_json(self.folder / "failures.json", graph.reasons | self.lost)
        write_json(self.folder / "cells.json", asked_of(self.cells))
        write_json(self.folder / "contamination.json", self.contamination)
        write_json(self.folder / "progress.json", {"steps": len(graph.nodes), "ended": ended})
        record_finished(self.folder)
        self.kept_at = time.monotonic()

    def carry_out(self, graph: Graph) -> None:
        """Work, with a table that follows it."""
        resources = ray.cluster_resources()
        at_once = self.at_once = self.config.max_concurrent or max(1, int(resources.get("CPU", 1)))
        trainings = [
            stages_of(self.config, n.work, self.benchmarks) for n in graph.nodes.values() if n.kind == "pretrain"
        ]
        with LiveTable(graph, self.config.name) as table:

            def changed(node: Node, state: State) -> None:
                table.change(node, state, graph.reasons.get(node.name, ""))
                if node.kind == "score" and state == "done" and time.monotonic() - self.kept_at > _KEEP_EVERY_S:
                    self.keep(graph)

            run_graph(
                graph,
                start=self.start,
                wait=self.wait,
                limits={"pretrain": pretrainings_at_once(trainings, resources), "score": at_once, "select": at_once},
                on_change=changed,
            )

    def nodes(self) -> list[Node]:
        """The graph: pretrainings, and an encoder on a benchmark once its weights are there."""
        nodes: dict[str, Node] = {}
        points = points_of(self.config, self.benchmarks, self.chosen, self.lost)
        for one in self.benchmarks:
            for point in (point for point in points[one.name] if scored_by(self.config, one, point.entry)):
                needs: tuple[str, ...] = ()
                if point.entry.recipe:
                    needs = tuple(map(training_of, point.trainings))
                    for name, training in zip(needs, point.trainings):
                        nodes.setdefault(name, Node(name, "pretrain", work=training))
                    for step in range(point.entry.curve_points):
                        name = f"{point.name} on {one.name}, checkpoint {step + 1} of {point.entry.curve_points}"
                        nodes[name] = Node(name, "score", needs, (point, one, step))
                name = f"{point.name} on {one.name}"
                nodes[name] = Node(name, "score", needs, (point, one, None))
        return [*(n for n in nodes.values() if n.kind == "pretrain"), *(n for n in nodes.values() if n.kind == "score")]

    def start(self, node: Node) -> Any:
        """Hand a node to the cluster; a task holds no processor of its own, what it starts does."""
        handle = self.handed_out(node)
        self.running[handle] = node
        return handle

    def handed_out(self, node: Node) -> Any:
        """The task of a node."""
        log = self.folder / "logs" / f"{node.name.replace('/', '-')}.log"
        if node.kind == "pretrain":
            stages = stages_of(self.config, node.work, self.benchmarks)
            parent = self.runs.encoder(node.work.entry.name)
            return submit(
                pretrain_task, (stages, node.work.entry.curve_points, self.config.name, parent), log, runs_root()
            )
        point, one, step = node.work
        if node.kind == "select":
            transfer = selecting_transfer(self.config, one, self.extent_px)
            run = self.weights.trained[training_of(point)]
            arguments = (transfer, str(run), [self.references[one.name]], 1 / self.at_once)
            return submit(transfer_score, arguments, log, runs_root())
        checkpoint = self.weights.checkpoint(point, step)
        pair = self.pair(point, one, checkpoint)
        self.cells += pair.cells
        self.asked[node.name] = pair.cells
        if self.retry or self.reopen:
            forget_failed(pair.cells)
        return submit(score_task, (pair, [self.references[one.name]]), log, runs_root())

    def wait(self, handles: list[Any]) -> tuple[Any, str | None]:
        """One task that has ended, and why it failed."""
        (handle,), _ = ray.wait(handles, num_returns=1)
        node = self.running.pop(handle)
        try:
            result = ray.get(handle)
        except ray.exceptions.RayError as error:
            return handle, str(getattr(error, "cause", None) or error).strip().splitlines()[-1]
        if isinstance(result, str):
            return handle, result
        self.said[node.name] = result
        if node.kind == "pretrain":
            self.weights.trained[node.name] = Path(result["run"])
        if node.name in self.asked and "contamination" in result:
            self.contamination |= {cell.key: result["contamination"] for cell in self.asked[node.name]}
        failed = result.get("failed", [])
        return handle, "; ".join(failed) or None

    def pair(self, point: Point, one: Loaded, checkpoint: Checkpoint) -> Pair:
        """The cells of an encoder on a benchmark, with what a task needs to score them."""
        entry = point.entry
        if entry.source.partition(":")[0] == RANDOM_BN:
            entry = replace(entry, batch_norm="recalibrate")
        cells = tuple(cells_of(self.config, one, checkpoint, entry, self.extent_px))
        where = f"{point.name} on {one.name}" + (f" step {checkpoint.step}" if checkpoint.step is not None else "")
        tags = {
            "study": self.config.name,
            "encoder": entry.name,
            "benchmark": one.name,
            "seed": point.seed,
            "data_hash": one.benchmark.data_hash,
            **one.found,
            **one.benchmark.tags,
        }
        reason = f"study {self.config.name}, {len(cells)} cells {keys_of(cells)}"
        return Pair(
            cells=cells,
            folder=self.folder,
            reason=f"{reason}, again: {self.reopen}" if self.reopen else reason,
            reopen=bool(self.reopen),
            declared=Declared(waive=self.config.waive, seen=declared_of(entry)),
            tracked=Tracked(
                tracking=self.runs.tracker.uri, run_id=self.runs.scored(where, entry.name, tags), tags=tags
            ),
            share=1 / self.at_once,
        )
