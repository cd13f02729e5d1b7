"""The command `raypath`: what a person does at a terminal around the experiments.

One decision: a command reads its arguments, calls one function of the package and says what to do next; whatever goes wrong
on the way is one line and the exit code of its error, never a traceback. Commands import what they need when they are run, so
that `raypath --help` answers in half a second although Ray takes three.
"""

import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress
from typer.core import TyperGroup

from raypath.errors import BadInput, RaypathError, SlideError

# Before any import of Ray, which warns of a change to come otherwise.
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")

console = Console(highlight=False)


class PlainErrors(TyperGroup):
    """Ends every command's error with one line on stderr and its exit code."""

    def invoke(self, context: typer.Context):
        """Run the command; RaypathError and OSError (a full disk, no permission) become a line."""
        try:
            return super().invoke(context)
        except (RaypathError, OSError) as error:
            message = f"{type(error).__name__}: {error}"
            Console(stderr=True, highlight=False, soft_wrap=True).print(message, markup=False)
            raise typer.Exit(getattr(error, "exit_code", 1)) from None


app = typer.Typer(
    cls=PlainErrors,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_show_locals=False,
    rich_markup_mode=None,
)


@app.callback()
def _about() -> None:
    """Experiments in computational pathology on Ray: from whole-slide images to verdicts."""


def say(text: str) -> None:
    """A line for the person who waits, whole, however narrow the terminal."""
    console.print(text, markup=False, soft_wrap=True)


@app.command()
def phantoms(
    folder: Annotated[Path, typer.Argument(help="Where the slides and their manifest go.")],
    slides: Annotated[int, typer.Option(help="How many slides, at least 3.")] = 12,
    size: Annotated[int, typer.Option(help="Side length in pixels at 0.5 um, at least 512, a multiple of 16.")] = 1536,
    seed: Annotated[int, typer.Option(help="The same seed writes the same bytes.")] = 0,
    texture: Annotated[bool, typer.Option(help="Without texture every score must be chance.")] = True,
) -> None:
    """Write synthetic slides with known classes, to try everything without real data."""
    from raypath.slides.phantom import write_phantoms

    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("phantoms", total=slides)
        manifest = write_phantoms(
            folder,
            num_slides=slides,
            size_px=size,
            seed=seed,
            texture=texture,
            num_workers=min(os.cpu_count() or 1, slides) if slides > 3 else 1,
            progress=lambda done, total: bar.update(task, completed=done),
        )
    say(f"{slides} slides; their manifest: {manifest}")
    say(f"next: raypath index {manifest} --out {folder / 'index'} --extent-px 64")


@app.command()
def check(
    paths: Annotated[list[Path], typer.Argument(help="Slides, folders of slides, or manifests (CSV, Parquet).")],
) -> None:
    """Say of every slide whether it is sound, or why not; exit code 2 if any is bad."""
    from raypath.slides import check_slide

    def line(found: tuple[str, float | None]) -> tuple[bool, str]:
        path, mpp = found
        try:
            facts = check_slide(path, mpp)
        except SlideError as error:
            return False, f"bad    {type(error).__name__}: {error}"
        size = f"{facts.size_l0[0]:,} x {facts.size_l0[1]:,} px"
        levels = ", ".join(f"{d:.4g}" for d in facts.level_downsamples)
        return True, f"sound  {path}: {size}, {facts.mpp:.4g} um per px ({facts.mpp_source}), levels {levels}"

    found = [pair for path in paths for pair in _slides_at(path)]
    num_bad = 0
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:  # each waits for a child process
        for is_sound, text in pool.map(line, found):
            num_bad += not is_sound
            say(text)
    if not num_bad:
        say(f"all {len(found)} slide(s) are sound")
    else:
        raise BadInput(f"{num_bad} of {len(found)} slide(s) are bad; raypath index sets them aside by the same reasons")


def _slides_at(path: Path) -> list[tuple[str, float | None]]:
    """(path, mpp) of the slides of a folder or a manifest, or of the slide itself."""
    from raypath.data.manifest import read_manifest
    from raypath.data.staging import local_path

    if path.is_dir() or path.suffix in (".csv", ".parquet"):
        return [(local_path(row.path), row.mpp) for row in read_manifest(path)]
    return [(str(path), None)]


