import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

from raypath.benchmarks import IMAGE_SCHEMA, TILE_SCHEMA, Benchmark, load_images, load_phantoms
from raypath.benchmarks.masks import MasksSettings
from raypath.benchmarks.splits.leakage import find_leaks
from raypath.benchmarks.splits.near_duplicates import find
from raypath.data.manifest import read_manifest
from raypath.errors import BadInput
from raypath.study.contamination import TAG, check_contamination, contamination_of
from raypath.study.contamination_rules import SeenTile
from raypath.study.seen import Seen, SeenImage, SeenSlide, Training, seen_by
from tests.study.pretrained import write_index, write_run


def benchmark_of(rows, *, name="set", schema=IMAGE_SCHEMA):
    """A benchmark of rows (dicts), samples numbered unless they are named."""
    rows = [{"sample": f"s{number}", "label": number % 2, "split": "test"} | row for number, row in enumerate(rows)]
    table = pa.Table.from_pylist(rows, schema=schema)
    return Benchmark(
        name=name, classes=("x", "y"), primary="accuracy", mpp=None, table=table, data_hash="h", split_note=""
    )


def slide(name, *, patient=None, path=None):
    return SeenSlide(name, path or f"/slides/{name}.svs", patient or name, None, "train", f"sha {name}", 1)


def saw(*slides, images=(), corpora=(), uses_labels=False, unknown=""):
    training = Training(
        name="run",
        uses_labels=uses_labels,
        slides=slides,
        images=tuple(images),
        corpora=tuple(corpora),
        unknown=unknown,
    )
    return Seen((training,))


def rules_of(found):
    return {finding.rule: (finding.of, finding.num, finding.names) for finding in found.findings}


def texture(number, side=96):
    """Blobs of some px: no two numbers look alike."""
    smooth = gaussian_filter(np.random.default_rng(number).normal(size=(side, side, 3)), (2.5, 2.5, 0))
    return Image.fromarray(np.uint8(np.clip(128 + 40 * smooth / smooth.std(), 0, 255)))


@pytest.fixture
def pictures(tmp_path):
    """A folder of ten pictures, five of each class, all different."""
    for number in range(10):
        home = tmp_path / "set" / "xy"[number % 2]
        home.mkdir(parents=True, exist_ok=True)
        texture(number).save(home / f"{number}.png")
    return tmp_path / "set"


# The phantoms: six slides, split by patient


@pytest.fixture(scope="module")
def phantoms(phantom_folder):
    return load_phantoms(phantom_folder, extent_px=64, mpp=0.5, max_per_class_and_slide=3)


@pytest.fixture(scope="module")
def slides_of_phantoms(phantom_folder):
    rows = read_manifest(phantom_folder / "manifest.csv")
    return [{c: getattr(row, c) for c in ("slide", "path", "patient", "site", "split")} for row in rows]


@pytest.fixture
def phantom_run(tmp_path, slides_of_phantoms):
    def make(**how):
        return write_run(tmp_path / "runs", "run", index=write_index(tmp_path / "index", slides_of_phantoms), **how)

    return make


@pytest.mark.parametrize("kind", ["simclr", "supervised"])
def test_a_pretraining_on_the_train_slides_is_clean_and_its_train_overlap_is_noted(phantoms, phantom_run, kind):
    found = check_contamination(contamination_of(seen_by(str(phantom_run(kind=kind))), phantoms))
    assert (found.status, found.tag) == ("clean", {TAG: "clean"})
    assert {finding.of for finding in found.findings} == {"train and val"}
    assert {"content", "slide", "patient"} == {finding.rule for finding in found.findings}


def test_slides_of_the_test_seen_without_labels_are_transductive_and_with_labels_dirty(phantoms, phantom_run):
    seen = seen_by(str(phantom_run(splits=("train", "test"))))
    found = check_contamination(contamination_of(seen, phantoms))
    num_test = sum(phantoms.counts()["test"].values())
    assert found.status == "transductive"
    assert found.tag == {TAG: "transductive (content, slide, patient)"}
    assert {f.num for f in found.findings if f.of == "test"} == {num_test}
    labelled = Seen(tuple(Training(**{**vars(t), "uses_labels": True}) for t in seen.trainings))
    dirty = contamination_of(labelled, phantoms)
    assert dirty.status == "dirty"
    with pytest.raises(BadInput, match=r"trained with labels on its test: .* waive=content,slide,patient$"):
        check_contamination(dirty)
    partly = contamination_of(labelled, phantoms, waive=("slide", "patient"))
    with pytest.raises(BadInput, match="waive=content$"):
        check_contamination(partly)
    waived = check_contamination(contamination_of(labelled, phantoms, waive=("content", "slide", "patient")))
    assert (waived.status, waived.tag) == ("waived", {TAG: "waived (content, slide, patient)"})


