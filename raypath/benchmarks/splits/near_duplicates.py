"""Near-duplicates across splits: the same picture turned, mirrored or enlarged, which ids and bytes do not give away.

One decision: pictures are compared on rings about their centre. There a turn is a shift along the ring, a flip its reversal and an
enlargement (rings grow by a constant factor) a shift to the next ring, so all of them are tried at once by a Fourier transform:
the 8 flips and right angles exactly, turns between them to 3 degrees, enlargement to 1.5. In two steps:

1. nearest    the amplitudes of each ring's first harmonics do not change when a picture is turned or flipped: the NUM_NEAREST of
              every sample among those of another split, by their cosine
2. compared   the correlation of the pictures themselves at the best turn, flip and enlargement: near-duplicates have at least
              LEAST_CORRELATION

Stain and light have no say: luminance without what is coarser than an eighth of the side, over its local contrast. Nor has mere
shape: along each ring the first harmonics are left out, in which anything round (0), any edge (1) and anything longer than wide
(2) resembles all others of its kind. Pictures shifted against each other are not found (where coordinates are known, `leakage`
finds them), nor more than NUM_NEAREST partners of one sample in one split; a few strangers pass: look at the sheet
(`near_duplicate_sheet`).

Of real sets: 84 pairs in the lung of LC25000 (480 images), 1 in a polyp set (650), 7 among 299 white blood cells, of which 6 are
one cell to the eye (633 pairs with all harmonics), none in PCam (520) and in the breast of IDC (921). The most alike strangers
have 0.53 and 0.48 (cells), 0.47 (IDC) and 0.37 (PCam, polyps); those of two different sets 0.37.

Costs 5 KB of memory and one decoding per sample, and NUM_NEAREST comparisons per sample of the smaller splits (of all samples,
where they are searched for across groups: what folds need, whose splits are still to be made).
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image
from scipy.fft import irfft, rfft
from scipy.ndimage import gaussian_filter, map_coordinates

from raypath.benchmarks.benchmark import Benchmark
from raypath.benchmarks.splits.leakage import Leak, check_leaks
from raypath.benchmarks.splits.making import MAX_LISTED
from raypath.data.image_files import UNREADABLE, open_image
from raypath.data.manifest import SPLITS
from raypath.data.staging import local_path
from raypath.errors import BadInput
from raypath.slides import SlideHandles

LEAST_CORRELATION = 0.5
NUM_NEAREST = 8

_SIDE_PX, _NUM_RINGS, _NUM_ANGLES, _INNERMOST = 64, 32, 128, 0.2  # of the radius; the centre has too few pixels
_COARSE_PX, _LOCAL_PX = 3.0, 4.0  # sigmas of what is taken away, and of the neighbourhood whose contrast becomes 1
_LEAST_CONTRAST = 6.0  # grey levels: fainter structure stays fainter
_FLAT = 1 / _LEAST_CONTRAST  # a standard deviation of one grey level: nothing to compare
_NUM_HARMONICS, _RINGS_PER_BAND, _MAX_RINGS = 12, 2, 8  # 8 rings are an enlargement of 1.5
_LAST_OF_SHAPE = 2  # the harmonic of what is longer than wide; 1 of one edge, 0 of what is round
_ROWS_PER_TASK, _PAIRS_PER_TASK, _QUERIES, _OTHERS = 64, 256, 256, 16_384

_RADII = np.geomspace(_INNERMOST * (_SIDE_PX / 2 - 1), _SIDE_PX / 2 - 1, _NUM_RINGS)
_ANGLES = 2 * np.pi * np.arange(_NUM_ANGLES) / _NUM_ANGLES
_CENTRE = (_SIDE_PX - 1) / 2
_PLACES = _CENTRE + _RADII[:, None] * np.stack([np.outer(np.ones(_NUM_RINGS), f(_ANGLES)) for f in (np.sin, np.cos)])
_AREA = (_RADII**2).astype(np.float32)  # of a ring, up to a factor

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Pair:
    """Two samples of different splits that show the same; rows of the benchmark's table, and how the second lies on the first."""

    first: dict[str, Any]
    second: dict[str, Any]
    correlation: float
    turn_deg: float
    """By how much the second is turned, after mirroring, clockwise."""
    is_mirrored: bool
    magnification: float
    """Of the first over the second."""

    def __str__(self) -> str:
        sides = (f"{side['sample']} ({side['split']})" for side in (self.first, self.second))
        return f"{' and '.join(sides)}, correlation {self.correlation:.2f}"


