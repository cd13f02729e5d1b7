"""Reading a pool in the order of its plan: right pixels, right labels, and what happens to an image that cannot be read."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from raypath.data.image_files import read_image
from raypath.data.image_reading import ImageReader
from raypath.data.pool import load_pool
from raypath.data.quarantine import TileQuarantine, load_known_faults
from raypath.data.task_plan import TaskPlan, TaskSettings
from raypath.errors import TILE_FAULTS, BadInput, ImageUnreadable, SlideUnreadable

COLUMNS = {"image", "position", "slide", "tile", "task", "label", "fault"}
FAULT = TILE_FAULTS.index(ImageUnreadable)


def noise(height, width, seed):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.fixture
def folder(tmp_path):
    """Two tasks: `a` with 2 classes of 5 square PNGs, `b` with 3 classes of 4 that are wider or higher than the other side."""
    for task, classes, num, size in (("a", "xy", 5, (24, 24)), ("b", "uvw", 4, (24, 60))):
        for number in range(num * len(classes)):
            path = tmp_path / task / classes[number % len(classes)] / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(noise(*(size if number % 2 else size[::-1]), seed=number)).save(path)
    return tmp_path


@pytest.fixture
def pool(folder):
    return load_pool(f"{folder / 'a'},{folder / 'b'}", ("train",))


def plan_of(pool, **settings):
    return TaskPlan(pool.num_images, TaskSettings(**settings), seed=4)


@pytest.mark.parametrize("kind", ["iid", "stratified"])
def test_each_row_holds_the_pixels_and_the_label_of_its_image(pool, kind):
    plan = plan_of(pool, tasks=kind)
    positions = np.arange(100, 160)
    rows = ImageReader(pool, plan, {}, 24).read(positions)
    assert rows.keys() == COLUMNS
    assert rows["image"].shape == (60, 24, 24, 3)
    assert rows["image"].dtype == np.uint8
    assert {rows[name].dtype for name in ("position", "slide", "tile", "task", "label")} == {np.dtype(np.int64)}
    assert not rows["fault"].any()
    assert np.array_equal(rows["slide"], plan.samples(positions)[0])
    assert np.array_equal(rows["tile"], plan.samples(positions)[1])
    assert np.array_equal(rows["task"], rows["slide"])
    for row in range(60):
        task = pool.tasks[rows["task"][row]]
        path = task.paths[rows["tile"][row]]
        assert f"/{task.classes[rows['label'][row]]}/" in path
        assert_is_a_square_of(rows["image"][row], path)


def assert_is_a_square_of(pixels, path):
    whole = np.asarray(Image.open(path))
    rows, columns = (range(whole.shape[side] - 23) for side in (0, 1))
    assert any(np.array_equal(pixels, whole[y : y + 24, x : x + 24]) for y in rows for x in columns)


def test_the_square_of_an_image_that_is_not_square_is_drawn_for_the_position(pool):
    """The same image at many positions: every place from the first to the last column occurs, none twice by rule."""
    plan, reader = plan_of(pool), ImageReader(pool, plan_of(pool), {}, 24)
    positions = np.arange(4000)
    tasks, images = plan.samples(positions)
    wide = next(i for i, path in enumerate(pool.tasks[1].paths) if np.asarray(Image.open(path)).shape[1] == 60)
    mine = positions[(tasks == 1) & (images == wide)]
    whole = np.asarray(Image.open(pool.tasks[1].paths[wide]))
    lefts = [np.flatnonzero((whole[0, :37] == pixels[0, 0]).all(1))[0] for pixels in reader.read(mine)["image"]]
    assert len(mine) > 100
    assert (min(lefts), max(lefts)) == (0, 36)
    assert len(set(lefts)) > 30
    assert lefts != sorted(lefts)


def test_any_part_of_the_positions_gives_the_same_rows(pool):
    plan = plan_of(pool)
    whole = ImageReader(pool, plan, {}, 16).read(np.arange(40))
    part = ImageReader(pool, plan, {}, 16).read(np.arange(1, 40, 3))
    assert all(np.array_equal(part[name], whole[name][1::3]) for name in COLUMNS)


def test_another_extent_is_read_as_everywhere_else(pool):
    plan = plan_of(pool)
    rows = ImageReader(pool, plan, {}, 10).read(np.arange(8))
    for row, place in enumerate(plan.places(np.arange(8))):
        path = pool.tasks[rows["task"][row]].paths[rows["tile"][row]]
        assert np.array_equal(rows["image"][row], read_image(path, 10, place))


@pytest.mark.parametrize("place", [1e-9, 0.3, 0.5, 1.0])
def test_a_place_is_a_share_of_the_room_there_is(tmp_path, place):
    picture = noise(20, 31, seed=0)
    Image.fromarray(picture).save(tmp_path / "a.png")
    left = {1e-9: 0, 0.3: 3, 0.5: 5, 1.0: 11}[place]
    assert np.array_equal(read_image(str(tmp_path / "a.png"), 20, place), picture[:, left : left + 20])


def break_image(path, how):
    if how == "gone":
        path.unlink()
    elif how == "cut":
        path.write_bytes(path.read_bytes()[:900])
    elif how == "no image":
        path.write_text("x")
    elif how == "16 bits":
        Image.fromarray(np.full((24, 24), 3000, np.uint16)).save(path)
    elif how == "transparent":
        Image.fromarray(np.zeros((24, 24, 4), np.uint8)).save(path)


@pytest.mark.parametrize("how", ["gone", "cut", "no image", "16 bits", "transparent"])
def test_an_image_that_cannot_be_read_costs_only_itself(pool, folder, how):
    plan = plan_of(pool)
    positions = np.arange(120)
    before = ImageReader(pool, plan, {}, 24).read(positions)
    broken = pool.tasks[0].paths.index(str(folder / "a" / "x" / "2.png"))
    is_hit = (before["task"] == 0) & (before["tile"] == broken)
    break_image(folder / "a" / "x" / "2.png", how)
    after = ImageReader(pool, plan, {}, 24).read(positions)
    assert is_hit.sum() > 2
    assert (after["fault"] == np.where(is_hit, FAULT, 0)).all()
    for name in ("position", "slide", "tile", "task"):
        assert np.array_equal(after[name], before[name])
    for name in ("image", "label"):
        assert np.array_equal(after[name][~is_hit], before[name][~is_hit])

    # Another image of the same task, with its own label, and the same one for whoever reads the position.
    for row in np.flatnonzero(is_hit):
        same = [i for i, path in enumerate(pool.tasks[0].paths) if i != broken and is_image(after["image"][row], path)]
        assert len(same) == 1
        assert after["label"][row] == pool.tasks[0].labels[same[0]]
    alone = ImageReader(pool, plan, {}, 24).read(positions[is_hit])
    assert all(np.array_equal(alone[name], after[name][is_hit]) for name in COLUMNS)
    assert 1 in after["label"][is_hit]  # the planned image is of class 0: its label would be wrong here


def is_image(pixels, path):
    return np.array_equal(pixels, np.asarray(Image.open(path)))


def test_a_recorded_fault_decides_although_the_image_can_be_read_again(pool, folder):
    plan, path = plan_of(pool), folder / "a" / "y" / "3.png"
    whole = path.read_bytes()
    path.write_bytes(whole[:500])
    first = ImageReader(pool, plan, {}, 24).read(np.arange(60))
    path.write_bytes(whole)
    known = {int(position): int(fault) for position, fault in zip(first["position"], first["fault"]) if fault}
    again = ImageReader(pool, plan, known, 24).read(np.arange(60))
    assert known
    assert all(np.array_equal(first[name], again[name]) for name in COLUMNS)


def test_when_nothing_can_be_read_the_error_names_the_task_and_an_image(pool, folder):
    for path in pool.tasks[1].paths:
        (folder / path).write_bytes(b"x")
    with pytest.raises(BadInput, match=r"task b: 32 images in a row cannot be read.*\.png \(.*cannot identify"):
        ImageReader(pool, plan_of(pool), {}, 24).read(np.arange(30))


def test_the_quarantine_names_each_image_and_is_read_back(pool, folder, tmp_path):
    (folder / "b" / "u" / "0.png").write_bytes(b"x")
    rows = ImageReader(pool, plan_of(pool), {}, 24).read(np.arange(60))
    batch = {name: torch.from_numpy(values) for name, values in rows.items()}
    path = tmp_path / "quarantine.jsonl"
    TileQuarantine(path, pool, max_share=0.5).note(batch)
    TileQuarantine(path, pool, max_share=0.5).note(batch)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    hit = np.flatnonzero(rows["fault"]).tolist()
    assert [line["position"] for line in lines] == hit
    about = {"task": "b", "image": 0, "path": str(folder / "b" / "u" / "0.png"), "reason": "ImageUnreadable"}
    assert all(line == {"position": line["position"]} | about for line in lines)
    assert load_known_faults(path) == dict.fromkeys(hit, FAULT)


def test_the_numbers_of_older_faults_stay():
    assert TILE_FAULTS[8:] == (SlideUnreadable, ImageUnreadable)


@pytest.mark.real
def test_rows_of_the_real_pool(real_data):
    names = ["labelled/pcam", "labelled/idc", "labelled/lc25000_lung", "labelled/crc_polyp5"]
    names += ["labelled/wbc_jtsc?drop=basophil", "masks/glas?label=grade"]
    pool = load_pool(",".join(f"{real_data}/{name}" for name in names), ("train",))
    plan = TaskPlan(pool.num_images, TaskSettings(tasks="stratified"), seed=0)
    rows = ImageReader(pool, plan, {}, 96).read(np.arange(64))
    assert not rows["fault"].any()
    assert rows["image"].shape == (64, 96, 96, 3)
    assert np.bincount(rows["task"], minlength=6).min() >= 10
    assert (rows["label"] < np.array(pool.num_classes)[rows["task"]]).all()
    assert (rows["image"].std(axis=(1, 2, 3)) > 5).all()
    for row in np.flatnonzero(rows["task"] != 5):  # the grades of glands are in no path
        task = pool.tasks[rows["task"][row]]
        assert f"/{task.classes[rows['label'][row]]}/" in task.paths[rows["tile"][row]]
