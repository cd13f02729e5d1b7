"""One's own annotated slides: which tiles have which class, what is left out and said, patients and splits, and what is refused."""

from collections import Counter

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from raypath.benchmarks.annotations.points import Points
from raypath.benchmarks.annotations.slide_annotation import Annotation
from raypath.benchmarks.from_slides.annotated import AnnotatedSettings
from raypath.benchmarks.from_slides.annotated_tiles import AreaRule, PointRule, grid_tiles, joined, point_tiles
from raypath.benchmarks.from_slides.label_rules import RegionRule
from raypath.benchmarks.from_slides.slide_tiles import SlideTiles
from raypath.benchmarks.from_slides.spots import SpotsSettings
from raypath.benchmarks.settings import KINDS
from raypath.benchmarks.splits.making import SplitSettings
from raypath.config import override
from raypath.errors import BadInput
from raypath.protocols.transfer import TransferConfig
from raypath.slides import Slide, TileGrid, TileSpec
from tests.benchmarks.from_slides.annotation_files import (
    area,
    feature,
    ring,
    write_asap,
    write_geojson,
    write_mask,
    write_points,
)
from tests.benchmarks.from_slides.small_slides import write_slide
from tests.benchmarks.from_slides.test_pcam200 import write_camelyon

TISSUE = (64, 64, 448, 448)  # 12 x 12 tiles of 32 px
LEFT, RIGHT = (64, 64, 224, 448), (320, 64, 448, 448)  # 5 x 12 and 4 x 12 tiles
SETTINGS = {"extent_px": 32, "mpp": 2.0}


def write_slides(folder, *names):
    for seed, name in enumerate(names):
        write_slide(folder / f"{name}.tif", TISSUE, mpp=2.0, seed=seed)
    return folder


@pytest.fixture(scope="module")
def slides(tmp_path_factory):
    """Five slides of five patients; nothing is drawn on the last."""
    folder = write_slides(tmp_path_factory.mktemp("slides"), "a", "b", "c", "d", "bare")
    for name in "abcd":
        write_geojson(folder / f"{name}.geojson", area("Tumor", LEFT), area("Stroma", RIGHT))
    return folder


def build(folder, seed=0, **changes):
    return AnnotatedSettings(**{"path": str(folder), **SETTINGS, **changes}).load(seed)


def named(benchmark, slide="a"):
    """(x, y) -> class of the tiles of one slide."""
    rows = [row for row in benchmark.table.to_pylist() if row["sample"].startswith(f"{slide}/")]
    return {(row["x_l0"], row["y_l0"]): benchmark.classes[row["label"]] for row in rows}


def test_tiles_have_the_class_that_was_drawn_around_them(slides):
    benchmark = build(slides)
    assert benchmark.classes == ("Stroma", "Tumor")
    assert named(benchmark) == {
        (x, y): "Tumor" if x < 224 else "Stroma"
        for x in (*range(64, 224, 32), *range(320, 448, 32))
        for y in range(64, 448, 32)
    }
    assert (benchmark.mpp, benchmark.kind) == (2.0, "classification")
    row = benchmark.table.to_pylist()[0]
    with Slide.open(row["slide"]) as slide:
        pixels = slide.read(row["x_l0"], row["y_l0"], row["extent_l0"], 32)
    assert pixels.shape == (32, 32, 3)
    assert pixels[..., 1].mean() < 120  # it is tissue, not glass


def test_what_is_left_out_is_said_by_its_reason(slides):
    note = build(slides).split_note
    assert "1 of 5 slides have no annotation, not used: bare.tif" in note
    assert "144 tiles of tissue left out, outside of every annotation" in note  # 3 columns of 12 on 4 slides
    assert "no patients.csv: each slide is taken for a patient of its own" in note
    assert "split made here (60/20/20, seed 0): none was given, no patient divided" in note
    assert "min_tissue" not in note


