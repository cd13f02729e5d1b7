"""The colours of a phantom: stain by site and patient, scanner white, and the marks that a real slide carries.

Tissue arrives as a rank in [0, 1] per pixel (`phantom_texture`). One decision: the concentrations of haematoxylin and
eosin are functions of that rank, the same for every class, and everything else that changes colour (stain vectors, section
thickness, cellularity, folds, pen, blur, noise) is drawn without knowing the class. Colours obey Beer and Lambert:
intensity = white * exp(-(concentrations @ stain vectors)). It costs about 0.1 us per pixel.
"""

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage

from raypath.slides.phantom_outline import resized, value_noise

# Optical density per unit of stain (R, G, B; natural log). Haematoxylin and eosin of Macenko et al. 2009's reference slide,
# the eosin shifted towards the purer pink of Ruifrok and Johnston 2001 as our own eye asked for.
_HAEMATOXYLIN = np.array([0.60, 0.70, 0.36])
_EOSIN = np.array([0.13, 0.84, 0.42])

# Concentrations by rank: openings below 0.08, then stroma, from 0.78 on nuclei.
_RANK_KNOTS = (0.00, 0.03, 0.07, 0.13, 0.40, 0.66, 0.735, 0.815, 1.00)
_HAEMATOXYLIN_KNOTS = (0.01, 0.02, 0.05, 0.09, 0.14, 0.22, 0.30, 0.75)  # and the stain's own value at rank 1
_EOSIN_KNOTS = (0.02, 0.03, 0.08, 0.22, 0.38, 0.56, 0.58, 0.52, 0.48)

_PEN_COLOURS = {"blue": (45, 70, 190), "green": (35, 140, 80), "black": (45, 45, 50)}
_PEN_OPACITY = 0.8
_NOISE_SPREAD = 1.4  # gray levels, of the camera


@dataclass(frozen=True, kw_only=True)
class Stain:
    """How one patient's sections look; arrays are [3] in R, G, B."""

    haematoxylin: np.ndarray
    """optical density per unit of haematoxylin"""
    eosin: np.ndarray
    """optical density per unit of eosin"""
    white: np.ndarray
    """gray levels of the empty slide"""
    nuclear_haematoxylin: float
    """concentration in the darkest chromatin"""
    cellularity: float
    """log of the exponent on ranks: above 0 fewer nuclei and more white"""


def draw_stain(*, site_rng: np.random.Generator, patient_rng: np.random.Generator) -> Stain:
    """A stain whose larger part comes from the site (vectors, strengths, scanner white) and a lesser one from the patient."""
    site = site_rng.normal(size=11)
    patient = patient_rng.normal(size=10)
    return Stain(
        haematoxylin=_HAEMATOXYLIN
        * np.exp(0.10 * site[0] + 0.07 * patient[0] + 0.06 * site[1:4] + 0.03 * patient[1:4]),
        eosin=_EOSIN * np.exp(0.14 * site[4] + 0.10 * patient[4] + 0.08 * site[5:8] + 0.04 * patient[5:8]),
        white=np.clip(242 + 2.5 * site[8:11], 234, 250),
        cellularity=float(np.clip(0.08 * patient[8], -0.2, 0.2)),
        nuclear_haematoxylin=float(np.clip(1.4 + 0.15 * patient[9], 1.1, 1.7)),
    )


