"""The demo's data: phantom slides and their index, made once."""

import json
from pathlib import Path

from launch import say
from rich.progress import Progress

from raypath.data.indexing import make_index
from raypath.data.manifest import read_manifest
from raypath.run_folder import runs_root
from raypath.slides import TileSpec
from raypath.slides.phantom import write_phantoms

NUM_SLIDES, SIZE_PX = 44, 1152  # about 9,000 tiles of 30 patients, written in 20 s on two cores
TILES = TileSpec(extent_px=64, mpp=0.5, stride_px=64, min_tissue=0.5)


def phantom_slides(folder: Path, *, num_slides: int, size_px: int, seed: int, texture: bool = True) -> Path:
    """The manifest of phantom slides in `folder`, written now unless the very same are there."""
    wanted = {"num_slides": num_slides, "size_px": size_px, "seed": seed, "texture": texture}
    about, manifest = folder / "phantoms.json", folder / "manifest.csv"
    if manifest.exists() and about.exists() and json.loads(about.read_text()) == wanted:
        return manifest
    say(f"writing {num_slides} phantom slides of {size_px} px to {folder}")
    with Progress(transient=True) as bar:
        task = bar.add_task("phantoms", total=num_slides)
        write_phantoms(
            folder,
            **wanted,
            num_workers=2,
            progress=lambda done, total: bar.update(task, completed=done),
        )
    about.write_text(json.dumps(wanted) + "\n")
    return manifest


def demo_folder(seed: int, *, texture: bool = True) -> Path:
    """Where the demo's phantoms of a seed lie; their index is in `index` below."""
    return runs_root() / "demo" / f"phantoms-{seed}{'' if texture else '-no-texture'}"


def demo_slides(seed: int, *, texture: bool = True) -> Path:
    """The manifest of the demo's phantoms."""
    folder = demo_folder(seed, texture=texture)
    return phantom_slides(folder, num_slides=NUM_SLIDES, size_px=SIZE_PX, seed=seed, texture=texture)


def phantom_index(manifest: Path) -> Path:
    """The folder of the index beside a manifest of phantoms; parts that are there already are taken as they are."""
    folder = manifest.parent / "index"
    index, _ = make_index(read_manifest(manifest), TILES, folder)
    say(f"indexed {len(index)} slides, {index.num_tiles.sum()} tiles of {TILES.extent_px} px at {TILES.mpp} um per px")
    return folder
