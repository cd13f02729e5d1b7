"""Who the slides of a folder are of: a table of one's own beside them, `patients.csv`.

    slide,patient,split          the name of the file, with or without its ending; split: train, val or test, and may be missing
    S21-0042-A,P07,train

One decision: a table that is there names every slide. One that it forgot would be taken for a patient of its own, and might stand
on the other side of a split than a second slide of the same person.
"""

from collections.abc import Sequence
from pathlib import Path

from raypath.benchmarks.from_slides.slide_tiles import listed
from raypath.data.csv_files import csv_lines, csv_table
from raypath.data.manifest import SPLITS
from raypath.errors import BadInput


def read_patients(path: Path, slides: Sequence[str]) -> tuple[dict[str, str], dict[str, str]]:
    """The patient and the given split of each of `slides`, by its name; empty where there is no table or no such column.

    Lines of other slides are passed over. Raises BadInput with file, line and column for what is wrong in it, and for slides that
    it does not name.
    """
    if not path.is_file():
        return {}, {}
    header = [cell.lower() for _, cells in csv_lines(path)[:1] for cell in cells]
    has_split = "split" in header
    patients: dict[str, str] = {}
    splits: dict[str, str] = {}
    for number, row in csv_table(path, ("slide", "patient", "split") if has_split else ("slide", "patient")):
        where = f"{path}: line {number}, column"
        name = row["slide"] if row["slide"] in slides else Path(row["slide"]).stem
        if not row["slide"] or name in patients:
            raise BadInput(f"{where} slide: {row['slide']!r}; expected every slide once")
        if not row["patient"]:
            raise BadInput(f"{where} patient: empty; expected a name, for a lone slide its own")
        if has_split and row["split"] not in SPLITS:
            raise BadInput(f"{where} split: {row['split']!r}; expected {', '.join(SPLITS)}, or no such column")
        patients[name] = row["patient"]
        if has_split:
            splits[name] = row["split"]
    absent = [name for name in slides if name not in patients]
    if absent:
        raise BadInput(f"{path}: no line for {listed(absent)}; expected one for every annotated slide")
    return patients, splits
