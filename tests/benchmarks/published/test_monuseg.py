"""MoNuSeg: a miniature in the published folders, masks drawn from outlines, and what is refused."""

import shutil

import numpy as np
import pytest
from PIL import Image

from raypath.benchmarks.published.monuseg import MoNuSegSettings, organ_of
from raypath.benchmarks.splits.making import SplitSettings
from raypath.config import override
from raypath.data.masks import read_mask
from raypath.errors import BadInput
from raypath.protocols.transfer import TransferConfig

TRAIN = ("TCGA-18-5592-01Z-00-DX1", "TCGA-A7-A13E-01Z-00-DX1", "TCGA-A7-A13F-01Z-00-DX1", "TCGA-B0-5698-01Z-00-DX1")
TRAIN += ("TCGA-B0-5710-01Z-00-DX1", "TCGA-KB-A93J-01A-01-TS1", "TCGA-UZ-A9PN-01Z-00-DX1", "TCGA-NH-A8F7-01A-01-TS1")
TEST = ("TCGA-2Z-A9J9-01A-01-TS1", "TCGA-HT-8564-01Z-00-DX1")
SIZE = (40, 30)
NUCLEI = [[(3, 3), (9, 3), (9, 10), (3, 10)], [(20.5, 5), (30, 25), (15, 25)], [(36, 26), (44, 26), (44, 34), (36, 34)]]


def outlines():
    regions = []
    for number, corners in enumerate(NUCLEI, start=1):
        vertices = "".join(f'<Vertex X="{x}" Y="{y}" Z="0" />' for x, y in corners)
        regions.append(f'<Region Id="{number}" NegativeROA="0"><Vertices>{vertices}</Vertices></Region>')
    head = '<Annotations MicronsPerPixel="0.252000"><Annotation Id="1" Type="4"><Attributes /><Regions>'
    return f"{head}<RegionAttributeHeaders />{''.join(regions)}</Regions><Plots /></Annotation></Annotations>"


def slow_mask():
    """1 where a pixel's centre lies in the square, the triangle (on the inner side of its edges), or the square at the corner."""
    mask = np.zeros(SIZE[::-1], np.uint8)
    for y in range(SIZE[1]):
        for x in range(SIZE[0]):
            cx, cy = x + 0.5, y + 0.5
            in_square = 3 < cx < 9 and 3 < cy < 10
            in_triangle = 5 < cy < 25 and 20.5 - (cy - 5) * 5.5 / 20 < cx < 20.5 + (cy - 5) * 9.5 / 20
            mask[y, x] = in_square or in_triangle or (cx > 36 and cy > 26)
    return mask


@pytest.fixture
def folder(tmp_path):
    train, test = tmp_path / "MoNuSeg 2018 Training Data", tmp_path / "MoNuSegTestData"
    generator = np.random.default_rng(0)
    for names, images, annotations in ((TRAIN, train / "Tissue Images", train / "Annotations"), (TEST, test, test)):
        for home in {images, annotations}:
            home.mkdir(parents=True)
        for name in names:
            Image.fromarray(generator.integers(0, 256, (30, 40, 3), dtype=np.uint8)).save(images / f"{name}.tif")
            (annotations / f"{name}.xml").write_text(outlines())
    return tmp_path


def test_nuclei_are_drawn_from_their_outlines(folder):
    assert MoNuSegSettings.recognise(folder)
    assert MoNuSegSettings.recognise(folder / "MoNuSeg 2018 Training Data")
    benchmark = MoNuSegSettings(path=str(folder)).load(0)
    assert (benchmark.kind, benchmark.classes, benchmark.mpp) == ("segmentation", ("background", "nucleus"), 0.25)
    assert benchmark.has_objects
    rows = benchmark.table.to_pylist()
    assert {row["slide"]: row["patient"] for row in rows} == {name: name[:12] for name in TRAIN + TEST}
    assert {row["slide"] for row in rows if row["split"] == "test"} == set(TEST)
    assert {s: sum(c.values()) for s, c in benchmark.counts().items()} == {"train": 6, "val": 2, "test": 2}
    for row in rows:
        found = read_mask(row["mask"], benchmark.mask_rule, size=SIZE)
        np.testing.assert_array_equal(found, slow_mask())
    assert "30 outlines" in benchmark.split_note
    assert (
        "train has breast 2, colon 1, kidney 2, lung 1, stomach 1, unknown 1; test has brain 1, kidney 1"
        in benchmark.split_note
    )
    assert "train 8 (published: 30)" in benchmark.tags["raypath.data"]


def test_two_images_of_a_patient_stay_together(folder):
    home = folder / "MoNuSeg 2018 Training Data"
    for sub, suffix in (("Tissue Images", "tif"), ("Annotations", "xml")):
        name = f"TCGA-A7-A13E-01Z-00-DX1.{suffix}"
        shutil.copy(home / sub / name, home / sub / name.replace("DX1", "DX2"))
    for seed in range(8):
        benchmark = MoNuSegSettings(path=str(folder), split=SplitSettings(use_given=False)).load(seed)
        splits = {row["split"] for row in benchmark.table.to_pylist() if row["patient"] == "TCGA-A7-A13E"}
        assert len(splits) == 1


def test_organs_by_site():
    assert [organ_of(name) for name in TRAIN[:4]] == ["lung", "breast", "breast", "kidney"]
    assert organ_of("TCGA-XX-0000") == "unknown"


def test_it_is_chosen_by_its_kind():
    config = override(TransferConfig(), ["benchmark.kind=monuseg", "benchmark.path=x"])
    assert config.benchmark == MoNuSegSettings(path="x")


def test_what_is_damaged_is_refused(folder):
    settings = MoNuSegSettings(path=str(folder))
    path = folder / "MoNuSeg 2018 Training Data" / "Annotations" / f"{TRAIN[2]}.xml"
    path.write_text(outlines()[:200])
    with pytest.raises(
        BadInput, match=rf"{TRAIN[2]}\.xml: no outlines of Aperio ImageScope \(unclosed token|no element"
    ):
        settings.load(0)
    path.write_text("<Annotations />")
    with pytest.raises(BadInput, match=rf"{TRAIN[2]}\.xml: no outline in it"):
        settings.load(0)
    path.unlink()
    with pytest.raises(BadInput, match=rf"{TRAIN[2]}\.xml: there is no such file"):
        settings.load(0)
    path.write_text(outlines())
    for suffix in ("tif", "xml"):
        home = "Tissue Images" if suffix == "tif" else "Annotations"
        shutil.copy(path.parents[1] / home / f"{TRAIN[0]}.{suffix}", folder / "MoNuSegTestData")
    with pytest.raises(BadInput, match=f"{TRAIN[0]} is there twice"):
        settings.load(0)
    (folder / "empty").mkdir()
    with pytest.raises(BadInput, match=r"empty: no TCGA-\*\.tif"):
        MoNuSegSettings(path=str(folder / "empty")).load(0)
