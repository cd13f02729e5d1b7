import pytest

from raypath.benchmarks.settings import KINDS
from raypath.study.known_overlaps import KNOWN, corpora_of, overlap, sets_called

OVERLAPS = [
    ("TCGA", "monuseg", "whole", "MoNuSeg is from TCGA (Kumar"),
    ("tcga", "pannuke-tissue", "partly", "PanNuke is partly from TCGA ("),
    ("CAMELYON16", "pcam", "whole", "PCam is from CAMELYON16 ("),
    ("Camelyon-16", "pcam200_tiles", "whole", "PCam200 is from CAMELYON16 ("),
    ("PANDA", "segpanda200", "whole", "segPANDA200 is from PANDA ("),
    ("PCam", "pcam200", "partly", "PCam200 and PCam are both from CAMELYON16"),
    ("MoNuSeg", "TCGA", "partly", "TCGA and MoNuSeg are both from TCGA"),
    ("TUPAC16", "tupac", "whole", "TUPAC16 mitoses itself"),
    ("TUPAC16", "monuseg", "partly", "MoNuSeg and TUPAC16 slides are both from TCGA"),
    ("AMIDA13", "janowczyk5", "partly", "Janowczyk5 is partly from AMIDA13 ("),
    ("MHIST", "mhist", "whole", "mhist itself"),
]


@pytest.mark.parametrize(("seen", "asked", "share", "words"), OVERLAPS)
def test_what_a_set_has_of_another(seen, asked, share, words):
    found = overlap(seen, asked)
    assert found.share == share
    assert found.words.startswith(words)


@pytest.mark.parametrize(
    ("seen", "asked"),
    [
        *(("TCGA", "tupac"), ("TCGA", "pcam"), ("CAMELYON16", "monuseg"), ("TCGA", "mhist"), ("TCGA", "glas")),
        *(("PANDA", "pannuke"), ("ImageNet", "pcam"), ("PCam", "my-pcam")),
    ],
)
def test_nothing_is_known_where_nothing_is_published(seen, asked):
    assert overlap(seen, asked) is None


def test_every_line_says_where_it_is_stated_and_leads_to_no_circle():
    assert all(line.stated and line.of != line.source for line in KNOWN)
    ends = {line.source for line in KNOWN} - {line.of for line in KNOWN}
    assert ends == {"TCGA", "CAMELYON16", "PANDA", "AMIDA13"}


def test_the_sets_of_the_table_are_found_by_the_kinds_of_benchmarks():
    kinds = {settings.__dataclass_fields__["kind"].default for settings in KINDS}
    found = {name for kind in kinds for name in sets_called(kind) if any(line.of == name for line in KNOWN)}
    assert found == {line.of for line in KNOWN} - {"CAMELYON17", "TUPAC16 slides"}


def test_collections_are_known_by_the_names_of_their_slides():
    assert corpora_of(["TCGA-CR-7395-01A-01-TS1", "tumor_001", "patient_012_node_3", "x"]) == (
        "CAMELYON16",
        "CAMELYON17",
        "TCGA",
    )
    assert corpora_of(["tumor_1", "my_tumor_001", "patient_12", "normal_0011"]) == ()
