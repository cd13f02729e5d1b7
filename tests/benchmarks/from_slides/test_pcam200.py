"""PCam200 from CAMELYON16's folders: labels by outlines, margins, what is not known to be normal, and what is refused."""

import numpy as np
import pytest

from raypath.benchmarks.from_slides.label_rules import RegionRule
from raypath.benchmarks.from_slides.pcam200 import PARTLY_ANNOTATED, PCam200Settings
from raypath.benchmarks.settings import KINDS
from raypath.config import override
from raypath.errors import BadInput
from raypath.protocols.transfer import TransferConfig
from raypath.slides import TileSpec
from tests.benchmarks.from_slides.small_slides import write_slide

SMALL = TileSpec(extent_px=32, mpp=2.0, stride_px=32, min_tissue=0.5)
TISSUE = (64, 64, 448, 448)  # 12 x 12 tiles
TUMOUR, HOLE = (64, 64, 240, 448), (96, 224, 160, 288)  # the right edge goes through the middle of a tile


def square(group, box, kind="Polygon"):
    left, top, right, bottom = box
    corners = [(left, top), (right, top), (right, bottom), (left, bottom)]
    lines = "".join(f'<Coordinate Order="{i}" X="{x}" Y="{y}" />\n' for i, (x, y) in enumerate(corners))
    return (
        f'<Annotation Name="_{group}" Type="{kind}" PartOfGroup="{group}" Color="#F4FA58">\n<Coordinates>\n{lines}'
        "</Coordinates>\n</Annotation>\n"
    )


def write_annotation(path, *annotations):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        f'<?xml version="1.0"?>\n<ASAP_Annotations>\n<Annotations>\n{"".join(annotations)}</Annotations>\n'
        '<AnnotationGroups>\n<Group Name="_0" PartOfGroup="None" Color="#64FE2E"><Attributes /></Group>\n'
        "</AnnotationGroups>\n</ASAP_Annotations>\n"
    )


def write_camelyon(folder):
    """Six normal and six tumour slides, three test slides; one tumour slide is known to be outlined in part."""
    for number in range(1, 7):
        write_slide(folder / "training" / "normal" / f"normal_{number:03d}.tif", TISSUE, mpp=2.0, seed=number)
    for number in (1, 2, 3, 4, 5, 10):
        write_slide(folder / "training" / "tumor" / f"tumor_{number:03d}.tif", TISSUE, mpp=2.0, seed=100 + number)
        xml = folder / "training" / "lesion_annotations" / f"tumor_{number:03d}.xml"
        write_annotation(xml, square("_0", TUMOUR), square("_2", HOLE))
    for number in (1, 2, 49):
        write_slide(folder / "testing" / "images" / f"test_{number:03d}.tif", TISSUE, mpp=2.0, seed=200 + number)
    write_annotation(folder / "testing" / "lesion_annotations" / "test_002.xml", square("Tumor", TUMOUR))
    (folder / "testing" / "reference.csv").write_text("test_001,Normal,None,None\ntest_002,Tumor,IDC,Macro\n")
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_camelyon(tmp_path_factory.mktemp("camelyon16"))


def build(folder, **settings):
    return PCam200Settings(**{"path": str(folder), "tiles": SMALL, **settings}).load(0)


@pytest.fixture(scope="module")
def benchmark(folder):
    return build(folder)


def labels_of(benchmark, slide):
    """(x, y) -> label of the tiles of one slide."""
    rows = [row for row in benchmark.table.to_pylist() if row["patient"] == slide]
    return {(row["x_l0"], row["y_l0"]): row["label"] for row in rows}


def test_tumour_by_the_central_pixel_and_normal_beyond_the_margin(benchmark):
    labels = labels_of(benchmark, "tumor_001")
    assert labels[(192, 320)] == 1  # its centre 208 is inside
    assert (224, 64) not in labels  # its centre 240 is not, and it touches
    tumour = {corner for corner, label in labels.items() if label == 1}
    normal = {corner for corner, label in labels.items() if label == 0}
    left, top, right, bottom = TUMOUR
    for x, y in tumour:
        assert left <= x + 16 < right
        assert top <= y + 16 < bottom
        assert not (HOLE[0] <= x + 16 < HOLE[2] and HOLE[1] <= y + 16 < HOLE[3])
    assert all(x - right > 32 or left - (x + 32) > 32 or top - (y + 32) > 32 or y - bottom > 32 for x, y in normal)
    assert {x for x, _ in tumour} >= {64, 96, 128, 160, 192}
    assert {288, 320, 352, 384} <= {x for x, _ in normal}
    assert (240, 96) not in labels
    assert not {x for x, _ in labels} & {256}  # within a tile of the tumour's edge at 240


def test_a_hole_is_no_tumour(benchmark):
    labels = labels_of(benchmark, "tumor_001")
    in_hole = {(x, y) for x in (96, 128) for y in (224, 256)}
    assert not in_hole & set(labels)  # not tumour, and too near to it to be normal