def test_background_is_tissue_that_no_annotation_touches(tmp_path):
    folder = write_slides(tmp_path, "a", "b", "c")
    for name in "abc":
        write_geojson(folder / f"{name}.geojson", area("Tumor", (64, 64, 230, 448)), area("Glass", (0, 0, 512, 40)))
    benchmark = build(folder, background="rest")
    assert benchmark.classes == ("rest", "Tumor")
    tiles = named(benchmark)
    assert {x for (x, _), name in tiles.items() if name == "Tumor"} == set(range(64, 224, 32))
    assert {x for (x, _), name in tiles.items() if name == "rest"} == set(range(256, 448, 32))  # 224 is touched
    assert "36 tiles of tissue left out, touched by an area but of no class by the rule" in benchmark.split_note
    assert "48 annotated tiles left out, with less tissue than min_tissue" in benchmark.split_note  # 16 of Glass each
    everything = build(folder, background="rest", min_tissue=0.0)
    assert Counter(named(everything).values())["Glass"] == 16
    assert "min_tissue" not in everything.split_note


def test_ties_are_named_unless_one_is_on_top(tmp_path):
    folder = write_slides(tmp_path, "a", "b", "c")
    inner, outer, upper = (128, 128, 192, 192), (64, 64, 256, 448), (320, 64, 448, 256)
    drawn = [area("Necrosis", inner), area("Tumor", outer), area("Stroma", RIGHT), area("Tumor", upper)]
    for name in "abc":
        write_geojson(folder / f"{name}.geojson", *drawn)
    benchmark = build(folder)
    tiles = named(benchmark)
    assert not {(128, 128), (160, 160), (320, 128)} & set(tiles)
    assert (tiles[96, 128], tiles[320, 256]) == ("Tumor", "Stroma")
    assert "12 tiles left out, as much Necrosis as Tumor (precedence says which is on top)" in benchmark.split_note
    assert "72 tiles left out, as much Stroma as Tumor" in benchmark.split_note
    topmost = build(folder, precedence=("Necrosis", "Stroma"))
    tiles = named(topmost)
    necrosis = {place for place, name in tiles.items() if name == "Necrosis"}
    assert necrosis == {(x, y) for x in (128, 160) for y in (128, 160)}
    assert tiles[320, 128] == "Stroma"
    assert "as much" not in topmost.split_note
    with pytest.raises(BadInput, match="precedence names Fat; the classes are Necrosis, Stroma, Tumor"):
        build(folder, precedence=("Fat",))


def test_the_larger_of_two_shares():
    labels, said = labels_of({"A": shapely.box(0, 0, 20, 32), "B": shapely.box(12, 0, 32, 31)}, 0.5)
    assert labels == {(0, 0): "A"}  # 640 px of A, 620 of B
    assert not said
    labels, said = labels_of({"A": shapely.box(0, 0, 20, 32), "B": shapely.box(12, 0, 32, 32)}, 0.5)
    assert labels == {}
    assert said == {"tiles left out, as much A as B (precedence says which is on top)": 1}


def labels_of(areas, min_share, *, size=(32, 32), extent=32):
    """(x, y) -> class of a slide that is all tissue, and what was said."""
    spec = TileSpec(extent_px=extent, mpp=1.0, stride_px=extent, min_tissue=0.0)
    grid = TileGrid.of(size, 1.0, spec)
    tiles = SlideTiles("s", "s.tif", 1.0, size, grid.extent_l0, *grid.corners(np.arange(grid.num_cells)), "")
    rule = AreaRule(
        region=RegionRule(rule="area", min_share=min_share), precedence=(), mask_classes=(), background=None
    )
    said, names = Counter(), sorted(areas)
    kept, labels = grid_tiles(tiles, Annotation(None, areas), tiles.kept([]), spec, names, rule, said)
    places = zip(kept.x_l0.tolist(), kept.y_l0.tolist())
    return dict(zip(places, (names[label] for label in labels))), {what: n for what, n in said.items() if n}


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([0.1, 0.3, 0.5, 1.0]), st.integers(3, 13))
def test_the_area_rule_is_that_of_the_pixels(seed, min_share, extent):
    generator = np.random.default_rng(seed)
    masks, areas = {}, {}
    for name in "AB":
        masks[name], boxes = np.zeros((40, 40), bool), []
        for _ in range(3):
            (left, top), (width, height) = generator.integers(0, 30, 2), generator.integers(1, 25, 2)
            masks[name][top : top + height, left : left + width] = True
            boxes.append(shapely.box(left, top, min(40, left + width), min(40, top + height)))
        areas[name] = shapely.union_all(boxes)
    labels, said = labels_of(areas, min_share, size=(40, 40), extent=extent)
    expected, num_ties = {}, 0
    for y in range(0, 40 - extent + 1, extent):
        for x in range(0, 40 - extent + 1, extent):
            counts = {name: int(mask[y : y + extent, x : x + extent].sum()) for name, mask in masks.items()}
            held = {name: count for name, count in counts.items() if count >= min_share * extent**2 - 1e-9}
            if held and list(held.values()).count(max(held.values())) == 1:
                expected[x, y] = max(held, key=held.get)
            num_ties += bool(held) and list(held.values()).count(max(held.values())) > 1
    assert labels == expected
    assert sum(count for what, count in said.items() if "as much" in what) == num_ties