def test_a_sample_that_a_tile_shows_was_seen_by_who_was_trained_on_its_slide(tmp_path, phantom_run, slides_of_phantoms):
    Image.new("RGB", (32, 32)).save(tmp_path / "cut.png")
    rows = [{"sample": "cut", "path": str(tmp_path / "cut.png"), "split": "test"}]
    seen = seen_by(str(phantom_run(splits=("train",))))
    for split, status in (("train", "transductive"), ("test", "clean")):
        slide = next(one["path"] for one in slides_of_phantoms if one["split"] == split)
        tiles = [SeenTile("cut", slide, "cut and a tile"), SeenTile("other", slide, "of another set")]
        found = contamination_of(seen, benchmark_of(rows), tiles=tiles)
        assert found.status == status
        expected = {"near_duplicate": ("test", 1, ("cut and a tile",))} if status == "transductive" else {}
        assert rules_of(found) == expected


def test_a_nested_set_is_all_test(phantoms, phantom_run):
    found = contamination_of(seen_by(str(phantom_run())), phantoms, is_nested=True)
    assert found.status == "transductive"
    assert all(finding.of == "test" and finding.num_samples == len(phantoms.table) for finding in found.findings)


def test_a_copy_of_a_slide_under_another_name_is_known_by_its_bytes(tmp_path, slides_of_phantoms):
    mine = slides_of_phantoms[0]
    copy = tmp_path / "other-name.tiff"
    shutil.copy(mine["path"], copy)
    tiles = [{"slide": str(copy), "slide_mpp": 0.5, "x_l0": 0, "y_l0": 0, "extent_l0": 64}]
    index = write_index(tmp_path / "index", [mine])
    run = write_run(tmp_path / "runs", "ssl", index=index)
    found = contamination_of(seen_by(str(run)), benchmark_of(tiles, schema=TILE_SCHEMA))
    assert rules_of(found) == {"content": ("test", 1, (str(copy),))}


# Names


def test_the_same_patient_slide_and_site_by_name(pictures):
    path = str(pictures / "x" / "0.png")
    rows = [
        {"patient": "P12", "path": path},
        {"slide": "S21-0042", "path": path},
        {"patient": "TCGA-CR-7395", "path": path},
        {"patient": "TCGA-CR-0001", "path": path},
        {"patient": "7", "path": path},
        {"patient": "other", "slide": "S21-0042.7", "path": path},
        {"patient": "P12", "path": path, "split": "train"},
    ]
    seen = saw(
        slide("a", patient="P12"),
        slide("b", path="/x/S21-0042.svs"),
        slide("c", patient="7"),
        slide("TCGA-CR-7395-01A-01-TS1", patient="TCGA-CR-7395"),
    )
    found = contamination_of(seen, benchmark_of(rows))
    assert [(f.rule, f.of, f.num, f.names) for f in found.findings] == [
        ("slide", "test", 1, ("S21-0042",)),
        ("patient", "test", 1, ("P12",)),
        ("case", "test", 1, ("TCGA-CR-7395",)),
        ("site", "test", 1, ("CR",)),
        ("number", "test", 1, ("7",)),
        ("patient", "train and val", 1, ("P12",)),
    ]
    assert found.status == "transductive"
    assert found.tag == {TAG: "transductive (slide, patient, case)"}
    assert "patient: 1 of 6 test samples are of patients that run (without labels) saw: P12" in found.line


@pytest.mark.parametrize("number", ["7", "12", "123", "C"])
def test_bare_numbers_and_sites_alone_are_noted_and_not_judged(number):
    rows = [{"patient": number, "path": "x"}, {"patient": "TCGA-CR-0001", "path": "x"}]
    seen = saw(slide("a", patient=number), slide("TCGA-CR-7395-01A-01-TS1"), uses_labels=True)
    found = check_contamination(contamination_of(seen, benchmark_of(rows)))
    assert {finding.rule for finding in found.findings} == {"number", "site"}
    assert (found.status, found.tag) == ("clean", {TAG: "clean"})


@pytest.mark.parametrize("patient", ["1234", "P1", "9255"])
def test_longer_numbers_and_names_are_judged(patient):
    found = contamination_of(saw(slide("a", patient=patient)), benchmark_of([{"patient": patient, "path": "x"}]))
    assert [finding.rule for finding in found.findings] == ["patient"]


def test_ten_names_are_listed_and_the_others_counted():
    rows = [{"patient": f"patient-{n}", "path": "x"} for n in range(13)]
    (finding,) = contamination_of(saw(*(slide(f"patient-{n}") for n in range(13))), benchmark_of(rows)).findings
    assert (len(finding.names), finding.num_names) == (10, 13)
    assert str(finding).endswith("patient-9; ... and 3 more")


