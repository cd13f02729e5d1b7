"""What every plan does alike, whatever stands at its positions: windows one after the other, digests, and who may take part.

One decision: a digest is a sum, so ranks and steps are added up in any order, and a row that is lost or repeated shows.
"""

from collections.abc import Callable, Iterator

import numpy as np

from raypath.data.permutation import derive_key, mix
from raypath.errors import BadInput

_STRETCH = 1 << 16


def digest_of(positions: np.ndarray, slides: np.ndarray, tiles: np.ndarray) -> int:
    """The digest of consumed rows: a sum (mod 2**64), so that ranks add theirs in any order."""
    with np.errstate(over="ignore"):
        rows = mix(derive_key(0, positions) + mix(derive_key(1, slides, tiles)))
        return int(rows.sum(dtype=np.uint64))


def digest_between(samples: Callable, start: int, stop: int) -> int:
    """The digest of the rows that `samples(positions)` names for the positions [start, stop)."""
    total = 0
    for first in range(start, stop, _STRETCH):
        positions = np.arange(first, min(first + _STRETCH, stop), dtype=np.int64)
        total += digest_of(positions, *samples(positions))
    return total & 0xFFFFFFFFFFFFFFFF


def windows_from(start: int, window_end: Callable[[int], int]) -> Iterator[tuple[int, int]]:
    """The spans of positions [first, last) that are read together, from `start` on, without end."""
    position = start
    while True:
        stop = window_end(position)
        yield position, stop
        position = stop


def check_world(num_shards: int, num_workers: int, global_batch: int) -> None:
    """Raise BadInput unless `num_workers` divides both the number of shards and the global batch."""
    if num_shards % num_workers or global_batch % num_workers:
        workers = [w for w in range(1, num_shards + 1) if num_shards % w == 0 and global_batch % w == 0]
        raise BadInput(
            f"workers.num_workers={num_workers} must divide the plan's {num_shards} shards and loop.global_batch={global_batch}:"
            f" set workers.num_workers to {_either(workers)}" + _batch_remedy(num_shards, num_workers, global_batch)
        )


def _batch_remedy(num_shards: int, num_workers: int, global_batch: int) -> str:
    """The batches next to the one asked for that go with the workers, if workers and shards go together."""
    if num_shards % num_workers:
        return ""
    below = global_batch // num_workers * num_workers
    return f", or loop.global_batch to {_either([batch for batch in (below, below + num_workers) if batch])}"


def _either(numbers: list[int]) -> str:
    return " or ".join(filter(None, [", ".join(map(str, numbers[:-1])), str(numbers[-1])]))
