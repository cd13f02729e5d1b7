"""ASAP's XML: groups, holes, what is refused and where."""

import pytest

from raypath.benchmarks.annotations.asap import HOLE_GROUPS, TUMOUR_GROUPS, read_asap
from raypath.errors import BadInput

SQUARE = [(10, 20), (110, 20), (110, 120), (10, 120)]
HOLE = [(30, 40), (50, 40), (50, 60), (30, 60)]
BOW_TIE = [(0, 0), (10, 10), (10, 0), (0, 10)]


def annotation(corners, group="Tumor", kind="Polygon"):
    """An annotation on lines of its own, as the challenge has them."""
    coordinates = "\n".join(f'\t\t\t\t<Coordinate Order="{i}" X="{x}" Y="{y}" />' for i, (x, y) in enumerate(corners))
    return (
        f'\t\t<Annotation Name="Annotation 0" Type="{kind}" PartOfGroup="{group}" Color="#F4FA58">\n'
        f"\t\t\t<Coordinates>\n{coordinates}\n\t\t\t</Coordinates>\n\t\t</Annotation>"
    )


def write(path, *annotations):
    body = "\n".join(annotations)
    groups = '\t<AnnotationGroups>\n\t\t<Group Name="Tumor" PartOfGroup="None" Color="#00ff00"><Attributes /></Group>\n'
    path.write_text(
        f'<?xml version="1.0"?>\n<ASAP_Annotations>\n\t<Annotations>\n{body}\n\t</Annotations>\n{groups}'
        "\t</AnnotationGroups>\n</ASAP_Annotations>\n"
    )
    return path


def test_groups_are_classes_and_holes_are_cut_out(tmp_path):
    path = write(tmp_path / "tumor_001.xml", annotation(SQUARE, "_0"), annotation(HOLE, "_2"))
    regions = read_asap(path)
    assert set(regions.by_class) == {"_0", "_2"}
    assert regions.by_class["_0"].bounds == (10, 20, 110, 120)
    tumour = regions.area_of(TUMOUR_GROUPS, without=HOLE_GROUPS)
    assert tumour.area == pytest.approx(100 * 100 - 20 * 20)
    assert (regions.num_repaired, regions.notes()) == (0, "")


def test_overlapping_regions_count_once_and_no_region_is_empty(tmp_path):
    path = write(tmp_path / "a.xml", annotation(SQUARE, "_0"), annotation(SQUARE, "_1"), annotation(SQUARE, "_0"))
    assert read_asap(path).area_of(TUMOUR_GROUPS).area == pytest.approx(1e4)
    assert read_asap(path).area_of(["metastases"]).is_empty
    assert read_asap(write(tmp_path / "b.xml")).area_of(TUMOUR_GROUPS, without=HOLE_GROUPS).is_empty


def test_corners_follow_their_order_and_dots_are_counted(tmp_path):
    path = write(tmp_path / "a.xml", annotation(SQUARE), annotation([(1, 2)], kind="Dot"))
    text = path.read_text().replace('Order="1"', 'Order="X"').replace('Order="2"', 'Order="1"')
    path.write_text(text.replace('Order="X"', 'Order="2"'))  # the second corner comes third: a bow tie
    regions = read_asap(path)
    assert regions.num_repaired == 1
    assert regions.by_class["Tumor"].area == pytest.approx(5000)
    assert regions.notes() == "1 rings repaired, 1 Dot left out"


def test_a_ring_that_crosses_itself_is_repaired_and_counted(tmp_path):
    regions = read_asap(write(tmp_path / "a.xml", annotation(BOW_TIE), annotation(SQUARE)))
    assert regions.num_repaired == 1
    assert regions.by_class["Tumor"].area == pytest.approx(1e4 + 50)
    assert regions.by_class["Tumor"].is_valid


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (annotation([]), r"line 4: 0 corners; an area has at least 3"),
        (
            annotation(SQUARE) + "\n" + annotation([(0, 0), (1, 1), (0, 0)]),
            r"line 12: 3 corners; an area has at least 3",
        ),
        (annotation([(0, 0), (1, 1), (2, 2)]), "line 4: the ring encloses no area"),
        (annotation([(0, 0), (1, "x"), (2, 2)]), r"line 7: a Coordinate needs the numbers Order, X and Y \(ValueError"),
        (annotation([(0, 0), (1, "nan"), (2, 2)]), "line 4: a corner is not finite"),
        (annotation(SQUARE).replace('Order="2"', 'Order="3"'), "line 4: the Orders of its corners are not 0, 1, 2"),
        (annotation(SQUARE).replace(' PartOfGroup="Tumor"', ""), "line 4: an annotation without PartOfGroup"),
        ("<Annotation", "line 5: is no XML"),
    ],
)
def test_what_cannot_be_an_area_is_refused_with_its_line(tmp_path, body, message):
    with pytest.raises(BadInput, match=rf"bad\.xml: {message}"):
        read_asap(write(tmp_path / "bad.xml", body))


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "bad.xml"
    path.write_text('<!DOCTYPE x [<!ENTITY a "b">]><ASAP_Annotations><Annotations>&a;</Annotations></ASAP_Annotations>')
    with pytest.raises(BadInput, match=r"bad\.xml: has entities or external references"):
        read_asap(path)
    path.write_text("<Other/>")
    with pytest.raises(BadInput, match=r"bad\.xml: has no <Annotations>"):
        read_asap(path)
    with pytest.raises(BadInput, match=r"gone\.xml: cannot be read"):
        read_asap(tmp_path / "gone.xml")
