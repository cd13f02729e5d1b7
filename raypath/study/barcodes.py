"""TCGA barcodes: which patient of The Cancer Genome Atlas a slide, a file or a cell of a manifest speaks of.

    TCGA-CR-7395-01A-01-TS1   project, site, participant, sample type with its vial, portion, slide
    TCGA-CR-7395              the case: one patient, whatever was cut from the tumour and whoever scanned it

One decision: only what has the published form is a barcode. Letters may be small and it may stand anywhere in a name, but not in
the middle of a longer word, so that no hash and no running number becomes a patient; the rest of the name is nobody's business.

Costs one regular expression per name. Source of the form: National Cancer Institute, GDC documentation, "TCGA Barcode"
(docs.gdc.cancer.gov/Encyclopedia/pages/TCGA_Barcode): site two letters or digits, participant four, sample type two digits and a
vial letter, portion two digits (followed by an analyte letter, or for a slide by TS, MS, BS or DX and its number or letter).
"""

import re
from dataclasses import dataclass

_BARCODE = re.compile(
    r"(?<![A-Z0-9])TCGA-(?P<site>[A-Z0-9]{2})-(?P<participant>[A-Z0-9]{4})"
    r"(?:-(?P<sample_type>\d{2})(?P<vial>[A-Z])?(?:-(?P<portion>\d{2})(?:-(?P<slide>(?:TS|MS|BS|DX)[A-Z0-9]?)|[A-Z])?)?)?"
    r"(?![A-Z0-9])",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Barcode:
    """What a barcode says, in capitals; None for what it does not reach down to."""

    site: str
    """Tissue source site, two characters: a hospital and one of its studies."""
    participant: str
    sample_type: str | None = None
    """Two digits: 01 to 09 tumour, 10 to 19 normal."""
    vial: str | None = None
    portion: str | None = None
    slide: str | None = None
    """TS, MS or BS (frozen: top, middle, bottom), DX (diagnostic, paraffin), with its number or letter."""

    @property
    def case(self) -> str:
        """The patient: TCGA-CR-7395."""
        return f"TCGA-{self.site}-{self.participant}"


def find_barcode(text: str | None) -> Barcode | None:
    """The last barcode in a name or path (the file's own rather than a folder's); None where there is none."""
    found = list(_BARCODE.finditer(text or ""))
    if not found:
        return None
    return Barcode(**{name: part and part.upper() for name, part in found[-1].groupdict().items()})


def case_of(*texts: str | None) -> str | None:
    """The case that the first of several names with a barcode speaks of; None where none has one."""
    return next((barcode.case for barcode in map(find_barcode, texts) if barcode), None)
