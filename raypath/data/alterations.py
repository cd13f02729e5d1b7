"""Altered images: a tile as another laboratory, camera, file or scanner would have given it, to ask what a score then is.

    grey        luminance in all three channels
    hed=S       stain jitter of strength S (`raypath.data.stain`): scales within 1 +- S, shifts within +- S
    blur=S      a Gaussian of S px
    jpeg=Q      written as JPEG of quality Q (colours at half the extent, as Pillow's default has them) and read again
    mpp=F       a scanner of F times as many um per px, 0.5 to 2

One decision: what is drawn is a function of (seed, sample id), never of a worker's state, and of the strength only in scale: a
sample leans the same way at every strength, for every encoder, so that curves are smooth and differences are paired. Only `hed`
draws; the others are functions of the pixels. All of it happens to the pixels as the encoder is fed with them, so a px of `blur`
is a px there.

The two sides of mpp=1 are not alike, because a tile has nothing beyond its edge and none is invented. Above 1 the image is made
smaller by F and brought back: the same field, objects as large as before, their detail gone. Below 1 the part F of each side in
the middle is enlarged to the extent of all: objects 1/F as large, less of them in the field, no detail won.

Costs for a tile of 224 px on one core: grey 0.3 ms, hed 0.4, blur of 1 px 0.2 and of 4 px 2, jpeg 1.6, mpp 1 to 3.
"""

import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from PIL import Image

from raypath.data.permutation import derive_key
from raypath.data.stain import NUM_DRAWS, jitter_stain, stain_matrices
from raypath.data.views import uniform
from raypath.errors import BadInput

VERSION = 1  # raised by hand when equal inputs give other pixels: kept features of altered images carry it
_ALTERATIONS = 109  # keeps these keys apart from those of the plan, the views and the crops

Kind = Literal["grey", "hed", "blur", "jpeg", "mpp"]
KINDS: tuple[Kind, ...] = get_args(Kind)
_RANGES = {"hed": (0, 1), "blur": (0, 32), "jpeg": (1, 100), "mpp": (0.5, 2)}
_FROM_ABOVE_0 = ("hed", "blur")  # no jitter and no blur is no alteration, which has one name: the empty text


@dataclass(frozen=True)
class Alteration:
    """What is done to an image, and how much of it; the text form is `grey` or `kind=strength`."""

    kind: Kind
    strength: float | None = None
    """hed: 0 to 1; blur: sigma in px, up to 32; jpeg: quality 1 to 100; mpp: factor 0.5 to 2; grey: none."""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"expected one of {', '.join(KINDS)}")
        if self.kind == "grey":
            if self.strength is not None:
                raise ValueError("expected grey alone: it has no strength")
            return
        low, high = _RANGES[self.kind]
        starts_above = self.kind in _FROM_ABOVE_0
        if self.strength is None or not low <= self.strength <= high or (starts_above and self.strength == low):
            wanted = f"above {low} and at most {high}" if starts_above else f"{low} to {high}"
            raise ValueError(f"expected {self.kind}=NUMBER, {wanted}")
        if self.kind == "jpeg" and self.strength != int(self.strength):
            raise ValueError("expected a whole number as quality")

    def __str__(self) -> str:
        return self.kind if self.strength is None else f"{self.kind}={self.strength:g}"

    @property
    def is_in_place(self) -> bool:
        """Whether every pixel stays where it is, so that a mask still fits."""
        return self.kind != "mpp" or self.strength >= 1


def parse_alteration(text: str) -> Alteration | None:
    """The alteration of a text (`hed=0.05`, `grey`, `jpeg=30`); None for the empty text. Raises BadInput for any other."""
    if not text:
        return None
    kind, equals, number = text.partition("=")
    try:
        return Alteration(kind, float(number) if equals else None)
    except ValueError as error:
        raise BadInput(f"alteration={text!r}: {error}; e.g. hed=0.05, grey, jpeg=30") from None


def alter(images: np.ndarray, samples: Sequence[str], alteration: Alteration | None, *, seed: int = 0) -> np.ndarray:
    """uint8 [N, H, W, 3] of the samples with these N ids -> the same shape; None gives the images as they are."""
    if alteration is None:
        return images
    altered = np.empty_like(images)
    for made, image, sample in zip(altered, images, samples, strict=True):
        made[:] = alter_image(image, sample, alteration, seed=seed)
    return altered


def alter_image(image: np.ndarray, sample: str, alteration: Alteration, *, seed: int = 0) -> np.ndarray:
    """One image uint8 [H, W, 3] of the sample with this id -> the same shape."""
    strength = alteration.strength
    match alteration.kind:
        case "grey":
            return _grey(image)
        case "hed":
            return jitter_stain(image, stain_matrices(_draws(sample, seed), strength))
        case "blur":
            return _blurred(image, strength)
        case "jpeg":
            return _through_jpeg(image, int(strength))
        case "mpp":
            return _at_mpp(image, strength)


def _draws(sample: str, seed: int) -> np.ndarray:
    """Numbers in [0, 1) [6] that belong to a sample."""
    key = int.from_bytes(hashlib.sha256(sample.encode()).digest()[:8], "big")
    return uniform(derive_key(seed, _ALTERATIONS, np.uint64(key), np.arange(NUM_DRAWS)))


def _grey(image: np.ndarray) -> np.ndarray:
    """0.299 R + 0.587 G + 0.114 B (ITU-R BT.601, as Pillow's mode L), to the nearest level."""
    return np.asarray(Image.fromarray(image).convert("L").convert("RGB"))


def _blurred(image: np.ndarray, sigma_px: float) -> np.ndarray:
    """The edge is mirrored without repeating its pixel."""
    import cv2  # comes with albumentations, as in `stain`

    return cv2.GaussianBlur(np.ascontiguousarray(image), (0, 0), sigma_px, borderType=cv2.BORDER_REFLECT_101)


def _through_jpeg(image: np.ndarray, quality: int) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(image).save(file, format="JPEG", quality=quality)
    return np.asarray(Image.open(file).convert("RGB"))


def _at_mpp(image: np.ndarray, factor: float) -> np.ndarray:
    """Bicubic and antialiased where it shrinks, as images are read; the smaller extent is a whole number of px, at least 1."""
    picture = Image.fromarray(image)
    width, height = picture.size
    if factor >= 1:
        smaller = tuple(max(1, round(length / factor)) for length in picture.size)
        way_there = picture.resize(smaller, Image.Resampling.BICUBIC)
        return np.asarray(way_there.resize(picture.size, Image.Resampling.BICUBIC))
    left, top = (width * (1 - factor) / 2, height * (1 - factor) / 2)
    middle = (left, top, width - left, height - top)
    return np.asarray(picture.resize(picture.size, Image.Resampling.BICUBIC, box=middle))
