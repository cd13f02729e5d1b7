"""A slide on disk, and the pure geometry of its tiles.

What stands here knows OpenSlide and TIFF and nothing of Ray, MLflow or training. Importing it costs numpy, Pillow and
OpenSlide (0.1 s) and neither torch nor scipy, because every new slide is opened once in a disposable child process.
"""

from raypath.slides.check import SlideFacts, check_slide
from raypath.slides.handles import SlideHandles
from raypath.slides.slide import Slide
from raypath.slides.tiles import TileGrid, TileSpec, regions
from raypath.slides.tissue import tissue_fractions, tissue_mask

__all__ = [
    "Slide",
    "SlideFacts",
    "SlideHandles",
    "TileGrid",
    "TileSpec",
    "check_slide",
    "regions",
    "tissue_fractions",
    "tissue_mask",
]
