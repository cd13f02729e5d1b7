"""What an index came to, as a person reads it at the end: counts, scales, and who was set aside and why.

One decision: the table holds counts, and what has a path in it stands below as plain lines, so that nothing is cut off in a
narrow terminal and a message can be copied whole.
"""

from collections import Counter, defaultdict

import numpy as np
from rich.console import Console
from rich.table import Table

from raypath.data.index import Index
from raypath.data.indexing import Outcome

_NUM_NAMED = 3  # slides named per reason
_BAR, _NUM_BARS, _BAR_CHARACTERS = "\u2588", 10, 24


def show_index(console: Console, index: Index, outcomes: list[Outcome], seconds: float) -> None:
    """Print the table of an index and the slides set aside."""
    console.print(f"\n{index.folder}", style="bold", markup=False, soft_wrap=True)
    console.print(index_table(index, outcomes, seconds))
    for line in set_aside_lines(outcomes):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def index_table(index: Index, outcomes: list[Outcome], seconds: float) -> Table:
    """Counts, native scales and their sources, shares of upsampled slides and tiles, time."""
    table = Table(box=None, show_header=False, padding=(0, 3, 0, 0))
    table.add_column(style="cyan", no_wrap=True)
    table.add_column(overflow="fold")
    spec, num_sound = index.spec, sum(o.reason is None for o in outcomes)
    num_unchanged, num_empty = sum(o.is_unchanged for o in outcomes), int((index.num_tiles == 0).sum())
    table.add_row(
        "slides", f"{num_sound:,} of {len(outcomes):,}, {num_unchanged:,} taken unchanged from an earlier run"
    )
    table.add_row("tiles", f"{index.num_tiles.sum():,} of {spec.extent_px} px at {spec.mpp:g} um per px")
    table.add_row("native um per px", mpp_histogram(index.column("mpp")))
    table.add_row("said by", _counted(Counter(index.column("mpp_source").tolist())))
    table.add_row("upsampled", _upsampled(index))
    table.add_row("no tissue", f"{num_empty:,} slide(s) without a tile")
    table.add_row("set aside", _counted(Counter(o.reason for o in outcomes if o.reason)) or "none")
    table.add_row("hash", index.hash[:16])
    table.add_row("time", f"{seconds:.1f} s")
    return table


def mpp_histogram(mpp: np.ndarray) -> str:
    """One line per native scale, rounded to two digits: the value, a bar, the number of slides."""
    counts = Counter(float(f"{value:.2g}") for value in mpp.tolist())
    shown = dict(counts.most_common(_NUM_BARS))
    largest = max(counts.values())
    lines = [
        f"{value:<6g} {_BAR * max(1, round(shown[value] / largest * _BAR_CHARACTERS))} {shown[value]:,}"
        for value in sorted(shown)
    ]
    others = sum(counts.values()) - sum(shown.values())
    return "\n".join(lines + ([f"other  {others:,}"] if others else []))


def set_aside_lines(outcomes: list[Outcome]) -> list[str]:
    """For every reason its first slides with their messages."""
    by_reason = defaultdict(list)
    for outcome in outcomes:
        if outcome.reason:
            by_reason[outcome.reason].append(outcome)
    lines = []
    for reason, found in sorted(by_reason.items(), key=lambda item: (-len(item[1]), item[0])):
        lines.append(f"{reason} ({len(found):,})")
        lines += [f"  {o.slide}: {o.message}" for o in found[:_NUM_NAMED]]
        lines += [f"  ... and {len(found) - _NUM_NAMED:,} more"] if len(found) > _NUM_NAMED else []
    empty = [o.slide for o in outcomes if not o.reason and not o.num_tiles]
    if empty:
        more = ", ..." if len(empty) > _NUM_NAMED else ""
        lines.append(f"no_tissue ({len(empty):,}): {', '.join(empty[:_NUM_NAMED])}{more}")
    return lines


def _counted(counts: Counter) -> str:
    return ", ".join(f"{name}: {count:,}" for name, count in counts.most_common())


def _upsampled(index: Index) -> str:
    is_up = index.column("upsample") > 1.005
    if not is_up.any():
        return "none"
    share = index.num_tiles[is_up].sum() / index.num_tiles.sum()
    return f"{is_up.sum():,} of {len(index):,} slides, {share:.1%} of the tiles, up to {index.column('upsample').max():.2f}x"