@dataclass(frozen=True)
class Search:
    """What was found among the samples of a table, best pairs first."""

    pairs: tuple[Pair, ...]
    """Each pair once."""
    num_samples: int
    flat: tuple[str, ...]
    """Samples that are too flat to be compared."""


def find(
    table: pa.Table, *, groups: Sequence[str] | None = None, num_threads: int = 2, progress: Progress | None = None
) -> Search:
    """The near-duplicates between the splits of a table (columns sample, split and path[, item, box], or those of a tile).

    With `groups` (a name for every row) those between any two groups instead, whatever their splits. `progress(num_done,
    num_samples)` is called while pictures are read, in any thread. The order of rows has no influence. Raises BadInput for a
    picture that cannot be read.
    """
    order = pc.sort_indices(table["sample"]).to_numpy()
    table = table.take(order)
    owners = np.array(table["split"].to_pylist() if groups is None else groups, dtype=str)
    owners = owners if groups is None else owners[order]
    with ThreadPoolExecutor(num_threads) as pool:
        rings, amplitudes, is_flat = _read_all(table, pool, progress)
        sides = [(np.flatnonzero(~is_flat),) * 2]
        if groups is None:
            sides = combinations(sorted((np.flatnonzero((owners == s) & ~is_flat) for s in SPLITS), key=len), 2)
        found = {
            tuple(sorted(match[:2])): match
            for some, others in sides
            if len(some) and len(others)
            for match in _between(rings, amplitudes, some, others, owners, pool)
        }
    pairs = [_pair(table, *match) for match in sorted(found.values(), key=lambda match: (-match[2], match[:2]))]
    flat = [table["sample"][row].as_py() for row in np.flatnonzero(is_flat).tolist()]
    return Search(tuple(pairs), len(table), tuple(flat))


def check(benchmark: Benchmark, **how: Any) -> tuple[Search, str]:
    """`find` in a benchmark, and a note on what is waived; raises BadInput that lists what was found, unless it is waived."""
    search = find(benchmark.table, **how)
    return search, check_leaks(leaks_of(search.pairs), benchmark.waived, name=benchmark.name)


def leaks_of(pairs: Sequence[Pair]) -> list[Leak]:
    """Pairs across splits as the leak that they are; none for none."""
    listed = tuple(map(str, pairs[:MAX_LISTED]))
    leak = Leak("near_duplicate", "pairs of samples are near-duplicates across splits", len(pairs), listed)
    return [leak] if pairs else []


def rings_of(picture: Image.Image) -> np.ndarray:
    """float32 [NUM_RINGS, NUM_ANGLES]: luminance on rings about the centre of the picture's largest square, as local contrast.

    Without the harmonics of mere shape.
    """
    side = min(picture.size)
    left, top = ((length - side) / 2 for length in picture.size)
    small = picture.convert("L").resize(
        (_SIDE_PX, _SIDE_PX), Image.Resampling.BICUBIC, box=(left, top, left + side, top + side)
    )
    grey = np.asarray(small, np.float32)
    fine = grey - gaussian_filter(grey, _COARSE_PX)
    contrast = np.sqrt(gaussian_filter(fine**2, _LOCAL_PX) + _LEAST_CONTRAST**2)
    spectrum = rfft(map_coordinates(fine / contrast, _PLACES, order=1), axis=1)
    spectrum[:, : _LAST_OF_SHAPE + 1] = 0
    return irfft(spectrum, _NUM_ANGLES, axis=1).astype(np.float32)


