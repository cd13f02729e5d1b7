"""A tile read at 0.5 um per px has the frequencies of a 0.5 um scan, whatever the native scale.

Two sections of one block: s3 at 0.25 um per px, s1 at 0.5. Over tissue tiles the power per radial frequency (cycles per um,
Hann window, mean removed) is compared as log10(s3 / s1) in 0.1 to 0.9 cycles per um; the Nyquist frequency is 1.
Measured, mean |log10 ratio|: read 0.015, level 0 by `resize` alone, as a slide without a pyramid is read, 0.026; nearest
neighbour 0.106 (aliasing: +0.34 at the top).
"""

import numpy as np
import pytest

from raypath.slides import Slide, TileGrid, TileSpec, tissue_fractions, tissue_mask
from raypath.slides.resize import resize

BOUND = 0.05
BAND = np.linspace(0.1, 0.9, 17)


def tissue_corners(slide, num_tiles):
    spec = TileSpec(extent_px=256, mpp=0.5, stride_px=256, min_tissue=0.99)
    grid = TileGrid.of(slide.size_l0, slide.mpp, spec)
    fractions = tissue_fractions(tissue_mask(slide.thumbnail(8), 8), grid)
    cells = grid.morton_order(np.flatnonzero(fractions >= spec.min_tissue))
    return grid.corners(cells[np.linspace(0, len(cells) - 1, num_tiles).astype(int)])


def log_power(tiles):
    gray = tiles.mean(-1) - tiles.mean((1, 2, 3))[:, None, None]
    window = np.hanning(gray.shape[1])
    power = (np.abs(np.fft.fft2(gray * window[:, None] * window)) ** 2).mean(0)
    frequency = np.fft.fftfreq(gray.shape[1], d=0.5)
    ring = np.digitize(np.hypot(*np.meshgrid(frequency, frequency)).ravel(), BAND)
    return np.log10([power.ravel()[ring == i].mean() for i in range(1, len(BAND))])


@pytest.mark.real
def test_power_spectra_agree_across_native_scales_and_nearest_neighbour_fails(real_slides):
    half = Slide.open(real_slides / "colon_polyp_P2_0039_s1_half.tiff", mpp=0.5)
    native = Slide.open(real_slides / "colon_polyp_P2_0039_s3_native.tiff", mpp=0.25)
    corners = tissue_corners(native, 100)
    expected = log_power(half.read_chunk(*tissue_corners(half, 300), 256, 256))
    level_0 = native.read_chunk(*corners, 512, 512)

    read = log_power(native.read_chunk(*corners, 512, 256)) - expected
    nearest = log_power(level_0[:, ::2, ::2]) - expected
    without_pyramid = log_power(resize(level_0, 256)) - expected

    assert np.abs(read).mean() < BOUND
    assert np.abs(without_pyramid).mean() < BOUND
    assert without_pyramid.max() < BOUND  # nothing folded in
    assert np.abs(nearest).mean() > 1.5 * BOUND
    assert nearest[-1] > 0.2  # folded in from above the Nyquist frequency
