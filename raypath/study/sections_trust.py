"""The parts of a report that say why to believe it: confounders, leakage, openings, cost, failures, lineage.

One decision: everything that happened is named, also where it is good news; a reader need not ask whether it was looked at.
"""

import shlex
from collections import Counter
from pathlib import Path
from typing import Any

from raypath.run_folder import RunFolder
from raypath.study.cells import CellFolder
from raypath.study.cost_table import cost_table, search_table
from raypath.study.results import StudyResults
from raypath.study.section import Section
from raypath.study.study_tables import without_constants
from raypath.study.tables import Table


def confounders(results: StudyResults) -> Section | None:
    """What a probe reads from features beside the label."""
    known = results.read("confounders.json", [])
    rows = tuple((one["benchmark"], one["encoder"], one["words"]) for one in known)
    if not rows:
        return None
    table = Table(columns=("benchmark", "encoder", "what a probe finds"), rows=rows)
    words = (
        "Whether site, scanner or patient can be read from the features. Where it can, a split must keep them apart."
    )
    return Section(title="Confounders", words=(words,), tables=(table,))


def leakage(results: StudyResults) -> Section:
    """Within each benchmark, between pretraining and benchmark, and which tests were opened how often."""
    return Section(
        title="Leakage, contamination and the seal of the tests",
        words=(*_openings(results.openings), *_copies(results)),
        tables=(_within(results), _between(results)),
    )


def _openings(openings: list[dict[str, Any]]) -> tuple[str, ...]:
    """How many tests were opened, how often a study that was stopped went on with one, and every opening after the first."""
    own = [line for line in openings if not line.get("resumed")]
    again = [line for line in own if line["opening"] > 1]
    tests = {(line["benchmark"], line["encoder"], line["data_hash"]) for line in own}
    number = f"Tests were opened {len(own)} times for {len(tests)} pairs of an encoder and a test (a fold has its own)"
    if len(own) < len(openings):
        number += f", {len(openings) - len(own)} of them resumed after an interruption"
    if not again:
        return (f"{number}, each once.",)
    lines = [
        f"Opening {line['opening']}: {line['benchmark']} for {line['encoder']}, {line['time']}, reason: {line['reason']}"
        for line in again
    ]
    return (f"{number}; {len(again)} of them again:", *lines)


def _copies(results: StudyResults) -> list[str]:
    """Near-duplicates by features and pixels, for each benchmark whose features were looked at."""
    lines = []
    for one in results.read("copies.json", []):
        lines.append(f"{one['benchmark']}, near-duplicates by the features of {one['encoder']}: {one['words']}.")
        lines += one["listed"]
    return lines


def _within(results: StudyResults) -> Table:
    rows = tuple(
        (
            name,
            facts["tags"].get("raypath.near_duplicates", "not searched"),
            facts["tags"].get("raypath.waived", "none"),
            facts["split_note"],
        )
        for name, facts in results.benchmarks.items()
    )
    return Table(columns=("benchmark", "near-duplicates", "waived", "split"), rows=rows)


def _between(results: StudyResults) -> Table:
    """What pretrainings saw of tests: a row for each encoder, benchmark and finding."""
    rows: dict[tuple[str, str, str, str], None] = {}
    for place in results.places:
        for one in place.scored:
            found = one.record["contamination"]
            line = found["line"].removeprefix(f"{place.benchmark}: ")
            rows[place.encoder, place.benchmark, found["status"], line] = None
    return Table(columns=("encoder", "benchmark", "status", "what its pretraining saw of the test"), rows=tuple(rows))


def costs(results: StudyResults) -> Section:
    """What it took."""
    table, words = without_constants(cost_table(results), ("protocol", "labels"))
    search = search_table(results)
    return Section(title="Cost", words=(words,) if words else (), tables=(table, search) if search else (table,))


def failed(results: StudyResults) -> Section | None:
    """What did not come to an end; what failed for one reason stands together."""
    by_reason: dict[str, list[str]] = {}
    for name, reason in sorted(results.failures.items()):
        by_reason.setdefault(reason, []).append(name)
    lines = tuple(f"{'; '.join(names)}: {reason}" for reason, names in by_reason.items())
    return Section(title=f"Failed: {len(results.failures)}", words=lines) if lines else None


def lineage(results: StudyResults) -> Section:
    """Everything that is needed to do it again, and to check it."""
    rows = [*_commands(results), *_made_with(results)]
    rows += [(f"data of {name}", facts["data_hash"]) for name, facts in results.benchmarks.items()]
    weights = {
        (p.encoder, one.record["pretraining_seed"], _weights(one.record)): None
        for p in results.places
        for one in p.scored
    }
    rows += [(f"weights of {encoder}, seed {seed}", text) for encoder, seed, text in weights]
    configs = {one.record["config_hash"] for place in results.places for one in place.scored}
    rows.append(("configs of cells", f"{len(configs)} different; each stands in cells/KEY/cell.json"))
    table = Table(columns=("what", "value"), rows=tuple(rows), missing="not written down")
    study = (results.folder / "study.json").read_text(encoding="utf-8")
    passed = ", ".join(results.of_another_version)
    words = (f"Written by another version; settings that this one does not know: {passed}.",) if passed else ()
    return Section(title="Lineage", words=words, tables=(table,), texts=(("the study's config", study),))


def _commands(results: StudyResults) -> list[tuple[str, str | None]]:
    """What carries the study out again, and every command that did."""
    lines = RunFolder(results.folder).read_lines("commands.jsonl")
    rows = [
        (f"command of {one['time']}", f"{_in_folder(one, 'command')} (commit {one['versions']['commit']})")
        for one in lines
    ]
    return [("command to repeat", _in_folder(lines[-1], "repeat") if lines else None), *rows]


def _in_folder(line: dict[str, Any], what: str) -> str:
    return f"cd {shlex.quote(line['folder'])} && {line[what]}"


def _made_with(results: StudyResults) -> list[tuple[str, str]]:
    """Commits and versions that cells were made with, and how many with each: a study may be older than its last command."""
    cells = (CellFolder(results.folder / "cells" / key) for key in results.read("cells.json", {}))
    found: dict[str, Counter[str]] = {}
    for record in (cell.record for cell in cells if cell.is_done):
        own = record.get("versions") or {"commit": record.get("commit") or "not written down"}
        for name, value in own.items():
            found.setdefault(name, Counter())[value] += 1
    return [
        (f"{name} of {number} cell{'s' * (number > 1)}", value)
        for name, values in found.items()
        for value, number in values.most_common()
    ]


def _weights(record: dict[str, Any]) -> str:
    left_out = f", without {' and '.join(record['left_out'])}" if record["left_out"] else ""
    deviations = f", not as in the paper: {record['deviations']}" if record.get("deviations") else ""
    return f"{record['weights']}{left_out}{deviations} ({Path(record['source']).as_posix()})"
