"""BreaKHis: a miniature of the archive and of its folds, and what is refused."""

import shutil

import pytest
from PIL import Image

from raypath.benchmarks.published.breakhis import BreaKHisSettings, magnification_of
from raypath.benchmarks.splits.folds import default_protocol
from raypath.benchmarks.splits.making import SplitSettings
from raypath.config import from_dict
from raypath.errors import BadInput

TYPES = {
    "A": ("benign", "adenosis"),
    "F": ("benign", "fibroadenoma"),
    "PT": ("benign", "phyllodes_tumor"),
    "TA": ("benign", "tubular_adenoma"),
    "DC": ("malignant", "ductal_carcinoma"),
    "LC": ("malignant", "lobular_carcinoma"),
    "MC": ("malignant", "mucinous_carcinoma"),
    "PC": ("malignant", "papillary_carcinoma"),
}
MAGNIFICATIONS = (40, 100, 200, 400)


def cases():
    """(type, case): three of each type; 14-13412 is of two, and 14-22549 has two slides."""
    for number, code in enumerate(TYPES):
        for case in range(3):
            yield code, f"14-{9000 + 10 * number + case}{'CD' if case == 2 else ''}"
    yield from [("DC", "14-13412"), ("LC", "14-13412"), ("A", "14-22549AB"), ("A", "14-22549CD")]


def write(folder):
    """Two photographs of each slide and magnification, and five lists that hold out every third slide."""
    breast = folder / "BreaKHis_v1" / "histology_slides" / "breast"
    lines = {fold: [] for fold in range(1, 6)}
    for place, (code, case) in enumerate(cases()):
        branch, tumour = TYPES[code]
        letter = branch[0].upper()
        for magnification in MAGNIFICATIONS:
            home = breast / branch / "SOB" / tumour / f"SOB_{letter}_{code}_{case}" / f"{magnification}X"
            home.mkdir(parents=True)
            for number in (1, 2):
                name = f"SOB_{letter}_{code}-{case}-{magnification}-{number:03d}.png"
                Image.new("RGB", (7, 4), (place, magnification % 255, number)).save(home / name)
                for fold, kept in lines.items():
                    split = "test" if (place + fold) % 3 == 0 else "train"
                    kept.append(f"{name}|{magnification}|{fold}|{split}")
    for fold, kept in lines.items():
        (folder / f"dsfold{fold}.txt").write_text("\n".join(kept) + "\n")
    return folder


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return write(tmp_path_factory.mktemp("breakhis"))


@pytest.fixture
def folder(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "copy")


@pytest.mark.parametrize("below", ["", "BreaKHis_v1", "BreaKHis_v1/histology_slides/breast"])
def test_it_is_found_from_any_of_its_folders(whole, below):
    assert BreaKHisSettings.recognise(whole / below)
    benchmark = BreaKHisSettings(path=str(whole / below), magnification=40).load(0)
    assert len(benchmark.table) == 2 * 28


def test_all_magnifications_benign_or_malignant(whole):
    benchmark = BreaKHisSettings(path=str(whole)).load(0)
    assert benchmark.classes == ("benign", "malignant")
    rows = benchmark.table.to_pylist()
    assert len(rows) == 28 * 4 * 2
    assert sum(row["label"] for row in rows) == 14 * 8
    assert {magnification_of(row["sample"]) for row in rows} == set(MAGNIFICATIONS)
    assert all(magnification_of(row["sample"]) == int(row["sample"].split("/")[-2][:-1]) for row in rows)
    assert len({row["slide"] for row in rows}) == 28
    assert {row["patient"] for row in rows if "22549" in row["slide"]} == {"14-22549"}
    splits = {}
    for row in rows:
        splits.setdefault(row["patient"], set()).add(row["split"])
    assert len(splits) == 26  # 14-13412 and 14-22549 are one case each
    assert all(len(found) == 1 for found in splits.values())


def test_one_magnification_of_eight_types(whole):
    benchmark = BreaKHisSettings(path=str(whole), target="type", magnification=200).load(0)
    assert benchmark.classes == tuple(tumour for _, tumour in TYPES.values())
    assert benchmark.name == "breakhis-type-200x"
    assert {magnification_of(sample) for sample in benchmark.table["sample"].to_pylist()} == {200}
    assert {count.what: count.published for count in benchmark.built} == {"images": 2013, "patients": None}


