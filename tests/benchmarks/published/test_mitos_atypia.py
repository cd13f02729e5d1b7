"""MITOS-ATYPIA-14: slides of both scanners in miniature, three classes, biopsies undivided, and what is refused."""

import numpy as np
import pytest
from PIL import Image

from raypath.benchmarks.published.mitos_atypia import MitosAtypiaSettings
from raypath.config import override
from raypath.errors import BadInput
from raypath.protocols.transfer import TransferConfig

BIOPSIES = ("03", "04", "05", "07", "10")
SIZE = (1000, 800)
MITOSES, LOOK_ALIKES = [(700, 500)], [(200, 150), (760, 560)]  # the second look-alike is near the mitosis


@pytest.fixture
def folder(tmp_path):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (SIZE[1], SIZE[0], 3), dtype=np.uint8))
    for scanner, initial in (("aperio", "A"), ("hamamatsu", "H")):
        for biopsy in BIOPSIES:
            home = tmp_path / f"mitos_atypia_2014_training_{scanner}" / f"{initial}{biopsy}"
            for sub in ("frames/x40", "frames/x20", "mitosis"):
                (home / sub).mkdir(parents=True)
            for frame in ("00Aa", "00Ab"):
                name = f"{home.name}_{frame}"
                image.save(home / "frames" / "x40" / f"{name}.tiff")
                marked = frame == "00Aa"
                mitoses = "".join(f"{x},{y},0.9\n" for x, y in MITOSES) if marked else ""
                others = "".join(f"{x},{y},0.3\n" for x, y in LOOK_ALIKES) if marked else ""
                (home / "mitosis" / f"{name}_mitosis.csv").write_text(mitoses)
                (home / "mitosis" / f"{name}_not_mitosis.csv").write_text(others)
    (tmp_path / "mitos_atypia_2014_testing_aperio" / "A06" / "frames" / "x40").mkdir(parents=True)
    return tmp_path


def holds(box, points, margin=0):
    left, top, width, height = box
    return any(
        left - margin <= x < left + width + margin and top - margin <= y < top + height + margin for x, y in points
    )


def test_boxes_are_mitosis_look_alike_or_none(folder):
    assert MitosAtypiaSettings.recognise(folder)
    assert not MitosAtypiaSettings.recognise(folder / "mitos_atypia_2014_testing_aperio")
    benchmark = MitosAtypiaSettings(path=str(folder)).load(0)
    assert benchmark.classes == ("none", "not_mitosis", "mitosis")
    assert benchmark.mpp is None
    rows = benchmark.table.to_pylist()
    assert {(row["slide"], row["patient"]) for row in rows} == {(f"{i}{b}", b) for i in "AH" for b in BIOPSIES}
    assert "1 slides without marks left out" in benchmark.split_note
    frame = [row for row in rows if row["sample"].startswith("A03/A03_00Aa/")]
    for row in frame:
        box, label = row["box"], benchmark.classes[row["label"]]
        assert box[2:] == [323, 323]
        assert (label == "mitosis") == holds(box, MITOSES)
        assert (label == "not_mitosis") == (holds(box, LOOK_ALIKES) and not holds(box, MITOSES))
        if label == "none":
            assert not holds(box, MITOSES + LOOK_ALIKES, margin=32)
    labels = [benchmark.classes[row["label"]] for row in frame]
    assert labels.count("mitosis") + labels.count("not_mitosis") == 30
    assert labels.count("mitosis") > 10  # boxes of the near look-alike hold the mitosis too
    assert labels.count("not_mitosis") >= 10
    empty = [row for row in rows if row["sample"].startswith("A03/A03_00Ab/")]
    corners = {(x, y) for x in range(0, SIZE[0] - 322, 161) for y in range(0, SIZE[1] - 322, 161)}
    assert {tuple(row["box"][:2]) for row in empty} == corners


def test_the_two_scans_of_a_biopsy_stay_together(folder):
    for seed in range(3):
        where = {}
        for row in MitosAtypiaSettings(path=str(folder)).load(seed).table.to_pylist():
            where.setdefault(row["slide"][1:], set()).add(row["split"])
        assert len(where) == 5
        assert all(len(splits) == 1 for splits in where.values())


def test_one_scanner_has_its_mpp(folder):
    for scanner, initial, mpp in (("aperio", "A", 0.2455), ("hamamatsu", "H", 0.2274)):
        benchmark = MitosAtypiaSettings(path=str(folder), scanner=scanner).load(0)
        assert benchmark.mpp == mpp
        assert {row["slide"][0] for row in benchmark.table.to_pylist()} == {initial}
    config = override(TransferConfig(), ["benchmark.kind=mitos_atypia", "benchmark.path=x", "benchmark.scanner=aperio"])
    assert config.benchmark == MitosAtypiaSettings(path="x", scanner="aperio")


def test_what_is_damaged_is_refused(folder):
    settings = MitosAtypiaSettings(path=str(folder))
    home = folder / "mitos_atypia_2014_training_aperio" / "A05"
    path = home / "mitosis" / "A05_00Aa_not_mitosis.csv"
    path.write_text("12\n")
    with pytest.raises(BadInput, match=r"A05_00Aa_not_mitosis\.csv: line 1: '12'; expected x,y"):
        settings.load(0)
    path.unlink()
    with pytest.raises(BadInput, match=r"A05_00Aa_not_mitosis\.csv: cannot be read"):
        settings.load(0)
    for frame in (home / "frames" / "x40").iterdir():
        frame.unlink()
    with pytest.raises(BadInput, match=r"A05/frames/x40: no A05_00Aa\.tiff"):
        settings.load(0)
    with pytest.raises(BadInput, match=r"1 slides \(both\), none with a folder mitosis"):
        MitosAtypiaSettings(path=str(folder / "mitos_atypia_2014_testing_aperio")).load(0)


def test_the_twins_that_macos_packs_are_no_slides(folder):
    expected = MitosAtypiaSettings(path=str(folder)).load(0).data_hash
    for path in [path for path in folder.rglob("*") if path.is_file()]:
        twin = folder / "__MACOSX" / path.relative_to(folder).with_name(f"._{path.name}")
        twin.parent.mkdir(parents=True, exist_ok=True)
        twin.write_bytes(b"x")
    assert MitosAtypiaSettings(path=str(folder)).load(0).data_hash == expected
