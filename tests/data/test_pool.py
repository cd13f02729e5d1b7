"""A pool as it is written in a config and read from disk: which images, which class numbers, and what is refused."""

import shutil
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from raypath.data.pool import load_pool, open_pool
from raypath.errors import BadInput

REAL_SETS = ["labelled/pcam", "labelled/idc", "labelled/lc25000_lung", "labelled/crc_polyp5"]
REAL_SETS += ["labelled/wbc_jtsc?drop=basophil", "masks/glas?label=grade"]


def write_set(folder, header, lines):
    """A set with a manifest and a tiny image, different from all others, for each line."""
    for number, line in enumerate(lines):
        path = folder / line.split(",")[0]
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (2, 2), (number % 256, number // 256, 7)).save(path)
    (folder / "manifest.csv").write_text("\n".join([header, *lines]) + "\n")
    return folder


@pytest.fixture
def blood(tmp_path):
    """Six images of three classes; class `rare` has train images only."""
    lines = ["b.png,mono,train", "a.png,lympho,train", "c.png,mono,val", "d.png,lympho,val", "e.png,rare,train"]
    return write_set(tmp_path / "blood", "path,label,split", lines)


@pytest.fixture
def glands(tmp_path):
    """Patients, and two columns of labels beside a path that is called image."""
    lines = [
        f"images/{p}{i}.png,{p},{'high' if p > 'p3' else 'low'},g{i}" for p in ("p1", "p2", "p4", "p5") for i in (1, 2)
    ]
    return write_set(tmp_path / "glands", "image,patient,grade,five", lines)


def test_tasks_in_the_order_of_the_spec_and_images_in_the_order_of_their_ids(blood, glands):
    pool = load_pool(f"{glands}?label=grade, {blood / 'manifest.csv'}", ("train",))
    assert [task.name for task in pool.tasks] == ["glands", "blood"]
    assert pool.num_classes == (2, 3)
    assert pool.num_images.tolist() == [8, 3]
    first, second = pool.tasks
    assert first.classes == ("high", "low")
    assert first.labels.tolist() == [1, 1, 1, 1, 0, 0, 0, 0]
    assert first.patients == ("p1", "p1", "p2", "p2", "p4", "p4", "p5", "p5")
    assert second.classes == ("lympho", "mono", "rare")
    assert second.paths == tuple(str(blood / name) for name in ("a.png", "b.png", "e.png"))
    assert second.labels.tolist() == [0, 1, 2]
    assert pool.notes == ("glands: columns not used: five",)


def test_labels_are_found_by_task_and_image(blood, glands):
    pool = load_pool(f"{blood},{glands}?label=five", ("train",))
    tasks, images = np.array([[0, 1, 1], [0, 1, 0]]), np.array([[2, 0, 7], [0, 1, 1]])
    found = pool.labels_of(tasks, images)
    assert found.dtype == np.int64
    assert found.tolist() == [[2, 0, 1], [0, 1, 1]]


def test_val_has_the_class_numbers_of_train(blood):
    train, val = load_pool(str(blood), ("train",)), load_pool(str(blood), ("val",))
    assert train.num_classes == val.num_classes == (3,)
    assert train.tasks[0].classes == val.tasks[0].classes
    assert val.tasks[0].labels.tolist() == [1, 0]
    assert train.hash != val.hash
    both = load_pool(str(blood), ("train", "val")).tasks[0]
    assert sorted(both.paths) == sorted(train.tasks[0].paths + val.tasks[0].paths)


def test_classes_that_are_numbers_stand_in_the_order_of_numbers(tmp_path):
    folder = write_set(tmp_path / "grades", "path,label", [f"{c}/{i}.png,{c}" for c in (10, 9, 2) for i in range(2)])
    assert load_pool(str(folder), ("train",)).tasks[0].classes == ("2", "9", "10")


def test_drop_leaves_classes_out_and_says_so(blood):
    pool = load_pool(f"{blood}?drop=rare", ("train",))
    assert pool.num_classes == (2,)
    assert pool.notes == ("blood: left out: rare",)
    with pytest.raises(BadInput, match="the classes are lympho, mono, rare"):
        load_pool(f"{blood}?drop=rare|raer", ("train",))
    with pytest.raises(BadInput, match=r"has the classes \['lympho'\]; a task needs at least two"):
        load_pool(f"{blood}?drop=rare|mono", ("train",))


def test_a_text_file_names_sets_relative_to_itself(blood, glands, tmp_path, monkeypatch):
    (tmp_path / "pool.txt").write_text("# two sets\nblood ? name=cells   # cytology\n\nglands?label=grade\n")
    monkeypatch.chdir("/")
    pool = load_pool(str(tmp_path / "pool.txt"), ("train",))
    assert [task.name for task in pool.tasks] == ["cells", "glands"]
    assert pool.hash == load_pool(f"{blood}?name=cells,{glands}?label=grade", ("train",)).hash


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("", "which sets"),
        (" , ", "which sets"),
        ("?drop=a", "expected a folder or a manifest"),
        ("x?dorp=a", "'dorp=a' is not understood; expected label=, drop=, name=, val="),
        ("x?drop=", "'drop=' is not understood"),
        ("x?name=a&name=b", "'name=b' is not understood"),
        ("x?val=many", "could not convert"),
        ("x?val=1.5", "val=1.5: expected a share"),
        ("x,y/x", "x and y/x are both called x; call one of them something else"),
        ("no/such/pool.txt", "expected a text file"),
        ("no/such/set", "there is no such folder or manifest"),
    ],
)
def test_a_spec_that_means_nothing_is_refused(spec, said):
    with pytest.raises(BadInput, match=said) as caught:
        load_pool(spec, ("train",))
    assert caught.value.exit_code == 2


