"""A study: encoders x benchmarks x protocols x shares of labels x seeds, with intervals, verdicts and a report.

    python experiments/study.py STUDY [key=value ...]

    python experiments/study.py my-study.toml                       a study in a file (README, "Studies")
    python experiments/study.py transfer encoders=runs/ID,imagenet:resnet18,random,colour benchmarks=../data/a,../data/b
    python experiments/study.py transfer ... protocols=probe,finetune fractions=0.1,0.25,1 transfer='["sweep.num_trials=8"]'
    python experiments/study.py --list

Of encoders, each word is a source as in a sweep (runs/ID, imagenet:ARCHITECTURE, random, colour, ...) or the name of a recipe, which
the study pretrains; `simclr_small*3` trains it with three seeds. The same command goes on with a study that was stopped or killed:
what is finished is kept. `reopen="why"` opens tests a second time, which the report shows; `retry=true` runs failed cells again.

Pretrainings run first, each once; an encoder on a benchmark is scored as soon as its weights are there. `--key value` is key=value.
"""

import fcntl
import os
import sys
import traceback
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import launch
import ray
from command_line import pick, pick_flag, split_arguments
from entrants import absolute_source
from launch import say
from recipes import PRETRAINING
from recipes.studies import STUDIES
from scoring import status_of
from study_afterwards import record_benchmarks, record_lineage, record_study
from study_cells import Pair, log_pair, place_of_cell, score_pair
from study_plan import (
    Loaded,
    Point,
    architecture_of,
    cells_of,
    extent_of,
    load_benchmarks,
    points_of,
    say_plan,
    stages_of,
)
from study_pretraining import checkpoints_of, cost_of, pretrained
from study_selection import select_combinations, selecting_transfer, transfer_score
from study_table import LiveTable

from raypath.config import override, to_dict
from raypath.errors import BadInput, Preempted
from raypath.models import build_encoder
from raypath.models.weights import save_encoder
from raypath.protocols.encoders import RANDOM, RANDOM_BN, open_encoder, short_name, weights_id
from raypath.run_folder import RunFolder, runs_root
from raypath.study.cells import Cell, Checkpoint, asked_of, keys_of, write_json
from raypath.study.graph import Graph, Node, run_graph
from raypath.study.seen import seen_by
from raypath.study.settings import EncoderEntry, StudyConfig, check_study, read_study
from raypath.training.checkpoint import ENCODER, read_step


def main(arguments: list[str]) -> None:
    """Carry a study out, or go on with it."""
    if not arguments or "-h" in arguments or "--help" in arguments:
        say(__doc__)
        return
    if "--list" in arguments:
        launch.list_recipes(STUDIES)
        return
    name, assignments = split_arguments(arguments, default="transfer")
    reopen, assignments = pick(assignments, "reopen")
    retry, assignments = pick_flag(assignments, "retry")
    config = study_of(name, assignments)
    check_study(config)
    folder = runs_root() / "studies" / config.name
    with locked(folder):
        Study(config, folder, reopen or "", retry).run()


def study_of(name: str, assignments: list[str]) -> StudyConfig:
    """The study of a name or a file, with `key=value` over it. Raises BadInput for one that is none."""
    if name.endswith(".toml"):
        config = read_study(Path(name))
    elif name in STUDIES:
        config = STUDIES[name]()
    else:
        raise BadInput(f"{name!r}: there is no such study; expected a .toml file or one of {', '.join(STUDIES)}")
    words = {key: pick(assignments, key)[0] for key in ("encoders", "benchmarks", "protocols", "fractions")}
    values: dict[str, Any] = {}
    for key, text in words.items():
        if text is not None and not text.lstrip().startswith("["):
            assignments = pick(assignments, key)[1]
            values[key] = [_word(key, one.strip()) for one in text.split(",") if one.strip()]
    return override(override(config, assignments), values)


def _word(key: str, word: str) -> Any:
    """What a word of a list on the command line stands for."""
    if key == "encoders":
        place, star, num = word.partition("*")
        what = {"recipe": place} if place in PRETRAINING else {"source": place}
        return to_dict(EncoderEntry(name=_plain(place), **what, num_seeds=int(num) if star else 1))
    if key == "benchmarks":
        is_place = Path(word).exists()
        return {"path" if is_place else "kind": word}
    return float(word) if key == "fractions" else word


def _plain(place: str) -> str:
    return place if place in PRETRAINING or ":" in place else short_name(place)


