"""A study while it is carried out: what needs what, who does it, and what became of it.

One decision: the driver decides and the cluster works. Pretrainings, transfer scores and pairs of encoder and benchmark are nodes
of a graph (`raypath.study.graph`), each a task; the driver alone begins and ends the study's runs in MLflow, and tasks write their
scores and trials into them.
"""

import os
import shlex
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import launch
import ray
from launch import say
from pretrain import has_data
from scoring import status_of
from study_afterwards import facts_of_benchmarks, record_lineage, record_study
from study_benchmarks import Loaded, load_benchmarks
from study_contamination import Declared
from study_fits import Tracked, place_of_cell
from study_pair import Pair
from study_plan import (
    Chosen,
    Point,
    cells_of,
    extent_of,
    grid_of,
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
from raypath.errors import Preempted
from raypath.protocols.encoders import RANDOM, RANDOM_BN, weights_id
from raypath.protocols.monitor import check_monitor
from raypath.run_folder import RunFolder, runs_root
from raypath.study.cells import Cell, Checkpoint, asked_of, keys_of, write_json
from raypath.study.graph import Graph, Node, run_graph
from raypath.study.settings import EncoderEntry, StudyConfig
from raypath.training.settings import check_settings


@dataclass
class Study:
    """A study while it is carried out."""

    config: StudyConfig
    folder: Path
    reopen: str
    retry: bool
    benchmarks: list[Loaded] = field(default_factory=list)
    runs: dict[str, str] = field(default_factory=dict)
    """MLflow runs by what they are of."""
    chosen: Chosen = field(default_factory=dict)
    """What the grid of leave-one-task-out selects."""
    lost: dict[str, str] = field(default_factory=dict)
    """Encoders of which nothing could be selected, with the reason."""
    weights: Weights = field(init=False)
    running: dict[Any, Node] = field(default_factory=dict)
    selected: dict[str, float] = field(default_factory=dict)
    """Transfer scores, by the names of their nodes."""
    contamination: dict[str, dict] = field(default_factory=dict)
    """By cell: what this study finds, which may declare or waive otherwise than the one that scored it."""
    asked: dict[str, tuple[Cell, ...]] = field(default_factory=dict)
    """The cells of each node."""
    cells: list[Cell] = field(default_factory=list)
    """All that was asked for."""

    def __post_init__(self):
        self.weights = Weights(self.config, self.folder)

    def plan(self) -> None:
        """Read the benchmarks, check everything that can be checked, and say what is about to be done."""
        self.benchmarks = load_benchmarks(self.config)
        self.check()
        nodes = self.nodes()
        scored = [node.work[0].entry for node in nodes if node.kind == "score"]
        num_cells = sum(len(e.protocols or self.config.protocols) for e in scored) * len(self.config.fractions)
        num_trainings = len(nodes) - len(scored) + num_of_grid(self.config, self.benchmarks)
        say_plan(self.config, self.benchmarks, num_trainings, num_cells)
        self.facts = facts_of_benchmarks(self.benchmarks)

    def run(self) -> None:
        """From benchmarks to the report."""
        config = self.config
        os.environ["RAYPATH_RUNS"] = str(runs_root())  # the same for every task
        self.plan()
        write_json(self.folder / "study.json", to_dict(config))
        write_json(self.folder / "benchmarks.json", self.facts)
        record_lineage(self.folder)
        launch.start_ray()
        self.references = {one.name: ray.put(one) for one in self.benchmarks}
        self.tracker = launch.start_tracking()
        self.runs = RunFolder(self.folder).read("mlflow_runs.json")
        self.study_run = self.mlflow_run(f"study {config.name}", None, {"study": config.name}, to_dict(config))
        status = "FAILED"
        try:
            self.chosen = select_combinations(self)
            self.score()
            status = "FINISHED"
        except (KeyboardInterrupt, Preempted):
            status = "KILLED"
            again = shlex.join(["python", *sys.argv])
            raise Preempted(f"interrupted; what is finished is kept: go on with {again}") from None
        except BaseException as error:
            status = status_of(error)
            raise
        finally:
            for run_id in reversed(self.runs.values()):
                self.tracker.end_run(run_id, status)
        report = record_study(self.folder, config, self.benchmarks, self.tracker, self.study_run)
        say(f"report {report}\nlook at runs: make ui  (MLflow: {self.tracker.place})")

    def check(self) -> None:
        """Everything about pretrainings that can be wrong, before one of them takes its hours."""
        points = points_of(self.config, self.benchmarks, {})
        for point in {point.name: point for own in points.values() for point in own}.values():
            if point.entry.recipe:
                self.check_pretraining(point)
            else:
                source = self.weights.source_of(point)
                if source.partition(":")[0] not in (RANDOM, RANDOM_BN):
                    weights_id(source, seed=point.seed)
        self.extent_px = extent_of(self.config)

    def check_pretraining(self, point: Point) -> None:
        """Every combination of a grid, every stage; of several folds the first."""
        combinations = grid_of(self.config) if point.entry.leave_out else [()]
        for combination in combinations:
            training = replace(point.trainings[0], combination=combination)
            stages = stages_of(self.config, training, self.benchmarks)
            has_data(stages[0])
            for stage in stages:
                check_settings(stage)
                check_monitor(stage.monitor)

    def score(self) -> None:
        """Pretrain what is to be pretrained, and score every encoder on every benchmark."""
        graph = Graph.of(self.nodes())
        self.carry_out(graph)
        write_json(self.folder / "failures.json", graph.reasons | self.lost)
        write_json(self.folder / "cells.json", asked_of(self.cells))
        write_json(self.folder / "contamination.json", self.contamination)

    def carry_out(self, graph: Graph) -> None:
        """Work, with a table that follows it."""
        resources = ray.cluster_resources()
        at_once = self.at_once = self.config.max_concurrent or max(1, int(resources.get("CPU", 1)))
        trainings = [
            stages_of(self.config, n.work, self.benchmarks) for n in graph.nodes.values() if n.kind == "pretrain"
        ]
        with LiveTable(graph, self.config.name) as table:
            run_graph(
                graph,
                start=self.start,
                wait=self.wait,
                limits={"pretrain": pretrainings_at_once(trainings, resources), "score": at_once, "select": at_once},
                on_change=lambda node, state: table.change(node, state, graph.reasons.get(node.name, "")),
            )

    def nodes(self) -> list[Node]:
        """The graph: pretrainings, and an encoder on a benchmark once its weights are there."""
        nodes: dict[str, Node] = {}
        points = points_of(self.config, self.benchmarks, self.chosen, self.lost)
        for one in self.benchmarks:
            for point in points[one.name]:
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
            parent = self.encoder_run(node.work.entry)
            return submit(
                pretrain_task, (stages, node.work.entry.curve_points, self.config.name, parent), log, runs_root()
            )
        point, one, step = node.work
        if node.kind == "select":
            transfer = selecting_transfer(self.config, one, self.extent_px)
            arguments = (transfer, str(self.weights.trained[training_of(point)]), [self.references[one.name]])
            return submit(transfer_score, arguments, log, runs_root())
        checkpoint = self.weights.checkpoint(point, step)
        if checkpoint is None:
            return submit(dict, (), log, runs_root())
        pair = self.pair(point, one, checkpoint)
        self.cells += pair.cells
        self.asked[node.name] = pair.cells
        if self.retry or self.reopen:
            self.forget_failed(pair.cells)
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
        if node.kind == "pretrain":
            self.weights.trained[node.name] = Path(result["run"])
        if node.kind == "select":
            self.selected[node.name] = result["score"]
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
                tracking=self.tracker.uri, run_id=self.mlflow_run(where, self.encoder_run(entry), tags, {}), tags=tags
            ),
            share=1 / self.at_once,
        )

    def encoder_run(self, entry: EncoderEntry) -> str:
        """The MLflow run of an encoder, under that of the study."""
        return self.mlflow_run(
            f"encoder {entry.name}", self.study_run, {"study": self.config.name, "encoder": entry.name}, {}
        )

    def mlflow_run(self, name: str, parent: str | None, tags: dict, params: dict) -> str:
        """The run of a name, the same one where a study is resumed."""
        known = self.runs.get(name)
        shown = name.removeprefix("study ").removeprefix("encoder ")
        self.runs[name] = self.tracker.start_run(shown, parent=parent, tags=tags, params=params, resume=known)
        write_json(self.folder / "mlflow_runs.json", self.runs)
        return self.runs[name]

    def forget_failed(self, cells: tuple[Cell, ...]) -> None:
        """Make failed cells as if they had never been run."""
        for cell in cells:
            place = place_of_cell(cell)
            record = place.record
            if record and record["state"] == "failed":
                (place.path / "cell.json").unlink()