def test_a_wrong_cell_is_named_by_the_column_of_the_manifest(glands):
    (glands / "manifest.csv").write_text("image,grade\nimages/p11.png,low\nimages/gone.png,low\nimages/p12.png,\n")
    with pytest.raises(BadInput) as caught:
        load_pool(f"{glands}?label=grade", ("train",))
    assert "line 3, column image: 'images/gone.png': there is no such file" in str(caught.value)
    assert "line 4, column grade: '': expected a class name" in str(caught.value)
    with pytest.raises(BadInput, match="no column dagre among image, grade"):
        load_pool(f"{glands}?label=dagre", ("train",))
    (glands / "manifest.csv").write_text("image,mask of ids,grade,stain,patient,split\n" + "a,b,c,d,e,f\n")
    with pytest.raises(
        BadInput,
        match=r"no column label among image, .*; name the column of the classes: grade or stain "
        r"\(benchmark.label=grade, or in a pool \?label=grade\)$",
    ):
        load_pool(str(glands), ("train",))


def test_class_folders_are_a_set_without_a_column_of_labels(blood, tmp_path):
    for name in ("x/1.png", "y/2.png"):
        (tmp_path / "tree" / name).parent.mkdir(parents=True)
        shutil.copy(blood / "a.png", tmp_path / "tree" / name)
    assert load_pool(str(tmp_path / "tree"), ("train",)).tasks[0].classes == ("x", "y")
    with pytest.raises(BadInput, match="class folders have no column 'grade'"):
        load_pool(f"{tmp_path / 'tree'}?label=grade", ("train",))


def test_a_task_without_images_of_the_split_says_which_there_are(glands, blood):
    with pytest.raises(BadInput, match=r"task glands has no images in val, only 8 in train; hold out .*\?val=0.2"):
        load_pool(f"{glands}?label=grade", ("val",))
    with pytest.raises(BadInput, match="task blood has no images in test, only 3 in train, 2 in val$"):
        load_pool(str(blood), ("test",))
    with pytest.raises(BadInput, match="splits=dev: expected one or more of train, val, test"):
        load_pool(str(blood), ("dev",))


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_patient_in_train_and_val_is_refused_whichever_is_asked_for(tmp_path, split):
    lines = ["a.png,x,p1,train", "b.png,y,p2,train", "c.png,x,p1,val", "d.png,y,p3,val"]
    folder = write_set(tmp_path / "s", "path,label,patient,split", lines)
    with pytest.raises(BadInput, match=r"1 patients stand in more than one split: p1 \(train, val\)"):
        load_pool(str(folder), (split,))


def test_a_patient_in_train_and_test_is_said_until_test_is_asked_for(tmp_path):
    lines = ["a.png,x,p1,train", "b.png,y,p2,train", "c.png,x,p1,test", "d.png,y,p3,test"]
    folder = write_set(tmp_path / "s", "path,label,patient,split", lines)
    assert load_pool(str(folder), ("train",)).notes == (
        "s: 1 patients stand also in test, which this pool does not use",
    )
    with pytest.raises(BadInput, match=r"p1 \(train, test\)"):
        load_pool(str(folder), ("test",))


def test_a_made_val_divides_no_patient_and_leaves_train_every_class(tmp_path):
    rng = np.random.default_rng(0)
    patients = [f"p{number}" for number in range(40) for _ in range(rng.integers(1, 8))]
    lines = [f"{n}.png,{'abc'[min(int(rng.exponential()), 2)]},{patient}" for n, patient in enumerate(patients)]
    spec = f"{write_set(tmp_path / 's', 'path,label,patient', lines)}?val=0.25"
    train, val = (load_pool(spec, (split,)).tasks[0] for split in ("train", "val"))
    assert not set(train.patients) & set(val.patients)
    assert set(train.paths) | set(val.paths) == {str(tmp_path / "s" / f"{n}.png") for n in range(len(patients))}
    totals = np.bincount(train.labels) + np.bincount(val.labels)
    assert (np.bincount(train.labels, minlength=3) > 0).all()
    shares = np.bincount(val.labels, minlength=3) / totals
    assert (shares > 0.1).all()
    assert (shares <= 0.25 + 0.5 / totals).all()
    (tmp_path / "s" / "manifest.csv").write_text("\n".join(["path,label,patient", *reversed(lines)]))
    assert load_pool(spec, ("val",)).tasks[0].paths == val.paths