def compare(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Best correlation, float [P], and where it is: is_mirrored, angle number, ring number, for P pairs of rings [P, R, T]."""
    first, second = (rings.astype(np.float32) for rings in (first, second))
    spectra = rfft(first, axis=2), rfft(second, axis=2)
    best, place = np.full(len(first), -np.inf, np.float32), np.zeros((3, len(first)), np.int64)
    for shift in range(-_MAX_RINGS, _MAX_RINGS + 1):
        a, b = _overlap(_NUM_RINGS, shift)
        weight = np.sqrt(_AREA[a] * _AREA[b])
        weight /= weight.sum() * _NUM_ANGLES
        means, squares = zip(*(_moments(rings, weight) for rings in (first[:, a], second[:, b])))
        spread = np.sqrt(np.prod([square - mean**2 for square, mean in zip(squares, means)], axis=0)) + 1e-6
        weighted, other = spectra[0][:, a] * weight[:, None], spectra[1][:, b]
        for is_mirrored, product in enumerate((weighted * other.conj(), weighted * other)):
            along = irfft(product.sum(axis=1), _NUM_ANGLES, axis=1)
            angle = along.argmax(axis=1)
            value = (along.max(axis=1) - means[0] * means[1]) / spread
            is_better = value > best
            best = np.where(is_better, value, best)
            place = np.where(is_better, [np.full_like(angle, is_mirrored), angle, np.full_like(angle, shift)], place)
    return best, *place


def _moments(rings: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.einsum("prt,r->p", rings, weight), np.einsum("prt,prt,r->p", rings, rings, weight, optimize=True)


def _overlap(num: int, shift: int) -> tuple[slice, slice]:
    """Which rings of the first and of the second lie on each other when the first is `shift` rings larger."""
    return slice(max(0, shift), num + min(0, shift)), slice(max(0, -shift), num + min(0, -shift))


def _read_all(
    table: pa.Table, pool: ThreadPoolExecutor, progress: Progress | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rings int8 [N, R, T] of every sample (each in units of its own maximum), their amplitudes, and which are flat."""
    rings, is_flat = np.zeros((len(table), _NUM_RINGS, _NUM_ANGLES), np.int8), np.zeros(len(table), bool)
    amplitudes = np.zeros((len(table), _NUM_RINGS // _RINGS_PER_BAND, _NUM_HARMONICS), np.float32)

    def read(start: int) -> int:
        for row, picture in enumerate(pictures(table.slice(start, _ROWS_PER_TASK).to_pylist(), 2 * _SIDE_PX), start):
            values = rings_of(picture)
            is_flat[row] = values.std() < _FLAT
            rings[row] = np.rint(values * (127 / max(np.abs(values).max(), _FLAT)))
        rows = slice(start, start + _ROWS_PER_TASK)
        amplitudes[rows] = _amplitudes(rings[rows])
        return min(start + _ROWS_PER_TASK, len(table))

    for done in pool.map(read, range(0, len(table), _ROWS_PER_TASK)):
        if progress:
            progress(done, len(table))
    return rings, amplitudes, is_flat


def pictures(rows: Sequence[dict[str, Any]], extent_px: int) -> Iterator[Image.Image]:
    """The picture of each row of a benchmark: an image as it is, a tile at `extent_px` or its px of level 0, if fewer."""
    handles = SlideHandles(4)
    for row in rows:
        try:
            if "x_l0" not in row:
                yield open_image(row["path"], item=row.get("item"), box=row.get("box"))
                continue
            with handles.lend(local_path(row["slide"]), row["slide_mpp"]) as slide:
                side_px = min(extent_px, row["extent_l0"])  # no pixel is invented
                yield Image.fromarray(slide.read(row["x_l0"], row["y_l0"], row["extent_l0"], side_px))
        except UNREADABLE as error:
            place = row.get("path") or row["slide"]
            raise BadInput(f"{place}: cannot be read ({error}); mend or remove the file, or its row") from None


def _between(
    rings: np.ndarray,
    amplitudes: np.ndarray,
    some: np.ndarray,
    others: np.ndarray,
    owners: np.ndarray,
    pool: ThreadPoolExecutor,
) -> Iterator[tuple[int, int, float, int, int, int]]:
    """(row, row, correlation, is_mirrored, angle, ring) of the near-duplicates among `some` and `others` of two owners."""
    nearest = _nearest(amplitudes[some], amplitudes[others], owners[some], owners[others])
    firsts, seconds = np.repeat(some, nearest.shape[1]), others[nearest.ravel()]
    is_wanted = owners[firsts] != owners[seconds]  # fewer others than NUM_NEAREST, and its own come in
    firsts, seconds = firsts[is_wanted], seconds[is_wanted]
    starts = range(0, len(firsts), _PAIRS_PER_TASK)
    chunks = [(firsts[s : s + _PAIRS_PER_TASK], seconds[s : s + _PAIRS_PER_TASK]) for s in starts]
    for (a, b), found in zip(chunks, pool.map(lambda chunk: compare(rings[chunk[0]], rings[chunk[1]]), chunks)):
        for n in np.flatnonzero(found[0] >= LEAST_CORRELATION).tolist():
            yield int(a[n]), int(b[n]), float(found[0][n]), *(int(column[n]) for column in found[1:])


def _nearest(some: np.ndarray, others: np.ndarray, owner: np.ndarray, other_owner: np.ndarray) -> np.ndarray:
    """The NUM_NEAREST (fewer, if there are fewer) of `others` for each of `some`, at the best enlargement; numbers [S, K].

    Those of its own owner come last.
    """
    num, most = min(NUM_NEAREST, len(others)), _MAX_RINGS // _RINGS_PER_BAND
    kept = []
    for start in range(0, len(some), _QUERIES):
        queries = some[start : start + _QUERIES]
        cosine = np.full((len(queries), len(others)), -1, np.float32)
        for left in range(0, len(others), _OTHERS):
            block, part = others[left : left + _OTHERS], cosine[:, left : left + _OTHERS]
            for shift in range(-most, most + 1):
                a, b = _overlap(some.shape[1], shift)
                np.maximum(part, _directions(queries[:, a]) @ _directions(block[:, b]).T, out=part)
        cosine[owner[start : start + _QUERIES, None] == other_owner] = -2  # below every cosine
        kept.append(np.argpartition(-cosine, num - 1, axis=1)[:, :num])
    return np.concatenate(kept)


def _amplitudes(rings: np.ndarray) -> np.ndarray:
    """float32 [N, bands, harmonics]: of the first harmonics of each ring after those of shape, rings averaged by bands."""
    first = _LAST_OF_SHAPE + 1
    spectrum = np.abs(rfft(rings.astype(np.float32), axis=2)[:, :, first : first + _NUM_HARMONICS])
    spectrum *= np.sqrt(_RADII)[:, None].astype(np.float32)
    return spectrum.reshape(len(rings), -1, _RINGS_PER_BAND, _NUM_HARMONICS).mean(axis=2)


def _directions(amplitudes: np.ndarray) -> np.ndarray:
    flat = amplitudes.reshape(len(amplitudes), -1)
    return flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-6)


def _pair(table: pa.Table, first: int, second: int, correlation: float, mirrored: int, angle: int, ring: int) -> Pair:
    step = _RADII[1] / _RADII[0]
    rows = (table.slice(row, 1).to_pylist()[0] for row in (first, second))
    return Pair(*rows, correlation, 360 * angle / _NUM_ANGLES, bool(mirrored), float(step**ring))
