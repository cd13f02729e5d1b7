"""TUPAC16: a miniature of three parts, boxes against a slow count, patients undivided, and what is refused."""

import numpy as np
import pytest
from PIL import Image

from raypath.benchmarks.published.tupac import TUPACSettings
from raypath.config import override
from raypath.data.image_files import open_image
from raypath.errors import BadInput
from raypath.protocols.transfer import TransferConfig

PARTS = {1: ("01", "02", "14"), 2: ("15", "33"), 3: ("34", "73")}
SIZE = (600, 500)
ROW_COLUMN = {
    "01": [(100, 400), (480, 20)],
    "02": [(250, 300)],
}  # of the image 01 of each case; the others have (40, 50)


@pytest.fixture
def folder(tmp_path):
    generator = np.random.default_rng(0)
    for part, cases in PARTS.items():
        for case in cases:
            home, truth = tmp_path / f"mitoses_image_data_part_{part}" / case, tmp_path / "mitoses_ground_truth" / case
            home.mkdir(parents=True)
            truth.mkdir(parents=True)
            for name in ("01", "02"):  # the second has no mitosis, so no file of points
                pixels = generator.integers(0, 256, (50, 60, 3), dtype=np.uint8).repeat(10, 0).repeat(10, 1)
                Image.fromarray(pixels).save(home / f"{name}.tif")
            points = ROW_COLUMN.get(case, [(40, 50)])
            (truth / "01.csv").write_text("".join(f"{row},{column}\n" for row, column in points))
    return tmp_path


def test_boxes_hold_mitoses_or_keep_clear_of_them(folder):
    assert TUPACSettings.recognise(folder)
    benchmark = TUPACSettings(path=str(folder)).load(0)
    assert (benchmark.classes, benchmark.mpp) == (("none", "mitosis"), None)
    rows = benchmark.table.to_pylist()
    assert {row["patient"] for row in rows} == {case for cases in PARTS.values() for case in cases}
    for case in ("01", "02", "73"):
        of_case = [row for row in rows if row["sample"].startswith(f"{case}/01/")]
        points = [(column, row) for row, column in ROW_COLUMN.get(case, [(40, 50)])]
        assert sum(row["label"] for row in of_case) == 10 * len(points)
        for row in of_case:
            left, top, width, height = row["box"]
            assert (width, height) == (250, 250)
            assert 0 <= left <= SIZE[0] - 250
            assert 0 <= top <= SIZE[1] - 250
            holds = [left <= x < left + 250 and top <= y < top + 250 for x, y in points]
            near = [left - 30 <= x < left + 280 and top - 30 <= y < top + 280 for x, y in points]
            assert any(holds) if row["label"] else not any(near)
            assert row["path"].endswith(f"{case}/01.tif")
        empty = [row for row in rows if row["sample"].startswith(f"{case}/02/")]
        assert {tuple(row["box"][:2]) for row in empty} == {(x, y) for x in (0, 125, 250) for y in (0, 125, 250)}
    row = next(row for row in rows if row["label"])
    left, top, width, height = row["box"]
    expected = np.asarray(Image.open(row["path"]))[top : top + height, left : left + width]
    np.testing.assert_array_equal(np.asarray(open_image(row["path"], box=row["box"])), expected)


def test_cases_are_never_divided_and_other_seeds_draw_other_boxes(folder):
    places = set()
    for seed in range(4):
        benchmark = TUPACSettings(path=str(folder)).load(seed)
        where = {}
        for row in benchmark.table.to_pylist():
            where.setdefault(row["patient"], set()).add(row["split"])
        assert all(len(splits) == 1 for splits in where.values())
        places.add(str([row["box"] for row in benchmark.table.to_pylist()]))
    assert len(places) == 4


def test_settings_cut_otherwise(folder):
    config = override(TransferConfig(), ["benchmark.kind=tupac", f"benchmark.path={folder}", "benchmark.extent_px=100"])
    assert config.benchmark == TUPACSettings(path=str(folder), extent_px=100)
    benchmark = TUPACSettings(path=str(folder), extent_px=100, shift_px=25.0, stride_px=100, num_per_object=3).load(0)
    assert sum(counts["mitosis"] for counts in benchmark.counts().values()) == 3 * 8
    assert "published: 77,853" in benchmark.tags["raypath.data"]


def test_what_is_damaged_is_refused(folder):
    settings = TUPACSettings(path=str(folder))
    truth = folder / "mitoses_ground_truth" / "15" / "01.csv"
    truth.write_text("40,650\n")
    with pytest.raises(
        BadInput, match=r"15/01\.csv: a point at x 650, y 40; expected points of the image of 600 x 500 px"
    ):
        settings.load(0)
    truth.write_text("40;50\n")
    with pytest.raises(BadInput, match=r"15/01\.csv: line 1: '40;50'; expected row,column"):
        settings.load(0)
    image = folder / "mitoses_image_data_part_2" / "15" / "01.tif"
    image.write_bytes(b"no image")
    with pytest.raises(BadInput, match=r"15/01\.tif: cannot be read"):
        settings.load(0)
    image.unlink()
    with pytest.raises(BadInput, match=r"15/01\.csv: its image is not there"):
        settings.load(0)
    (folder / "empty").mkdir()
    with pytest.raises(BadInput, match=r"mitoses_ground_truth: no 01/01\.csv"):
        TUPACSettings(path=str(folder / "empty")).load(0)


def test_the_twins_that_macos_packs_are_no_images_and_no_truth(folder):
    expected = TUPACSettings(path=str(folder)).load(0).data_hash
    for path in [path for path in folder.rglob("*") if path.is_file()]:
        path.with_name(f"._{path.name}").write_bytes(b"x")
    assert TUPACSettings(path=str(folder)).load(0).data_hash == expected