def stain_tissue(
    rank: np.ndarray, is_tissue: np.ndarray, *, stain: Stain, thickness: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Gray levels float32 [H, W, 3] from ranks float32 [H, W]; `thickness` float32 [H, W] multiplies both stains."""
    shape = rank.shape
    crowding = stain.cellularity + 0.22 * value_noise(shape, wavelength_px=260, rng=rng)
    table_index = (np.power(rank, np.exp(crowding)) * 1023).astype(np.int16)
    steps = np.linspace(0, 1, 1024)
    haematoxylin_knots = (*_HAEMATOXYLIN_KNOTS, stain.nuclear_haematoxylin)
    haematoxylin = np.interp(steps, _RANK_KNOTS, haematoxylin_knots).astype(np.float32)[table_index]
    eosin = np.interp(steps, _RANK_KNOTS, _EOSIN_KNOTS).astype(np.float32)[table_index]
    ground = 0.06 * value_noise(shape, wavelength_px=10, rng=rng) + 0.10 * value_noise(shape, wavelength_px=60, rng=rng)
    haematoxylin *= np.exp(0.12 * value_noise(shape, wavelength_px=60, rng=rng))
    # Bluish and purely pink stroma, where it is no opening. It also unties red from green: without it what JPEG does to
    # fine structures is readable from the three histograms together (colour baseline 0.48 instead of 0.34).
    haematoxylin += np.minimum(2 * eosin, 1) * ground
    np.maximum(haematoxylin, 0, out=haematoxylin)
    thickness = thickness * np.exp(0.10 * value_noise(shape, wavelength_px=400, rng=rng)) * is_tissue
    haematoxylin *= thickness
    eosin *= thickness * np.exp(0.15 * value_noise(shape, wavelength_px=70, rng=rng))
    image = np.empty((*shape, 3), np.float32)
    for channel in range(3):
        density = stain.haematoxylin[channel] * haematoxylin + stain.eosin[channel] * eosin
        image[:, :, channel] = stain.white[channel] * np.exp(-density)
    return image


def add_camera_noise(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """uint8 [H, W, 3]: gray levels with noise shared by half between the channels."""
    shared = rng.standard_normal(image.shape[:2], dtype=np.float32)
    own = rng.standard_normal(image.shape, dtype=np.float32)
    own += shared[:, :, None]
    own *= _NOISE_SPREAD / np.sqrt(2)
    own += image
    return np.clip(np.rint(own, out=own), 0, 255).astype(np.uint8)


def fold_thickness(size_px: int, rng: np.random.Generator) -> np.ndarray:
    """float32 [H, W]: 1, and about 1.7 along a fold; one slide in three has one or two folds."""
    num_folds = rng.integers(1, 3) if rng.uniform() < 0.33 else 0
    strokes = [_stroke(size_px, rng, length_px=0.3 * size_px, width_px=rng.uniform(8, 16)) for _ in range(num_folds)]
    return 1 + 0.7 * np.max(strokes, axis=0) if strokes else np.ones((size_px, size_px), np.float32)


def blur_regions(image: np.ndarray, rng: np.random.Generator) -> None:
    """Put one or two round regions out of focus, in place, on one slide in three."""
    size_px = len(image)
    for _ in range(rng.integers(1, 3) if rng.uniform() < 0.33 else 0):
        extent = int(rng.uniform(0.12, 0.22) * size_px)
        y, x = rng.integers(0, size_px - extent, 2)
        region = image[y : y + extent, x : x + extent]
        sigma_px = rng.uniform(2.0, 3.5)
        soft = ndimage.gaussian_filter(region, (sigma_px, sigma_px, 0), truncate=3)
        ramp = np.linspace(-1, 1, extent, dtype=np.float32)
        weight = np.clip(3 * (1 - np.hypot.outer(ramp, ramp)), 0, 1)[:, :, None]
        region += weight * (soft - region)


def draw_pen(image: np.ndarray, rng: np.random.Generator) -> None:
    """One to three strokes of a felt pen, in place, on one slide in three."""
    num_strokes = rng.integers(1, 4) if rng.uniform() < 0.33 else 0
    colour = _PEN_COLOURS[list(_PEN_COLOURS)[rng.integers(len(_PEN_COLOURS))]]
    for _ in range(num_strokes):
        stroke = _stroke(len(image), rng, length_px=0.45 * len(image), width_px=rng.uniform(0.012, 0.022) * len(image))
        through = 1 - _PEN_OPACITY * stroke[:, :, None]
        image *= through + (1 - through) * np.array(colour, np.float32) / 255


def _stroke(size_px: int, rng: np.random.Generator, *, length_px: float, width_px: float) -> np.ndarray:
    """float32 [H, W] in [0, 1]: a line that bends smoothly, drawn at a quarter of the size."""
    heading = rng.uniform(0, 2 * np.pi) + np.cumsum(rng.normal(0, 0.25, 24))
    steps = np.stack([np.cos(heading), np.sin(heading)], axis=1) * (length_px / 24)
    points = rng.uniform(0.15, 0.85, 2) * size_px + np.cumsum(steps, axis=0)
    canvas = Image.new("L", (size_px // 4, size_px // 4))
    pen = ImageDraw.Draw(canvas)
    pen.line([tuple(point) for point in points / 4], fill=255, width=max(1, round(width_px / 4)), joint="curve")
    soft = ndimage.gaussian_filter(np.asarray(canvas, np.float32) / 255, 0.7)
    return np.clip(resized(soft, (size_px, size_px)), 0, 1)