@app.command()
def index(
    manifest: Annotated[
        Path, typer.Argument(help="CSV or Parquet with columns slide, path, ..., or a folder of slides.")
    ],
    out: Annotated[Path, typer.Option(help="The folder of the index.")],
    extent_px: Annotated[int, typer.Option(help="Side length of a tile in pixels.")] = 256,
    mpp: Annotated[float, typer.Option(help="Micrometres per pixel of the tiles.")] = 0.5,
    stride_px: Annotated[int | None, typer.Option(help="Distance between tiles in pixels; else extent-px.")] = None,
    min_tissue: Annotated[float, typer.Option(help="Least share of tissue in a tile, 0 to 1.")] = 0.5,
    max_upsample: Annotated[float, typer.Option(help="How much coarser than mpp a slide may be.")] = 1.3,
    max_bad_share: Annotated[
        float, typer.Option(help="Share of slides that may be set aside; else exit code 3.")
    ] = 0.1,
) -> None:
    """Find the tissue and the tiles of every slide; bad slides are set aside with their reason."""
    from raypath.index_job import IndexSettings, index_manifest

    settings = IndexSettings(
        out=str(out),
        extent_px=extent_px,
        mpp=mpp,
        stride_px=stride_px,
        min_tissue=min_tissue,
        max_upsample=max_upsample,
        max_bad_share=max_bad_share,
    )
    index_manifest(manifest, settings, console, _start_ray)


@app.command()
def embed(
    source: Annotated[
        Path, typer.Argument(metavar="SLIDES", help="A manifest, a folder of slides, or the folder of an index.")
    ],
    encoder: Annotated[
        str, typer.Option(help="runs/ID, an export's folder, imagenet:ARCH, ARCH@FILE, random:LIKE or colour.")
    ],
    out: Annotated[Path, typer.Option(help="The folder of the files of features.")],
    layout: Annotated[str, typer.Option(help="Who reads them: trident, clam or stamp.")] = "trident",
    extent_px: Annotated[int | None, typer.Option(help="Side length of a tile; else the encoder's.")] = None,
    mpp: Annotated[float | None, typer.Option(help="um per px of the tiles; else the encoder's.")] = None,
    stride_px: Annotated[int | None, typer.Option(help="Distance between tiles in pixels; else extent-px.")] = None,
    min_tissue: Annotated[float | None, typer.Option(help="Least share of tissue; else the index's, or 0.5.")] = None,
    max_upsample: Annotated[
        float | None, typer.Option(help="How much coarser than mpp a slide may be; else the index's, or 1.3.")
    ] = None,
    max_bad_share: Annotated[
        float, typer.Option(help="Share of slides that may be set aside; else exit code 3.")
    ] = 0.1,
    seed: Annotated[int, typer.Option(help="Of an encoder with random weights.")] = 0,
) -> None:
    """Write the features of every tile of every slide, one HDF5 file a slide, for CLAM, TRIDENT or STAMP."""
    from raypath.embed_job import EmbedSettings, embed_slides

    settings = EmbedSettings(
        encoder=encoder,
        out=str(out),
        layout=layout,
        extent_px=extent_px,
        mpp=mpp,
        stride_px=stride_px,
        min_tissue=min_tissue,
        max_upsample=max_upsample,
        max_bad_share=max_bad_share,
        seed=seed,
    )
    embed_slides(source, settings, console, _start_ray)


def _start_ray() -> None:
    from raypath.cluster import join_or_start  # Ray takes a second to import: only for the commands that need it

    join_or_start(say)


@app.command()
def audit(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A labelled set, or a folder of such sets.")],
) -> None:
    """Say which labelled set a folder is, what it holds, and what is wrong with it; exit code 2 if it cannot be used."""
    from raypath.benchmarks.audit import audit as audited
    from raypath.benchmarks.audit import report, sets_in

    places, others = sets_in(folder)
    found = []
    for place in places:
        with console.status(f"reading {place}"):
            found += audited(place)
    for part in (part for one in found for part in [*report(one), ""]):
        say(part) if isinstance(part, str) else console.print(part)
    if others:
        say(
            f"passed over, as neither a published set nor one with a manifest: {', '.join(path.name for path in others)}"
        )
    num_bad = sum(bool(one.fault) for one in found)
    if num_bad:
        raise BadInput(f"{num_bad} of {len(found)} set(s) cannot be used, for the reasons above")


@app.command()
def tasks() -> None:
    """List the 22 tasks of Mormont et al. 2020: what each is, its sizes, and which of them anybody can have."""
    from raypath.benchmarks.pool22 import TASKS, description

    for task in TASKS:
        say(description(task))


