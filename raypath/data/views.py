"""Views: random crops, flips, stain and colour jitter, blur and solarisation of uint8 tiles, on the CPU.

One decision: a view is a function of (seed, position, view number), never of a worker's state, so any worker makes the same
view and a resumed run sees the same pixels. albumentations runs on uint8 (an order faster than float32 or PIL) and is imported
nowhere else: 2.0.8 is its last MIT release. All its transforms share one generator here, because its own seeding gives every
transform the same stream, and then all coins of a view fall alike (a horizontal flip would always come with a vertical one).

Costs 0.2 ms per view of 64 px, 0.9 ms of 224 px; stain jitter 0.1 ms more for 224 px.
"""

import os
import random
from dataclasses import dataclass
from typing import Literal

import numpy as np

from raypath.data.permutation import derive_key
from raypath.data.stain import NUM_DRAWS, jitter_stain, stain_matrices

os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"  # else it asks the package registry for news at every import

# keep these keys apart from those of the plan, of each other, of `views_torch` and of `crops`
_VIEWS, _STAIN, _COLOURS = 101, 103, 106
_FIRST_LOCAL = 1 << 20  # view number of the first local view: behind all global ones, however many there are
_FROM_0_TO_1 = (
    *("brightness", "contrast", "saturation", "hue", "stain"),
    *("jitter_p", "gray_p", "local_blur_p", "vertical_flip_p"),
)


@dataclass(frozen=True, kw_only=True)
class ViewSettings:
    """The SimCLR family of augmentations; defaults as in RECIPES 1.3 (MoCo v2), plus vertical flips: tissue has no up."""

    extent_px: int = 224
    num_views: int = 2
    min_scale: float = 0.2
    """Least share of the tile's area that a crop keeps."""
    max_scale: float = 1.0
    """Largest share; with both at 1 nothing is cropped: the whole tile is resized."""
    vertical_flip_p: float = 0.5
    """Horizontal flips always have 0.5."""
    stain: float = 0.0
    """Strength of the stain jitter (see the module `stain`): 0.1 looks like another laboratory; white loses 52 levels at most."""
    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.4
    hue: float = 0.1
    jitter_p: float = 0.8
    gray_p: float = 0.2
    blur_p: float | tuple[float, ...] = 0.5
    """One chance for all views, or one for each: BYOL and DINO treat their two views differently."""
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    solarize_p: float | tuple[float, ...] = 0.0
    """Chance that levels from 128 on are turned into 255 less themselves; for all views or for each."""
    num_local_views: int = 0
    """Small views of small crops, in addition (multi-crop); all but `solarize_p` applies to them too."""
    local_px: int = 96
    local_scale: tuple[float, float] = (0.05, 0.4)
    local_blur_p: float = 0.5
    where: Literal["cpu", "gpu"] = "cpu"
    """gpu: tiles travel whole and `views_torch` makes the views on the device (other random numbers, the same family)."""

    def __post_init__(self):
        if self.extent_px < 1 or self.num_views < 1:
            raise ValueError(f"extent_px={self.extent_px}, num_views={self.num_views}: expected 1 or more")
        if self.local_px < 1 or self.num_local_views < 0:
            raise ValueError(
                f"local_px={self.local_px}, num_local_views={self.num_local_views}: expected 1 or more, and 0 or more"
            )
        for text, lowest, highest in (
            (f"min_scale={self.min_scale}, max_scale={self.max_scale}", self.min_scale, self.max_scale),
            (f"local_scale={list(self.local_scale)}", *self.local_scale),
        ):
            if not 0 < lowest <= highest <= 1:
                raise ValueError(f"{text}: expected [lowest, highest], above 0 and at most 1")
        for name in ("blur_p", "solarize_p"):
            value = getattr(self, name)
            if isinstance(value, tuple) and len(value) != self.num_views:
                raise ValueError(
                    f"{name}={list(value)}: expected one number, or one for each of {self.num_views} views"
                )
            if not all(0 <= chance <= 1 for chance in self._each(value)):
                raise ValueError(f"{name}={value}: expected 0 to 1")
        for name in _FROM_0_TO_1:
            high = 0.5 if name == "hue" else 1
            if not 0 <= getattr(self, name) <= high:
                raise ValueError(f"{name}={getattr(self, name)}: expected 0 to {high}")
        if not 0 <= self.blur_sigma[0] <= self.blur_sigma[1]:
            raise ValueError(f"blur_sigma={list(self.blur_sigma)}: expected [lowest, highest], 0 or more")

    @property
    def global_views(self) -> "ViewGroup":
        """What the views of a tile are made with."""
        chances = tuple(zip(self._each(self.blur_p), self._each(self.solarize_p)))
        return ViewGroup(0, self.extent_px, (self.min_scale, self.max_scale), chances)

    @property
    def local_views(self) -> "ViewGroup":
        """What the local views of a tile are made with."""
        chances = ((self.local_blur_p, 0.0),) * self.num_local_views
        return ViewGroup(_FIRST_LOCAL, self.local_px, self.local_scale, chances)

    def _each(self, chance: float | tuple[float, ...]) -> tuple[float, ...]:
        return chance if isinstance(chance, tuple) else (chance,) * self.num_views


