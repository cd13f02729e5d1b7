"""Opens one slide once, in a process that may die of it: `python -m raypath.slides.attempt PATH MPP LIMIT_S LIMIT_BYTES`.

The child of `check.check_slide`. A malformed header can make GLib abort the process, exhaust memory or loop; here, under
limits the process sets for itself before it touches the slide, that costs one slide. The one decision: it does only what is
dangerous (open, five places for one tile, a thumbnail) and writes one line of JSON, {"facts": ...} or {"error": ...}.
"""

import json
import resource
import sys

MAX_LEVEL_PX = 2**26  # 1 to 5 s of decoding; the only level of a large slide would take minutes


def main(arguments: list[str]) -> None:
    """Print the facts of a slide, or its error, as one line of JSON."""
    path, mpp, limit_s, limit_bytes = arguments
    resource.setrlimit(resource.RLIMIT_AS, (int(limit_bytes),) * 2)
    resource.setrlimit(resource.RLIMIT_CPU, (int(limit_s), int(limit_s) + 5))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

    from raypath.errors import SlideError

    try:
        print(json.dumps({"facts": attempt(path, float(mpp) if mpp else None)}))
    except SlideError as error:
        print(json.dumps({"error": type(error).__name__, "message": str(error)}))
    except MemoryError:
        message = (
            f"{path}: opening it needs more than {int(limit_bytes):,} B of memory; raise limit_bytes if that is sound"
        )
        print(json.dumps({"error": "SlideCrash", "message": message}))


def attempt(path: str, mpp: float | None) -> dict:
    """Open, read a tile and a thumbnail; the plain facts that only OpenSlide knows. Raises SlideError."""
    from raypath.slides.slide import Slide

    with Slide.open(path, mpp) as slide:
        _read_some_tile(slide)
        _read_small_level(slide)
        return {
            "vendor": slide.vendor,
            "size_l0": slide.size_l0,
            "mpp": slide.mpp,
            "mpp_source": slide.mpp_source,
            "objective_power": slide.objective_power,
            "level_downsamples": slide.level_downsamples,
        }


def _read_small_level(slide) -> None:
    """A thumbnail, where the pyramid makes it cheap."""
    width, height = slide.level_sizes[-1]
    if width * height <= MAX_LEVEL_PX:
        slide.thumbnail(slide.mpp * slide.level_downsamples[-1])


def _read_some_tile(slide) -> None:
    """One of five places must give pixels or be empty glass; a few corrupt tiles are no reason to refuse a slide."""
    from raypath.errors import TileCorrupt, TileMissing

    extent_l0 = max(1, min(256, min(slide.size_l0) // 8))
    width, height = (side - extent_l0 for side in slide.size_l0)
    for i, (x, y) in enumerate([(0.5, 0.5), (0.25, 0.25), (0.75, 0.25), (0.25, 0.75), (0.75, 0.75)]):
        try:
            slide.read(int(x * width), int(y * height), extent_l0, extent_l0)
            return
        except TileMissing:
            return
        except TileCorrupt:
            if i == 4:
                raise


if __name__ == "__main__":
    main(sys.argv[1:])
