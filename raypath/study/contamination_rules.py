"""What a pretraining and some rows of a benchmark have in common, rule by rule.

    content           the file of a sample has the bytes of one that was seen
    slide             a sample is of a slide that was seen, by its path or its name
    patient, case     it is of a patient that was seen; a TCGA barcode is compared as a case, wherever it stands
    near_duplicate    an image shows the picture of one that was seen, turned, mirrored, enlarged or saved again
    corpus            the benchmark is all of a collection that was seen
    corpus_part       only a part of either is, or both are parts of one source: what they share is not known
    site, number      noted: a TCGA tissue source site that was seen; a slide or patient called by the same bare number

One decision: a rule is a function of what was seen and of rows, and says which samples it concerns and by what name; what follows
from that is decided in `contamination`. A letter, or a number of three digits or fewer, is nobody's name: sets number their
patients 1, 2, 3.

What it costs: see there.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal, get_args

import pyarrow as pa

from raypath.benchmarks import IMAGE_SCHEMA
from raypath.benchmarks.splits.near_duplicates import Progress, find
from raypath.data.image_rows import IMAGE_SUFFIXES
from raypath.data.manifest import SLIDE_SUFFIXES
from raypath.errors import BadInput
from raypath.hashing import file_sha256
from raypath.study.barcodes import case_of
from raypath.study.known_overlaps import corpora_of, overlap
from raypath.study.seen import Training

Rule = Literal["content", "slide", "patient", "case", "near_duplicate", "corpus", "corpus_part", "site", "number"]
RULES: tuple[Rule, ...] = get_args(Rule)

Row = dict[str, Any]
Hits = dict[Rule, dict[str, str]]
"""Rule -> sample -> the name it was found by."""


@dataclass(frozen=True)
class SeenTile:
    """A sample that shows what a tile of a slide shows; looked for before (by features: see `feature_near_duplicates`)."""

    sample: str
    slide: str
    """The slide's path."""
    words: str


def same_contents(training: Training, rows: Sequence[Row], digests: dict[str, str]) -> Hits:
    """By the bytes of files. `digests` keeps the sha256 by path for the next call; slides are read only where one of their size
    was seen, and those that are not local are not fetched.
    """
    slides, images = {s.sha256 for s in training.slides}, {i.sha256 for i in training.images}
    sizes = {slide.size_bytes for slide in training.slides}
    is_seen: dict[str, bool] = {}
    for row in rows:
        path = _file(row)
        if path not in is_seen:
            is_asked = bool(images) if "path" in row else "://" not in path and _of_file(_size, path) in sizes
            if is_asked and path not in digests:
                digests[path] = _of_file(file_sha256, path)
            is_seen[path] = is_asked and digests[path] in (images if "path" in row else slides)
    found = (row for row in rows if is_seen[_file(row)])
    return {"content": {row["sample"]: row["sample"] if "path" in row else row["slide"] for row in found}}


def same_names(training: Training, rows: Sequence[Row]) -> Hits:
    """By slide, patient, TCGA case and site, or a bare number."""
    slides = {name for s in training.slides for name in (s.slide, _stem(s.path))}
    paths = {s.path for s in training.slides}
    patients = {seen.patient for seen in (*training.slides, *training.images) if seen.patient}
    cases = {case_of(s.patient, s.slide, s.path) for s in training.slides}
    cases = (cases | {case_of(i.patient, i.path) for i in training.images}) - {None}
    sites = set(map(_site, cases))
    found: Hits = {rule: {} for rule in ("slide", "patient", "case", "site", "number")}
    for row in rows:
        sample, patient, slide = row["sample"], row["patient"], row["slide"]
        named = [name for name in (slide, slide and _stem(slide)) if name in slides]
        is_patient = patient in patients and not case_of(patient)
        case = case_of(patient, slide, sample, row.get("path"))
        if _file(row) in paths or any(map(_tells, named)):
            found["slide"][sample] = _stem(slide or _file(row))
        elif named:
            found["number"][sample] = named[0]
        if is_patient:
            found["patient" if _tells(patient) else "number"][sample] = patient
        if case in cases:
            found["case"][sample] = case
        elif case and _site(case) in sites:
            found["site"][sample] = _site(case)
    return found


def same_collections(training: Training, name: str, rows: Sequence[Row]) -> Hits:
    """By the table of known overlaps, for collections that were declared, or that the names of seen slides give away.

    The latter only for samples that do not say which slide of a collection they are of: the others are compared by that.
    """
    given_away = corpora_of(text for s in training.slides for text in (s.slide, s.patient))
    found: Hits = {"corpus": {}, "corpus_part": {}}
    for row in rows:
        is_tcga = case_of(row["patient"], row["slide"], row["sample"], row.get("path"))
        own = ("TCGA",) if is_tcga else corpora_of([_stem(row["slide"])] if row["slide"] else [])
        for corpus in (*training.corpora, *(() if own else given_away)):
            shared = next(filter(None, (overlap(corpus, asked) for asked in (*own, name))), None)
            if shared:
                is_whole = shared.share == "whole" and corpus in training.corpora
                found["corpus" if is_whole else "corpus_part"].setdefault(row["sample"], shared.words)
    return found


def same_pictures(
    training: Training, rows: Sequence[Row], copied: Sequence[str], progress: Progress | None = None
) -> Hits:
    """By `near_duplicates` between the images of a pool and those of the rows that are not exact copies (`copied`, samples)."""
    asked = [row for row in rows if "path" in row and row["sample"] not in copied]
    if not asked or not training.images:
        return {}
    named = (("/".join((i.task, *PurePosixPath(i.path).parts[-2:])), i.path) for i in training.images)
    pool = [{"sample": name, "split": "train", "path": path} for name, path in named]
    test = [{**row, "sample": f"asked {row['sample']}", "split": "test"} for row in asked]
    search = find(pa.Table.from_pylist([*pool, *test], schema=IMAGE_SCHEMA), progress=progress)
    found: dict[str, str] = {}
    for pair in search.pairs:
        mine, theirs = sorted((pair.first, pair.second), key=lambda end: end["split"])
        sample = mine["sample"].removeprefix("asked ")
        found.setdefault(sample, f"{sample} and {theirs['sample']}, correlation {pair.correlation:.2f}")
    return {"near_duplicate": found}


def same_tiles(training: Training, rows: Sequence[Row], tiles: Sequence[SeenTile]) -> dict[str, str]:
    """Samples that tiles of seen slides show, as `tiles` says, and the words for it."""
    paths, asked = {slide.path for slide in training.slides}, {row["sample"] for row in rows}
    return {tile.sample: tile.words for tile in tiles if tile.slide in paths and tile.sample in asked}


def _file(row: Row) -> str:
    return row["path"] if "path" in row else row["slide"]


def _tells(name: str) -> bool:
    """Whether a name tells one patient or slide from those of other sets."""
    return len(name) > 1 and not (name.isdigit() and len(name) <= 3)


def _stem(path: str) -> str:
    """The name of a file or URI without its folder, and without its ending where that is one of slides or images."""
    name = PurePosixPath(path)
    return name.stem if name.suffix.lower() in (*SLIDE_SUFFIXES, *IMAGE_SUFFIXES) else name.name


def _site(case: str) -> str:
    return case.split("-")[1]


def _size(path: str) -> int:
    return Path(path).stat().st_size


def _of_file(ask: Callable[[str], Any], path: str) -> Any:
    try:
        return ask(path)
    except OSError as error:
        raise BadInput(f"{path}: cannot be read ({error.strerror}); fetch the file again") from None