def point_slide(size, extent):
    return SlideTiles("s", "s.tif", 1.0, size, extent, np.empty(0, np.int64), np.empty(0, np.int64), "")


@settings(max_examples=30, deadline=None)
@given(
    st.lists(
        st.tuples(st.floats(0, 99), st.floats(0, 59), st.sampled_from("ab")), max_size=8, unique_by=lambda p: p[:2]
    ),
    st.integers(1, 5),
    st.floats(0.1, 9.9),
    st.integers(0, 99),
)
def test_no_tile_leaves_the_slide_and_every_tile_holds_its_point(points, num, jitter_um, seed):
    slide, rule = point_slide((100, 60), 20), PointRule(tiles_per_point=num, jitter_um=jitter_um)

    def cut(chosen):
        xy, labels = np.array([point[:2] for point in chosen]).reshape(-1, 2), tuple(point[2] for point in chosen)
        return point_tiles(slide, Annotation(None, points=Points(xy, labels)), "ab", rule, seed, Counter())

    tiles, labels = cut(points)
    assert len(tiles) == len(labels) == num * len(points)
    left, top = tiles.x_l0, tiles.y_l0
    assert ((left >= 0) & (top >= 0) & (left + 20 <= 100) & (top + 20 <= 60)).all()
    ordered = np.array(sorted(point[:2] for point in points)).reshape(-1, 2).repeat(num, axis=0)
    offsets = ordered - np.stack([left, top], axis=1)
    assert ((offsets >= -0.5) & (offsets <= 20.5)).all()
    assert labels.tolist() == ["ab".index(label) for *_, label in sorted(points) for _ in range(num)]
    again, _ = cut(points[::-1])
    assert again.samples == tiles.samples
    if points:  # a point's tiles are its own: without it the others stay
        fewer, _ = cut(sorted(points)[1:])
        assert fewer.samples == tiles.samples[num:]


def test_jitter_follows_seed_slide_and_size():
    rule, points = PointRule(tiles_per_point=8, jitter_um=8.0), Points(np.array([[50.0, 30.0]]), ("a",))
    tiles, _ = point_tiles(point_slide((100, 60), 20), Annotation(None, points=points), "a", rule, 0, Counter())
    other, _ = point_tiles(point_slide((100, 60), 20), Annotation(None, points=points), "a", rule, 1, Counter())
    assert tiles.samples != other.samples
    offsets = np.stack([tiles.x_l0 - 40, tiles.y_l0 - 20], axis=1)
    assert 3 < np.abs(offsets).max() <= 8
    assert len(set(tiles.samples)) > 4


def test_points_of_a_csv_and_of_qupath(tmp_path):
    folder = write_slides(tmp_path, "a", "b", "c")
    points = [(100.5, 200.5, "mitosis"), (300, 300, "other"), (100.5, 200.5, "mitosis"), (3, 300, "other")]
    write_points(folder / "a.csv", points)
    groups = {name: [[x, y] for x, y, label in dict.fromkeys(points) if label == name] for name in ("mitosis", "other")}
    qupath = [feature("Point", groups["mitosis"][0], "mitosis"), feature("MultiPoint", groups["other"], "other")]
    write_geojson(folder / "b.geojson", *qupath, feature("Point", [9, 9], None))
    write_geojson(folder / "c.tif.geojson", *qupath)
    benchmark = build(folder)
    expected = {(84, 184): "mitosis", (284, 284): "other", (0, 284): "other"}
    assert [named(benchmark, name) for name in "abc"] == [expected] * 3
    assert "1 points that are there twice, used once" in benchmark.split_note
    assert "1 annotations not used: unclassified" in benchmark.split_note
    assert "Point;" not in benchmark.split_note
    many = build(folder, points=PointRule(tiles_per_point=10, jitter_um=20.0))
    found = Counter(named(many).values())
    assert found["mitosis"] > 7  # of ten, less those that fell on the same place
    assert f"{90 - len(many.table)} tiles cut twice at the same place, used once" in many.split_note
    rest = named(build(folder, background="rest", max_per_class_and_slide=None))
    free = {place for place, name in rest.items() if name == "rest"}
    assert len(free) == 144 - 8  # both points in tissue have four neighbours on the grid
    assert not any(abs(x - 84) < 32 and abs(y - 184) < 32 for x, y in free)


