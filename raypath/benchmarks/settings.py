"""Which benchmark, as settings: one dataclass per kind, beside the table of loaders.

One decision: the path is not part of a result's identity; what is in the files is, through the benchmark's data hash.
"""

from dataclasses import dataclass, field
from typing import Literal, Union

from raypath.benchmarks.benchmark import Benchmark
from raypath.benchmarks.from_slides.annotated import AnnotatedSettings
from raypath.benchmarks.from_slides.pcam200 import PCam200Settings
from raypath.benchmarks.from_slides.ptcga200 import PTCGA200Settings
from raypath.benchmarks.from_slides.segpanda200 import SegPANDA200Settings
from raypath.benchmarks.from_slides.spots import SpotsSettings
from raypath.benchmarks.images import load_images
from raypath.benchmarks.masks import MasksSettings
from raypath.benchmarks.phantoms import load_phantoms
from raypath.benchmarks.published.bach import BACHSettings
from raypath.benchmarks.published.breakhis import BreaKHisSettings
from raypath.benchmarks.published.chaoyang import ChaoyangSettings
from raypath.benchmarks.published.glas import GlaSSettings
from raypath.benchmarks.published.janowczyk1 import Janowczyk1Settings
from raypath.benchmarks.published.janowczyk2 import Janowczyk2Settings
from raypath.benchmarks.published.janowczyk5 import Janowczyk5Settings
from raypath.benchmarks.published.janowczyk6 import Janowczyk6Settings
from raypath.benchmarks.published.janowczyk7 import Janowczyk7Settings
from raypath.benchmarks.published.kather2016 import Kather2016Settings
from raypath.benchmarks.published.lc25000 import LC25000Settings
from raypath.benchmarks.published.mhist import MHISTSettings
from raypath.benchmarks.published.mitos_atypia import MitosAtypiaSettings
from raypath.benchmarks.published.monuseg import MoNuSegSettings
from raypath.benchmarks.published.nct_crc import NCTCRCSettings
from raypath.benchmarks.published.pannuke import PanNukeSettings
from raypath.benchmarks.published.pcam import PCamSettings
from raypath.benchmarks.published.pcam200_tiles import PCam200TilesSettings
from raypath.benchmarks.published.ptcga200_tiles import PTCGA200TilesSettings
from raypath.benchmarks.published.segpanda200_tiles import SegPANDA200TilesSettings
from raypath.benchmarks.published.stroma_lbp import StromaLBPSettings
from raypath.benchmarks.published.tupac import TUPACSettings
from raypath.benchmarks.published.warwick_crc import WarwickCRCSettings
from raypath.benchmarks.splits.making import SplitSettings
from raypath.config import setting
from raypath.errors import BadInput


@dataclass(frozen=True, kw_only=True)
class ImagesSettings:
    """Any folder of class folders, or a manifest of labelled images."""

    kind: Literal["images"] = "images"
    path: str = setting("", identity=False)
    name: str | None = setting(None, identity=False)
    mpp: float | None = None
    """um per px of the images; null: nobody knows."""
    label: str = "label"
    """The manifest's column that holds the classes."""
    drop_classes: tuple[str, ...] = ()
    grades: tuple[str, ...] = ()
    """The classes from the lowest to the highest, where they are grades: the primary metric is then quadratic weighted kappa."""
    ignore_split: bool = False
    split: SplitSettings = field(default_factory=SplitSettings)

    def load(self, seed: int) -> Benchmark:
        """Read the manifest or folder; raises BadInput for what is wrong with it."""
        return load_images(
            _required(self.path),
            name=self.name,
            mpp=self.mpp,
            label=self.label,
            seed=seed,
            drop_classes=self.drop_classes,
            grades=self.grades,
            ignore_split=self.ignore_split,
            split=self.split,
        )


@dataclass(frozen=True, kw_only=True)
class PhantomsSettings:
    """Tiles of phantom slides, labelled by their class masks."""

    kind: Literal["phantoms"] = "phantoms"
    path: str = setting("", identity=False)
    extent_px: int = 64
    mpp: float = 0.5
    max_per_class_and_slide: int | None = None

    def load(self, seed: int) -> Benchmark:
        """Cut the slides of the phantom folder into labelled tiles."""
        return load_phantoms(
            _required(self.path),
            extent_px=self.extent_px,
            mpp=self.mpp,
            max_per_class_and_slide=self.max_per_class_and_slide,
            seed=seed,
        )


# settings -> benchmark; a new kind is one file and one line
KINDS = (
    ImagesSettings,
    PhantomsSettings,
    MasksSettings,
    PCamSettings,
    GlaSSettings,
    Janowczyk1Settings,
    Janowczyk2Settings,
    Janowczyk5Settings,
    Janowczyk6Settings,
    Janowczyk7Settings,
    StromaLBPSettings,
    NCTCRCSettings,
    Kather2016Settings,
    BreaKHisSettings,
    BACHSettings,
    LC25000Settings,
    MHISTSettings,
    ChaoyangSettings,
    PTCGA200TilesSettings,
    PTCGA200Settings,
    PCam200TilesSettings,
    PCam200Settings,
    SegPANDA200TilesSettings,
    SegPANDA200Settings,
    PanNukeSettings,
    MoNuSegSettings,
    MitosAtypiaSettings,
    WarwickCRCSettings,
    TUPACSettings,
    SpotsSettings,
    AnnotatedSettings,
)
BenchmarkSettings = Union[KINDS]  # noqa: UP007 - the members come from the table


def _required(path: str) -> str:
    if not path:
        raise BadInput(
            "benchmark.path: which labelled set? e.g. benchmark.path=../data/my_set (class folders or a manifest.csv)"
        )
    return path
