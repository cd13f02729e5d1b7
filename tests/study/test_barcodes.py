import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raypath.study.barcodes import Barcode, case_of, find_barcode

PARTS = [  # name, site, participant, sample type, vial, portion, slide
    ("TCGA-CR-7395-01A-01-TS1.svs", "CR", "7395", "01", "A", "01", "TS1"),
    ("TCGA-G2-A2EK-01A-02-TSB", "G2", "A2EK", "01", "A", "02", "TSB"),
    ("images/tcga-ar-a1ak-01z-00-dx1.jpg", "AR", "A1AK", "01", "Z", "00", "DX1"),
    ("TCGA-02-0001-01C-01D-0182-01", "02", "0001", "01", "C", "01", None),  # an aliquot: analyte, plate, centre
    ("TCGA-02-0001", "02", "0001", None, None, None, None),
    ("TCGA-02-0001-11", "02", "0001", "11", None, None, None),
    ("slide_TCGA-A7-A13E-01Z-00-DX1.4f2a-91.svs", "A7", "A13E", "01", "Z", "00", "DX1"),
]


@pytest.mark.parametrize(("name", "site", "participant", "kind", "vial", "portion", "slide"), PARTS)
def test_the_parts_of_a_barcode(name, site, participant, kind, vial, portion, slide):
    found = find_barcode(name)
    assert found == Barcode(site, participant, kind, vial, portion, slide)
    assert found.case == f"TCGA-{site}-{participant}"


@pytest.mark.parametrize(
    "name",
    [
        *(
            "",
            None,
            "TCGA",
            "TCGA-CR",
            "TCGA-CR-739",
            "TCGA-CR-73955",
            "XTCGA-CR-7395",
            "TCGA_CR_7395",
            "TCGA-CRX-7395",
        ),
        *("a-CR-7395-01A-01-TS1", "1TCGA-CR-7395-01A"),
    ],
)
def test_what_has_not_the_published_form_is_none(name):
    assert find_barcode(name) is None


def test_the_file_speaks_before_its_folder_and_the_first_name_with_a_barcode_counts():
    assert case_of("/data/TCGA-02-0001/TCGA-02-0003-01Z-00-DX1.svs") == "TCGA-02-0003"
    assert case_of(None, "42", "TCGA-02-0001", "TCGA-02-0003") == "TCGA-02-0001"
    assert case_of("42", None) is None


@given(
    st.from_regex(r"[A-Z0-9]{2}", fullmatch=True),
    st.from_regex(r"[A-Z0-9]{4}", fullmatch=True),
    st.from_regex(r"(-[0-9]{2}[A-Z](-[0-9]{2}(-(TS|MS|BS|DX)[A-Z0-9])?)?)?", fullmatch=True),
    st.sampled_from(["", "a/", "x_", "(", "é "]),
    st.sampled_from(["", ".svs", "_x1_y2.png", ")", "-x"]),
)
def test_a_case_is_found_wherever_it_stands(site, participant, rest, before, after):
    text = f"{before}TCGA-{site}-{participant}{rest}{after}"
    assert find_barcode(text).case == f"TCGA-{site}-{participant}"
    assert find_barcode(text.lower()) == find_barcode(text)


@pytest.mark.real
def test_the_images_of_monuseg_are_of_24_cases(real_data):
    names = sorted(path.name for path in (real_data / "masks" / "monuseg" / "images").glob("*.jpg"))
    cases = {case_of(name) for name in names}
    assert len(names) == len(cases) == 24
    assert all(re.fullmatch(r"TCGA-[A-Z0-9]{2}-[A-Z0-9]{4}", case) for case in cases)
    assert {"TCGA-21-5784", "TCGA-KB-A93J", "TCGA-G2-A2EK"} <= cases
