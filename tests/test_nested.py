"""Small sets scored by nested folds, from the command line's config to what is left behind; in this process, without Ray."""

import csv
import json
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1] / "experiments"))

import finetune as finetune_script
import sweep as sweep_script
import transfers
from copies import look_for_copies
from nested import outer_folds
from results import Scored, show_table, table_of
from scoring import LEDGER, patient_scores_of
from transfers import compare, decided

from raypath.benchmarks import ImagesSettings, PhantomsSettings, Predictions, score
from raypath.benchmarks.published.breakhis import BreaKHisSettings
from raypath.benchmarks.splits.folds import nested
from raypath.benchmarks.splits.making import SplitSettings
from raypath.data.images import read_pixels
from raypath.errors import BadInput, Preempted
from raypath.protocols import FinetuneSettings, KnnSettings, ProbeSettings, SvmSettings, fit, frozen
from raypath.protocols.features import features_of
from raypath.protocols.transfer import SweepSettings, TransferConfig, evaluated
from raypath.run_folder import RunFolder
from raypath.study.statistics import paired_difference, score_interval
from tests.protocols import small

NUM_PATIENTS, NUM_EACH = 20, 2


class FakeTracker:
    """Keeps what it is told, where MLflow would."""

    uri = place = "nowhere"

    def __init__(self):
        self.metrics, self.tags, self.ended = {}, {}, []

    def start_run(self, name, *, tags=None, **kwargs):
        self.set_tags(name, tags or {})
        return name

    def log_metrics(self, run_id, metrics, step=0):
        for name, value in metrics.items():
            self.metrics.setdefault((run_id, name), []).append((step, value))

    def set_tags(self, run_id, tags):
        self.tags.setdefault(run_id, {}).update(tags)

    def log_picture(self, *args, **kwargs):
        pass

    log_dataset = log_picture

    def end_run(self, run_id, status):
        self.ended.append((run_id, status))


def write_patients(folder, *, twin=None):
    """A manifest of patients of one class each, with a faint cue of colour; `twin`: the sample that also comes last, turned."""
    made = small.samples(NUM_PATIENTS * NUM_EACH, seed=0, cue=4.0)
    images = list(made.images)
    order = np.argsort(made.labels, kind="stable")  # a class is the first or second half
    folder.mkdir()
    lines = [("path", "label", "patient", "split")]
    if twin is not None:
        images[order[-1]] = np.rot90(images[order[twin]])
    for number, row in enumerate(order):
        patient = number // NUM_EACH
        Image.fromarray(images[row]).save(folder / f"{number:02}.png")
        split = ("train", "train", "train", "val", "test")[patient % 5]
        lines.append((f"{number:02}.png", small.CLASSES[made.labels[row]], f"p{patient:02}", split))
    with (folder / "manifest.csv").open("w", newline="") as file:
        csv.writer(file).writerows(lines)
    return folder


