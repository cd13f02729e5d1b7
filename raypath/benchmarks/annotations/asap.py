"""Annotations of ASAP as XML: polygons in groups (CAMELYON16 and 17).

    <ASAP_Annotations><Annotations>
      <Annotation Name="Annotation 0" Type="Polygon" PartOfGroup="Tumor" Color="#F4FA58">
        <Coordinates><Coordinate Order="0" X="1234.5" Y="678.9" /> ...

One decision: the group is the class. A ring is closed by the format (the last corner is joined to the first), and a Spline is the
polygon of its corners, as in ASAP's own conversion to masks (computationalpathologygroup/ASAP, annotation/AnnotationToMask.cpp).
CAMELYON16 has two spellings: "Tumor", "_0" and "_1" are metastases; "_2", and "Exclusion" in other files, are cut out of them
(conversion map _0: 1, _1: 1, _2: 0 of the organisers' example). CAMELYON17 says "metastases" and "normal".

The parser is SAX, so that every fault has its line; entities and external references are refused (defusedxml).
"""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from xml.sax import SAXException
from xml.sax.handler import ContentHandler

from defusedxml import DefusedXmlException, sax

from raypath.benchmarks.annotations.regions import Regions, ring_area
from raypath.errors import BadInput

TUMOUR_GROUPS = ("Tumor", "_0", "_1", "metastases")
HOLE_GROUPS = ("_2", "Exclusion", "normal")
AREA_TYPES = ("Polygon", "Spline", "Rectangle")


def read_asap(path: Path) -> Regions:
    """The regions of an ASAP file, by group.

    Dots, point sets and measurements are counted in `skipped`. Raises BadInput with file and line for what is no such file, for an
    annotation without group, and for a ring without area.
    """
    handler = _Handler(path)
    try:
        with Path(path).open("rb") as file:
            sax.parse(file, handler)
    except OSError as error:
        raise BadInput(f"{path}: cannot be read ({error}); expected an ASAP annotation (.xml)") from None
    except DefusedXmlException as error:
        raise BadInput(f"{path}: has entities or external references ({error}); ASAP writes none") from None
    except SAXException as error:
        line = getattr(error, "getLineNumber", lambda: "?")()
        raise BadInput(f"{path}: line {line}: is no XML ({error.getMessage()}); export it again") from None
    if not handler.is_asap:
        raise BadInput(f"{path}: has no <Annotations>; expected an annotation of ASAP")
    return Regions.of(_areas(handler), handler.skipped)


class _Handler(ContentHandler):
    """Collects the annotations: `found` holds (group, line, [(order, x, y), ...])."""

    def __init__(self, path: Path):
        super().__init__()
        self.path = path
        self.is_asap = False
        self.found: list[tuple[str, int, list[tuple[int, float, float]]]] = []
        self.skipped: Counter[str] = Counter()
        self._is_area = False

    def startElement(self, name: str, attrs) -> None:
        """Note an annotation, or a corner of the last one."""
        self.is_asap |= name == "Annotations"
        if name == "Annotation":
            self._is_area = attrs.get("Type", "Polygon") in AREA_TYPES
            if not self._is_area:
                self.skipped[attrs["Type"]] += 1
            elif attrs.get("PartOfGroup") is None:
                raise BadInput(f"{self._where}: an annotation without PartOfGroup; its group says its class")
            else:
                self.found.append((attrs["PartOfGroup"], self._line, []))
        elif name == "Coordinate" and self._is_area:
            self.found[-1][2].append(self._corner(attrs))

    def _corner(self, attrs) -> tuple[int, float, float]:
        try:
            return int(attrs["Order"]), float(attrs["X"]), float(attrs["Y"])
        except (KeyError, ValueError) as error:
            raise BadInput(
                f"{self._where}: a Coordinate needs the numbers Order, X and Y ({type(error).__name__}: {error})"
            ) from None

    @property
    def _line(self) -> int:
        return self._locator.getLineNumber()

    @property
    def _where(self) -> str:
        return f"{self.path}: line {self._line}"


def _areas(handler: _Handler) -> Iterator[tuple]:
    for group, line, corners in handler.found:
        where = f"{handler.path}: line {line}"
        corners.sort(key=lambda corner: corner[0])
        if [corner[0] for corner in corners] != list(range(len(corners))):
            raise BadInput(f"{where}: the Orders of its corners are not 0, 1, 2, ...; one is missing or there twice")
        yield group, *ring_area([corner[1:] for corner in corners], where)
