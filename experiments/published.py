"""The tables and figures of both papers, from their published numbers and, by the same code, from runs of ours.

    python experiments/published.py golden=DIR out=DIR
    python experiments/published.py golden=DIR out=DIR results=OURS.csv,JOINT.csv breakhis=OURS.csv trials=GRID.csv pool=SPEC

`golden`: the folder with mtask_results.csv, breakhis.csv and mtask_pool.csv. `results`, `breakhis` and `trials`: our scores, as
studies leave them in paper-results.csv and so on, with a comma between several files (`raypath.study.published.results` names the
columns); `pool`: a pool as multi-task pretraining takes it. Their files begin with `ours_`. Tables are written as CSV and LaTeX,
figures as PNG and SVG, one line each; what is not known is drawn as not known.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import launch
import matplotlib
from command_line import words_and_settings
from launch import say
from matplotlib.figure import Figure
from recipes.kawai2023 import PUBLISHED
from recipes.mormont2020 import NETWORKS, RATES, TAUS

from raypath.data.pool import load_pool
from raypath.errors import BadInput
from raypath.study.leave_out import PAPER_EVALUATED
from raypath.study.published.breakhis import breakhis_lines
from raypath.study.published.golden import MAGNIFICATIONS, read_breakhis, read_mtask_results, read_pool
from raypath.study.published.grid_search import rates_figure, tau_figure
from raypath.study.published.kawai2023 import grid_figure, grid_table
from raypath.study.published.pool import lines_of, pool_montage, pool_table
from raypath.study.published.results import Result, Trial, read_results, read_trials, tasks_of
from raypath.study.published.transfer_bars import methods_figure
from raypath.study.published.transfer_deltas import Rule, delta_figure, deltas
from raypath.study.published.transfer_tables import breakhis_table, network_table
from raypath.study.tables import Table
from raypath.study.two_sigma import two_sigma

SETTINGS = ("golden", "out", "results", "breakhis", "trials", "pool")
RATE = "1e-4"  # of the bars by tau and warm-up (RECIPES 2.5)
LATER = {("DeepLabv3", "segpanda200 mIoU"): 69.61}  # README of PatchTCGA, 2024-11 (RECIPES 1.5)
Made = Iterator[tuple[str, Table | Figure]]


def published(arguments: list[str], *, rule: Rule | None = None) -> None:
    """Write every table and figure under `out`; `rule` says which differences are significant."""
    settings = _settings(arguments)
    out, golden = Path(settings["out"]), Path(settings["golden"])
    out.mkdir(parents=True, exist_ok=True)
    _write(out, "kawai2023", first_paper())
    results = read_mtask_results(golden / "mtask_results.csv")
    _write(out, "mormont2020", [*transfer(results, PAPER_EVALUATED, rule), *grid_search([], PAPER_EVALUATED)])
    breakhis = breakhis_table(read_breakhis(golden / "breakhis.csv"), magnifications=MAGNIFICATIONS)
    pool = pool_table(read_pool(golden / "mtask_pool.csv"), "The pool of 22 tasks")
    _write(out, "mormont2020", [("breakhis", breakhis), ("pool", pool)])
    if "results" in settings:
        ours = _read(settings["results"], read_results)
        _write(out, "ours", transfer(ours, tasks_of(ours), rule))
    if "breakhis" in settings:
        rates = _read(settings["breakhis"], read_results)
        table = breakhis_table(rates, magnifications=MAGNIFICATIONS, lines=breakhis_lines(NETWORKS))
        _write(out, "ours", [("breakhis", table)])
    if "trials" in settings:
        trials = _read(settings["trials"], read_trials)
        _write(out, "ours", grid_search(trials, tuple(dict.fromkeys(trial.task for trial in trials))))
    if "pool" in settings:
        train = load_pool(settings["pool"], ("train",))
        _write(
            out,
            "ours",
            [("pool", pool_table(lines_of({"train": train}), "Our pool")), ("montage", pool_montage(train))],
        )


def first_paper() -> Made:
    """Its grid, as a table and as a picture."""
    yield "grid", grid_table(PUBLISHED | LATER)
    yield "grid", grid_figure(PUBLISHED | LATER)


def transfer(results: Sequence[Result], tasks: Sequence[str], rule: Rule | None) -> Made:
    """For each network its table, the differences to ImageNet, and the four methods side by side."""
    for network in dict.fromkeys(result.network for result in results):
        yield f"{network}", network_table(results, network, tasks=tasks, rule=rule)
        for way in ("fe", "ft"):
            yield (
                f"{network}_{way}_delta",
                delta_figure(deltas(results, network, way, tasks=tasks, rule=rule), network, way),
            )
        yield f"{network}_methods", methods_figure(results, network, tasks=tasks)


def grid_search(trials: Sequence[Trial], tasks: Sequence[str]) -> Made:
    """For each network the box-plots by learning rate, and the bars by tau and warm-up."""
    for network in dict.fromkeys(trial.network for trial in trials) or NETWORKS:
        yield f"{network}_rates", rates_figure(trials, network, tasks, RATES)
        yield f"{network}_tau", tau_figure(trials, network, tasks, [str(tau) for tau in TAUS], RATE)


def _settings(arguments: list[str]) -> dict[str, str]:
    words, assignments = words_and_settings(arguments)
    settings = dict(text.split("=", 1) for text in assignments)
    unknown = [*words, *(key for key in settings if key not in SETTINGS)]
    if unknown or not settings.get("golden") or not settings.get("out"):
        found = f"{', '.join(unknown)}: not understood; " if unknown else ""
        raise BadInput(f"{found}expected golden=DIR out=DIR and, if wanted, {'=, '.join(SETTINGS[2:])}=")
    return settings


def _read(places: str, read: Callable[[Path], list[Any]]) -> list[Any]:
    """The rows of several files."""
    return [row for place in places.split(",") for row in read(Path(place.strip()))]


def _write(out: Path, prefix: str, made: Sequence[tuple[str, Table | Figure]] | Made) -> None:
    """Each thing in its two forms, and a line that says where."""
    for name, thing in made:
        stem = out / f"{prefix}_{name}"
        forms = _table_forms(thing) if isinstance(thing, Table) else _figure_forms(thing)
        for suffix, write in forms.items():
            write(stem.with_name(f"{stem.name}.{suffix}"))
        say(f"{stem}.{{{','.join(forms)}}}")


def _table_forms(table: Table) -> dict[str, Callable[[Path], object]]:
    return {
        "csv": lambda path: path.write_text(table.csv(), encoding="utf-8"),
        "tex": lambda path: path.write_text(table.latex(), encoding="utf-8"),
    }


def _figure_forms(figure: Figure) -> dict[str, Callable[[Path], object]]:
    def svg(path: Path) -> None:
        with matplotlib.rc_context({"svg.hashsalt": "raypath"}):  # else its ids are random
            figure.savefig(path, format="svg", metadata={"Date": None})

    return {"png": lambda path: figure.savefig(path, dpi=150), "svg": svg}


def papers_rule(mean_a: float, sigma_a: float, mean_b: float, sigma_b: float) -> bool:
    """The second paper's: more than twice the larger sigma."""
    return bool(two_sigma(mean_a, sigma_a, mean_b, sigma_b).is_significant[0])


if __name__ == "__main__":
    launch.run(partial(published, rule=papers_rule))
