"""CRCHistoPhenotypes: a miniature with MATLAB files, both targets against slow counts, and what is refused."""

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from raypath.benchmarks.published.warwick_crc import WarwickCRCSettings
from raypath.config import override
from raypath.data.image_files import read_image
from raypath.errors import BadInput
from raypath.protocols.transfer import TransferConfig

TYPES = ("epithelial", "fibroblast", "inflammatory", "others")
NUM_IMAGES = 10


def write(folder):
    """Ten images, each with nuclei of the four types; returns their points by image and type."""
    generator = np.random.default_rng(0)
    written = {}
    for number in range(1, NUM_IMAGES + 1):
        name = f"img{number}"
        pixels = generator.integers(0, 256, (500, 500, 3), dtype=np.uint8)
        points = {kind: np.round(generator.uniform(1, 500, (3 + number % 3, 2)), 2) for kind in TYPES}
        points["others"] = np.empty((0, 2)) if number == 2 else points["others"]
        for part in ("Classification", "Detection"):
            (folder / part / name).mkdir(parents=True)
            Image.fromarray(pixels).save(folder / part / name / f"{name}.bmp")
        for kind, found in points.items():
            savemat(folder / "Classification" / name / f"{name}_{kind}.mat", {"detection": found})
        savemat(
            folder / "Detection" / name / f"{name}_detection.mat", {"detection": np.concatenate(list(points.values()))}
        )
        written[name] = pixels, points
    return written


def test_boxes_of_the_pool_hold_an_inflammatory_nucleus_or_none(tmp_path):
    written = write(tmp_path)
    assert WarwickCRCSettings.recognise(tmp_path)
    benchmark = WarwickCRCSettings(path=str(tmp_path)).load(0)
    assert (benchmark.classes, benchmark.mpp, benchmark.primary) == (("other", "inflammatory"), None, "auroc")
    rows = benchmark.table.to_pylist()
    assert len(rows) == 25 * NUM_IMAGES
    for row in rows:
        pixels, points = written[row["patient"]]
        left, top, width, height = row["box"]
        assert (left % 100, top % 100, width, height) == (0, 0, 100, 100)
        inflammatory = points["inflammatory"]
        expected = any(left <= x < left + 100 and top <= y < top + 100 for x, y in inflammatory)
        assert row["label"] == int(expected)
        assert row["path"].endswith(f"Classification/{row['patient']}/{row['patient']}.bmp")
    np.testing.assert_array_equal(
        read_image(row["path"], 100, box=row["box"]), pixels[top : top + height, left : left + width]
    )
    assert benchmark.tags["raypath.data"].endswith("images 250 (published: 2,500)")


def test_images_are_never_divided(tmp_path):
    write(tmp_path)
    for target in ("inflammatory", "nuclei"):
        where = {}
        for row in WarwickCRCSettings(path=str(tmp_path), target=target).load(1).table.to_pylist():
            where.setdefault(row["patient"], set()).add(row["split"])
        assert len(where) == NUM_IMAGES
        assert all(len(splits) == 1 for splits in where.values())


def test_each_nucleus_is_in_the_middle_of_its_box(tmp_path):
    written = write(tmp_path)
    benchmark = WarwickCRCSettings(path=str(tmp_path), target="nuclei").load(0)
    assert benchmark.classes == TYPES
    found = {name: {kind: [] for kind in TYPES} for name in written}
    for row in benchmark.table.to_pylist():
        left, top, width, height = row["box"]
        assert (width, height) == (27, 27)
        found[row["patient"]][TYPES[row["label"]]].append((left, top))
    for name, (_, points) in written.items():
        for kind in TYPES:
            corners = [np.clip(np.rint(point - 13.5), 0, 473).tolist() for point in np.minimum(points[kind], 499.5)]
            assert sorted(found[name][kind]) == sorted(map(tuple, corners))


def test_it_is_chosen_by_its_kind():
    config = override(TransferConfig(), ["benchmark.kind=warwick_crc", "benchmark.path=x", "benchmark.target=nuclei"])
    assert config.benchmark == WarwickCRCSettings(path="x", target="nuclei")


def test_what_is_damaged_is_refused(tmp_path):
    write(tmp_path)
    settings = WarwickCRCSettings(path=str(tmp_path))
    path = tmp_path / "Classification" / "img3" / "img3_fibroblast.mat"
    whole = path.read_bytes()
    for content, reason in (
        (whole[:150], "no nuclei in it"),
        (b"no matlab file at all", "no nuclei in it"),
        (b"", "no nuclei in it"),
    ):
        path.write_bytes(content)
        with pytest.raises(BadInput, match=rf"img3_fibroblast\.mat: {reason}"):
            settings.load(0)
    for wrong, reason in (
        ({"points": np.ones((2, 2))}, "no nuclei in it"),
        ({"detection": np.ones((2, 3))}, r"detection has the shape \(2, 3\)"),
        (
            {"detection": np.array([[3.0, 700.0]])},
            r"a point at x 3, y 700; expected points of the image of 500 x 500 px",
        ),
    ):
        savemat(path, wrong)
        with pytest.raises(BadInput, match=rf"img3_fibroblast\.mat: {reason}"):
            settings.load(0)
    path.unlink()
    with pytest.raises(BadInput, match=r"img3_fibroblast\.mat: no nuclei in it \(.*No such file"):
        settings.load(0)
    (tmp_path / "Classification" / "img1" / "img1.bmp").unlink()
    with pytest.raises(BadInput, match=r"img1\.bmp: cannot be read"):
        settings.load(0)
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadInput, match=r"no Classification/img1"):
        WarwickCRCSettings(path=str(tmp_path / "empty")).load(0)