def mpp_of_views(settings: ViewSettings, finest_mpp: float, coarsest_mpp: float, tile_px: int) -> tuple[float, float]:
    """The finest and the coarsest um per px of the global views of tiles of `tile_px`, whose own um per px are given.

    A crop of the share s of a tile's area, resized to `extent_px`, has sqrt(s) tile_px / extent_px of the tile's um per px; of a
    crop that is not square that is the geometric mean of its two directions.
    """
    factors = [share**0.5 * tile_px / settings.extent_px for share in (settings.min_scale, settings.max_scale)]
    return finest_mpp * factors[0], coarsest_mpp * factors[1]


@dataclass(frozen=True)
class ViewGroup:
    """Views of one extent and one range of crops: the global ones of a tile, or its local ones."""

    first: int
    """View number of the first; the others follow."""
    extent_px: int
    scale: tuple[float, float]
    """Least and largest share of the tile's area that a crop keeps."""
    chances: tuple[tuple[float, float], ...]
    """(Of blur, of solarisation) for each view."""

    @property
    def numbers(self) -> np.ndarray:
        """The view numbers int64 [V]."""
        return self.first + np.arange(len(self.chances))

    @property
    def is_whole(self) -> bool:
        """Whether views show the whole tile: no crop is drawn."""
        return self.scale == (1, 1)


class Views:
    """Makes the views of a block of tiles."""

    def __init__(self, settings: ViewSettings, seed: int):
        self.settings = settings
        self.seed = seed
        self._global = settings.global_views, _pipelines(settings, settings.global_views)
        self._local = settings.local_views, _pipelines(settings, settings.local_views)

    def __call__(self, images: np.ndarray, positions: np.ndarray) -> np.ndarray:
        """uint8 [N, H, W, 3] at positions [N] -> uint8 [N, V, extent_px, extent_px, 3]."""
        return self._make(images, positions, *self._global)

    def local(self, images: np.ndarray, positions: np.ndarray) -> np.ndarray:
        """uint8 [N, H, W, 3] at positions [N] -> uint8 [N, L, local_px, local_px, 3]."""
        return self._make(images, positions, *self._local)

    def replace_images(self, rows: dict[str, np.ndarray]) -> None:
        """Put `views`, and `local_views` where there are some, in the place of the rows' `image`; needs `position`."""
        images, positions = rows.pop("image"), rows["position"]
        rows["views"] = self(images, positions)
        if self.settings.num_local_views:
            rows["local_views"] = self.local(images, positions)

    def _make(self, images: np.ndarray, positions: np.ndarray, group: ViewGroup, pipelines: list) -> np.ndarray:
        shape = (len(images), len(pipelines), group.extent_px, group.extent_px, 3)
        views = np.empty(shape, np.uint8)
        keys = derive_key(self.seed, _VIEWS, positions[:, None], group.numbers)
        stains = self._stains(positions, group.numbers) if self.settings.stain else np.full(shape[:2], None)
        for image, own, *rows in zip(images, views, keys.tolist(), stains):
            image = _squeezed(image, group.extent_px) if group.is_whole else image
            for number, (pipeline, key, stain) in enumerate(zip(pipelines, *rows)):
                own[number] = _one(image, pipeline, key, stain)
        return views

    def _stains(self, positions: np.ndarray, numbers: np.ndarray) -> np.ndarray:
        keys = derive_key(self.seed, _STAIN, positions[:, None, None], numbers[:, None], np.arange(NUM_DRAWS))
        return stain_matrices(uniform(keys), self.settings.stain)  # [N, V, 3, 4]