@pytest.fixture(autouse=True)
def one_thread():
    """Everything here is tiny, and threads that wait for each other on a busy machine are not."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def patients(tmp_path_factory):
    return write_patients(tmp_path_factory.mktemp("sets") / "patients")


@pytest.fixture
def config(patients):
    settings = ImagesSettings(path=str(patients), name="set")
    return TransferConfig(encoder="colour", benchmark=settings, protocol=KnnSettings(k=3), extent_px=small.EXTENT_PX)


@pytest.fixture
def embedded(monkeypatch):
    """The samples that were embedded, in this process."""
    asked = []

    def embed(encoder, rows, frame, **kwargs):
        asked.extend(rows["sample"].to_pylist())
        return features_of(encoder, read_pixels(rows, frame), torch.device("cpu"))

    monkeypatch.setattr(frozen, "embed_rows", embed)
    return asked


@pytest.fixture
def tracker(tmp_path, monkeypatch, embedded):
    """Where runs go, and who is told."""
    made = FakeTracker()
    monkeypatch.setenv("RAYPATH_RUNS", str(tmp_path / "runs"))
    monkeypatch.setattr(finetune_script.launch, "start_ray", lambda: None)
    monkeypatch.setattr(finetune_script.launch, "start_tracking", lambda: made)
    return made


def openings(place):
    return [json.loads(line) for line in (place / LEDGER).read_text().splitlines()]


def samples_of(fold, split):
    return {row["sample"] for row in fold.table.to_pylist() if row["split"] == split}


def test_a_nested_score_asks_every_sample_once_in_each_repeat_and_embeds_it_once(
    config, tracker, embedded, tmp_path, capsys
):
    finetune_script.run_transfer(config, opens_test=True)  # 20 patients: nested unless somebody says otherwise
    said, benchmark = capsys.readouterr().out, config.benchmark.load(0)
    everyone = benchmark.table["sample"].to_pylist()
    assert sorted(embedded) == everyone  # 15 folds, and no feature twice
    (run,) = (tmp_path / "runs").glob("knn-set-*")
    assert RunFolder(run).config(TransferConfig).evaluation == "nested"
    repeats = [Predictions.load(run / f"test.repeat-{number}.parquet") for number in range(3)]
    for predictions in repeats:
        assert list(predictions.sample) == everyone
    assert not np.array_equal(repeats[0].probability, repeats[1].probability)

    # One opening for each fold, whose test is what its split says
    folds = list(nested(benchmark, num_folds=5, num_repeats=3, seed=0))
    assert [o["data_hash"] for o in openings(tmp_path / "runs")] == [fold.data_hash for fold in folds]
    assert {(o["encoder"], o["opening"]) for o in openings(tmp_path / "runs")} == {("colour", 1)}
    assert openings(tmp_path / "runs")[6]["reason"] == f"run {run.name}, outer fold 7 of 15"
    for number, fold in enumerate(folds):
        assert set(Predictions.load(run / "folds" / f"fold-{number:02}.test.parquet").sample) == samples_of(
            fold, "test"
        )
        with (run / "folds" / f"{number:02}" / "split.csv").open() as file:
            assert {r["sample"] for r in csv.DictReader(file) if r["split"] == "test"} == samples_of(fold, "test")

    # What is said is what the predictions say
    interval = score_interval(repeats[0], "balanced_accuracy")
    each = [score(predictions)["balanced_accuracy"] for predictions in repeats]
    assert 0.5 < interval.estimate < 1
    assert (
        f"balanced_accuracy {interval.estimate:.3f} [{interval.low:.3f}, {interval.high:.3f}], 95 % over 20 p" in said
    )
    assert f"mean of 3 repeats {np.mean(each):.3f} ({min(each):.3f} to {max(each):.3f})" in said
    assert "fold 3 of 5, repeat 2 of 3: balanced_accuracy val" in said
    (run_id,) = tracker.tags
    assert tracker.tags[run_id]["raypath.evaluation"] == "nested"
    assert tracker.tags[run_id]["raypath.near_duplicates"] == "0 pairs"
    assert tracker.metrics[run_id, "test_balanced_accuracy_mean"] == [(0, pytest.approx(np.mean(each)))]
    assert [step for step, _ in tracker.metrics[run_id, "fold_test_balanced_accuracy"]] == list(range(15))
    assert (run_id, "test_patient_balanced_accuracy") in tracker.metrics
    assert tracker.ended == [(run_id, "FINISHED")]


def test_without_a_test_and_with_the_given_split_nothing_is_divided(config, tracker, tmp_path, capsys):
    finetune_script.run_transfer(config, opens_test=False)
    assert "test=true scores set by 5 x 3 folds" in capsys.readouterr().out
    assert not (tmp_path / "runs" / LEDGER).exists()
    finetune_script.run_transfer(replace(config, evaluation="given"), opens_test=True)
    benchmark = config.benchmark.load(0)
    (opening,) = openings(tmp_path / "runs")
    assert opening["data_hash"] == benchmark.data_hash
    (test,) = (tmp_path / "runs").glob("knn-set-*/test.parquet")
    assert set(Predictions.load(test).sample) == samples_of(benchmark, "test")


def test_an_interrupted_run_has_used_up_the_folds_it_opened(config, tracker, tmp_path, monkeypatch):
    calls = []

    def failing(*args, **kwargs):
        calls.append(args)
        if len(calls) == 3:
            raise RuntimeError("the lights went out")
        return fit(*args, **kwargs)

    monkeypatch.setattr(finetune_script, "fit", failing)
    with pytest.raises(RuntimeError, match="lights"):
        finetune_script.run_transfer(config, opens_test=True)
    assert [o["opening"] for o in openings(tmp_path / "runs")] == [1, 1]
    assert tracker.ended[-1][1] == "FAILED"

    monkeypatch.setattr(finetune_script, "fit", lambda *a, **k: pytest.fail("trained for a fold that is used up"))
    with pytest.raises(BadInput, match="set: its test was already opened for encoder 'colour'.*outer fold 1 of 15"):
        finetune_script.run_transfer(config, opens_test=True)

    monkeypatch.setattr(finetune_script, "fit", fit)
    finetune_script.run_transfer(config, opens_test=True, reopen=True)
    assert [o["opening"] for o in openings(tmp_path / "runs")[2:]] == [2, 2, *[1] * 13]


@pytest.mark.parametrize(
    "protocol", [KnnSettings(k=3), ProbeSettings(), SvmSettings(), FinetuneSettings(epochs=2, batch=8, lr=1e-2)]
)
def test_what_is_fitted_and_chosen_in_a_fold_never_sees_its_test(protocol, config, embedded, tmp_path):
    encoder = "colour"
    if isinstance(protocol, FinetuneSettings):
        encoder = str(small.write_encoder(tmp_path / "tiny.safetensors"))
    config = replace(config, encoder=encoder, protocol=protocol)
    fold = next(nested(config.benchmark.load(0)))
    table = fold.table.to_pylist()
    for row in table:  # labels turned about in the test, and nowhere else
        row["label"] = 1 - row["label"] if row["split"] == "test" else row["label"]
    wrong = replace(fold, table=pa.Table.from_pylist(table, schema=fold.table.schema))
    test = fold.table.filter(np.array(fold.table["split"].to_pylist()) == "test")
    (true, spoilt) = (fit(config, f, features_root=None, device=torch.device("cpu")) for f in (fold, wrong))
    assert true.how == spoilt.how
    np.testing.assert_array_equal(true.val.probability, spoilt.val.probability)
    np.testing.assert_array_equal(true.val.label, spoilt.val.label)
    np.testing.assert_array_equal(true.predict(test).probability, spoilt.predict(test).probability)
    assert set(true.val.sample) == samples_of(fold, "val")


def test_frozen_encoders_are_compared_fold_by_fold_and_go_on_where_they_stopped(
    config, tracker, embedded, tmp_path, monkeypatch
):
    sources = [str(small.write_encoder(tmp_path / "tiny.safetensors")), "colour"]
    config = replace(config, encoder=",".join(sources), num_repeats=2, num_folds=3)
    benchmark = config.benchmark.load(0)
    run = RunFolder.create(tmp_path / "runs", "sweep", config)
    calls = []

    def failing(*args, **kwargs):
        calls.append(args)
        if len(calls) == 9:
            raise KeyboardInterrupt
        return fit(*args, **kwargs)

    monkeypatch.setattr(transfers, "fit", failing)
    with pytest.raises(KeyboardInterrupt):
        compare(config, sources, benchmark, run, tracker, ledger=tmp_path)
    assert len(openings(tmp_path)) == 8  # 6 of the first, 2 of the second
    assert tracker.ended[-1] == ("colour on set", "KILLED")

    results = compare(config, sources, benchmark, run, tracker, ledger=tmp_path, resume=True)
    assert len(calls) == 9 + 4  # what was opened is not fitted again
    found = [(o["encoder"], o["data_hash"], o["opening"]) for o in openings(tmp_path)]
    assert len(found) == len(set(found)) == 12
    assert {number for *_, number in found} == {1}
    assert len({data for _, data, _ in found}) == 6
    assert len(embedded) == len(set(embedded)) * 2 == 2 * len(benchmark.table)

    tiny, colour = results
    assert colour.test.sample == tuple(benchmark.table["sample"].to_pylist())
    assert colour.interval == score_interval(colour.test, "balanced_accuracy")
    assert colour.repeats[0] == score(colour.test)["balanced_accuracy"]
    assert len(colour.repeats) == 2
    kept = Predictions.load(run.path / "colour.repeat-0.parquet")
    np.testing.assert_array_equal(kept.probability, colour.test.probability)
    table = table_of(results, benchmark)
    assert table.title == "set: balanced_accuracy, nested folds, each of 40 samples tested once, 20 patients"
    difference = paired_difference(tiny.test, colour.test, "balanced_accuracy")
    assert list(table.columns[-1].cells)[1].startswith(f"{difference.estimate:+.3f} [")

    another = RunFolder.create(tmp_path / "runs", "sweep", config)
    with pytest.raises(BadInput, match="already opened for encoder"):
        compare(config, sources, benchmark, another, tracker, ledger=tmp_path)


def test_a_comparison_that_is_interrupted_says_how_it_goes_on_and_does_so_on_the_same_data_alone(
    tracker, tmp_path, monkeypatch, capsys
):
    folder, encoder = write_patients(tmp_path / "own"), small.write_encoder(tmp_path / "tiny.safetensors")
    settings = [
        f"benchmark.path={folder}",
        f"encoder={encoder},colour",
        "protocol.kind=knn",
        "num_folds=3",
        "num_repeats=1",
    ]
    calls = []

    def failing(*args, **kwargs):
        calls.append(args)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return fit(*args, **kwargs)

    monkeypatch.setattr(transfers, "fit", failing)
    with pytest.raises(Preempted) as interrupted:
        sweep_script.main(settings)
    (run,) = (tmp_path / "runs").glob("sweep-*")
    assert str(interrupted.value).endswith(f"go on with python experiments/sweep.py --resume {run}")
    assert tracker.ended[-1] == (run.name, "KILLED")

    manifest = folder / "manifest.csv"
    before = manifest.read_text()
    manifest.write_text(before.replace("p00,train", "p00,val"))
    with pytest.raises(BadInput, match="own is not what it was when this was begun"):
        sweep_script.main([f"resume={run}"])
    manifest.write_text(before)
    sweep_script.main([f"resume={run}"])
    assert len(calls) == 5 + 2
    assert f"run {run}" in capsys.readouterr().out

    finetune_script.main([*settings[:1], "encoder=colour", *settings[2:]])
    (single,) = (tmp_path / "runs").glob("knn-*")
    with pytest.raises(BadInput, match="no comparison that experiments/sweep.py has begun"):
        sweep_script.main([f"resume={single}"])


def test_a_table_in_a_log_has_room_for_the_names_of_encoders(config, capsys, monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    said = Predictions(("a", "b", "c", "d"), (None,) * 4, np.arange(4) % 2, np.eye(2)[np.arange(4) % 2], small.CLASSES)
    name = "imagenet:tf_efficientnet_lite0 with a name"
    interval = score_interval(said, "accuracy")
    show_table([Scored(name, None, said, interval, "somehow", "run", 1.0)] * 2, config.benchmark.load(0))
    table = capsys.readouterr().out.partition("somehow")[0]
    assert sum(name in line for line in table.splitlines()) >= 2


def test_folds_that_near_duplicates_make_impossible_say_so(config):
    benchmark = config.benchmark.load(0)
    samples = benchmark.table["sample"].to_pylist()
    config = evaluated(config, benchmark)
    chain = list(pairwise(samples[:20]))  # of a whole class
    with pytest.raises(BadInput, match="It may be the 19 pairs of near-duplicates.*benchmark.split.waive"):
        outer_folds(config, benchmark, chain)
    assert len(outer_folds(config, benchmark, chain[:2])) == 15


def test_a_sweep_of_a_small_set_is_nested_too_and_says_what_that_costs(config, capsys):
    benchmark = config.benchmark.load(0)
    tuned = replace(config, protocol=FinetuneSettings(), sweep=SweepSettings())
    assert decided(tuned, benchmark).evaluation == "nested"
    said = " ".join(capsys.readouterr().out.split())
    assert (
        "set: small, and scored by nested folds: 8 trials in each of 5, for each encoder; evaluation=given has" in said
    )
    for evaluation in ("nested", "given"):
        assert decided(replace(tuned, evaluation=evaluation), benchmark).evaluation == evaluation
    assert decided(config, benchmark).evaluation == "nested"
    assert not capsys.readouterr().out


def test_repeats_follow_what_they_cost_unless_somebody_says_otherwise(config):
    benchmark = config.benchmark.load(0)
    assert evaluated(config, benchmark).num_repeats == 3
    assert evaluated(replace(config, protocol=FinetuneSettings()), benchmark).num_repeats == 1
    assert evaluated(replace(config, num_repeats=2), benchmark).num_repeats == 2
    given = evaluated(replace(config, evaluation="given", num_repeats=2), benchmark)
    assert (given.evaluation, given.num_repeats) == ("given", None)
    for name, value in (("num_folds", 1), ("num_repeats", 0), ("max_near_duplicate_samples", -1)):
        with pytest.raises(ValueError, match=f"{name}={value}: expected"):
            replace(config, **{name: value})


def test_near_duplicates_end_a_given_split_with_a_sheet_unless_they_are_waived(
    config, tracker, tmp_path, monkeypatch, capsys
):
    folder = write_patients(tmp_path / "twins", twin=0)  # 00 is train, 39 is test
    given = replace(config, benchmark=replace(config.benchmark, path=str(folder)), evaluation="given")
    with pytest.raises(
        BadInput, match=r"(?s)1 pairs of samples are near-duplicates across splits: .*look at them: "
    ) as error:
        finetune_script.run_transfer(given, opens_test=True)
    picture = Path(str(error.value).rpartition("look at them: ")[2])
    with Image.open(picture) as sheet:
        assert sheet.width > 600
    assert not (tmp_path / "runs" / LEDGER).exists()
    assert not list((tmp_path / "runs").glob("knn-*"))

    monkeypatch.setattr(
        "raypath.benchmarks.splits.near_duplicate_record.find", lambda *a, **k: pytest.fail("searched again")
    )
    waived = replace(given, benchmark=replace(given.benchmark, split=SplitSettings(waive=("near_duplicate",))))
    finetune_script.run_transfer(waived, opens_test=True)
    (tags,) = tracker.tags.values()
    assert tags["raypath.waived"] == "near_duplicate"
    assert tags["raypath.near_duplicates"] == "1 pairs"
    assert str(picture) in capsys.readouterr().out
    unsearched = look_for_copies(replace(given, max_near_duplicate_samples=39), given.benchmark.load(0))
    assert unsearched.tags == {"raypath.near_duplicates": "not searched (40 samples)"}


def test_phantoms_are_not_searched(config, phantom_folder):
    drawn = replace(config, benchmark=PhantomsSettings(path=str(phantom_folder)), evaluation="given")
    looked = look_for_copies(drawn, drawn.benchmark.load(0))
    assert looked.tags == {"raypath.near_duplicates": "not searched (phantoms)"}


def test_near_duplicates_stay_in_one_fold(config, tracker, tmp_path):
    folder = write_patients(tmp_path / "twins", twin=25)  # of two patients of one class
    config = replace(config, benchmark=replace(config.benchmark, path=str(folder)))
    benchmark = config.benchmark.load(0)
    looked = look_for_copies(evaluated(config, benchmark), benchmark)
    ((first, second),) = looked.together
    assert {first[-6:], second[-6:]} == {"25.png", "39.png"}
    finetune_script.run_transfer(config, opens_test=True)
    (run,) = (tmp_path / "runs").glob("knn-*")
    patients = {"p12", "p19"}
    for path in sorted((run / "folds").glob("*/split.csv")):
        with path.open() as file:
            assert len({row["split"] for row in csv.DictReader(file) if row["patient"] in patients}) == 1
    (tags,) = tracker.tags.values()
    assert tags["raypath.near_duplicates"] == "1 pairs, kept together"


def predictions_of(samples, patients, labels, right):
    share = np.where(np.array(right), 0.9, 0.2)
    probability = np.where(np.array(labels) == 0, share, 1 - share)
    return Predictions(samples, patients, labels, np.stack([probability, 1 - probability], axis=1), ("a", "b"))


def test_patients_have_scores_where_they_have_one_label_and_several_samples(config):
    labels, right = [0, 0, 0, 1, 1], [True, False, True, True, False]
    said = predictions_of("12345", ["p", "p", "p", "q", "q"], labels, right)
    found = patient_scores_of("test", said, config)
    assert found["test_patient_accuracy"] == 0.5 + 0.5 * (np.mean([0.9, 0.2]) > 0.5)
    assert not [name for name in found if "top" in name], "nobody has more than ten"
    assert patient_scores_of("test", predictions_of("12345", "pqrst", labels, right), config) == {}
    assert patient_scores_of("test", predictions_of("12345", ["p"] * 5, labels, right), config) == {}
    assert patient_scores_of("test", predictions_of("12345", [None, *"pqrs"], labels, right), config) == {}


def test_ten_tiles_that_show_a_class_are_not_outvoted_by_forty_that_show_none(config):
    patients, labels = ["p"] * 50 + ["q"] * 3, [1] * 50 + [0] * 3
    right = [True] * 10 + [False] * 40 + [True] * 3
    said = predictions_of([str(n) for n in range(53)], patients, labels, right)
    found = patient_scores_of("test", said, config)
    assert (found["test_patient_accuracy"], found["test_patient_top10_accuracy"]) == (0.5, 1.0)


def test_breakhis_has_rates_by_magnification(config):
    names = [f"SOB_B_A-14-22549AB-{m}-00{n}.png" for m, n in [(40, 1), (40, 2), (100, 1), (40, 3), (100, 2)]]
    said = predictions_of(names, ["p", "p", "p", "q", "q"], [0, 0, 0, 1, 1], [True, False, True, True, False])
    found = patient_scores_of("test", said, replace(config, benchmark=BreaKHisSettings()))
    rates = {name: value for name, value in found.items() if "rate" in name}
    assert rates == {"test_recognition_rate_40x": 0.75, "test_recognition_rate_100x": 0.5}
