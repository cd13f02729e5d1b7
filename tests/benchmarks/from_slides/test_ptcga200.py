"""PTCGA200 from slides in organ folders: the map of organs, tiles of 200 um, folds by patient and by slide."""

import numpy as np
import pyarrow.compute as pc
import pytest

from raypath.benchmarks import TILE_SCHEMA
from raypath.benchmarks.from_slides.ceil_folds import FoldSettings
from raypath.benchmarks.from_slides.ptcga200 import CLASSES, ORGANS, PTCGA200Settings, patient_of
from raypath.benchmarks.from_slides.slide_tiles import draw, find_tiles
from raypath.benchmarks.settings import KINDS
from raypath.config import from_dict, override
from raypath.errors import BadInput, SlideError
from raypath.protocols.transfer import TransferConfig
from raypath.slides import Slide, TileSpec
from tests.benchmarks.from_slides.small_slides import write_slide

SMALL = TileSpec(extent_px=50, mpp=2.0, stride_px=50, min_tissue=0.5)
ORGANS_HERE = ("brain", "rectum", "colon")  # two classes of three folders
SLIDES_PER_ORGAN = 10


def name_of(organ, number):
    """Two slides for every other patient."""
    patient = number - number % 2 if number % 4 < 2 else number
    return f"TCGA-{ORGANS_HERE.index(organ)}A-{patient:04d}-01Z-00-DX{number}.{number:08x}-aaaa.tiff"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """30 slides of 512 px with 300 x 250 px of tissue, and what is none of the organs."""
    folder = tmp_path_factory.mktemp("tcga")
    for organ in ORGANS_HERE:
        for number in range(SLIDES_PER_ORGAN):
            path = folder / organ / "deeper" / name_of(organ, number)
            write_slide(path, (100, 100, 400, 350), mpp=2.0, seed=number + 100 * ORGANS_HERE.index(organ))
    write_slide(folder / "head_and_neck" / "TCGA-CR-7395-01A.tiff", (0, 0, 10, 10), mpp=2.0)
    return folder


@pytest.fixture(scope="module")
def benchmark(folder):
    return PTCGA200Settings(path=str(folder), tiles=SMALL, tiles_per_slide=20).load(0)


def test_24_folders_are_20_classes():
    assert (len(ORGANS), len(CLASSES)) == (24, 20)
    assert set(ORGANS.values()) == set(CLASSES)
    assert list(CLASSES) == sorted(CLASSES)
    merged = {organ: name for organ, name in ORGANS.items() if organ != name}
    assert merged == {"liver": "bile_liver", "rectosigmoid": "colon", "rectum": "colon", "small_intestine": "colon"}
    numbers = {
        "adrenal_gland": 0,
        "bile_liver": 1,
        "colon": 6,
        "corpus_uteri": 7,
        "lung": 10,
        "stomach": 16,
        "thyroid": 19,
    }
    assert {name: CLASSES.index(name) for name in numbers} == numbers


def test_a_tile_is_200_um():
    spec = PTCGA200Settings().tiles
    assert spec.extent_px * spec.mpp == pytest.approx(199.68)
    assert spec.extent_l0(0.25) == 799
    assert spec.extent_l0(0.5) == 399


def test_tiles_are_those_with_tissue_and_can_be_read(benchmark):
    assert benchmark.table.schema == TILE_SCHEMA
    assert benchmark.classes == ("brain", "colon")
    assert (benchmark.kind, benchmark.mpp) == ("classification", 2.0)
    rows = benchmark.table.to_pylist()
    assert {row["label"] for row in rows} == {0, 1}
    assert all((row["label"] == 0) == ("/brain/" in row["slide"]) for row in rows)
    with Slide.open(rows[0]["slide"]) as slide:
        for row in (row for row in rows if row["slide"] == rows[0]["slide"]):
            tile = slide.read(row["x_l0"], row["y_l0"], row["extent_l0"], 50)
            is_pink = tile[..., 1] < 170
            assert is_pink.mean() >= 0.4  # the mask is smoothed by 16 um, so its edges are not those of the pixels


