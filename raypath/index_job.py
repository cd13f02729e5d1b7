"""The index job as a person runs it: from a manifest to an index, with progress, a table, and a verdict.

One decision: `raypath index` and `python experiments/index.py`, which can be submitted as a Ray job, call the same function
here; only how they read their arguments and start Ray is their own. The verdict comes last: the index of the good slides is
written in any case, and too many bad ones are an error (exit code 3), because the cause is mostly one setting and not bad luck.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ray.exceptions import RayError
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from raypath.data.index import Index
from raypath.data.indexing import Outcome, make_index
from raypath.data.manifest import read_manifest
from raypath.errors import BadInput, RaypathError, TooManyQuarantined
from raypath.index_table import show_index
from raypath.slides import TileSpec


@dataclass(frozen=True, kw_only=True)
class IndexSettings:
    """What an index is made of; every field is a key of `experiments/index.py` and an option of `raypath index`."""

    out: str
    """The folder of the index."""
    extent_px: int = 256
    """Side length of a tile, in pixels at `mpp`."""
    mpp: float = 0.5
    """Micrometres per pixel of the tiles."""
    stride_px: int | None = None
    """Distance between neighbouring tiles in pixels at `mpp`; None: `extent_px`, no overlap and no gap."""
    min_tissue: float = 0.5
    """Least share of tissue in a tile, 0 to 1."""
    max_upsample: float = 1.3
    """How much coarser than `mpp` a slide's level 0 may be."""
    max_bad_share: float = 0.1
    """Largest share of slides that may be set aside before the job ends with exit code 3."""

    def spec(self) -> TileSpec:
        """The tile specification; raises BadInput for impossible values."""
        if not 0 <= self.max_bad_share <= 1:
            raise BadInput(
                f"max_bad_share = {self.max_bad_share!r} is not possible; allowed: 0 to 1 (a share of slides)"
            )
        return TileSpec(
            extent_px=self.extent_px,
            mpp=self.mpp,
            stride_px=self.extent_px if self.stride_px is None else self.stride_px,
            min_tissue=self.min_tissue,
            max_upsample=self.max_upsample,
        )


def index_manifest(manifest: Path, settings: IndexSettings, console: Console, start_ray: Callable[[], None]) -> Index:
    """Index the slides of a manifest (CSV, Parquet or folder), print what came of it, and what to do next.

    Ray is started after the settings and the manifest were found good. Raises BadInput (2) for either of them or when no
    slide has a tile, TooManyQuarantined (3) after the index was written.
    """
    spec, folder = settings.spec(), Path(settings.out)
    rows = read_manifest(manifest)
    start_ray()
    started = time.monotonic()
    try:
        with slide_progress(console) as report:
            index, outcomes = make_index(rows, spec, folder, progress=report)
    except RayError as error:
        reason = str(error).strip().splitlines()[-1]
        raise RaypathError(f"{folder}: the job broke off ({reason}); what is done is kept, run it again") from None
    show_index(console, index, outcomes, time.monotonic() - started)
    say(console, f"next: raypath preview {folder}")
    require_few(outcomes, settings.max_bad_share, folder, "the index")
    say(console, f"      python experiments/pretrain.py simclr_tiles index={folder}")
    return index


def say(console: Console, text: str) -> None:
    """A line for the person who waits, whole, however narrow the terminal."""
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def require_few(outcomes: Sequence[Outcome], max_bad_share: float, folder: Path, what: str) -> None:
    """Raise TooManyQuarantined beyond `max_bad_share`; `what` has been made of the other slides all the same."""
    num_bad = sum(o.reason is not None for o in outcomes)
    if num_bad > max_bad_share * len(outcomes):
        raise TooManyQuarantined(
            f"{num_bad} of {len(outcomes)} slides were set aside ({num_bad / len(outcomes):.0%}), allowed are "
            f"{max_bad_share:.0%}; {what} of the others:  {folder}. Mend the slides or the manifest "
            f"({folder / 'quarantine.jsonl'} names all of them) and run it again, or raise max_bad_share"
        )


@contextmanager
def slide_progress(console: Console) -> Iterator[Callable[[int, int, Outcome], None]]:
    """A bar with the last slide's outcome; where no one watches (a job's log), a line at every tenth."""
    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.description}", markup=False))
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("starting", total=None)

        def report(done: int, total: int, outcome: Outcome) -> None:
            text = f"{outcome.slide}: {outcome.reason or f'{outcome.num_tiles:,} tiles'}"
            bar.update(task, completed=done, total=total, description=text)
            if not console.is_terminal and done * 10 // total > (done - 1) * 10 // total:
                say(console, f"{done:,} of {total:,} slides, the last {text}")

        yield report
