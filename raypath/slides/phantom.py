"""Phantoms: synthetic H&E slides with known classes, so that everything runs and is tested without real data.

A phantom is a tiled, JPEG-compressed, pyramidal TIFF in Aperio's form (OpenSlide: vendor aperio, 0.5 um/px, 20x) with a
class mask beside it. Its three tissues differ in texture and in the arrangement of their cells, never in colour, so a score
above chance has looked at structure; with `texture=False` even that is gone and every score must be chance. One decision:
every pixel follows from (seed, slide number, size), every stain from (seed, site) and (seed, patient); so the same call
writes the same bytes, whatever the number of workers or of slides. It costs about 1 s of one core per 1536x1536 px.
"""

import csv
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image

from raypath.errors import BadInput
from raypath.slides.phantom_outline import MASK_DOWNSAMPLE, Outline, draw_outline
from raypath.slides.phantom_stain import (
    Stain,
    add_camera_noise,
    blur_regions,
    draw_pen,
    draw_stain,
    fold_thickness,
    stain_tissue,
)
from raypath.slides.phantom_texture import ARRANGEMENTS, draw_arrangement, local_rank

CLASSES = ("background", *ARRANGEMENTS)  # the name of each mask value
MPP = 0.5
MANIFEST_NAME = "manifest.csv"
MANIFEST_COLUMNS = ("slide", "path", "patient", "site", "split")

_MIN_SIZE_PX = 512
_MIN_SLIDES = 3
_SITES = ("site-a", "site-b", "site-c")
_SPLIT_SHARES = {"train": 0.40, "test": 0.45, "val": 0.15}  # the first three patients take them in this order
_TILE_PX = 256
_JPEG_QUALITY = 90
_SMALLEST_LEVEL_PX = 128
_THUMBNAIL_PX = 256
_SLIDE_STREAM, _SITE_STREAM, _PATIENT_STREAM = 0, 1, 2  # keep the random numbers of slides, sites and patients apart


@dataclass(frozen=True)
class PhantomRow:
    """One line of the manifest; `number` and `patient_number` count from 1."""

    number: int
    patient_number: int
    site: str
    split: str

    @property
    def slide(self) -> str:
        """The slide's id."""
        return f"phantom-{self.number:04d}"

    @property
    def path(self) -> str:
        """The slide's file, relative to the manifest."""
        return f"{self.slide}.svs"

    @property
    def patient(self) -> str:
        """The patient's id."""
        return f"patient-{self.patient_number:04d}"