def test_slides_have_the_split_of_the_challenge(benchmark):
    split_of = dict(zip(benchmark.table["patient"].to_pylist(), benchmark.table["split"].to_pylist()))
    assert {name for name, split in split_of.items() if split == "test"} == {"test_001", "test_002"}
    held_out = [name for name, split in split_of.items() if split == "val"]
    assert sorted(name.split("_")[0] for name in held_out) == ["normal", "tumor"]
    assert len(split_of) == 14
    assert set(labels_of(benchmark, "test_001").values()) == {0}
    assert set(labels_of(benchmark, "test_002").values()) == {0, 1}


def test_slides_outlined_in_part_give_no_normal_tiles(benchmark):
    assert "tumor_010" in PARTLY_ANNOTATED
    assert set(labels_of(benchmark, "tumor_010").values()) == {1}


def test_rules_and_margins_are_settings(folder, benchmark):
    near = labels_of(build(folder, normal_margin=0.0), "tumor_001")
    assert near[(256, 64)] == 0
    assert len(near) > len(labels_of(benchmark, "tumor_001"))
    strict = labels_of(build(folder, tumour=RegionRule(rule="area", min_share=1.0)), "tumor_001")
    assert {x for (x, _), label in strict.items() if label == 1} == {64, 96, 128, 160, 192}
    loose = labels_of(build(folder, tumour=RegionRule(rule="area", min_share=0.4)), "tumor_001")
    assert loose[(224, 96)] == 1  # 16 of 32 px
    centre = labels_of(build(folder, tumour=RegionRule(rule="centre_region", centre_um=16.0)), "tumor_001")
    assert centre[(224, 96)] == 1  # its centre square begins at 236
    assert (224, 96) not in labels_of(benchmark, "tumor_001")  # its central pixel is 240


def test_a_cap_holds_for_every_class_and_slide(folder, benchmark):
    few = build(folder, max_per_class_and_slide=7)
    for slide in ("tumor_001", "normal_001", "test_002"):
        labels, all_labels = labels_of(few, slide), labels_of(benchmark, slide)
        assert set(labels.items()) <= set(all_labels.items())
        found = np.bincount(list(labels.values()), minlength=2)
        assert found.max() == 7
    assert few.data_hash != benchmark.data_hash


def test_what_is_left_out_is_said(tmp_path, benchmark):
    assert "left out by name: normal_086, test_049, test_114" in benchmark.split_note
    assert "tiles of tissue left out, neither tumour nor far from it" in benchmark.split_note
    assert {count.what for count in benchmark.built} == {"slides", "patients", "tiles"}
    assert benchmark.tags == {}
    folder = write_camelyon(tmp_path)
    xml = folder / "training" / "lesion_annotations" / "tumor_001.xml"
    write_annotation(xml, square("_0", TUMOUR), square("Odd", (400, 400, 448, 448)), square("_0", (0, 0, 1, 1), "Dot"))
    (folder / "testing" / "reference.csv").unlink()
    other = build(folder)
    assert "1 annotations with regions of the group 'Odd', which is neither tumour nor hole" in other.split_note
    assert "1 annotations of the type Dot not used" in other.split_note
    assert "no testing/reference.csv" in other.split_note
    assert (416, 416) not in labels_of(other, "tumor_001")
    assert labels_of(benchmark, "tumor_001")[(416, 416)] == 0


def test_what_cannot_be_built_is_refused(tmp_path):
    with pytest.raises(BadInput, match="no training/normal and no training/tumor and no testing/images"):
        build(tmp_path)
    folder = write_camelyon(tmp_path)
    reference = folder / "testing" / "reference.csv"
    reference.write_text("test_001,Tumor\ntest_002,Tumor\n")
    with pytest.raises(BadInput, match=r"no annotation test_001\.xml for a slide with tumour"):
        build(folder)
    reference.write_text("test_001,Normal\ntest_002,Normal\n")
    with pytest.raises(BadInput, match=r"test_002\.xml: an annotation of a slide that is said to be normal"):
        build(folder)
    reference.write_text("test_002,Tumor\n")
    with pytest.raises(BadInput, match=r"reference\.csv: no line for test_001"):
        build(folder)
    reference.write_text("test_002,maybe\n")
    with pytest.raises(BadInput, match=r"reference\.csv: line 1: 'test_002,maybe'"):
        build(folder)
    reference.unlink()
    xml = folder / "training" / "lesion_annotations" / "tumor_003.xml"
    xml.write_text("<ASAP_Annotations>")
    with pytest.raises(BadInput, match=r"tumor_003\.xml: line 1: is no XML"):
        build(folder)
    xml.unlink()
    with pytest.raises(BadInput, match=r"no annotation tumor_003\.xml"):
        build(folder)
    with pytest.raises(BadInput, match="normal_margin=-1"):
        build(folder, normal_margin=-1.0)


def test_it_is_chosen_by_its_kind(folder):
    assert PCam200Settings in KINDS
    assert PCam200Settings.recognise(folder)
    config = override(
        TransferConfig(), ["benchmark.kind=pcam200", "benchmark.tumour.rule=area", "benchmark.exclude=[]"]
    )
    assert (config.benchmark.tumour.rule, config.benchmark.exclude) == ("area", ())
    assert (config.benchmark.tiles.extent_px, config.benchmark.tiles.mpp) == (512, 0.39)