class locked:
    """Nobody else carries the study out meanwhile; the lock is released by the death of the process too."""

    def __init__(self, folder: Path):
        self.folder = folder

    def __enter__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.file = (self.folder / ".lock").open("w")
        try:
            fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise BadInput(f"{self.folder}: another process carries this study out; wait for it, or stop it") from None

    def __exit__(self, *error) -> None:
        self.file.close()


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
    trained: dict[str, Path] = field(default_factory=dict)
    """The run of each pretrained point."""
    running: dict[Any, Node] = field(default_factory=dict)
    selected: dict[str, float] = field(default_factory=dict)
    """Transfer scores, by the names of their nodes."""
    cells: list[Cell] = field(default_factory=list)
    """All that was asked for."""

    def run(self) -> None:
        """From benchmarks to the report."""
        config = self.config
        os.environ["RAYPATH_RUNS"] = str(runs_root())  # the same for every task
        self.benchmarks = load_benchmarks(config)
        self.check()
        write_json(self.folder / "study.json", to_dict(config))
        record_lineage(self.folder)
        record_benchmarks(self.folder, self.benchmarks)
        launch.start_ray()
        self.references = {one.name: ray.put(one.benchmark) for one in self.benchmarks}
        self.tracker = launch.start_tracking()
        self.runs = RunFolder(self.folder).read("mlflow_runs.json")
        self.study_run = self.mlflow_run(config.name, None, {"study": config.name}, to_dict(config))
        status = "FAILED"
        try:
            self.entries = select_combinations(self)
            self.score()
            status = "FINISHED"
        except (KeyboardInterrupt, Preempted):
            status = "KILLED"
            again = " ".join(["python", *sys.argv])
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
        points = points_of(self.config, self.benchmarks)
        for point in {point.name: point for own in points.values() for point in own}.values():
            if point.entry.recipe:
                stages_of(self.config, point, self.benchmarks)
            else:
                source = self.source_of(point)
                if source.partition(":")[0] not in (RANDOM, RANDOM_BN):
                    weights_id(source, seed=point.seed)
        self.extent_px = extent_of(self.config)

    def source_of(self, point: Point) -> str:
        """The source of an entry; bare `random` is like the first encoder that has an architecture."""
        source = point.entry.source
        if source not in (RANDOM, RANDOM_BN):
            return absolute_source(source)
        settings = architecture_of(self.config)
        if settings is None:
            raise BadInput(f"{point.entry.name}: random weights of which architecture? write random:ARCHITECTURE")
        return source

    def score(self) -> None:
        """Pretrain what is to be pretrained, and score every encoder on every benchmark."""
        nodes = self.nodes()
        pairs = [node for node in nodes if node.kind == "score"]
        num_trainings = sum(node.kind == "pretrain" for node in nodes)
        num_cells = len(pairs) * len(self.config.protocols) * len(self.config.fractions)
        say_plan(self.config, self.benchmarks, num_trainings, num_cells)
        graph = Graph.of(nodes)
        self.carry_out(graph)
        write_json(self.folder / "failures.json", graph.reasons)
        write_json(self.folder / "cells.json", asked_of(self.cells))

    def carry_out(self, graph: Graph) -> None:
        """Work, with a table that follows it."""
        num_cpus = max(1, int(ray.cluster_resources().get("CPU", 1)))
        at_once = self.config.max_concurrent or num_cpus
        with LiveTable(graph, self.config.name) as table:
            run_graph(
                graph,
                start=self.start,
                wait=self.wait,
                limits={"pretrain": num_cpus, "score": at_once, "select": at_once},
                on_change=lambda node, state: table.change(node, state, graph.reasons.get(node.name, "")),
            )

    def nodes(self) -> list[Node]:
        """The graph: pretrainings, and an encoder on a benchmark once its weights are there."""
        nodes: dict[str, Node] = {}
        for one in self.benchmarks:
            for point in points_of(replace(self.config, encoders=self.entries[one.name]), self.benchmarks)[one.name]:
                training = f"pretrain {point.name}"
                if point.entry.recipe:
                    nodes.setdefault(training, Node(training, "pretrain", work=point))
                    for step in range(point.entry.curve_points):
                        name = f"{point.name} on {one.name}, checkpoint {step + 1} of {point.entry.curve_points}"
                        nodes[name] = Node(name, "score", (training,), (point, one, step))
                name = f"{point.name} on {one.name}"
                needs = (training,) if point.entry.recipe else ()
                nodes[name] = Node(name, "score", needs, (point, one, None))
        return [*(n for n in nodes.values() if n.kind == "pretrain"), *(n for n in nodes.values() if n.kind == "score")]

    def start(self, node: Node) -> Any:
        """Hand a node to the cluster; a task holds no processor of its own, what it starts does."""
        handle = self.submit(node)
        self.running[handle] = node
        return handle

    def submit(self, node: Node) -> Any:
        """The task of a node."""
        log = self.folder / "logs" / f"{node.name.replace('/', '-')}.log"
        task = ray.remote(num_cpus=0, max_retries=0, scheduling_strategy="SPREAD")(in_task)
        if node.kind == "pretrain":
            stages = stages_of(self.config, node.work, self.benchmarks)
            parent = self.encoder_run(node.work.entry)
            return task.remote(_pretrain, (stages, self.config.name, parent), log, str(runs_root()))
        point, one, step = node.work
        if node.kind == "select":
            transfer = selecting_transfer(self.config, one, self.extent_px)
            arguments = (transfer, str(self.trained[f"pretrain {point.name}"]), [self.references[one.name]])
            return task.remote(transfer_score, arguments, log, str(runs_root()))
        checkpoint = self.checkpoint(point, step)
        if checkpoint is None:
            return task.remote(dict, (), log, str(runs_root()))
        pair = self.pair(point, one, checkpoint)
        self.cells += pair.cells
        if self.retry:
            self.forget_failed(pair.cells)
        return task.remote(_score, (pair, [self.references[one.name]]), log, str(runs_root()))

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
            self.trained[node.name] = Path(result["run"])
        if node.kind == "select":
            self.selected[node.name] = result["score"]
        failed = result.get("failed", [])
        return handle, "; ".join(failed) or None

    def checkpoint(self, point: Point, step: int | None) -> Checkpoint | None:
        """The weights of a point, now that they are there; None for a checkpoint on the way that was not kept."""
        entry = point.entry
        if not entry.recipe:
            source = self.materialised(point)
            return Checkpoint(
                encoder=entry.name, seed=point.seed, source=source, weights=weights_id(source, seed=point.seed)
            )
        run = RunFolder(self.trained[f"pretrain {point.name}"])
        places = checkpoints_of(run, entry.curve_points)
        if step is not None and step >= len(places) - 1:
            return None
        place = places[-1 if step is None else step]
        return Checkpoint(
            encoder=entry.name,
            seed=point.seed,
            source=str(place / ENCODER),
            weights=weights_id(str(place / ENCODER), seed=point.seed),
            step=None if step is None else read_step(place),
            left_out=point.left_out,
            cost=cost_of(run, place),
        )

    def materialised(self, point: Point) -> str:
        """The source; random weights as a file, so that the seed of a fit does not change them."""
        source = self.source_of(point)
        kind, _, like = source.partition(":")
        if kind not in (RANDOM, RANDOM_BN):
            return source
        settings = open_encoder(source, seed=0).settings if like else architecture_of(self.config)
        place = (
            self.folder
            / "encoders"
            / f"{RANDOM}-{settings.architecture}-{settings.input_px}-seed{point.seed}.safetensors"
        )
        if not place.exists():
            place.parent.mkdir(parents=True, exist_ok=True)
            draft = place.with_suffix(".draft")
            save_encoder(build_encoder(settings, seed=point.seed), draft)
            draft.rename(place)
        return str(place)

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
            together=one.together,
            folder=self.folder,
            reason=f"{reason}, again: {self.reopen}" if self.reopen else reason,
            reopen=bool(self.reopen),
            waive=self.config.waive,
            seen=None if entry.recipe else seen_by(entry.source, corpora=entry.corpora, uses_labels=entry.uses_labels),
            tags=tags,
            tracking=self.tracker.uri,
            run_id=self.mlflow_run(where, self.encoder_run(entry), tags, {}),
        )

    def encoder_run(self, entry: EncoderEntry) -> str:
        """The MLflow run of an encoder, under that of the study."""
        return self.mlflow_run(entry.name, self.study_run, {"study": self.config.name, "encoder": entry.name}, {})

    def mlflow_run(self, name: str, parent: str | None, tags: dict, params: dict) -> str:
        """The run of a name, the same one where a study is resumed."""
        known = self.runs.get(name)
        self.runs[name] = self.tracker.start_run(name, parent=parent, tags=tags, params=params, resume=known)
        write_json(self.folder / "mlflow_runs.json", self.runs)
        return self.runs[name]

    def forget_failed(self, cells: tuple[Cell, ...]) -> None:
        """Make failed cells as if they had never been run."""
        for cell in cells:
            place = place_of_cell(cell)
            record = place.record
            if record and record["state"] == "failed":
                (place.path / "cell.json").unlink()


def in_task(work, arguments: tuple, log: Path, root: str) -> Any:
    """Work in a process of the cluster, what it says written to a file; an error comes back as its line."""
    os.environ["RAYPATH_RUNS"] = root
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a", encoding="utf-8") as file:
        launch.console.file = file
        try:
            return work(*arguments)
        except Exception as error:
            file.write(traceback.format_exc())
            return (
                f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else 'no message'}"
            )


def _pretrain(stages, study: str, parent: str) -> dict[str, str]:
    run = pretrained(stages, study=study, parent=parent)
    return {"run": str(run.path)}


def _score(pair: Pair, reference: list[ray.ObjectRef]) -> dict[str, list[str]]:
    benchmark = ray.get(reference[0])
    failed = score_pair(pair, benchmark)
    log_pair(pair, benchmark)
    return {"failed": failed}


if __name__ == "__main__":
    launch.run(main)