def test_a_made_val_of_large_patients_takes_the_smallest(tmp_path):
    lines = [
        f"{n}.png,{label},{patient}"
        for n, (label, patient) in enumerate(["a1"] * 5 + ["a2"] * 3 + ["b3"] * 3 + ["b4"] * 6)
    ]
    folder = write_set(tmp_path / "s", "path,label,patient", lines)
    assert set(load_pool(f"{folder}?val=0.1", ("val",)).tasks[0].patients) == {"2", "3"}


def test_a_val_that_cannot_be_made_is_refused(blood, tmp_path):
    with pytest.raises(BadInput, match="the set has val images of its own"):
        load_pool(f"{blood}?val=0.2", ("train",))
    lines = [f"{n}.png,{label},{patient}" for n, (label, patient) in enumerate(["a1", "a2", "b3", "b3"])]
    folder = write_set(tmp_path / "s", "path,label,patient", lines)
    with pytest.raises(BadInput, match=r"no patient with class 'b' \(2 train images\)"):
        load_pool(f"{folder}?val=0.5", ("train",))


def test_the_hash_is_of_rows_and_contents_not_of_place_or_order(blood, tmp_path):
    first = load_pool(str(blood), ("train",))
    header, *lines = (blood / "manifest.csv").read_text().splitlines()
    (tmp_path / "else").mkdir()
    moved = tmp_path / "else" / "blood"
    shutil.copytree(blood, moved)
    (moved / "manifest.csv").write_text("\n".join([header, *reversed(lines)]))
    assert load_pool(str(moved), ("train",)).hash == first.hash
    (moved / "manifest.csv").write_text("\n".join([header, *lines]).replace("b.png,mono", "b.png,rare"))
    assert load_pool(str(moved), ("train",)).hash != first.hash


def test_a_pool_that_changed_is_not_opened(blood):
    spec, splits = str(blood), ("train",)
    whole = load_pool(spec, splits)
    opened = open_pool(spec, splits, whole.hash)
    assert opened.hash == whole.hash
    assert opened.tasks[0].paths == whole.tasks[0].paths
    assert open_pool(spec, splits, whole.hash) is opened

    content = bytearray((blood / "a.png").read_bytes())
    content[-20] ^= 1
    (blood / "a.png").write_bytes(content)  # as many bytes: only whoever reads them all can know
    changed = load_pool(spec, splits)
    assert changed.hash[:32] == whole.hash[:32]
    assert changed.hash[32:] != whole.hash[32:]
    (blood / "a.png").write_bytes(content + b"x")
    open_pool.cache_clear()
    with pytest.raises(BadInput, match="the pool changed while it was in use"):
        open_pool(spec, splits, whole.hash)


@pytest.mark.real
def test_the_real_pool_of_six_tasks_loads_as_it_is(real_data, tmp_path):
    sets = [f"{real_data}/{one}" for one in REAL_SETS]
    pool = load_pool(",".join(sets), ("train",))
    assert [task.name for task in pool.tasks] == ["pcam", "idc", "lc25000_lung", "crc_polyp5", "wbc_jtsc", "glas"]
    assert pool.num_classes == (2, 2, 3, 5, 4, 2)
    assert pool.num_images.tolist() == [400, 673, 360, 500, 299, 85]
    assert any("glas: columns not used: grade5, mask" in note for note in pool.notes)
    assert any("glas: 8 patients stand also in test" in note for note in pool.notes)
    with pytest.raises(BadInput, match="task wbc_jtsc has no images in val"):
        load_pool(",".join(sets), ("val",))

    (tmp_path / "pool.txt").write_text("\n".join([*sets[:4], f"{sets[4]}&val=0.2", f"{sets[5]}&val=0.2"]))
    train, val = (load_pool(str(tmp_path / "pool.txt"), (split,)) for split in ("train", "val"))
    assert train.num_classes == val.num_classes == pool.num_classes
    assert val.num_images.tolist()[:5] == [120, 248, 120, 150, 60]
    assert 12 <= val.num_images[5] <= 24
    for one, other in zip(train.tasks, val.tasks):
        assert one.classes == other.classes
        assert not set(one.paths) & set(other.paths)
        assert len(Counter(other.labels.tolist())) == len(other.classes)
