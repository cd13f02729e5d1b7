"""The folds of BreaKHis become the second paper's rows: by patient, over folds, and what is not there stays unknown."""

import sys
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from raypath.benchmarks import Predictions
from raypath.benchmarks.published.breakhis import BreaKHisSettings
from raypath.config import to_dict
from raypath.protocols import FinetuneSettings, HeadSettings, SvmSettings
from raypath.protocols.transfer import TransferConfig
from raypath.study.cells import Cell, CellFolder, Checkpoint, asked_of, facts_of, write_json
from raypath.study.published.breakhis import breakhis, rates_of
from raypath.study.published.from_study import BREAKHIS, RESULTS, results_of, write_rows
from raypath.study.published.results import read_results
from raypath.study.published.roles import method_of
from raypath.study.results import load_results
from raypath.study.settings import EncoderEntry
from tests.study.synthetic_study import COST

sys.path.insert(0, str(Path(__file__).parents[3] / "experiments"))

from recipes.studies import STUDIES

PROTOCOLS = {"mormont_svm": SvmSettings(), "mormont_finetune": FinetuneSettings()}
SKILLS = {"ImageNet": 0.6, "multi-task": 0.8, "colour": 0.5}


def said(encoder: str, protocol: str, magnification: int, fold: int) -> Predictions:
    """Eight patients with one to eight photographs each; the second ones of a case have another letter."""
    who = (list(SKILLS).index(encoder), list(PROTOCOLS).index(protocol), magnification, fold)
    rng, samples, patients, labels = np.random.default_rng(who), [], [], []
    for number in range(8):
        kind, code = ("B", "A") if number % 2 else ("M", "DC")
        slide = f"SOB_{kind}_{code}-14-{2000 + number}AB"
        for photo in range(number + 1):
            samples.append(f"{slide}/{slide}-{magnification}-{photo:03}.png")
            patients.append(f"14-{2000 + number}AB")
            labels.append(1 - number % 2)
    label = np.array(labels)
    predicted = np.where(rng.random(len(label)) < SKILLS[encoder], label, 1 - label)
    probability = np.where(np.arange(2) == predicted[:, None], 0.9, 0.1)
    return Predictions(samples, patients, label, probability, ("benign", "malignant"))


def by_hand(encoder: str, protocol: str, magnification: int, fold: int) -> float:
    shares, one = defaultdict(list), said(encoder, protocol, magnification, fold)
    for patient, label, probability in zip(one.patient, one.label, one.probability):
        shares[patient].append(int(probability[1] > 0.5) == label)
    return 100 * sum(sum(own) / len(own) for own in shares.values()) / len(shares)


def is_scored(encoder: str, protocol: str, magnification: int, fold: int) -> bool:
    """All frozen, but of 200x three folds and of 400x none; fine-tuned only ImageNet's at 40x."""
    if protocol == "mormont_finetune":
        return (encoder, magnification) == ("ImageNet", 40)
    return magnification < 200 or (magnification == 200 and fold < 4)


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder, config = tmp_path_factory.mktemp("study"), STUDIES["mormont_released_resnet50"]()
    cells, facts = [], {}
    for entry in config.benchmarks:
        values = dict(text.split("=") for text in entry.settings)
        magnification, fold = int(values["magnification"]), int(values["published_fold"])
        facts[entry.name] = {
            "metric": "auroc",
            "classes": ["benign", "malignant"],
            "counts": {split: {"benign": 9, "malignant": 9} for split in ("train", "val", "test")},
            "power": "auroc: not said",
        }
        benchmark = BreaKHisSettings(path="breakhis", magnification=magnification, published_fold=fold)
        for one in config.encoders:
            for protocol, settings in PROTOCOLS.items():
                if is_scored(one.name, protocol, magnification, fold):
                    point = Checkpoint(encoder=one.name, seed=0, source=f"runs/{one.name}", weights=one.name)
                    transfer = TransferConfig(benchmark=benchmark, protocol=settings, evaluation="given")
                    cell = Cell(
                        checkpoint=point,
                        benchmark=entry.name,
                        protocol=protocol,
                        fraction=1.0,
                        config=transfer,
                        seeds=(1,),
                        data_hash=entry.name,
                    )
                    cells.append(cell)
                    place = CellFolder(folder / "cells" / cell.key)
                    place.keep("seed-1", said(one.name, protocol, magnification, fold))
                    record = {"state": "done", "metric": "auroc", "cost": to_dict(COST), "config": to_dict(transfer)}
                    record |= {"architecture": None if one.name == "colour" else "resnet50"}
                    place.finish(facts_of(cell) | record)
    write_json(folder / "study.json", to_dict(config))
    write_json(folder / "benchmarks.json", facts)
    write_json(folder / "cells.json", asked_of(cells))
    return load_results(folder)