# Images of a pool


def run_on_pool(tmp_path, pool, kind="multitask"):
    return seen_by(str(write_run(tmp_path / "runs", "pool", kind=kind, pool=f"{pool}?name=pool")))


@pytest.mark.parametrize(("kind", "status"), [("multitask", "dirty"), ("simclr", "transductive")])
def test_planted_copies_are_found_by_bytes_and_by_pixels_and_nothing_else_is(tmp_path, pictures, kind, status):
    benchmark = load_images(pictures, seed=0)
    tests = [row for row in benchmark.table.to_pylist() if row["split"] == "test"]
    pool = tmp_path / "pool"
    for number in range(50, 56):
        (pool / "ab"[number % 2]).mkdir(parents=True, exist_ok=True)
        texture(number).save(pool / "ab"[number % 2] / f"{number}.png")
    clean = contamination_of(run_on_pool(tmp_path, pool, kind), benchmark)
    assert (clean.status, clean.findings) == ("clean", ())

    with Image.open(tests[0]["path"]) as picture:
        picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(pool / "a" / "flipped.jpg", quality=80)
    shutil.copy(tests[1]["path"], pool / "b" / "renamed.png")
    found = contamination_of(run_on_pool(tmp_path, pool, kind), benchmark)
    assert found.status == status
    assert {rule: hit[:2] for rule, hit in rules_of(found).items()} == {
        "content": ("test", 1),
        "near_duplicate": ("test", 1),
    }
    assert rules_of(found)["content"][2] == (tests[1]["sample"],)
    (pair,) = rules_of(found)["near_duplicate"][2]
    assert pair.startswith(f"{tests[0]['sample']} and pool/")
    assert "/a/flipped.jpg, correlation " in pair
    without = contamination_of(run_on_pool(tmp_path, pool, kind), benchmark, compares_pictures=False)
    assert set(rules_of(without)) == {"content"}


def test_training_on_the_benchmark_itself_is_clean_for_its_train_split_and_dirty_with_the_test(tmp_path, pictures):
    order = sorted(pictures.rglob("*.png"), key=lambda path: int(path.stem))
    splits = zip(order, ["train"] * 4 + ["val"] * 3 + ["test"] * 3, strict=True)
    lines = [f"{path.relative_to(pictures)},{path.parent.name},{split}" for path, split in splits]
    (pictures / "manifest.csv").write_text("\n".join(["path,label,split", *lines]) + "\n")
    benchmark = load_images(pictures, seed=0)
    train = seen_by(str(write_run(tmp_path / "runs", "train", kind="supervised", pool=pictures)))
    assert check_contamination(contamination_of(train, benchmark)).status == "clean"
    whole = write_run(tmp_path / "runs", "all", kind="supervised", pool=pictures, splits=("train", "test"))
    with pytest.raises(BadInput, match="content: 3 of 3 test samples are files with the bytes of some that all-"):
        check_contamination(contamination_of(seen_by(str(whole)), benchmark))


def test_a_missing_image_is_one_clear_line():
    seen = saw(images=[SeenImage("pool", "/p/a.png", None, "sha")])
    with pytest.raises(BadInput, match=r"^/nowhere\.png: cannot be read \(No such file"):
        contamination_of(seen, benchmark_of([{"path": "/nowhere.png"}]))


# Collections


@pytest.mark.parametrize(
    ("corpora", "uses_labels", "name", "status", "rule"),
    [
        (("CAMELYON16",), False, "pcam", "transductive", "corpus"),
        (("CAMELYON16",), True, "pcam", "dirty", "corpus"),
        (("TCGA",), False, "pannuke", "transductive", "corpus_part"),
        (("TCGA",), True, "pannuke", "transductive", "corpus_part"),
        (("PTCGA200",), True, "monuseg", "transductive", "corpus_part"),
        (("TCGA",), True, "pcam", "clean", None),
        ((), False, "pcam", "clean", None),
    ],
)
def test_collections_by_name(corpora, uses_labels, name, status, rule):
    found = contamination_of(saw(corpora=corpora, uses_labels=uses_labels), benchmark_of([{"path": "x"}], name=name))
    assert (found.status, [finding.rule for finding in found.findings]) == (status, [rule] if rule else [])


def test_barcodes_make_a_set_of_ones_own_a_part_of_tcga():
    rows = [{"path": "/d/TCGA-CR-7395-01A-01-TS1.png"}, {"path": "/d/own.png"}]
    (finding,) = contamination_of(saw(corpora=("TCGA",)), benchmark_of(rows, name="mine")).findings
    assert (finding.rule, finding.num, finding.num_samples) == ("corpus", 1, 2)


