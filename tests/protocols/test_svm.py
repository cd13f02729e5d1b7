"""The second paper's SVM: C as a slow search finds it, patients undivided, order kept by the squashing."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.svm import LinearSVC

from raypath.benchmarks import load_images
from raypath.errors import BadInput
from raypath.protocols import Features, SvmSettings, fit_svm
from raypath.protocols.svm import squashed
from raypath.protocols.transfer import TransferConfig, check_protocol
from tests.protocols import small


def features(num: int, *, seed: int, num_classes: int = 2, per_patient: int = 3, spread: float = 3.0) -> Features:
    """Classes that lie apart in the first dimensions, in noise; patients of a few samples each."""
    rng, labels = np.random.default_rng(seed), np.arange(num) // per_patient % num_classes
    values = rng.normal(0, spread, (num, 12)) + 3 * np.eye(num_classes, 12)[labels]
    patients = tuple(f"p{seed}-{i // per_patient}" for i in range(num))
    return Features(
        values.astype(np.float32),
        labels,
        tuple(f"s{seed}-{i}" for i in range(num)),
        patients,
        tuple("abc"[:num_classes]),
    )


def test_c_is_the_one_of_a_slow_grouped_cross_validation():
    train = features(90, seed=0)
    fitted = fit_svm(train, SvmSettings(lowest_c=1e-6, num_c=7), seed=3)
    means = []
    for c in np.geomspace(1e-6, 1, 7):
        scores = []
        for inside, outside in StratifiedGroupKFold(5, shuffle=True, random_state=3).split(
            train.values, train.labels, train.patients
        ):
            assert not {train.patients[i] for i in inside} & {train.patients[i] for i in outside}
            machine = LinearSVC(C=c, dual="auto", random_state=0, max_iter=10_000)
            machine.fit(train.values[inside].astype(float), train.labels[inside])
            scores.append(roc_auc_score(train.labels[outside], machine.decision_function(train.values[outside])))
        means.append(np.mean(scores))
    assert fitted.cv_score == pytest.approx(max(means), abs=1e-6)
    assert fitted.c == pytest.approx(np.geomspace(1e-6, 1, 7)[int(np.argmax(np.round(means, 9)))])
    assert max(means) > min(means) + 0.005


@pytest.mark.parametrize("num_classes", [2, 3])
def test_it_tells_unseen_samples_apart_and_keeps_order_and_winner(num_classes):
    train, unseen = (features(120, seed=seed, num_classes=num_classes, spread=1.0) for seed in (0, 1))
    fitted = fit_svm(train, SvmSettings(), seed=0)
    probability = fitted.probability(unseen.values)
    assert probability.shape == (120, num_classes)
    assert np.allclose(probability.sum(1), 1)
    assert (probability.argmax(1) == unseen.labels).mean() > 0.9
    assert (probability.argmax(1) == fitted.machine.predict(unseen.values)).all()
    if num_classes == 2:
        decision = fitted.machine.decision_function(unseen.values)
        expected = pytest.approx(roc_auc_score(unseen.labels, decision), abs=1e-3)
        assert roc_auc_score(unseen.labels, probability[:, 1]) == expected


def test_a_class_without_training_samples_keeps_its_column():
    assert squashed(np.array([[1.0, 3.0]]), np.array([0, 2]), 3).tolist()[0][1] == 0
    assert squashed(np.array([-800.0, 800.0]), np.array([1, 2]), 3).argmax(1).tolist() == [1, 2]


def test_an_svm_that_is_refitted_with_val_has_no_budget_of_labels(tmp_path):
    benchmark = load_images(small.write_set(tmp_path), name="tiny")
    for budget in ({"per_class_train": 4}, {"fraction_train": 0.5}):
        config = TransferConfig(encoder="colour", protocol=SvmSettings(), **budget)
        with pytest.raises(BadInput, match="all labels of val as well; set protocol.is_refitted=false"):
            check_protocol(config, benchmark)
        check_protocol(replace(config, protocol=SvmSettings(is_refitted=False)), benchmark)
    check_protocol(TransferConfig(encoder="colour", protocol=SvmSettings()), benchmark)


def test_too_few_patients_for_the_folds_are_refused():
    with pytest.raises(
        BadInput, match="2 classes in the training samples, the smallest with 4 patients.*lower protocol.num_folds"
    ):
        fit_svm(features(24, seed=0), SvmSettings(), seed=0)
    with pytest.raises(ValueError, match="lowest_c=2"):
        SvmSettings(lowest_c=2)