def test_asap_groups_and_holes_of_qupath(tmp_path):
    folder = write_slides(tmp_path, "a", "b", "c")
    for name in "ab":
        write_asap(folder / f"{name}.xml", ("Tumor", LEFT), ("Stroma", RIGHT), ("None", (224, 64, 320, 448)))
    hole = (128, 128, 192, 192)
    pair = feature("MultiPolygon", [[ring(LEFT), ring(hole)], [ring((224, 64, 256, 448))]], "Tumor")
    write_geojson(folder / "c.geojson", pair, area("Stroma", RIGHT), area(None, (0, 0, 400, 400)))
    benchmark = build(folder)
    plain = named(benchmark, "a")
    assert Counter(plain.values()) == {"Tumor": 60, "Stroma": 48}
    assert named(benchmark, "b") == plain
    drawn = named(benchmark, "c")
    assert set(plain) - set(drawn) == {(x, y) for x in (128, 160) for y in (128, 160)}
    assert {x for x, _ in set(drawn) - set(plain)} == {224}
    assert "2 files of ASAP with areas in no group, not used" in benchmark.split_note
    assert "1 annotations not used: unclassified" in benchmark.split_note


def test_masks_are_labelled_by_the_share_of_their_values(tmp_path):
    folder = write_slides(tmp_path, "a", "b", "c")
    values = np.zeros((512, 512), np.uint8)
    values[:, 64:240], values[:, 240:448] = 1, 2
    for name in "abc":
        write_mask(folder / f"{name}_mask.tif", values)
    benchmark = build(folder, mask_classes=("Tumor", "Stroma"), region=RegionRule(rule="area", min_share=0.6))
    tiles = named(benchmark)
    assert {x for (x, _), name in tiles.items() if name == "Tumor"} == set(range(64, 224, 32))
    assert {x for (x, _), name in tiles.items() if name == "Stroma"} == set(range(256, 448, 32))  # 224 is half and half
    with pytest.raises(BadInput, match=r"a_mask\.tif: a mask needs mask_classes"):
        build(folder)
    with pytest.raises(BadInput, match=r"a_mask\.tif: has the value 2; expected class numbers of 0 to 1"):
        build(folder, mask_classes=("Tumor",))


def test_other_rules_for_areas(slides):
    wide = area("Tumor", (64, 64, 241, 448))
    write_geojson(slides / "drawn" / "a.geojson", wide, area("Stroma", RIGHT))
    for name in "bcd":
        write_geojson(slides / "drawn" / f"{name}.geojson", area("Tumor", LEFT), area("Stroma", RIGHT))
    drawn = {"annotations": str(slides / "drawn")}
    with pytest.raises(BadInput, match=r"a\.tif: has 2 annotations \(a\.geojson, drawn/a\.geojson\)"):
        build(slides)
    central = named(build(slides, **drawn, region=RegionRule(rule="central_pixel")))
    assert central[(224, 64)] == "Tumor"  # its central pixel is 240
    strict = named(build(slides, **drawn, region=RegionRule(rule="area", min_share=0.6)))
    assert (224, 64) not in strict
    centre = named(build(slides, **drawn, region=RegionRule(rule="centre_region", centre_um=40.0)))
    assert centre[(224, 64)] == "Tumor"
    for path in (slides / "drawn").iterdir():
        path.unlink()