def test_names_of_seen_slides_give_their_collection_away_only_where_samples_name_no_slide():
    seen = saw(slide("TCGA-CR-7395-01A-01-TS1"), slide("tumor_001"), uses_labels=True)
    silent = contamination_of(seen, benchmark_of([{"path": "x"}], name="pannuke"))
    assert [f.rule for f in silent.findings] == ["corpus_part"]
    assert contamination_of(seen, benchmark_of([{"path": "x"}], name="pcam")).status == "transductive"
    named = [{"path": "/m/TCGA-KB-A93J-01A-01-TS1.jpg"}]
    assert contamination_of(seen, benchmark_of(named, name="monuseg")).findings == ()
    other_slide = benchmark_of([{"slide": "tumor_002", "path": "x"}], name="pcam200")
    assert contamination_of(saw(slide("tumor_001")), other_slide).status == "clean"
    assert contamination_of(saw(slide("tumor_002")), other_slide).status == "transductive"


def test_what_is_not_declared_is_unknown_and_not_clean():
    found = check_contamination(contamination_of(saw(unknown="trained elsewhere"), benchmark_of([{"path": "x"}])))
    assert (found.status, found.unknown) == ("unknown", ("run: unknown, trained elsewhere",))
    assert found.line == "set: unknown; not known: run: unknown, trained elsewhere"
    both = Seen((*saw(unknown="?").trainings, *saw(slide("P12")).trainings))
    assert contamination_of(both, benchmark_of([{"path": "x", "patient": "P12"}])).status == "transductive"


def test_weights_that_saw_nothing_are_clean_and_a_waiver_of_nothing_waives_nothing():
    found = contamination_of(Seen(), benchmark_of([{"path": "x"}]), waive=("patient",))
    assert (found.status, found.waived, found.line) == ("clean", (), "set: clean")
    with pytest.raises(BadInput, match="waive=patients: expected names among content, slide"):
        contamination_of(Seen(), benchmark_of([{"path": "x"}]), waive=("patients",))


# Planted in one benchmark: the leaks within its splits


def test_planted_leaks_within_a_benchmark_are_found_and_none_in_clean_phantoms(phantoms, tmp_path):
    assert find_leaks(phantoms.table) == []
    rows = phantoms.table.to_pylist()
    train, test = (next(row for row in rows if row["split"] == split) for split in ("train", "test"))
    planted = {
        "patient": {**test, "sample": "same patient", "patient": train["patient"]},
        "overlap": {
            **train,
            "sample": "shifted",
            "x_l0": train["x_l0"] + 10,
            "split": "test",
            "patient": test["patient"],
        },
    }
    for rule, row in planted.items():
        found = {leak.rule for leak in find_leaks(pa.Table.from_pylist([*rows, row], schema=TILE_SCHEMA))}
        assert rule in found, rule
    texture(0).save(tmp_path / "a.png")
    texture(0).transpose(Image.Transpose.ROTATE_90).save(tmp_path / "b.jpg", quality=75)
    texture(1).save(tmp_path / "c.png")
    images = [("a.png", "train"), ("b.jpg", "test"), ("c.png", "test")]
    table = pa.Table.from_pylist(
        [{"sample": n, "label": 0, "split": s, "path": str(tmp_path / n)} for n, s in images], schema=IMAGE_SCHEMA
    )
    assert [(p.first["sample"], p.second["sample"]) for p in find(table).pairs] == [("a.png", "b.jpg")]


@pytest.mark.real
def test_a_tcga_case_in_the_manifest_of_a_pretraining_and_in_monuseg(real_data, tmp_path):
    home = real_data / "masks" / "monuseg"
    benchmark = MasksSettings(path=str(home)).load(seed=0)
    tests = [row for row in benchmark.table.to_pylist() if row["split"] == "test"]
    planted = Path(tests[0]["path"]).stem
    file = tmp_path / "scan.svs"
    file.write_bytes(b"another scan of the same case")
    head_and_neck = {
        "slide": "TCGA-CR-7395-01A-01-TS1",
        "path": str(real_data / "slides" / "TCGA-CR-7395-01A-01-TS1.svs"),
    }
    other = planted[:12] + "-11A-01-BS1"  # not the same slide: the normal tissue of the same patient
    clean = write_run(tmp_path / "runs", "clean", index=write_index(tmp_path / "i0", [head_and_neck]))
    dirty = write_run(
        tmp_path / "runs",
        "dirty",
        kind="supervised",
        index=write_index(tmp_path / "i1", [head_and_neck, {"slide": other, "path": str(file)}]),
    )
    assert contamination_of(seen_by(str(clean)), benchmark).findings == ()
    found = contamination_of(seen_by(str(dirty)), benchmark)
    assert rules_of(found)["case"] == ("test", 1, (planted[:12],))
    assert found.status == "dirty"
    with pytest.raises(BadInput, match=planted[:12]):
        check_contamination(found)
