from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from raypath.benchmarks import IMAGE_SCHEMA, Benchmark, Predictions
from raypath.benchmarks.metrics.objects import compare_objects
from raypath.benchmarks.metrics.pixels import PixelPredictions
from raypath.benchmarks.splits import folds as folds_module
from raypath.benchmarks.splits.folds import default_protocol, nested, pool
from raypath.errors import BadInput


def benchmark_of(rows):
    table = pa.Table.from_pylist([{"path": row["sample"]} | row for row in rows], schema=IMAGE_SCHEMA)
    return Benchmark(
        name="set",
        classes=("a", "b"),
        primary="accuracy",
        mpp=None,
        table=table,
        data_hash="of the set",
        split_note="split as given",
    )


def patients_set(num_patients=30, num_each=2):
    return benchmark_of(
        {
            "sample": f"{p:03d}/{i}",
            "label": p % 2,
            "patient": f"p{p}",
            "split": ("train", "train", "train", "val", "test")[p // 2 % 5],
        }
        for p in range(num_patients)
        for i in range(num_each)
    )


def of_split(benchmark, split, column="sample"):
    rows = zip(benchmark.table[column].to_pylist(), benchmark.table["split"].to_pylist(), strict=True)
    return {value for value, found in rows if found == split}


def predictions_of(fold):
    rows = [row for row in fold.table.to_pylist() if row["split"] == "test"]
    share = np.array([int(row["sample"][:3]) / 100 for row in rows])
    samples, patients, labels = ([row[name] for row in rows] for name in ("sample", "patient", "label"))
    return Predictions(samples, patients, np.array(labels), np.stack([share, 1 - share], axis=1), fold.classes)


def test_the_folds_of_a_repeat_are_disjoint_cover_the_set_and_divide_no_patient():
    benchmark = patients_set()
    folds = list(nested(benchmark, num_folds=5, num_repeats=2, seed=1))
    assert len(folds) == 10
    for repeat in (folds[:5], folds[5:]):
        tests = [of_split(fold, "test") for fold in repeat]
        assert sorted(map(len, tests)) == [12] * 5
        assert set.union(*tests) == set(benchmark.table["sample"].to_pylist())
    for fold in folds:
        parts = [of_split(fold, split, "patient") for split in ("train", "val", "test")]
        assert [len(part) for part in parts] == [19, 5, 6] or [len(part) for part in parts] == [20, 4, 6]
        assert sum(map(len, parts)) == len(set.union(*parts)) == 30
        assert {sum(counts.values()) > 0 for counts in fold.counts().values()} == {True}
    assert of_split(folds[0], "test") != of_split(folds[5], "test")
    assert folds[6].split_note.startswith("nested, repeat 1, seed 1: fold 1 of 5 is the test")


def test_every_fold_has_a_hash_of_its_own_that_ignores_the_order_of_rows():
    benchmark = patients_set()
    hashes = [fold.data_hash for fold in nested(benchmark, seed=1)]
    assert len({*hashes, benchmark.data_hash}) == 16
    moved = replace(benchmark, table=benchmark.table.take(np.random.default_rng(0).permutation(60)))
    assert [fold.data_hash for fold in nested(moved, seed=1)] == hashes
    other = replace(benchmark, data_hash="of other contents")
    assert not {fold.data_hash for fold in nested(other, seed=1)} & set(hashes)
    assert not {fold.data_hash for fold in nested(benchmark, seed=2)} & set(hashes)


def test_no_draw_meets_a_fold_of_another_with_few_patients(monkeypatch):
    benchmark = patients_set(num_patients=6)
    for seed in range(20):
        hashes = [fold.data_hash for fold in nested(benchmark, num_folds=3, seed=seed)]
        assert len(set(hashes)) == 9  # a test is opened once
    with pytest.raises(BadInput, match=r"^set: 100 draws of 3 folds.* for 13 draws; set num_repeats=12$"):
        list(nested(benchmark, num_folds=3, num_repeats=50))
    monkeypatch.setattr(folds_module, "MAX_DRAWS", 1)
    with pytest.raises(BadInput, match="each holds a fold of a draw before"):  # first draws do meet
        [list(nested(benchmark, num_folds=3, seed=seed)) for seed in range(20)]


def test_copies_and_parts_of_one_image_stay_in_one_fold(tmp_path):
    rows = []
    for number in range(40):
        path = tmp_path / f"{number}.png"
        Image.new("RGB", (4, 4), (number // 2, 0, 0)).save(path)  # each image twice
        box = [0, 0, 2, 2] if number % 4 < 2 else None
        rows.append(
            {"sample": f"{number:03d}", "label": number % 4 // 2, "split": "train", "path": str(path), "box": box}
        )
    for fold in nested(benchmark_of(rows), num_folds=3, num_repeats=1):
        for split in ("train", "val", "test"):
            found = {int(sample) for sample in of_split(fold, split)}
            assert found == {number ^ 1 for number in found}


def test_pairs_that_belong_together_take_their_patients_along():
    benchmark = patients_set()
    pairs = [("000/0", "010/1"), ("010/0", "020/0"), ("003/1", "004/0")]  # p0 - p10 - p20, p3 - p4
    for fold in nested(benchmark, num_folds=5, num_repeats=2, together=pairs):
        split_of = {row["patient"]: row["split"] for row in fold.table.to_pylist()}
        assert split_of["p0"] == split_of["p10"] == split_of["p20"]
        assert split_of["p3"] == split_of["p4"]
        assert "3 pairs of near-duplicates kept together" in fold.split_note
    apart = list(nested(benchmark, num_folds=5, num_repeats=2))
    assert any(len({r["split"] for r in fold.table.to_pylist() if r["patient"] in ("p3", "p4")}) == 2 for fold in apart)
    within = nested(benchmark, num_folds=5, num_repeats=2, together=[("001/0", "001/1")])  # changes nothing
    assert [fold.data_hash for fold in within] == [fold.data_hash for fold in apart]


def test_segmentations_are_pooled_as_they_are():
    benchmark = replace(patients_set(), kind="segmentation", strata=("x", "y"))
    parts = []
    for fold in nested(benchmark, num_folds=5, num_repeats=1):
        rows = [row for row in fold.table.to_pylist() if row["split"] == "test"]
        counts = np.array([[[int(row["sample"][:3]), 1], [2, 3]] for row in rows])
        names, patients = ([row[name] for row in rows] for name in ("sample", "patient"))
        glands = [np.full((4, 5), int(name[:3])) for name in names]  # those of the first patient, 0, are none
        objects = [compare_objects(mask, mask) for mask in glands]
        parts.append(PixelPredictions(names, patients, counts, ("a", "b"), objects))
    (pooled,) = pool(parts, benchmark)
    assert pooled.sample == tuple(sorted(benchmark.table["sample"].to_pylist()))
    assert pooled.confusion[:, 0, 0].tolist() == [int(sample[:3]) for sample in pooled.sample]
    assert [image.num_true for image in pooled.objects] == [
        int(not sample.startswith("000")) for sample in pooled.sample
    ]
    with pytest.raises(BadInput, match="12 samples are missing"):
        pool(parts[1:], benchmark)


def test_a_class_of_too_few_patients_is_named():
    with pytest.raises(BadInput, match=r"set, fold \d of 5: class 'a' has 4 samples and none in"):
        list(nested(patients_set(num_patients=4), seed=0))


def test_pooled_predictions_have_every_sample_once_per_repeat():
    benchmark = patients_set()
    parts = [predictions_of(fold) for fold in nested(benchmark, num_folds=5, num_repeats=2)]
    pooled = pool(parts, benchmark, num_repeats=2)
    assert len(pooled) == 2
    for one in pooled:
        assert one.sample == tuple(sorted(benchmark.table["sample"].to_pylist()))
        assert one.patient == tuple(f"p{int(sample[:3])}" for sample in one.sample)
        np.testing.assert_allclose(one.probability[:, 0], [int(s[:3]) / 100 for s in one.sample], atol=1e-6)
        assert one.label.tolist() == [int(sample[:3]) % 2 for sample in one.sample]
    first = {sample: number for number, part in enumerate(parts[:5]) for sample in part.sample}
    assert pooled[0].fold.tolist() == [first[sample] for sample in pooled[0].sample]  # who said it
    assert np.unique(pooled[1].fold).tolist() == [0, 1, 2, 3, 4]


def test_predictions_that_do_not_belong_together_are_named():
    benchmark = patients_set()
    parts = [predictions_of(fold) for fold in nested(benchmark, num_folds=5, num_repeats=1)]
    first = parts[0].sample[0]
    with pytest.raises(BadInput, match=f"set, repeat 0: 12 samples are missing: {first}, "):
        pool(parts[1:], benchmark)
    with pytest.raises(BadInput, match=f"12 samples are there more than once: {first}, "):
        pool([*parts, parts[0]], benchmark)
    with pytest.raises(BadInput, match="5 folds for 2 repeats"):
        pool(parts, benchmark, num_repeats=2)
    wrong = replace(parts[0], label=np.array([1 - parts[0].label[0], *parts[0].label[1:]]))
    with pytest.raises(BadInput, match=f"1 samples have another label or patient: {first}"):
        pool([wrong, *parts[1:]], benchmark)
    foreign = replace(parts[0], sample=("zz", *parts[0].sample[1:]))
    with pytest.raises(BadInput, match=f"1 samples are missing: {first}; 1 samples are not of the set: zz"):
        pool([foreign, *parts[1:]], benchmark)
    with pytest.raises(BadInput, match=r"predictions of the classes \('b', 'a'\)"):
        pool([replace(parts[0], classes=("b", "a")), *parts[1:]], benchmark)


def test_the_protocol_of_a_set_follows_its_size():
    assert default_protocol(patients_set(num_patients=250, num_each=20)) == "given"  # 1,000 test images
    assert default_protocol(patients_set(num_patients=250, num_each=19)) == "nested"
    assert default_protocol(patients_set(num_patients=190, num_each=100)) == "nested"
    nameless = benchmark_of(
        {"sample": f"{n}", "label": n % 2, "split": "test" if n < 1000 else "train"} for n in range(1100)
    )
    assert default_protocol(nameless) == "given"
    assert default_protocol(replace(patients_set(), is_split_chosen=True)) == "given"  # asked for by name