@pytest.mark.parametrize("most", [1, 7, 50])
def test_caps_hold_for_every_class_and_slide_and_are_said(slides, most):
    whole, few = build(slides), build(slides, max_per_class_and_slide=most)
    for slide in "abcd":
        tiles = named(few, slide)
        assert Counter(tiles.values()) == {"Tumor": min(most, 60), "Stroma": min(most, 48)}
        assert tiles.items() <= named(whole, slide).items()
    num = len(whole.table) - len(few.table)
    assert f"{num} tiles left out, more than max_per_class_and_slide" in few.split_note
    assert few.data_hash != whole.data_hash


def test_classes_can_be_left_out(slides):
    with pytest.raises(BadInput, match=r"found tiles of Tumor; a benchmark needs two classes \(benchmark\.background"):
        build(slides, drop_classes=("Stroma",))
    benchmark = build(slides, drop_classes=("Stroma",), background="rest")
    assert benchmark.classes == ("rest", "Tumor")
    assert set(named(benchmark).values()) == {"rest", "Tumor"}
    assert {x for (x, _), name in named(benchmark).items() if name == "rest"} == {224, 256, 288}
    assert "192 tiles of 'Stroma' left out (drop_classes)" in benchmark.split_note
    with pytest.raises(BadInput, match="drop_classes names Fat; the classes are Stroma, Tumor"):
        build(slides, drop_classes=("Fat",))


def splits_of(benchmark):
    return dict(sorted({(row["sample"][0], row["split"]) for row in benchmark.table.to_pylist()}))


def test_patients_and_splits_of_a_table(slides):
    table = slides / "patients.csv"
    try:
        table.write_text("Slide,Patient\na.tif,P1\nb,P1\nc,P2\nd,P3\nother,P9\n")
        benchmark = build(slides)
        patients = {row["sample"][0]: row["patient"] for row in benchmark.table.to_pylist()}
        assert patients == dict(zip("abcd", ["P1", "P1", "P2", "P3"]))
        found = splits_of(benchmark)
        assert found["a"] == found["b"]
        assert sorted(set(found.values())) == ["test", "train", "val"]
        assert "no patients.csv" not in benchmark.split_note
        table.write_text("d,P3\n" + "c,P2\na.tif,P1\nother,P9\nb,P1\n")
        with pytest.raises(BadInput, match=r"patients\.csv: line 1: no column slide, patient"):
            build(slides)
        table.write_text("slide,patient\nd,P3\nc,P2\na.tif,P1\nother,P9\nb,P1\n")
        assert build(slides).data_hash == benchmark.data_hash  # the order of lines is nothing
        table.write_text("slide,patient,split\na,P1,test\nb,P1,test\nc,P2,val\nd,P3,train\n")
        assert splits_of(build(slides)) == {"a": "test", "b": "test", "c": "val", "d": "train"}
        assert splits_of(build(slides, split=SplitSettings(use_given=False))) == found
        folds = [build(slides, split=SplitSettings(num_folds=3, fold=fold)) for fold in range(3)]
        tests = [{name for name, split in splits_of(fold).items() if split == "test"} for fold in folds]
        assert sorted(sorted(names) for names in tests) == [["a", "b"], ["c"], ["d"]]
        assert all(fold.is_split_chosen for fold in folds)
        table.write_text("slide,patient,split\na,P1,test\nb,P1,train\nc,P2,val\nd,P3,train\n")
        with pytest.raises(BadInput, match=r"P1 \(train, test\)"):
            build(slides)
        assert build(slides, split=SplitSettings(waive=("patient",))).waived == ("patient",)
        table.write_text("slide,patient\na,P1\nb,P1\n")
        with pytest.raises(BadInput, match=r"patients\.csv: no line for c, d"):
            build(slides)
        table.write_text("slide,patient,split\na,P1,tset\n")
        with pytest.raises(BadInput, match=r"patients\.csv: line 2, column split: 'tset'"):
            build(slides)
        table.write_text("slide,patient\na,P1\na.tif,P2\n")
        with pytest.raises(BadInput, match=r"patients\.csv: line 3, column slide: 'a\.tif'; expected every slide once"):
            build(slides)
    finally:
        table.unlink()