def test_the_rate_is_by_patient_and_its_spread_is_over_folds(results):
    found = {(one.task, one.method): one for one in rates_of(results)}
    assert set(found) == {(f"{m}x", f"fe_{s}") for m in (40, 100, 200) for s in ("imagenet", "multitask")} | {
        ("40x", "ft_imagenet")
    }
    for (task, method), encoder, protocol, folds in (
        (("40x", "fe_imagenet"), "ImageNet", "mormont_svm", 5),
        (("100x", "fe_multitask"), "multi-task", "mormont_svm", 5),
        (("200x", "fe_multitask"), "multi-task", "mormont_svm", 3),
        (("40x", "ft_imagenet"), "ImageNet", "mormont_finetune", 5),
    ):
        own = [by_hand(encoder, protocol, int(task[:-1]), fold) for fold in range(1, folds + 1)]
        one = found[task, method]
        assert one.mean == pytest.approx(np.mean(own))
        assert one.sigma == pytest.approx(np.std(own, ddof=1))
        assert (one.num_repeats, one.network, one.metric) == (folds, "resnet50", "acc")


def test_the_table_has_the_papers_lines_and_its_gaps(results):
    (table,) = breakhis(results).tables
    lines = [line.split(",") for line in table.csv().splitlines()]
    assert [line[:3] for line in lines[1:]] == [
        ["feature extraction", "ResNet-50", "ImageNet"],
        ["feature extraction", "ResNet-50", "multi-task"],
        ["fine-tuning", "ResNet-50", "ImageNet"],
        ["fine-tuning", "ResNet-50", "multi-task"],
    ]
    assert [row[-1] for row in table.rows] == [None] * 4  # 400x
    assert table.rows[3][3:] == (None,) * 4  # nothing was fine-tuned from it
    assert table.rows[0][3].mean == pytest.approx(
        np.mean([by_hand("ImageNet", "mormont_svm", 40, fold) for fold in (1, 2, 3, 4, 5)])
    )
    assert table.rows[0][5].notes == table.rows[1][5].notes == ("of 3 of the 5 folds alone",)
    assert "not known" in table.html()


def test_a_studys_files_hold_them_apart_from_other_sets(results):
    assert results_of(results) == []
    (place,) = write_rows(results)
    assert place.name == BREAKHIS
    assert not (results.folder / RESULTS).exists()
    assert read_results(place) == rates_of(results)


def test_a_released_model_is_the_papers_multi_task_and_no_name_makes_one(results):
    place = next(place for place in results.places if place.encoder == "multi-task")
    assert place.protocol == "mormont_svm"
    entry = EncoderEntry(name="multi-task", recipe="mormont_released_resnet50")
    assert method_of(results.config.entry("multi-task"), place) == "fe_multitask"
    assert method_of(entry, place) is None
    head = {"config": {"protocol": to_dict(HeadSettings(task="a"))}}
    assert method_of(entry, replace(place, scored=(replace(place.scored[0], record=head),))) == "joint"


@pytest.mark.parametrize("network", ["resnet50", "densenet121"])
def test_each_released_model_is_compared_with_imagenet_in_its_own_network(network):
    study = STUDIES[f"mormont_released_{network}"]()
    imagenet, released, _ = study.encoders
    assert (study.reference, imagenet.source) == ("ImageNet", f"imagenet:{network}")
    assert (released.recipe, released.released) == (f"mormont_released_{network}", True)
    assert len(study.benchmarks) == 20  # 4 magnifications x 5 folds