@app.command()
def preview(
    folder: Annotated[Path, typer.Argument(metavar="INDEX", help="The folder of an index.")],
    slides: Annotated[int, typer.Option(help="At most so many slides, evenly over the index.")] = 24,
    tiles: Annotated[int, typer.Option(help="How many tiles on the sheet.")] = 64,
    seed: Annotated[int, typer.Option(help="Another seed draws other tiles.")] = 0,
) -> None:
    """Draw the slides with their kept tiles, a sheet of tiles, and what was set aside."""
    from raypath.data.index import Index
    from raypath.data.preview import write_previews

    started = time.monotonic()
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("pictures", total=None)
        pictures = write_previews(
            Index(folder),
            num_slides=slides,
            num_tiles=tiles,
            seed=seed,
            progress=lambda done, total, name: bar.update(task, completed=done, total=total, description=name),
        )
    say(f"pictures in {pictures} ({time.monotonic() - started:.0f} s)")


@app.command()
def export(
    source: Annotated[Path, typer.Argument(metavar="RUN", help="runs/ID, or an encoder.safetensors.")],
    to: Annotated[Path, typer.Option(help="The folder of the export: new, empty, or an earlier export.")],
    copy: Annotated[str, typer.Option(help="last checkpoint, or the monitor's best.")] = "last",
    license_name: Annotated[
        str, typer.Option("--license", help="The licence of the weights, for the card.")
    ] = "not stated",
) -> None:
    """Write an encoder as plain timm loads it, with a model card."""
    from raypath.export_job import export as export_to

    say(export_to(source, to, copy=copy, license_name=license_name))
    say(f'next: timm.create_model("local-dir:{to}", pretrained=True); the card is {to / "README.md"}')


@app.command("import")
def import_(
    file: Annotated[Path, typer.Argument(help="Weights of another project: .safetensors, .pth, .npz, ...")],
    architecture: Annotated[str, typer.Option(help="The model name of timm that they are for.")],
    to: Annotated[Path, typer.Option(help="The folder of the encoder: new, empty, or an earlier import.")],
    options: Annotated[str, typer.Option(help='Arguments of timm\'s constructor as JSON, e.g. {"depth": 6}.')] = "{}",
    input_px: Annotated[int | None, typer.Option(help="Extent of its tiles; else that of timm's weights.")] = None,
    mpp: Annotated[float | None, typer.Option(help="um per px of the tiles it is made for, if known.")] = None,
    mean: Annotated[str | None, typer.Option(help="r,g,b in 0..1; else as its authors train, else timm's.")] = None,
    std: Annotated[str | None, typer.Option(help="r,g,b in 0..1; as mean.")] = None,
    layout: Annotated[str, typer.Option(help="auto, or how the file names its tensors.")] = "auto",
    copy: Annotated[str | None, typer.Option(help="Another copy: momentum, student, ...")] = None,
    prefix: Annotated[str, typer.Option(help="Where the encoder's names begin, inside another model.")] = "",
) -> None:
    """Bring weights of another project in, whole or not at all, with a report on every tensor."""
    from raypath.import_job import import_encoder, settings_from_text

    settings = settings_from_text(architecture, options, input_px=input_px, mpp=mpp, mean=mean, std=std)
    path, coverage, fed_with = import_encoder(file, to, settings, layout=layout, copy=copy, prefix=prefix)
    say(str(coverage))
    say(fed_with)
    say(f"next: encoder={path}")


@app.command()
def report(
    study: Annotated[Path, typer.Argument(metavar="STUDY", help="The folder of a study, runs/studies/NAME.")],
) -> None:
    """Make the report and tables of a study anew, from its saved predictions alone."""
    from raypath.study.study_report import write_report

    say(f"report {write_report(study)}")


@app.command()
def diff(
    first: Annotated[Path, typer.Argument(metavar="RUN", help="runs/ID, or a cell of a study.")],
    second: Annotated[Path, typer.Argument(metavar="RUN", help="The other one.")],
) -> None:
    """Say what differs between two runs, and whether their scores differ by more than noise."""
    from raypath.study.diff import diff_runs

    found = diff_runs(first, second)
    for head, lines in (
        ("settings", found.settings),
        ("made of", found.facts),
        ("scores", [s.words for s in found.scores]),
    ):
        say(f"{head}: {'the same' if not lines and head != 'scores' else ''}".rstrip())
        for line in lines:
            say(f"  {line}")
    for note in found.notes:
        say(note)
