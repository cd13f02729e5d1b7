import csv
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

from raypath.benchmarks import IMAGE_SCHEMA, Benchmark, load_phantoms
from raypath.benchmarks.splits.near_duplicate_sheet import laid_on, sheet
from raypath.benchmarks.splits.near_duplicates import check, compare, find, pictures, rings_of
from raypath.errors import BadInput

TURNS = [None, *Image.Transpose]  # the 8 flips and right angles


def texture(number, side=96):
    """Blobs of some px: no two numbers look alike."""
    noise = np.random.default_rng(number).normal(size=(side, side, 3))
    smooth = gaussian_filter(noise, (2.5, 2.5, 0))
    return Image.fromarray(np.uint8(np.clip(128 + 40 * smooth / smooth.std(), 0, 255)))


def turned(picture, turn):
    return picture if turn is None else picture.transpose(turn)


def augmented(picture, degrees, scale):
    """Turned about its centre and enlarged, cut to what is inside."""
    side = picture.width
    bigger = picture.rotate(degrees, Image.Resampling.BICUBIC)
    edge = side * (1 - 1 / scale) / 2
    return bigger.resize((side, side), Image.Resampling.BICUBIC, box=(edge, edge, side - edge, side - edge))


def save_set(folder, pictures):
    """A table of (name, split, picture), written as PNG."""
    rows = []
    for name, split, picture in pictures:
        picture.save(folder / f"{name}.png")
        rows.append({"sample": name, "label": 0, "split": split, "path": str(folder / f"{name}.png")})
    return pa.Table.from_pylist(rows, schema=IMAGE_SCHEMA)


def names_of(search):
    return {frozenset((pair.first["sample"], pair.second["sample"])) for pair in search.pairs}


def test_the_eight_flips_and_right_angles_are_exact():
    first = rings_of(texture(0))
    others = np.stack([rings_of(turned(texture(0), turn)) for turn in TURNS])
    best, is_mirrored, angle, ring = compare(np.repeat(first[None], 8, axis=0), others)
    assert (best > 0.999).all()
    assert (ring == 0).all()
    assert len(set(zip(is_mirrored.tolist(), angle.tolist()))) == 8
    assert set(angle.tolist()) == {0, 32, 64, 96}


def test_the_correlation_is_that_of_a_slow_search():
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(2, 1, 32, 128))
    best, *place = (value[0] for value in compare(first, second))
    radii = np.geomspace(1, 1, 32) * (31 / (0.2 * 31)) ** (np.arange(32) / 31)
    slow = {}
    for shift in range(-8, 9):
        a = slice(max(0, shift), 32 + min(0, shift))
        b = slice(max(0, -shift), 32 + min(0, -shift))
        weight = np.repeat((radii[a] * radii[b])[:, None], 128, axis=1).ravel()
        for is_mirrored in (0, 1):
            for angle in range(128):
                step = angle - np.arange(128) if is_mirrored else np.arange(128) + angle
                x, y = first[0][a][:, step % 128].ravel(), second[0][b].ravel()
                x, y = x - np.average(x, weights=weight), y - np.average(y, weights=weight)
                covariance = np.average(x * y, weights=weight)
                spread = np.sqrt(np.average(x**2, weights=weight) * np.average(y**2, weights=weight))
                slow[is_mirrored, angle, shift] = covariance / spread
    expected = max(slow, key=slow.get)
    assert tuple(int(v) for v in place) == expected
    assert best == pytest.approx(slow[expected], abs=1e-4)


