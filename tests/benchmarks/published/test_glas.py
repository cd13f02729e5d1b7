"""GlaS: a miniature in the published layout and with its header, both targets, and what is refused."""

import numpy as np
import pytest
from PIL import Image

from raypath.benchmarks.published.glas import GlaSSettings
from raypath.benchmarks.splits.making import SplitSettings
from raypath.config import override
from raypath.data.image_files import open_image
from raypath.data.masks import read_mask, read_objects
from raypath.errors import BadInput
from raypath.protocols.transfer import TransferConfig

HEADER = "name,patient ID, grade (GlaS), grade (Sirinukunwattana et al. 2015)"
SIZES = {"train": 16, "testA": 10, "testB": 4}


def write(folder):
    """30 images of 9 x 7 px of 10 patients, in the published split which divides them; returns what was written by name."""
    generator = np.random.default_rng(0)
    lines, written = [HEADER], {}
    for part, size in SIZES.items():
        for number in range(1, size + 1):
            name, patient = f"{part}_{number}", 1 + (len(written) % 10)
            grade = "benign" if patient <= 5 else "malignant"
            pixels = generator.integers(0, 256, (7, 9, 3), dtype=np.uint8)
            glands = generator.integers(0, 4, (7, 9)).astype(np.uint8) * 9
            Image.fromarray(pixels).save(folder / f"{name}.bmp")
            Image.fromarray(glands).save(folder / f"{name}_anno.bmp")
            lines.append(f"{name},{patient}, {grade}, moderately differentiated")
            written[f"{name}.bmp"] = (pixels, glands, grade, str(patient), "train" if part == "train" else "test")
    (folder / "Grade.csv").write_text("\n".join([*lines, ",,,,"]) + "\n")
    return written


def check_patients_undivided(rows):
    where = {}
    for row in rows:
        where.setdefault(row["patient"], set()).add(row["split"])
    assert len(where) == 10
    assert all(len(splits) == 1 for splits in where.values())


def test_glands_are_what_was_drawn(tmp_path):
    written = write(tmp_path)
    assert GlaSSettings.recognise(tmp_path)
    benchmark = GlaSSettings(path=str(tmp_path)).load(0)
    assert (benchmark.kind, benchmark.classes, benchmark.mask_rule) == (
        "segmentation",
        ("background", "gland"),
        "binary",
    )
    assert benchmark.has_objects
    assert benchmark.strata == ("benign", "malignant")
    assert benchmark.mpp == 0.62
    rows = benchmark.table.to_pylist()
    assert {row["sample"] for row in rows} == set(written)
    for row in rows:
        pixels, glands, grade, patient, _ = written[row["sample"]]
        np.testing.assert_array_equal(np.asarray(open_image(row["path"])), pixels)
        np.testing.assert_array_equal(read_mask(row["mask"], benchmark.mask_rule, size=(9, 7)), glands > 0)
        np.testing.assert_array_equal(read_objects(row["mask"], size=(9, 7)), glands)
        assert (benchmark.strata[row["label"]], row["patient"]) == (grade, patient)
    check_patients_undivided(rows)
    assert "split made here" in benchmark.split_note
    assert benchmark.tags["raypath.data"].endswith("images 30 (published: 165); patients 10 (published: 16)")


def test_grade_is_a_classification_by_patient(tmp_path):
    written = write(tmp_path)
    benchmark = GlaSSettings(path=str(tmp_path), target="grade").load(1)
    assert (benchmark.kind, benchmark.classes, benchmark.mask_rule) == (
        "classification",
        ("benign", "malignant"),
        "none",
    )
    rows = benchmark.table.to_pylist()
    assert [row["mask"] for row in rows] == [None] * 30
    assert {row["sample"]: benchmark.classes[row["label"]] for row in rows} == {n: w[2] for n, w in written.items()}
    check_patients_undivided(rows)


def test_the_given_split_divides_patients_and_is_refused(tmp_path):
    write(tmp_path)
    with pytest.raises(BadInput, match=r"glas: 10 patients stand in more than one split: 1 \("):
        GlaSSettings(path=str(tmp_path), split=SplitSettings(use_given=True)).load(0)


def test_it_is_chosen_by_its_kind(tmp_path):
    config = override(TransferConfig(), ["benchmark.kind=glas", "benchmark.path=x", "benchmark.target=grade"])
    assert config.benchmark == GlaSSettings(path="x", target="grade")
    assert not GlaSSettings.recognise(tmp_path)


def test_what_is_damaged_is_refused(tmp_path):
    write(tmp_path)
    settings = GlaSSettings(path=str(tmp_path))
    (tmp_path / "testB_2_anno.bmp").rename(tmp_path / "away.bmp")
    with pytest.raises(BadInput, match=r"testB_2_anno\.bmp: there is no such file"):
        settings.load(0)
    (tmp_path / "away.bmp").rename(tmp_path / "testB_2_anno.bmp")
    grades = (tmp_path / "Grade.csv").read_text()
    for old, new, reason in (
        ("train_5,5, benign", "train_99,5, benign", r"Grade\.csv: no line for train_5"),
        (
            "train_5,5, benign",
            "train_5,5, begnin",
            r"Grade\.csv: train_5: grade 'begnin'; expected benign or malignant",
        ),
        ("train_5,5, benign", "train_5,, benign", r"Grade\.csv: train_5: no patient"),
        ("train_5,5, benign", "train_4,5, benign", r"Grade\.csv: train_4 has two lines"),
        ("patient ID", "case", r"Grade\.csv: line 1: no column patient ID"),
    ):
        assert old in grades
        (tmp_path / "Grade.csv").write_text(grades.replace(old, new))
        with pytest.raises(BadInput, match=reason):
            settings.load(0)
    (tmp_path / "Grade.csv").unlink()
    with pytest.raises(BadInput, match=r"Grade\.csv: there is no such file"):
        settings.load(0)
    with pytest.raises(BadInput, match="there is no such folder"):
        GlaSSettings(path=str(tmp_path / "away")).load(0)
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "Grade.csv").write_text(HEADER)
    with pytest.raises(BadInput, match=r"empty: no train_1\.bmp and the like"):
        GlaSSettings(path=str(tmp_path / "empty")).load(0)


@pytest.mark.parametrize("name", ["train_5.bmp", "train_5_anno.bmp"])
def test_an_image_or_mask_without_bytes_is_refused(tmp_path, name):
    write(tmp_path)
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(BadInput, match=rf"{name}: the file is empty; unpack the set again"):
        GlaSSettings(path=str(tmp_path)).load(0)
