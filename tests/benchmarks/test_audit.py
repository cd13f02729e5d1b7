"""The audit of a folder: published sets, a manifest, class folders, and what cannot be used."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image
from typer.testing import CliRunner

from raypath.benchmarks.audit import PUBLISHED, audit, report, sets_in
from raypath.cli import app
from raypath.errors import BadInput
from tests.benchmarks.from_slides import test_spots
from tests.benchmarks.published import test_kather2016, test_nct_crc
from tests.benchmarks.test_masks_benchmark import write_pairs


def call(folder):
    result = CliRunner().invoke(app, ["audit", str(folder)], env={"COLUMNS": "160"})
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, " ".join(result.output.split())


@pytest.fixture
def kather(tmp_path):
    return test_kather2016.write(tmp_path / "sets" / "textures")


def write_classes(folder, num=10):
    for label in ("normal", "tumor"):
        (folder / label).mkdir(parents=True)
        for number in range(num):
            Image.new("RGB", (6, 3), (number, len(label), 0)).save(folder / label / f"{number}.png")
    return folder


def test_every_published_kind_can_be_asked(tmp_path):
    assert {"pcam", "glas", "nct_crc", "kather2016", "breakhis"} <= {kind().kind for kind in PUBLISHED}
    for kind in PUBLISHED:
        assert not kind.recognise(tmp_path)
        assert kind.FACTS.title
        with pytest.raises(BadInput, match=r"benchmark\.path"):
            kind().load(0)


def test_a_published_set_is_shown_with_its_counts(kather):
    code, said = call(kather)
    assert code == 0
    assert "textures: Kather texture 2016 (UMCM Colorectal)" in said
    assert "licence CC BY 4.0 pixels 0.495 um per px files 80 of 5 x 5 px" in said
    assert "images 80 5,000 differs patients 10 10 tumor 10 625 differs" in said
    assert "- split made here (60/20/20, seed 0)" in said
    assert "sound, but not the published data: images, tumor" in said
    assert f"finetune.py {kather} --encoder runs/ID (benchmark.kind=kather2016)" in said
    (found,) = audit(kather)
    table = found.benchmark.table.to_pylist()
    splits = ["train", "val", "test"]
    patients = [len({row["patient"] for row in table if row["split"] == split}) for split in splits]
    samples = [sum(row["split"] == split for row in table) for split in splits]
    assert f"all samples {samples[0]} {samples[1]} {samples[2]} 80" in said
    assert f"patients {patients[0]} {patients[1]} {patients[2]} 10" in said


def test_copies_are_told(kather):
    tiles = sorted((kather / "01_TUMOR").glob("*.tif"))
    shutil.copy(tiles[0], kather / "02_STROMA" / tiles[0].name)
    assert "1 images have exact copies" in call(kather)[1]


def test_a_damaged_set_ends_with_2_and_the_file(kather):
    tile = next(iter(sorted((kather / "05_DEBRIS").glob("*.tif"))))
    tile.write_bytes(b"II*\0 not a picture")
    code, said = call(kather)
    assert code == 2
    assert f"cannot be used: 1 image(s) cannot be used, the first: {tile}" in said
    assert "to use it" not in said
    tifffile.imwrite(tile, np.zeros((8, 8, 3), np.uint16), photometric="rgb")
    assert f"the first: {tile} (its pixels are RGB of 16 bits" in call(kather)[1]
    tile.write_bytes(b"")
    code, said = call(kather)
    assert code == 2
    assert f"cannot be used: {tile}: the file is empty" in said
    assert "1 of 1 set(s) cannot be used" in said


def test_the_sets_below_a_folder_are_audited_one_by_one(kather):
    folder = kather.parent
    test_nct_crc.write(folder / "nct", "NCT-CRC-HE-100K", 10, 1)
    test_nct_crc.write(folder / "nct", "CRC-VAL-HE-7K", 3, 2)
    own = write_classes(folder / "own")
    lines = [f"{path.relative_to(own)},{path.parent.name}" for path in sorted(own.glob("*/*.png"))]
    (own / "manifest.csv").write_text("\n".join(["path,label", *lines]) + "\n")
    write_classes(folder / "other")
    assert sets_in(folder) == ([folder / "nct", own, kather], [folder / "other"])
    code, said = call(folder)
    assert code == 0
    assert "nct: NCT-CRC-HE-100K and CRC-VAL-HE-7K" in said
    assert "own: the images of its manifest.csv files 20 of 6 x 3 px" in said
    assert "passed over, as neither a published set nor one with a manifest: other" in said
    (own / "tumor" / "3.png").unlink()
    code, said = call(folder)
    assert code == 2
    assert "tumor/3.png" in said
    assert "1 of 3 set(s) cannot be used" in said


def test_class_folders_of_ones_own_are_a_set(tmp_path):
    folder = write_classes(tmp_path / "mine")
    assert sets_in(folder) == ([folder], [])
    code, said = call(folder)
    assert code == 0
    assert "mine: class folders; none of the published sets is recognised (pcam, glas" in said
    assert "normal 6 2 2 10 tumor 6 2 2 10 all samples 12 4 4 20" in said
    assert "patients " not in said.replace("no patients", "")
    use = f"python experiments/finetune.py {folder} --encoder runs/ID (benchmark.kind=images)"
    assert said.endswith(f"sound; no counts are published to compare it with to use it: {use}")


@pytest.mark.parametrize("parts", [("",), ("train", "val", "test")])
def test_images_with_masks_are_a_set_of_their_kind(tmp_path, parts):
    for part in parts:
        write_pairs(tmp_path / part, [f"{part}{number}" for number in range(10)])
    code, said = call(tmp_path)
    assert code == 0
    assert f"files {10 * len(parts)} of 6 x 4 px" in said
    assert "task segmentation of 2 classes" in said
    assert said.endswith(f"finetune.py {tmp_path} --encoder runs/ID (benchmark.kind=masks)")


def test_a_manifest_of_masks_without_labels_is_a_set_of_masks(tmp_path):
    write_pairs(tmp_path, [f"a{number}" for number in range(10)])
    lines = [f"images/a{number}.jpg,masks/a{number}.png" for number in range(10)]
    (tmp_path / "manifest.csv").write_text("\n".join(["image,mask of cells", *lines]) + "\n")
    (found,) = audit(tmp_path)
    assert (found.kind, found.fault) == ("masks", "")
    labelled = [f"{line},{number % 2}" for number, line in enumerate(lines)]
    (tmp_path / "manifest.csv").write_text("\n".join(["image,mask of cells,label", *labelled]) + "\n")
    (found,) = audit(tmp_path)
    assert (found.kind, found.fault) == ("images", "")


def test_a_folder_of_slides_with_spots_is_shown_by_its_tiles(tmp_path):
    points = [(x, y, str(x % 2)) for x in range(150, 350, 25) for y in (200, 300)]
    for seed, name in enumerate(("C2", "C3", "C4")):
        test_spots.write_section(tmp_path, name, seed, points, mpp=0.75)
    code, said = call(tmp_path)
    assert code == 0, said
    assert "slides 3 - patients 3 - tiles 48 -" in said
    assert "one patient: groups are sections" in said
    assert said.endswith(f"finetune.py {tmp_path} --encoder runs/ID (benchmark.kind=spots)")
    test_spots.write_section(tmp_path, "C2", 0, points, mpp=1.5)
    code, said = call(tmp_path)
    assert code == 2
    assert f"cannot be used: {tmp_path / 'C2.tiff'}: level 0 has 1.5 um per px" in said


def test_nothing_there(tmp_path):
    assert call(tmp_path / "absent")[0] == 2
    code, said = call(tmp_path)
    assert code == 2
    assert "no images; expected one folder per class" in said
    (found,) = audit(tmp_path)
    assert list(report(found))[-1].startswith("  cannot be used: ")


REAL = Path(os.environ.get("RAYPATH_REAL_DATA", Path(__file__).parents[3] / "shared" / "data")) / "labelled"


@pytest.mark.real
@pytest.mark.skipif(not REAL.is_dir(), reason="no real data: set RAYPATH_REAL_DATA")
@pytest.mark.parametrize(
    ("name", "code", "says"),
    [
        ("idc", 0, "patients 35 9 16 60"),
        ("lc25000_lung", 0, "1 images have exact copies (1 across splits, 0 with two labels)"),
        ("wbc_jtsc", 2, "class 'basophil' has 1 samples and none in val, test"),
    ],
)
def test_real_sets(name, code, says):
    found, said = call(REAL / name)
    assert found == code
    assert says in said