def test_the_same_benchmark_whatever_the_order_of_the_features(slides, tmp_path):
    folder = write_slides(tmp_path, "a", "b", "c", "d")
    for name in "abcd":
        write_geojson(folder / f"{name}.geojson", area("Stroma", RIGHT), area("Tumor", LEFT))
    first, second = build(slides).table, build(folder).table
    assert first.drop(["slide"]).equals(second.drop(["slide"]))
    assert splits_of(build(slides, seed=1)) != splits_of(build(slides, seed=0)) or named(
        build(slides, seed=1)
    ) == named(build(slides))


def test_qupath_counts_from_where_the_scanner_began(tmp_path, monkeypatch):
    folder = write_slides(tmp_path, "a", "b", "c")
    for name in "abc":
        write_geojson(folder / f"{name}.geojson", area("Tumor", (0, 0, 64, 64)), feature("Point", [200, 200], "cell"))
    whole = Slide.__init__

    def scanned_from_128(self, *arguments):
        whole(self, *arguments)
        self.seen_from_l0 = (128, 96)

    monkeypatch.setattr(Slide, "__init__", scanned_from_128)
    benchmark = build(folder)
    assert named(benchmark) == {(x, y): "Tumor" for x in (128, 160) for y in (96, 128)} | {(312, 280): "cell"}
    assert "3 annotations moved to where the scanner began, as QuPath counts" in benchmark.split_note


def damaged(folder, path, write):
    """Five slides of which one annotation is replaced."""
    write_slides(folder, "a", "b", "c")
    for name in "bc":
        write_geojson(folder / f"{name}.geojson", area("Tumor", LEFT), area("Stroma", RIGHT))
    write(folder / path)
    return folder


@pytest.mark.parametrize(
    ("path", "write", "message"),
    [
        (
            "a.geojson",
            lambda p: p.write_text('{"type": "FeatureCollection",'),
            r"a\.geojson: line 1, column 30: is no JSON",
        ),
        (
            "a.geojson",
            lambda p: write_geojson(p, feature("Polygon", [ring(LEFT)[:-1]], "T")),
            "feature 1 .*is not closed",
        ),
        (
            "a.geojson",
            lambda p: write_geojson(p, feature("Point", [1], "T")),
            "feature 1 .*its points are no pairs of numbers",
        ),
        (
            "a.geojson",
            lambda p: write_geojson(p, area("T", (600, 0, 700, 9))),
            "all of 'T' lies outside of its slide of 512 x 512",
        ),
        ("a.geojson", lambda p: write_geojson(p, area("tumor", LEFT)), "Tumor and tumor differ only in capitals"),
        (
            "a.geojson",
            lambda p: write_geojson(p, feature("Point", [9, 900], "T")),
            r"a\.geojson: a point at x 9, y 900",
        ),
        ("a.xml", lambda p: p.write_text("<Annotations><Annotation Id='1'/></Annotations>"), "without PartOfGroup"),
        ("a.csv", lambda p: write_points(p, [(1, 2, "T"), (1, 2, "S")]), "x 1, y 2 is both S and T"),
        ("a.csv", lambda p: write_points(p, [(1, 2, "T")], "Centroid X um,y,class"), "line 1: 0 columns for x"),
        ("a_mask.tif", lambda p: write_mask(p, np.zeros((128, 128), np.uint8)), "a mask needs mask_classes"),
    ],
)
def test_a_damaged_annotation_is_one_clear_line(tmp_path, path, write, message):
    with pytest.raises(BadInput, match=message) as error:
        build(damaged(tmp_path, path, write))
    assert "\n" not in str(error.value)


def test_folders_that_do_not_fit(tmp_path):
    folder = write_slides(tmp_path, "a", "b")
    with pytest.raises(BadInput, match="no annotation for any of 2 slides; expected NAME.geojson, NAME.xml"):
        build(folder)
    write_geojson(folder / "a.geojson", area("Tumor", LEFT), area("Stroma", RIGHT))
    write_geojson(folder / "B2.geojson", area("Tumor", LEFT))
    with pytest.raises(BadInput, match="class 'Stroma' has 48 samples and none in"):
        build(folder)
    with pytest.raises(BadInput, match=r"found tiles of Tumor; .*1 annotations fit no slide: B2\.geojson"):
        build(folder, drop_classes=("Stroma",))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"points": PointRule(tiles_per_point=0)}, "tiles_per_point=0"),
        ({"points": PointRule(tiles_per_point=2)}, "the same tile again"),
        ({"points": PointRule(jitter_um=32.0)}, r"less than half a tile \(32 um\)"),
        ({"max_per_class_and_slide": 0}, "max_per_class_and_slide=0"),
        ({"split": SplitSettings(by="image")}, "split.by=image"),
        ({"annotations": "/nowhere"}, "annotations=/nowhere: there is no such folder"),
        ({"stride_px": 0}, "stride_px = 0"),
    ],
)
def test_settings_that_cannot_be(slides, changes, message):
    with pytest.raises(BadInput, match=message):
        build(slides, **changes)


