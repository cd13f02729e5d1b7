"""The cells of a phantom: three arrangements of nuclei and openings that only texture can tell apart.

`draw_arrangement` gives a height field: openings (lumina, clefts, vacuoles) lowest, stroma between, nuclei highest. One
decision: the field is then replaced by its *local rank* (`local_rank`), the share of the tissue within about a tile that
lies lower. Whatever the arrangement, ranks are uniform in every neighbourhood, and colour is a function of rank
(`phantom_stain`): so each tile has the same share of nuclei, of white and of every shade between in all classes, and no
statistic of colour alone can tell them apart. It costs about 0.35 us per pixel, three quarters of what a phantom takes.
"""

from functools import cache

import numpy as np
from scipy import ndimage

from raypath.slides.phantom_outline import value_noise

ARRANGEMENTS = ("glandular", "spindle", "solid")

# Tuned until the three have the same length of edges per area: focus and JPEG soften edges, which changes colour a little.
_SCALE = {"glandular": 1.10, "spindle": 1.08, "solid": 0.87}

# Heights: stroma waves about 0 with a spread near 1, so these stay apart from it.
_NUCLEUS_HEIGHT = 12.0
_OPENING_DEPTH = 12.0
_SKIRT_PX = 3  # every shape slopes down over this many px outside its edge: ranks can widen it without losing its form
_INNER_SLOPE_PX = 1.5  # and over this many inside: ranks can narrow it
_MARGIN_PX = 24  # drawn around a field and cut off: larger than half the longest stamp

_LENS_SIGMA_PX = 1.0  # by eye, against a scanner's 20x
_RANK_BINS = 40
_RANK_CELL_PX = 8
_RANK_SIGMA_PX = 18.0  # a Gaussian of this spread weighs about as much tissue as a tile of 64 px