def test_copies_across_splits_are_found_however_they_lie_and_nothing_else(tmp_path):
    pictures = [(f"train{n}", "train", texture(n)) for n in range(30)]
    pictures += [(f"test{n}", "test", turned(texture(n), turn)) for n, turn in enumerate(TURNS)]
    pictures += [
        ("test20", "test", augmented(texture(20), 17, 1.2)),
        ("val21", "val", augmented(texture(21), -33, 1.35)),
    ]
    pictures += [("val22", "val", texture(22)), ("test22", "test", texture(22)), ("train22b", "train", texture(22))]
    pictures += [("test50", "test", texture(50)), ("val51", "val", texture(51))]
    table = save_set(tmp_path, pictures)
    expected = {frozenset((f"train{n}", f"test{n}")) for n in [*range(8), 20, 22]}
    expected |= {frozenset(pair) for pair in [("train21", "val21"), ("train22", "val22"), ("test22", "val22")]}
    expected |= {frozenset(("train22b", name)) for name in ("val22", "test22")}
    seen = []
    search = find(table, progress=lambda done, total: seen.append((done, total)))
    assert names_of(search) == expected
    assert (search.num_samples, search.flat, seen[-1]) == (len(table), (), (len(table), len(table)))
    assert [pair.correlation for pair in search.pairs] == sorted((p.correlation for p in search.pairs), reverse=True)
    moved = find(table.take(np.random.default_rng(0).permutation(len(table))), num_threads=1)
    assert list(map(str, moved.pairs)) == list(map(str, search.pairs))


def test_between_groups_splits_have_no_say_and_a_group_is_not_compared_with_itself(tmp_path):
    pictures = [(f"{n:02}", "train", texture(n)) for n in range(20)]
    pictures += [(f"{n + 20}", "train", turned(texture(n), turn)) for n, turn in enumerate(TURNS)]
    pictures += [(f"{n}", "train", texture(0)) for n in range(60, 90)]  # of one group, and more than are compared
    table = save_set(tmp_path, pictures)
    groups = [name if int(name) < 60 else "many" for name, *_ in pictures]
    groups[3] = groups[23] = "both"
    found = names_of(find(table, groups=groups))
    expected = {frozenset((f"{n:02}", f"{n + 20}")) for n in range(8) if n != 3}
    assert expected <= found
    rest = found - expected  # each of the group has one partner outside at least, and none inside
    assert {min(pair) for pair in rest} <= {"00", "20"}
    assert {max(pair) for pair in rest} == {str(n) for n in range(60, 90)}
    order = np.random.default_rng(0).permutation(len(table))
    assert names_of(find(table.take(order), groups=[groups[row] for row in order])) == found
    assert find(table).pairs == ()


def test_tiles_of_a_slide_are_read_with_the_pixels_they_have(phantom_folder):
    table = load_phantoms(phantom_folder, extent_px=64, mpp=0.5, max_per_class_and_slide=3).table
    first = table.slice(0, 1).to_pylist()[0]
    own, copy = {**first, "split": "train"}, {**first, "sample": "copy", "split": "test"}
    assert [picture.size for picture in pictures([first], 128)] == [(first["extent_l0"],) * 2]
    search = find(pa.Table.from_pylist([own, copy], schema=table.schema))
    assert names_of(search) == {frozenset((first["sample"], "copy"))}


def test_stain_and_light_have_no_say_and_flat_samples_are_named(tmp_path):
    darker = texture(1).point([int(value * 0.6 + 20) for value in range(256)] * 3)
    blank = Image.new("RGB", (64, 64), (240, 238, 241))
    pictures = [("a", "train", texture(1)), ("b", "test", darker), ("c", "train", blank), ("d", "test", blank)]
    search = find(save_set(tmp_path, pictures))
    assert names_of(search) == {frozenset("ab")}
    assert search.flat == ("c", "d")


