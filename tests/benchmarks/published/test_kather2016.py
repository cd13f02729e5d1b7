"""Kather texture 2016: a miniature of the archive, and what is refused."""

import pytest
from PIL import Image

from raypath.benchmarks.published.kather2016 import Kather2016Settings
from raypath.errors import BadInput

FOLDERS = (
    "01_TUMOR",
    "02_STROMA",
    "03_COMPLEX",
    "04_LYMPHO",
    "05_DEBRIS",
    "06_MUCOSA",
    "07_ADIPOSE",
    "08_EMPTY",
)
SUFFIXES = ("_022", "_007b", "c", "_003_copy")  # what follows the slide in the published names


def write(folder):
    """Every class from every one of ten slides."""
    for number, name in enumerate(FOLDERS):
        (folder / name).mkdir(parents=True)
        for slide in range(1, 11):
            image = f"CRC-Prim-HE-{slide:02d}{SUFFIXES[slide % 4]}"
            tile = folder / name / f"1A{slide:X}{number}_{image}.tif_Row_601_Col_151.tif"
            Image.new("RGB", (5, 5), (number, slide, 7)).save(tile)
    return folder


@pytest.mark.parametrize("below", ["", "Kather_texture_2016_image_tiles_5000"])
def test_classes_and_slides_come_from_names(tmp_path, below):
    write(tmp_path / below)
    assert Kather2016Settings.recognise(tmp_path)
    benchmark = Kather2016Settings(path=str(tmp_path)).load(0)
    assert benchmark.classes == ("tumor", "stroma", "complex", "lympho", "debris", "mucosa", "adipose", "empty")
    assert benchmark.mpp == 0.495
    rows = benchmark.table.to_pylist()
    assert {row["patient"] for row in rows} == {f"CRC-Prim-HE-{slide:02d}" for slide in range(1, 11)}
    assert all(Image.open(row["path"]).getpixel((0, 0))[0] == row["label"] for row in rows)
    splits = {}
    for row in rows:
        splits.setdefault(row["patient"], set()).add(row["split"])
    assert all(len(found) == 1 for found in splits.values())
    assert {split for found in splits.values() for split in found} == {"train", "val", "test"}
    said = {count.what: (count.built, count.published) for count in benchmark.built}
    assert said["patients"] == (10, 10)
    assert said["debris"] == (10, 625)
    assert sum(Kather2016Settings.FACTS.counts[name] for name in benchmark.classes) == 5000


def test_what_is_damaged_is_refused(tmp_path):
    write(tmp_path)
    odd = tmp_path / "04_LYMPHO" / "tile_17.tif"
    Image.new("RGB", (5, 5)).save(odd)
    with pytest.raises(BadInput, match=r"04_LYMPHO/tile_17\.tif: expected a name like 1A11_CRC-Prim-HE-07"):
        Kather2016Settings(path=str(tmp_path)).load(0)
    odd.unlink()
    (tmp_path / "08_EMPTY").rename(tmp_path / "08_NOTHING")
    assert not Kather2016Settings.recognise(tmp_path)
    with pytest.raises(BadInput, match=r"found the folder 08_NOTHING"):
        Kather2016Settings(path=str(tmp_path)).load(0)