class Colours:
    """The colours of a view and nothing else: for images whose pixels must stay where their mask has them.

    Of the settings, what concerns place and extent says nothing here, nor do the chances of further views.
    """

    def __init__(self, settings: ViewSettings, seed: int):
        import albumentations as A

        group = settings.global_views
        self.settings, self.seed = settings, seed
        self._pipeline = A.Compose([A.NoOp()]), _build(settings, group, *group.chances[0])[1]

    def __call__(self, images: np.ndarray, positions: np.ndarray) -> np.ndarray:
        """uint8 [N, H, W, 3] at positions [N] -> the same shape, each image by the keys of its position."""
        keys = derive_key(self.seed, _COLOURS, positions).tolist()
        stains = [None] * len(keys)
        if self.settings.stain:
            draws = derive_key(self.seed, _COLOURS, positions[:, None], 1 + np.arange(NUM_DRAWS))
            stains = stain_matrices(uniform(draws), self.settings.stain)
        return np.stack([_one(*row) for row in zip(images, [self._pipeline] * len(keys), keys, stains)])


def uniform(keys: np.ndarray) -> np.ndarray:
    """Numbers in [0, 1), float32, of the shape of the uint64 `keys`."""
    return (keys >> np.uint64(40)).astype(np.float32) / np.float32(1 << 24)


def _pipelines(settings: ViewSettings, group: ViewGroup) -> list[tuple]:
    """For each view of the group: what is done before the stain jitter, and after it."""
    made = {chances: _build(settings, group, *chances) for chances in set(group.chances)}
    return [made[chances] for chances in group.chances]


def _build(settings: ViewSettings, group: ViewGroup, blur_p: float, solarize_p: float) -> tuple:
    import albumentations as A

    size = (group.extent_px, group.extent_px)
    geometry = [
        A.RandomResizedCrop(size=size, scale=group.scale, area_for_downscale="image"),
        A.HorizontalFlip(p=0.5),
        A.VerticalFlip(p=settings.vertical_flip_p),
    ]
    colours = [
        A.ColorJitter(
            brightness=settings.brightness,
            contrast=settings.contrast,
            saturation=settings.saturation,
            hue=settings.hue,
            p=settings.jitter_p,
        ),
        A.ToGray(p=settings.gray_p),
        A.GaussianBlur(sigma_limit=settings.blur_sigma, p=blur_p),
    ]
    if solarize_p:
        colours.append(A.Solarize(threshold_range=(0.5, 0.5), p=solarize_p))  # of 255: levels from 128 on
    return A.Compose(geometry), A.Compose(colours)


def _one(image: np.ndarray, pipeline: tuple, key: int, stain: np.ndarray | None) -> np.ndarray:
    random_numbers = np.random.Generator(np.random.SFC64(key)), random.Random(key)
    for steps in pipeline:
        steps.set_random_state(*random_numbers)
    geometry, colours = pipeline
    view = geometry(image=image)["image"]
    if stain is not None:
        view = jitter_stain(view, stain)
    return colours(image=view, force_apply=True)["image"]  # the force draws no coin for "all of them"; each has its own


def _squeezed(image: np.ndarray, extent_px: int) -> np.ndarray:
    """A tile that is not square, resized to one that is: of that, a crop of all its area takes nothing away."""
    import cv2

    height, width = image.shape[:2]
    if height == width:
        return image
    way = cv2.INTER_AREA if min(height, width) > extent_px else cv2.INTER_LINEAR
    return cv2.resize(image, (extent_px, extent_px), interpolation=way)