def test_published_counts_add_up():
    alone = [BreaKHisSettings(magnification=m)._facts().counts for m in MAGNIFICATIONS]
    together = BreaKHisSettings()._facts().counts
    assert together["images"] == sum(counts["images"] for counts in alone) == 7909
    assert together["benign"] == sum(counts["benign"] for counts in alone)
    types = BreaKHisSettings(target="type")._facts().counts
    assert sum(types[tumour] for _, tumour in TYPES.values()) == 7909
    assert sum(types[tumour] for branch, tumour in TYPES.values() if branch == "benign") == together["benign"]


@pytest.mark.parametrize("place", [".", "mkfold"])
def test_the_authors_folds_divide_their_patients(folder, place):
    (folder / place).mkdir(exist_ok=True)
    for fold in range(1, 6):
        shutil.move(folder / f"dsfold{fold}.txt", folder / place / f"dsfold{fold}.txt")
    held_out = set()
    for fold in (1, 2, 3):
        settings = from_dict(BreaKHisSettings, {"path": str(folder), "magnification": 100, "published_fold": fold})
        rows = settings.load(0).table.to_pylist()
        test = {row["patient"] for row in rows if row["split"] == "test"}
        assert test == {row["slide"] for row in rows if row["split"] == "test"}
        assert test.isdisjoint(row["patient"] for row in rows if row["split"] != "test")
        assert {row["split"] for row in rows} == {"train", "val", "test"}
        held_out |= test
    assert len(held_out) == 28


def test_a_published_fold_stands_although_the_set_is_small_and_nothing_else_divides_it(folder):
    chosen = BreaKHisSettings(path=str(folder), published_fold=1).load(0)
    assert default_protocol(chosen) == "given"
    assert default_protocol(BreaKHisSettings(path=str(folder)).load(0)) == "nested"
    for split in (SplitSettings(num_folds=3), SplitSettings(use_given=False)):
        with pytest.raises(BadInput, match="published_fold=1 beside split.num_folds=.*: two divisions"):
            BreaKHisSettings(path=str(folder), published_fold=1, split=split).load(0)


def test_what_is_damaged_is_refused(folder):
    settings = BreaKHisSettings(path=str(folder), published_fold=2)
    fold = folder / "dsfold2.txt"
    lines = fold.read_text().splitlines()
    fold.write_text("\n".join(lines[1:]))
    with pytest.raises(BadInput, match=r"dsfold2\.txt: no line for SOB_B_A-14-9000-40-001\.png"):
        settings.load(0)
    fold.write_text("\n".join([lines[0].replace("train", "trian").replace("test", "tset"), *lines[1:]]))
    with pytest.raises(BadInput, match=r"dsfold2\.txt: line 1: .*expected FILE"):
        settings.load(0)
    fold.unlink()
    with pytest.raises(BadInput, match=r"dsfold2\.txt: there is no such file; it comes in mkfold"):
        settings.load(0)

    settings = BreaKHisSettings(path=str(folder))
    slide = folder / "BreaKHis_v1/histology_slides/breast/malignant/SOB/mucinous_carcinoma/SOB_M_MC_14-9060"
    shutil.copy(slide / "40X/SOB_M_MC-14-9060-40-001.png", slide / "100X/SOB_M_MC-14-9060-40-009.png")
    with pytest.raises(BadInput, match=r"100X/SOB_M_MC-14-9060-40-009\.png: its name says SOB_M_MC_14-9060/40X"):
        settings.load(0)
    (slide / "100X/SOB_M_MC-14-9060-40-009.png").rename(slide / "100X/photo.png")
    with pytest.raises(BadInput, match=r"photo\.png: expected a name like SOB_B_A"):
        settings.load(0)
    shutil.rmtree(slide.parent)
    with pytest.raises(BadInput, match=r"SOB/mucinous_carcinoma: there is no such folder"):
        settings.load(0)
    with pytest.raises(ValueError, match="no photograph of BreaKHis"):
        magnification_of("x/40X/photo.png")


def test_a_tenth_of_the_train_patients_of_a_fold_can_be_its_val(whole):
    settings = {"path": str(whole), "magnification": 40, "published_fold": 1}
    shares = {}
    for share in (0.1, 0.2):
        benchmark = BreaKHisSettings(**settings, split=SplitSettings(share_val=share)).load(seed=0)
        patients = {split: set(benchmark.rows(split)["patient"].to_pylist()) for split in ("train", "val")}
        assert not patients["train"] & patients["val"]
        shares[share] = len(patients["val"]) / len(patients["train"] | patients["val"])
        assert f"val carved from the given train ({100 * share:.0f} %" in benchmark.split_note
    assert 0 < shares[0.1] < shares[0.2]