def test_an_edge_alone_makes_no_pair(tmp_path):
    pictures = []
    for number, split in enumerate(["train", "test", "val"]):
        pixels = np.array(texture(number).point([v // 2 + 90 for v in range(256)] * 3))
        pixels[:, 40:46] = 250  # one white slit
        pictures.append((f"{number}", split, Image.fromarray(pixels)))
    assert find(save_set(tmp_path, pictures)).pairs == ()


def cell(number, side=96):
    """A dark disc, a bit oval, on a light ground: strangers are alike in outline only."""
    rng = np.random.default_rng(number)
    y, x = np.mgrid[:side, :side] - side / 2
    radius = np.hypot(x * rng.uniform(0.95, 1.05), y) / (side * rng.uniform(0.3, 0.36))
    inside = 110 + 0.35 * (np.asarray(texture(number, side), float).mean(axis=2) - 128)
    return Image.fromarray(np.uint8(np.where(radius < 1, inside, 225))).convert("RGB")


def test_round_cells_are_no_pair_for_their_outline_and_a_turned_copy_of_one_is(tmp_path):
    cells = [(f"{n:02}", ("train", "test")[n % 2], cell(n)) for n in range(60)]
    cells.append(("copy", "test", augmented(cell(8), 40, 1.1)))
    assert names_of(find(save_set(tmp_path, cells))) == {frozenset(("08", "copy"))}


def test_a_benchmark_with_copies_is_refused_with_its_list_unless_waived(tmp_path):
    table = save_set(tmp_path, [("a", "train", texture(1)), ("b", "test", turned(texture(1), TURNS[3]))])
    benchmark = Benchmark(
        name="set", classes=("x", "y"), primary="accuracy", mpp=None, table=table, data_hash="h", split_note=""
    )
    with pytest.raises(
        BadInput, match=r"^set: 1 pairs of samples are near-duplicates across splits: a \(train\) and b \(test\), c"
    ):
        check(benchmark)
    search, note = check(replace(benchmark, waived=("near_duplicate",)))
    assert len(search.pairs) == 1
    assert note.startswith("waived: 1 pairs of samples are near-duplicates")
    (tmp_path / "a.png").write_bytes(b"no picture")
    with pytest.raises(BadInput, match=r"a\.png: cannot be read"):
        check(benchmark)


@pytest.mark.parametrize(("degrees", "scale", "turn"), [(0, 1.0, TURNS[2]), (20, 1.2, None), (-35, 1.3, TURNS[1])])
def test_the_sheet_lays_the_second_on_the_first(tmp_path, degrees, scale, turn):
    first, second = texture(3), augmented(turned(texture(3), turn), degrees, scale)
    (pair,) = find(save_set(tmp_path, [("a", "train", first), ("b", "test", second)])).pairs
    shown = [np.asarray(p.convert("L"), np.float64)[32:64, 32:64].ravel() for p in (first, laid_on(pair, second))]
    assert (pair.first["sample"], pair.second["sample"]) == ("a", "b")
    assert np.corrcoef(*shown)[0, 1] > 0.9
    assert abs(np.corrcoef(shown[0], np.asarray(second.convert("L"), float)[32:64, 32:64].ravel())[0, 1]) < 0.7
    page = sheet([pair] * 3)
    assert page.width > 6 * 192
    assert page.height > 2 * 192


@pytest.mark.real
@pytest.mark.parametrize(("name", "fewest", "most"), [("lc25000_lung", 30, 40), ("pcam", 0, 0), ("crc_polyp5", 0, 0)])
def test_the_copies_of_lc25000_are_found_and_none_where_there_are_none(real_data, name, fewest, most):
    search = find(listed(real_data / "labelled" / name))
    assert fewest <= len(search.pairs) <= most
    assert all(pair.first["path"].split("/")[-2] == pair.second["path"].split("/")[-2] for pair in search.pairs)


@pytest.mark.real
@pytest.mark.parametrize(("name", "most"), [("wbc_jtsc", 10), ("idc", 0)])
def test_folds_of_real_sets_are_not_tied_by_strangers(real_data, name, most):
    table = listed(real_data / "labelled" / name)
    assert len(find(table, groups=table["sample"].to_pylist()).pairs) <= most


def listed(folder):
    with (folder / "manifest.csv").open(newline="", encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file))
    columns = {"sample": [row["path"] for row in rows], "split": [row["split"] for row in rows]}
    return pa.table(columns | {"path": [str(folder / row["path"]) for row in rows]})