def draw_arrangement(name: str, *, shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Height field float32 [H, W] of one of ARRANGEMENTS at 0.5 um/px, turned and scaled (0.9 to 1.12) at random."""
    padded = (shape[0] + 2 * _MARGIN_PX, shape[1] + 2 * _MARGIN_PX)
    angle, scale = rng.uniform(0, 2 * np.pi), rng.uniform(0.9, 1.12) * _SCALE[name]
    draw = {"glandular": _draw_glandular, "spindle": _draw_spindle, "solid": _draw_solid}[name]
    stroma, nuclei, openings = draw(padded, angle, scale, rng)
    height = stroma - _OPENING_DEPTH * openings
    height += nuclei * (_NUCLEUS_HEIGHT - height)
    return height[_MARGIN_PX:-_MARGIN_PX, _MARGIN_PX:-_MARGIN_PX]


def local_rank(height: np.ndarray, is_inside: np.ndarray) -> np.ndarray:
    """The share of the inside pixels around each pixel that lie lower: float32 [H, W] in [0, 1], 0 outside.

    Histogram equalisation under a Gaussian window (sigma 18 px), then again after the blur of a lens: what softens edges
    must come before the last ranking, because it takes contrast from fine structures more than from coarse ones.
    """
    y, x = np.nonzero(is_inside)
    level = _equalised(_global_rank(height[y, x]), y, x, height.shape)
    rank = np.full(height.shape, 0.5, np.float32)
    rank[y, x] = level
    level = _equalised(
        _global_rank(ndimage.gaussian_filter(rank, _LENS_SIGMA_PX, truncate=3)[y, x]), y, x, height.shape
    )
    rank[:] = 0
    rank[y, x] = level
    return rank


def _equalised(level: np.ndarray, y: np.ndarray, x: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Local ranks, made uniform over the region: wide openings meet more of their like, which biases their local rank."""
    return _global_rank(_rank_once(level, y, x, shape))


def _rank_once(level: np.ndarray, y: np.ndarray, x: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Levels [N] in [0, 1] to local ranks [N]: histograms of 8x8 px cells, smoothed, interpolated between cell centres."""
    level = level * _RANK_BINS
    cells = tuple(extent // _RANK_CELL_PX + 1 for extent in shape)
    cell = (y // _RANK_CELL_PX) * cells[1] + x // _RANK_CELL_PX
    slot = cell * _RANK_BINS + np.minimum(level.astype(np.int64), _RANK_BINS - 1)
    histogram = np.bincount(slot, minlength=cells[0] * cells[1] * _RANK_BINS).reshape(*cells, _RANK_BINS)
    sigma = _RANK_SIGMA_PX / _RANK_CELL_PX
    histogram = ndimage.gaussian_filter(histogram.astype(np.float32), (sigma, sigma, 0), truncate=3)
    lower = np.concatenate([np.zeros((*cells, 1), np.float32), histogram.cumsum(axis=2)], axis=2)
    lower /= np.maximum(lower[:, :, -1:], 1e-6)
    where = np.stack([(y + 0.5) / _RANK_CELL_PX - 0.5, (x + 0.5) / _RANK_CELL_PX - 0.5, level]).astype(np.float32)
    return ndimage.map_coordinates(lower, where, order=1, mode="nearest")


def _global_rank(values: np.ndarray) -> np.ndarray:
    """The rank of each value among all, in [0, 1], through a histogram of 4096 bins."""
    low, high = values.min(), values.max() + 1e-3
    position = (values - low) * (4096 / (high - low))
    counts = np.bincount(position.astype(np.int64), minlength=4096)
    edges = np.concatenate([[0], counts.cumsum()]) / max(len(values), 1)
    return np.interp(position, np.arange(len(edges)), edges).astype(np.float32)


def _draw_glandular(shape, angle, scale, rng):
    """Rings of oval nuclei, pointing inwards, around open lumina; the rings nearly touch, few thin nuclei lie between."""
    stroma = 0.8 * value_noise(shape, wavelength_px=3, rng=rng) + 0.6 * value_noise(shape, wavelength_px=9, rng=rng)
    centres = _lattice(shape, pitch=(35 * scale, 35 * scale), jitter=3.5 * scale, angle=angle, rng=rng)
    count = len(centres)
    cytoplasm, openings, nuclei = (np.zeros(shape, np.float32) for _ in range(3))
    lumen = rng.uniform(7.0, 12.0, count) * scale
    squash, tilt = rng.uniform(0.65, 1.0, count), rng.uniform(0, np.pi, count)
    ring = lumen / 2 + rng.uniform(6.0, 7.5, count) * scale
    _stamp(openings, centres, lumen, squash, tilt, rng)
    _stamp(cytoplasm, centres, 2 * ring + 9 * scale, (1 + squash) / 2, tilt, rng)

    places, towards = _on_rings(centres, ring, (1 + squash) / 2, tilt, spacing_px=8.6 * scale, rng=rng)
    length = rng.normal(8.8, 0.8, len(places)) * scale
    _stamp(
        nuclei, places, length, rng.uniform(0.62, 0.82, len(places)), towards + rng.normal(0, 0.25, len(places)), rng
    )
    between = _lattice(shape, pitch=(24 * scale, 24 * scale), jitter=6 * scale, angle=angle + 0.5, rng=rng)
    between = between[_at(cytoplasm, between) < 0.1]
    tilt = rng.uniform(0, np.pi, len(between))
    _stamp(nuclei, between, rng.normal(10, 1, len(between)) * scale, np.full(len(between), 0.36), tilt, rng)
    return stroma + 1.6 * cytoplasm, nuclei, openings


def _on_rings(centres, ring, squash, tilt, *, spacing_px, rng):
    """Points (y, x) [N, 2] along an ellipse about each centre, and the direction [N] from its centre to each."""
    places = []
    for centre, radius, s, t in zip(centres, ring, squash, tilt):
        count = max(5, round(np.pi * radius * (1 + s) / spacing_px))
        phi = rng.uniform(0, 2 * np.pi) + np.arange(count) * 2 * np.pi / count + rng.normal(0, 0.09, count)
        along, across = radius * np.cos(phi), s * radius * np.sin(phi)
        y, x = along * np.sin(t) + across * np.cos(t), along * np.cos(t) - across * np.sin(t)
        places.append(np.stack([centre[0] + y, centre[1] + x, np.arctan2(y, x)], axis=1))
    places = np.concatenate(places)
    return places[:, :2], places[:, 2]


def _draw_spindle(shape, angle, scale, rng):
    """Wavy parallel fibres with long thin nuclei and clefts along them."""
    y, x = np.mgrid[0 : shape[0], 0 : shape[1]].astype(np.float32)
    along = np.cos(angle) * x + np.sin(angle) * y
    across = np.cos(angle) * y - np.sin(angle) * x + 16 * value_noise(shape, wavelength_px=120 * scale, rng=rng)
    fibres = ndimage.gaussian_filter(rng.standard_normal((256, 256), dtype=np.float32), 1.2, mode="wrap")
    where = np.stack([across / scale, along / (9 * scale)])
    stroma = 3.5 * ndimage.map_coordinates(fibres, where, order=1, mode="grid-wrap")
    stroma += 0.3 * value_noise(shape, wavelength_px=3, rng=rng)

    slope_y, slope_x = np.gradient(across)
    direction = np.arctan2(-slope_x, slope_y)
    openings, nuclei = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    clefts = _lattice(shape, pitch=(38 * scale, 19 * scale), jitter=6 * scale, angle=angle, rng=rng)
    length = rng.normal(21, 3, len(clefts)) * scale
    _stamp(openings, clefts, length, rng.uniform(0.16, 0.25, len(clefts)), _at(direction, clefts), rng)
    places = _lattice(shape, pitch=(19 * scale, 10.5 * scale), jitter=3.0 * scale, angle=angle, rng=rng)
    length = rng.normal(13.5, 1.5, len(places)) * scale
    leaning = _at(direction, places) + rng.normal(0, 0.12, len(places))
    _stamp(nuclei, places, length, rng.uniform(0.28, 0.42, len(places)), leaning, rng)
    return stroma, nuclei, openings


def _draw_solid(shape, angle, scale, rng):
    """Round nuclei and round vacuoles, scattered without order."""
    stroma = 0.8 * value_noise(shape, wavelength_px=3, rng=rng) + 0.6 * value_noise(shape, wavelength_px=9, rng=rng)
    places = _lattice(shape, pitch=(13.4 * scale, 13.4 * scale), jitter=2.8 * scale, angle=angle, rng=rng)
    is_vacuole = rng.uniform(size=len(places)) < 0.24
    openings, nuclei = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    for field, chosen, mean_px in ((openings, places[is_vacuole], 8.0), (nuclei, places[~is_vacuole], 9.0)):
        length = rng.normal(mean_px, 0.9, len(chosen)) * scale
        tilt = rng.uniform(0, np.pi, len(chosen))
        _stamp(field, chosen, length, rng.uniform(0.68, 1.0, len(chosen)), tilt, rng)
    return stroma, nuclei, openings


def _lattice(shape, *, pitch, jitter, angle, rng) -> np.ndarray:
    """Points (y, x) [N, 2] in the field: a hexagonal lattice with `pitch` px (along, across), turned, then shaken."""
    reach = np.hypot(*shape) / 2
    along, across = np.meshgrid(np.arange(-reach, reach, pitch[0]), np.arange(-reach, reach, pitch[1] * 0.87))
    along[1::2] += pitch[0] / 2
    x = np.cos(angle) * along - np.sin(angle) * across + shape[1] / 2
    y = np.sin(angle) * along + np.cos(angle) * across + shape[0] / 2
    points = np.stack([y.ravel(), x.ravel()], axis=1) + rng.normal(0, jitter, (y.size, 2))
    return points[((points > 0) & (points < np.array(shape))).all(axis=1)]


def _at(field: np.ndarray, points: np.ndarray) -> np.ndarray:
    y, x = points.astype(np.int64).T
    return field[y, x]


def _stamp(field, points, length_px, aspect, angle, rng) -> None:
    """Lay an ellipse over each point, in place; where two overlap the higher one shows."""
    variant = rng.integers(0, 4, len(points))
    shade = rng.uniform(0.88, 1.0, len(points))
    keys = zip(
        np.rint(np.clip(length_px, 5, 44)).astype(int).tolist(),
        np.rint(aspect * 12).astype(int).tolist(),
        (np.rint(angle * (24 / np.pi)).astype(int) % 24).tolist(),
        variant.tolist(),
    )
    rows, columns = np.rint(points).astype(int).T.tolist()
    for key, y, x, s in zip(keys, rows, columns, shade.tolist()):
        shape = _shape(*key)
        half = len(shape) // 2
        if half <= y < field.shape[0] - half and half <= x < field.shape[1] - half:
            view = field[y - half : y + half + 1, x - half : x + half + 1]
            np.maximum(view, s * shape, out=view)


@cache
def _shape(length_px: int, aspect_twelfths: int, angle_24ths: int, variant: int) -> np.ndarray:
    """One nucleus or opening: float32 [S, S], 1 inside with a grain of chromatin, sloping to 0 around an uneven edge."""
    rng = np.random.default_rng((length_px, aspect_twelfths, angle_24ths, variant))
    half_length, aspect, angle = length_px / 2, aspect_twelfths / 12, angle_24ths * np.pi / 24
    half = int(np.ceil(half_length + _SKIRT_PX)) + 1
    y, x = np.mgrid[-half : half + 1, -half : half + 1].astype(np.float32)
    along, across = x * np.cos(angle) + y * np.sin(angle), (y * np.cos(angle) - x * np.sin(angle)) / aspect
    phi = np.arctan2(across, along)
    uneven = sum(rng.normal(0, 0.05) * np.cos(k * phi + rng.uniform(0, 2 * np.pi)) for k in (2, 3, 4))
    radius = np.hypot(along, across) / (half_length * (1 + uneven))
    depth_px = (1 - radius) * half_length * np.sqrt(aspect)
    grain = ndimage.gaussian_filter(rng.standard_normal(y.shape), 0.9) * 1.9
    body = np.clip((depth_px + _SKIRT_PX) / (_SKIRT_PX + _INNER_SLOPE_PX), 0, 1)
    return (body * (0.86 + 0.14 * np.clip(0.5 + grain, 0, 1))).astype(np.float32)
