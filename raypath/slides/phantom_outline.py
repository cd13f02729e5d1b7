"""Where the tissue of a phantom lies: irregular islands, each a region of one class, with holes.

Islands are the cells of a Voronoi diagram under a warped distance; the gaps between them are as wide as the wanted tissue
share asks for. One decision: every slide holds every class, in turn over its islands, so that the class is confounded with
no slide, patient or stain. Some islands are two regions of different classes that touch along a border. Outlines are
computed on a grid 4 times coarser than level 0: 15 ms for a slide of 1536 px.
"""

from dataclasses import dataclass

import numpy as np
from PIL import Image

MASK_DOWNSAMPLE = 16  # a class mask has one value per 16x16 level-0 pixels (8 um at 0.5 um/px)

_COARSE = 4  # level-0 pixels per pixel of the grid on which outlines are computed
_ISLAND_PITCH_PX = 620  # one region per 620x620 px: six on a slide of 1536 px, about 400 px across each
_TISSUE_SHARE = (0.50, 0.62)  # before holes and ragged edges, which take about 0.01
_HOLE_RADIUS_PX = (14, 34)


@dataclass(frozen=True)
class Outline:
    """The regions of one slide: `regions` int16 [H, W] (0 background), `classes[i]` the class of region i (0 for i = 0)."""

    regions: np.ndarray
    classes: np.ndarray

    def mask(self) -> np.ndarray:
        """uint8 [H/16, W/16]: the class that covers most of each cell; background where tissue covers less than half."""
        labels = self.classes[self.regions]
        cells = labels.reshape(labels.shape[0] // MASK_DOWNSAMPLE, MASK_DOWNSAMPLE, -1, MASK_DOWNSAMPLE)
        shares = np.stack([(cells == k).mean(axis=(1, 3)) for k in range(1, self.classes.max() + 1)])
        return np.where(shares.sum(axis=0) >= 0.5, shares.argmax(axis=0) + 1, 0).astype(np.uint8)


def draw_outline(size_px: int, *, num_classes: int, rng: np.random.Generator) -> Outline:
    """Islands on a slide of `size_px` (a multiple of 16) squared; at least one region of each class 1..num_classes."""
    num_regions = max(num_classes, round((size_px / _ISLAND_PITCH_PX) ** 2))
    sites = _scattered_points(num_regions, size_px, rng)
    order = rng.permutation(num_classes) + 1
    classes = order[np.arange(num_regions) % num_classes]
    group = _fused_neighbours(sites, classes, rng)

    y, x = _wavy_frame(size_px, rng)
    distances = np.stack([np.hypot(y - site_y, x - site_x) for site_y, site_x in sites.astype(np.float32)])
    score = _inside_score((y, x), distances, group)
    score += 5 * value_noise(score.shape, wavelength_px=7, rng=rng)  # ragged edges
    score -= np.quantile(score, 1 - rng.uniform(*_TISSUE_SHARE))
    _punch_holes(score, rng)

    is_tissue = resized(score, (size_px, size_px)) > 0
    regions = np.repeat(np.repeat(distances.argmin(axis=0) + 1, _COARSE, axis=0), _COARSE, axis=1)
    return Outline(
        regions=np.where(is_tissue, regions, 0).astype(np.int16),
        classes=np.concatenate([[0], classes]).astype(np.uint8),
    )


def value_noise(shape: tuple[int, int], *, wavelength_px: float, rng: np.random.Generator) -> np.ndarray:
    """Smooth noise float32 [H, W] of mean 0 and spread about 0.7: normal numbers on a lattice, cubic in between."""
    rows, columns = (int(np.ceil(extent / wavelength_px)) + 3 for extent in shape)
    lattice = rng.standard_normal((rows, columns), dtype=np.float32)
    offset_y, offset_x = rng.uniform(0, 1, 2)
    box = (offset_x + 1, offset_y + 1, offset_x + 1 + shape[1] / wavelength_px, offset_y + 1 + shape[0] / wavelength_px)
    return np.asarray(Image.fromarray(lattice).resize(shape[::-1], Image.Resampling.BICUBIC, box=box))


def resized(field: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """A float32 field at another size, cubic, with the same outer edges."""
    return np.asarray(Image.fromarray(field.astype(np.float32)).resize(shape[::-1], Image.Resampling.BICUBIC))


def _scattered_points(count: int, size_px: int, rng: np.random.Generator) -> np.ndarray:
    """`count` points (y, x), far apart and off the edge (Mitchell's best candidate of 20)."""
    margin = 0.17 * min(size_px, 2 * _ISLAND_PITCH_PX)
    points = rng.uniform(margin, size_px - margin, (1, 2))
    while len(points) < count:
        candidates = rng.uniform(margin, size_px - margin, (20, 2))
        nearest = np.linalg.norm(candidates[:, None] - points[None], axis=2).min(axis=1)
        points = np.concatenate([points, candidates[nearest.argmax()][None]])
    return points


def _fused_neighbours(sites: np.ndarray, classes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The island of each region: about one region in four shares the island of its nearest neighbour of another class."""
    group = np.arange(len(sites))
    for i in np.flatnonzero(rng.uniform(size=len(sites)) < 0.25):
        distance = np.linalg.norm(sites - sites[i], axis=1)
        distance[classes == classes[i]] = np.inf
        group[group == group[i]] = group[distance.argmin()]
    return group


def _wavy_frame(size_px: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates y, x float32 [h, w] of the coarse pixels in level-0 px, shifted by two scales of smooth noise."""
    extent = size_px // _COARSE
    y, x = np.mgrid[0:extent, 0:extent].astype(np.float32) * _COARSE
    pitch_px = min(size_px / 2, _ISLAND_PITCH_PX)
    for strength, wavelength in ((0.16, 0.5), (0.05, 0.15)):
        noise = {"wavelength_px": wavelength * pitch_px / _COARSE, "rng": rng}
        y = y + strength * pitch_px * value_noise(y.shape, **noise)
        x = x + strength * pitch_px * value_noise(x.shape, **noise)
    return y, x


def _inside_score(frame: tuple[np.ndarray, np.ndarray], distances: np.ndarray, group: np.ndarray) -> np.ndarray:
    """How deep inside its island each coarse pixel lies (px): the least of the gap to the next island and to the edge."""
    size_px = distances.shape[1] * _COARSE
    wavy = np.minimum(*(np.minimum(axis, size_px - axis) for axis in frame))
    straight = np.minimum(np.arange(distances.shape[1]), np.arange(distances.shape[1])[::-1]) * _COARSE
    score = np.minimum(wavy, 2 * np.minimum.outer(straight, straight))
    nearest = np.sort(np.stack([distances[group == g].min(axis=0) for g in np.unique(group)]), axis=0)
    if len(nearest) > 1:
        score = np.minimum(score, (nearest[1] - nearest[0]) / 2)
    return (score - 0.25 * nearest[0]).astype(np.float32)  # the last term rounds the corners off


def _punch_holes(score: np.ndarray, rng: np.random.Generator) -> None:
    """Vessels and tears: round openings, in place, about two per million level-0 pixels."""
    y, x = np.mgrid[0 : score.shape[0], 0 : score.shape[1]].astype(np.float32) * _COARSE
    for _ in range(rng.poisson(2e-6 * score.size * _COARSE**2)):
        centre_y, centre_x = rng.uniform(0, score.shape[0] * _COARSE, 2)
        radius = rng.uniform(*_HOLE_RADIUS_PX)
        np.minimum(score, np.hypot(y - centre_y, 0.7 * (x - centre_x)) - radius, out=score)