def write_phantoms(
    folder: Path,
    *,
    num_slides: int,
    size_px: int,
    seed: int,
    texture: bool = True,
    num_workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write `num_slides` phantoms of `size_px` x `size_px`, their class masks and the manifest; return its path.

    `progress(done, total)` is called after each slide. Splits go by patient (about 40 % train, 15 % val, 45 % test); every
    slide holds every class. The manifest is written last: without it a folder is unfinished. Raises BadInput for a size
    below 512 or not a multiple of 16, fewer than 3 slides, a negative seed or no worker.
    """
    if num_slides < _MIN_SLIDES:
        raise BadInput(f"num_slides={num_slides}: at least {_MIN_SLIDES}, one patient for each of train, val and test")
    if seed < 0 or num_workers < 1:
        raise BadInput(f"seed={seed}, num_workers={num_workers}: the seed must be 0 or more, num_workers 1 or more")
    _check_size(size_px)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    rows = phantom_rows(num_slides, seed=seed)
    write = partial(_write_phantom, folder=folder, size_px=size_px, seed=seed, texture=texture)
    for done, _ in enumerate(_each_done(write, rows, num_workers), start=1):
        if progress is not None:
            progress(done, num_slides)
    return _write_manifest(folder / MANIFEST_NAME, rows)


def draw_phantom(
    size_px: int, *, stain: Stain, rng: np.random.Generator, texture: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    """Draw one phantom: image uint8 [H, W, 3] and classes uint8 [H/16, W/16] with the values of CLASSES.

    `texture=False` draws every class in the same arrangement, inside the same outlines. Raises BadInput for a size below
    512 or not a multiple of 16.
    """
    _check_size(size_px)
    outline_rng, cells_rng, stain_rng, marks_rng, noise_rng = rng.spawn(5)
    outline = draw_outline(size_px, num_classes=len(ARRANGEMENTS), rng=outline_rng)
    rank = _draw_cells(outline, texture, cells_rng)
    is_tissue = (outline.regions > 0).astype(np.float32)
    thickness = fold_thickness(size_px, marks_rng)
    image = stain_tissue(rank, is_tissue, stain=stain, thickness=thickness, rng=stain_rng)
    blur_regions(image, marks_rng)
    draw_pen(image, marks_rng)
    return add_camera_noise(image, noise_rng), outline.mask()


def read_class_mask(slide_path: Path | str) -> np.ndarray:
    """The class mask beside a phantom, uint8 [h, w]: one value of CLASSES per 16x16 level-0 pixels.

    Raises BadInput when there is none.
    """
    path = _mask_path(Path(slide_path))
    if not path.is_file():
        raise BadInput(f"{path}: no class mask beside the slide; only slides made by write_phantoms have one")
    with Image.open(path) as image:
        return np.asarray(image)


def phantom_rows(num_slides: int, *, seed: int) -> list[PhantomRow]:
    """Who is who: fewer slides are a prefix of more. Patients have one slide or two; a split is dealt where it lacks most."""
    rows, dealt = [], dict.fromkeys(_SPLIT_SHARES, 0)
    patient_number = 0
    while len(rows) < num_slides:
        patient_number += 1
        slides_of_patient = 1 if patient_number <= 3 or patient_number % 2 else 2
        unmet = {split: (len(rows) + 1) * share - dealt[split] for split, share in _SPLIT_SHARES.items()}
        empty = [split for split in dealt if dealt[split] == 0]
        split = empty[0] if empty else max(unmet, key=unmet.get)
        site = _SITES[_generator(seed, _PATIENT_STREAM, patient_number).integers(len(_SITES))]
        dealt[split] += slides_of_patient
        rows += [PhantomRow(len(rows) + i + 1, patient_number, site, split) for i in range(slides_of_patient)]
    return rows[:num_slides]


def _draw_cells(outline: Outline, texture: bool, rng: np.random.Generator) -> np.ndarray:
    """Ranks float32 [H, W] of the whole slide, region by region; 0 outside the tissue."""
    rank = np.zeros(outline.regions.shape, np.float32)
    for region in range(1, len(outline.classes)):
        is_inside = outline.regions == region
        rows, columns = np.flatnonzero(is_inside.any(axis=1)), np.flatnonzero(is_inside.any(axis=0))
        if len(rows) == 0:
            continue
        box = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        name = CLASSES[outline.classes[region]] if texture else ARRANGEMENTS[-1]
        height = draw_arrangement(name, shape=is_inside[box].shape, rng=rng)
        rank[box] += local_rank(height, is_inside[box])
    return rank


def _write_phantom(row: PhantomRow, *, folder: Path, size_px: int, seed: int, texture: bool) -> None:
    stain = draw_stain(
        site_rng=_generator(seed, _SITE_STREAM, _SITES.index(row.site)),
        patient_rng=_generator(seed, _PATIENT_STREAM, row.patient_number),
    )
    rng = _generator(seed, _SLIDE_STREAM, row.number)
    image, classes = draw_phantom(size_px, stain=stain, rng=rng, texture=texture)
    path = folder / row.path
    Image.fromarray(classes).save(_mask_path(path))
    _write_aperio(path, image)


def _write_aperio(path: Path, image: np.ndarray) -> None:
    """A TIFF as OpenSlide's Aperio reader wants it: level 0, a thumbnail in strips, then the smaller levels in tiles."""
    size = f"{image.shape[1]}x{image.shape[0]}"
    form = f"{size} [0,0 {size}] ({_TILE_PX}x{_TILE_PX}) JPEG/RGB Q={_JPEG_QUALITY}"
    options = {
        "photometric": "rgb",  # tifffile converts to YCbCr for JPEG and says so in the file
        "subsampling": (1, 1),  # 4:2:0 would dull the colour of fine structures, so of some classes more than of others
        "compression": "jpeg",
        "compressionargs": {"level": _JPEG_QUALITY},
        "metadata": None,
        "software": False,
        "maxworkers": 1,
    }
    levels = [image]
    while min(levels[-1].shape[:2]) >= 2 * _SMALLEST_LEVEL_PX:
        levels.append(_halved(levels[-1]))
    thumbnail = Image.fromarray(levels[1])
    thumbnail.thumbnail((_THUMBNAIL_PX, _THUMBNAIL_PX))
    with tifffile.TiffWriter(path) as tiff:
        description = f"Aperio form, raypath phantom\r\n{form}|AppMag = 20|MPP = {MPP:.4f}"
        tiff.write(image, tile=(_TILE_PX, _TILE_PX), description=description, **options)
        tiff.write(np.asarray(thumbnail), description="Aperio form, raypath phantom\r\nthumbnail", **options)
        for level in levels[1:]:
            tiff.write(level, tile=(_TILE_PX, _TILE_PX), description=description, subfiletype=1, **options)


def _halved(image: np.ndarray) -> np.ndarray:
    """uint8 [H/2, W/2, 3]: the mean of 2x2 pixels; an odd last row or column is dropped."""
    return np.asarray(Image.fromarray(image[: len(image) // 2 * 2, : image.shape[1] // 2 * 2]).reduce(2))


def _write_manifest(path: Path, rows: list[PhantomRow]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(MANIFEST_COLUMNS)
        writer.writerows([getattr(row, column) for column in MANIFEST_COLUMNS] for row in rows)
    return path


def _each_done(write, rows, num_workers):
    """Call `write` on every row, here or in `num_workers` fresh processes, and yield as each is done."""
    if num_workers == 1:
        yield from map(write, rows)
        return
    with ProcessPoolExecutor(min(num_workers, len(rows)), mp_context=get_context("spawn")) as pool:
        for future in as_completed([pool.submit(write, row) for row in rows]):
            yield future.result()


def _generator(seed: int, stream: int, number: int) -> np.random.Generator:
    return np.random.default_rng((seed, stream, number))


def _mask_path(slide_path: Path) -> Path:
    return slide_path.with_name(f"{slide_path.stem}.classes.png")


def _check_size(size_px: int) -> None:
    if size_px < _MIN_SIZE_PX or size_px % MASK_DOWNSAMPLE:
        raise BadInput(f"size_px={size_px}: must be {_MIN_SIZE_PX} or more and a multiple of {MASK_DOWNSAMPLE}")