def test_no_more_than_asked_and_fewer_are_a_part_of_more(folder):
    (tiles,) = find_tiles([folder / "brain" / "deeper" / name_of("brain", 0)], SMALL)
    assert 20 < len(tiles) <= 36
    few, more = draw(tiles, 5, 0), draw(tiles, 12, 0)
    assert (len(few), len(more)) == (5, 12)
    assert set(few.samples) < set(more.samples) < set(tiles.samples)
    assert draw(tiles, 12, 1).samples != more.samples
    assert draw(tiles, 1_000, 0) is tiles
    assert len(set(more.samples)) == 12


def test_counts_stand_beside_the_published_ones(benchmark):
    counts = {count.what: (count.built, count.published) for count in benchmark.built}
    assert counts == {
        "slides": (30, None),
        "patients": (21, None),
        "tiles": (600, None),
        "classes": (2, 20),
        "organ folders": (3, 24),
    }
    assert "classes 2 (published: 20)" in benchmark.tags["raypath.data"]
    assert "head_and_neck" in benchmark.split_note


def folds(folder, by):
    """The split of every slide and patient in the three folds, from the tables."""
    found = []
    for fold in range(3):
        settings = PTCGA200Settings(
            path=str(folder), tiles=SMALL, tiles_per_slide=2, folds=FoldSettings(by=by, fold=fold)
        )
        table = settings.load(0).table
        found.append(
            {key: dict(zip(table[key].to_pylist(), table["split"].to_pylist())) for key in ("slide", "patient")}
        )
    return found


@pytest.mark.parametrize("by", ["patient", "slide"])
def test_three_folds_share_nothing(folder, by):
    held_out = []
    for fold in folds(folder, by):
        # a class of S = 7 and 14 patients, or of 10 and 20 slides: ceil(0.02 S) = ceil(0.01 S) = 1
        splits = list(fold[by].values())
        assert (splits.count("val"), splits.count("test")) == (2, 2)
        held_out += [group for group, split in fold[by].items() if split != "train"]
    assert len(held_out) == len(set(held_out)) == 12


def test_patients_are_whole_by_default_and_waived_by_name(folder, benchmark):
    splits = pc.unique(pc.binary_join_element_wise(benchmark.table["patient"], benchmark.table["split"], " "))
    assert len(splits) == len(pc.unique(benchmark.table["patient"])) == 21
    assert benchmark.waived == ()
    for seed in range(20):
        settings = PTCGA200Settings(path=str(folder), tiles=SMALL, tiles_per_slide=1, folds=FoldSettings(by="slide"))
        by_slide = settings.load(seed)
        if by_slide.waived:
            break
    assert by_slide.tags["raypath.waived"] == "patient"
    assert "patients may be divided" in by_slide.split_note


def test_the_hash_is_of_what_is_in_it(folder, benchmark):
    def hashed(**settings):
        return (
            PTCGA200Settings(**{"path": str(folder), "tiles": SMALL, "tiles_per_slide": 20, **settings})
            .load(0)
            .data_hash
        )

    assert hashed() == benchmark.data_hash
    others = [hashed(tiles_per_slide=19), hashed(folds=FoldSettings(fold=1)), hashed(slide_mpp=2.1)]
    assert len({*others, benchmark.data_hash}) == 4


def test_patients_are_the_first_12_characters(tmp_path):
    assert patient_of(tmp_path / "TCGA-CR-7395-01A-01-TS1.2f9c.svs") == "TCGA-CR-7395"
    with pytest.raises(BadInput, match=r"slide1\.svs: its name does not begin with a TCGA barcode"):
        patient_of(tmp_path / "slide1.svs")


