"""Is this slide sound? Every new slide is asked once, before any worker touches it.

A malformed slide can kill the process that opens it, and a task framework would start that process again for ever. The one
decision: what can be known without decoding is found here (is it there, readable, whole, 8-bit RGB: see `header`), and the
rest is tried in a disposable child process under limits of memory, CPU and time (see `attempt`). Whatever happens ends in
SlideFacts or in one SlideError, whose class is the reason written into the quarantine.

Costs: 1 ms, and for a file that passes 0.3 to 0.5 s of one core for the child.
"""

import json
import logging
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from raypath import errors
from raypath.errors import SlideCrash, SlideError, SlideTimeout
from raypath.slides.header import TiffFacts, check_tiff, is_tiff, read_magic, stat_slide

SLIDE_SUFFIXES = (".svs", ".tif", ".tiff", ".ndpi", ".scn", ".bif", ".btf", ".dcm")
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SlideFacts:
    """What is known of a sound slide: plain values that fit a row."""

    path: str
    size_bytes: int
    mtime_ns: int
    vendor: str
    size_l0: tuple[int, int]
    """Width and height in level-0 pixels."""
    mpp: float
    mpp_source: str
    """"override" or "file:PROPERTY"."""
    objective_power: float | None
    level_downsamples: tuple[float, ...]
    num_empty_tiles: int
    """Native tiles of all levels without bytes: they have no pixels, tiles over them are TileMissing."""


def check_slide(
    path: str | Path, mpp: float | None = None, *, limit_s: float = 60, limit_bytes: int = 4 * 2**30
) -> SlideFacts:
    """The facts of a sound slide; raises the SlideError that says why it is not sound.

    `mpp`, um per px of level 0, overrides the file. `limit_s` bounds the child's CPU and wall time, `limit_bytes` its
    address space.
    """
    path = str(path)
    magic = read_magic(path)
    stamp = stat_slide(path)
    is_walkable = is_tiff(magic) and not path.lower().endswith(".ndpi")
    tiff = check_tiff(path) if is_walkable else TiffFacts(0, 0, 0)
    if is_tiff(magic) and not path.lower().endswith(SLIDE_SUFFIXES):
        log.warning("%s: is a TIFF by its content though not by its name; taken as a slide", path)
    facts = _in_child(path, mpp, limit_s, limit_bytes)
    for name in ("size_l0", "level_downsamples"):
        facts[name] = tuple(facts[name])
    return SlideFacts(
        path=path,
        size_bytes=stamp.st_size,
        mtime_ns=stamp.st_mtime_ns,
        num_empty_tiles=tiff.num_empty_tiles,
        **facts,
    )


def _in_child(path: str, mpp: float | None, limit_s: float, limit_bytes: int) -> dict:
    command = [
        sys.executable,
        "-P",
        "-m",
        "raypath.slides.attempt",
        path,
        "" if mpp is None else repr(float(mpp)),
    ]
    command += [str(int(limit_s) + 1), str(int(limit_bytes))]
    package_root = str(Path(errors.__file__).parents[1])
    environment = {**os.environ, **ONE_THREAD, "PYTHONPATH": package_root}
    try:
        done = subprocess.run(command, capture_output=True, timeout=limit_s, env=environment, check=False)
    except subprocess.TimeoutExpired:
        raise SlideTimeout(
            f"{path}: opening it took more than {limit_s:g} s; raise limit_s if the disk is slow"
        ) from None
    return _outcome(path, done, limit_s)


def _outcome(path: str, done: subprocess.CompletedProcess, limit_s: float) -> dict:
    """The child's facts, or its end as an error."""
    if done.returncode == -signal.SIGXCPU:
        raise SlideTimeout(f"{path}: opening it took more than {limit_s:g} s of CPU; raise limit_s if that is sound")
    last_words = (done.stderr.decode(errors="replace").strip().splitlines() or ["no message"])[-1]
    if done.returncode < 0:
        name = signal.Signals(-done.returncode).name
        raise SlideCrash(f"{path}: opening it killed the process that tried, by {name} ({last_words}); leave it out")
    try:
        answer = json.loads(done.stdout)
    except json.JSONDecodeError:
        raise SlideCrash(f"{path}: the process that tried it ended with {done.returncode} ({last_words})") from None
    if "error" in answer:
        kind = getattr(errors, answer["error"])
        assert issubclass(kind, SlideError), kind
        raise kind(answer["message"])
    return answer["facts"]