def test_tiles_at_the_same_place_count_once_or_not_at_all():
    def at(*places):
        x, y = np.array(places, np.int64).reshape(-1, 2).T
        return SlideTiles("s", "s.tif", 1.0, (99, 99), 9, x, y, "")

    said = Counter()
    tiles, labels = joined(at((0, 0), (9, 0)), np.array([0, 1]), at((9, 0), (0, 0), (4, 5)), np.array([1, 1, 0]), said)
    assert dict(zip(tiles.samples, labels.tolist())) == {"s/9-0": 1, "s/4-5": 0}
    assert said == {
        "tiles cut twice at the same place, used once": 1,
        "tiles left out, of two classes at the same place": 1,
    }


def test_it_is_recognised_and_chosen_by_its_kind(slides, tmp_path):
    assert AnnotatedSettings in KINDS
    assert AnnotatedSettings.recognise(slides)
    assert [kind for kind in KINDS if hasattr(kind, "recognise") and kind.recognise(slides)] == [AnnotatedSettings]
    write_slides(tmp_path, "a")
    (tmp_path / "a.xml").write_text('<?xml version="1.0"?>\n<Annotations MicronsPerPixel="0.25"></Annotations>')
    write_points(tmp_path / "a.csv", [(1, 2, "T")])
    assert not AnnotatedSettings.recognise(tmp_path)  # Aperio's XML, and a table that may be anything
    write_points(tmp_path / "a.spots.csv", [(1, 2, "T")])
    assert SpotsSettings.recognise(tmp_path)
    assert not AnnotatedSettings.recognise(tmp_path)
    write_asap(tmp_path / "a.xml", ("Tumor", LEFT))
    assert AnnotatedSettings.recognise(tmp_path)
    assert not AnnotatedSettings.recognise(write_camelyon(tmp_path / "camelyon"))  # its XML is in a folder of its own
    config = override(
        TransferConfig(),
        ["benchmark.kind=annotated", "benchmark.region.rule=central_pixel", "benchmark.points.tiles_per_point=10"],
    )
    assert (config.benchmark.region.rule, config.benchmark.points.tiles_per_point) == ("central_pixel", 10)
    assert config.benchmark.region.min_share == 0.5


@pytest.mark.real
def test_real_slides_with_areas_and_points(real_data, tmp_path):
    for number, (left, top) in {2: (5200, 5350), 3: (3340, 2970), 4: (3520, 3770)}.items():
        name = f"her2st_C{number}"
        (tmp_path / f"{name}.tiff").symlink_to(real_data / "slides" / f"{name}.tiff")
        tumour = area("Tumor", (left, top, left + 2000, top + 1400))
        write_geojson(tmp_path / f"{name}.geojson", tumour, feature("MultiPoint", [[left - 500.5, top - 300]], "Cell"))
    points = PointRule(tiles_per_point=5, jitter_um=40.0)
    benchmark = AnnotatedSettings(path=str(tmp_path), mpp=0.7, background="rest", points=points).load(0)
    assert benchmark.classes == ("rest", "Cell", "Tumor")
    for split in ("train", "val", "test"):
        found = benchmark.counts()[split]
        assert found["Cell"] == 5
        assert 40 <= found["Tumor"] <= 55  # 2000 x 1400 px are 41 tiles of 260 px; those half in it count as well
        assert found["rest"] > 50
    row = benchmark.rows("train").slice(0, 1).to_pylist()[0]
    assert row["extent_l0"] == round(256 * 0.7 / row["slide_mpp"])
    with Slide.open(row["slide"]) as slide:
        assert slide.read(row["x_l0"], row["y_l0"], row["extent_l0"], 256).shape == (256, 256, 3)