def test_what_cannot_be_built_is_refused(tmp_path):
    with pytest.raises(BadInput, match="which|where is the set"):
        PTCGA200Settings().load(0)
    with pytest.raises(BadInput, match="no slides in organ folders; expected some of adrenal_gland"):
        PTCGA200Settings(path=str(tmp_path)).load(0)
    write_slide(tmp_path / "brain" / "TCGA-AA-0001-01.tiff", (0, 0, 512, 512), mpp=2.0)
    write_slide(tmp_path / "lung" / "TCGA-AA-0001-01.tiff", (0, 0, 512, 512), mpp=2.0)
    with pytest.raises(BadInput, match=r"two slides have the same name \(TCGA-AA-0001-01\)"):
        PTCGA200Settings(path=str(tmp_path), tiles=SMALL).load(0)
    (tmp_path / "lung" / "TCGA-AA-0001-01.tiff").rename(tmp_path / "lung" / "TCGA-AA-0002-01.tiff")
    with pytest.raises(BadInput, match="class 'brain' has 1 slides or patients"):
        PTCGA200Settings(path=str(tmp_path), tiles=SMALL).load(0)
    (tmp_path / "lung" / "TCGA-AA-0003-01.tiff").write_bytes(b"broken")
    with pytest.raises(SlideError, match=r"TCGA-AA-0003-01\.tiff"):
        PTCGA200Settings(path=str(tmp_path), tiles=SMALL).load(0)


def test_it_is_chosen_by_its_kind(folder):
    assert PTCGA200Settings in KINDS
    assert PTCGA200Settings.recognise(folder)
    assert not PTCGA200Settings.recognise(folder / "brain")
    config = override(
        TransferConfig(), ["benchmark.kind=ptcga200", "benchmark.folds.by=slide", "benchmark.tiles.mpp=0.5"]
    )
    assert (config.benchmark.folds.by, config.benchmark.tiles.mpp, config.benchmark.tiles.extent_px) == (
        "slide",
        0.5,
        512,
    )
    assert from_dict(PTCGA200Settings, {"kind": "ptcga200", "tiles_per_slide": 3}).tiles_per_slide == 3
    with pytest.raises(BadInput, match=r"folds\.fold"):
        override(TransferConfig(), ["benchmark.kind=ptcga200", "benchmark.folds.fold=3"])


@pytest.mark.ray
def test_an_index_gives_the_same_tiles(folder, ray_instance, tmp_path, benchmark):
    from raypath.data.indexing import make_index
    from raypath.data.manifest import read_manifest

    slides = [folder / "brain" / "deeper" / name_of("brain", number) for number in range(2)]
    for slide in slides:
        (tmp_path / "slides").mkdir(exist_ok=True)
        (tmp_path / "slides" / slide.name).symlink_to(slide)
    paths = sorted((tmp_path / "slides").iterdir())
    make_index(read_manifest(tmp_path / "slides"), SMALL, tmp_path / "index")
    one, two = find_tiles(paths, SMALL), find_tiles(paths, SMALL, index=str(tmp_path / "index"))
    assert [a.samples for a in one] == [b.samples for b in two]
    assert [a.sha256 for a in one] == [b.sha256 for b in two]
    assert [a.boxes.tolist() for a in one] == [b.boxes.tolist() for b in two]
    with pytest.raises(BadInput, match="does not have 1 of 2 slides"):
        find_tiles([paths[0], slides[0].with_name("x.tiff")], SMALL, index=str(tmp_path / "index"))
    with pytest.raises(BadInput, match="make an index with these settings"):
        find_tiles(paths, TileSpec(extent_px=51, mpp=2.0, stride_px=50, min_tissue=0.5), index=str(tmp_path / "index"))


def test_pixels_are_those_of_the_slide(benchmark):
    row = benchmark.table.slice(0, 1).to_pylist()[0]
    with Slide.open(row["slide"]) as slide:
        tile = slide.read(row["x_l0"], row["y_l0"], row["extent_l0"], 50)
    assert tile.shape == (50, 50, 3)
    assert np.ptp(tile) > 50
