"""The pool on a page: sums that are sums, and images of every class."""

import io

import numpy as np
import pytest
from PIL import Image

from raypath.data.pool import load_pool
from raypath.study.published.pool import PoolLine, lines_of, pool_montage, pool_table


@pytest.fixture
def spec(tmp_path):
    """Two sets: three classes of 4, 1 and 2 images without patients; two classes of two patients."""
    lines = ["path,label"]
    for label, count in (("a", 4), ("b", 1), ("c", 2)):
        for number in range(count):
            _save(tmp_path / "first" / f"{label}{number}.png", (10 * number, ord(label), 0))
            lines.append(f"{label}{number}.png,{label}")
    (tmp_path / "first" / "manifest.csv").write_text("\n".join(lines))
    lines = ["path,label,patient,split"]
    for number, (label, split) in enumerate([("x", "train"), ("y", "train"), ("x", "val"), ("y", "val")]):
        _save(tmp_path / "second" / f"{number}.png", (number, 0, 200))
        lines.append(f"{number}.png,{label},p{number // 2},{split}")
    (tmp_path / "second" / "manifest.csv").write_text("\n".join(lines))
    return f"{tmp_path / 'first'},{tmp_path / 'second'}"


def _save(path, colour):
    path.parent.mkdir(exist_ok=True)
    Image.new("RGB", (12, 9), colour).save(path)


def test_a_pool_of_ours_is_counted(spec):
    first, second = lines_of({"train": load_pool(spec, ("train",))})
    assert first == PoolLine(name="first", num_classes=3, splits={"train": (7, None)}, split_by="image")
    assert second == PoolLine(name="second", num_classes=2, splits={"train": (2, 1)}, split_by="patient")
    own = spec.split(",")[1]
    (both,) = lines_of({split: load_pool(own, (split,)) for split in ("train", "val")})
    assert both.splits == {"train": (2, 1), "val": (2, 1)}


def test_sums_with_an_unknown_part_are_not_known():
    lines = [
        PoolLine(name="A", num_classes=2, splits={"train": (5, 2), "val": (3, 1), "test": (0, 0)}),
        PoolLine(name="B", num_classes=3, splits={"train": (7, None), "val": (1, 1), "test": (2, 2)}),
    ]
    first, second, total = pool_table(lines, "pool").rows
    assert first == ("A", "", 2, 5, 2, 3, 1, 0, 0, 8, 3, "")
    assert second == ("B", "", 3, 7, None, 1, 1, 2, 2, 10, None, "")
    assert total == ("2 tasks", "", 5, 12, None, 4, 2, 2, 2, 18, None, "")


def test_the_montage_shows_every_class_and_only_its_images(spec):
    pool = load_pool(spec, ("train",))
    figure = pool_montage(pool, num_images=5, extent_px=8)
    figure.savefig(io.BytesIO())
    rows = np.array(figure.axes).reshape(2, 5)
    assert [axes.get_xlabel() for axes in rows[0]] == ["a", "a", "b", "c", "c"]
    assert [axes.get_xlabel() for axes in rows[1][:2]] == ["x", "y"]
    shown = [axes.images[0].get_array()[0, 0] for axes in rows[0]]
    assert [chr(pixel[1]) for pixel in shown] == ["a", "a", "b", "c", "c"]
    assert len({tuple(pixel) for pixel in shown}) == 5
    assert not any(axes.axison for axes in rows[1][2:])
    assert rows[0][0].get_ylabel() == "first\n3 classes\n7 images"
    again = pool_montage(load_pool(spec.split(",")[0], ("train",)), num_images=5, extent_px=8)
    for axes, pixel in zip(again.axes, shown):
        np.testing.assert_array_equal(axes.images[0].get_array()[0, 0], pixel)


def test_an_image_that_cannot_be_read_is_a_gap(spec):
    pool = load_pool(spec.split(",")[1], ("train",))
    (broken,) = [path for path in pool.tasks[0].paths if path.endswith("1.png")]
    with open(broken, "wb") as file:
        file.write(b"no image")
    figure = pool_montage(pool, num_images=2)
    figure.savefig(io.BytesIO())
    sound, gap = figure.axes
    assert len(sound.images) == 1
    assert not gap.images
    assert gap.texts[0].get_text() == "cannot\nbe read"
