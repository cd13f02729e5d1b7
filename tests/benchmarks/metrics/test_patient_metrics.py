from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raypath.benchmarks import Predictions, score
from raypath.benchmarks.metrics.patients import of_patients, recognition_rates
from raypath.errors import BadInput


def tiles(patient, label, positive, classes=("normal", "tumour")):
    """Binary predictions of tiles."""
    probability = np.stack([1 - np.asarray(positive), positive], axis=1)
    return Predictions([f"t{i}" for i in range(len(label))], patient, label, probability, classes)


def test_the_mean_and_the_highest_tiles_by_hand():
    # p2 shows its tumour in one tile of four
    predictions = tiles(["p2", "p1", "p2", "p2", "p1", "p2"], [1, 0, 1, 1, 0, 1], [0.9, 0.2, 0.1, 0.3, 0.4, 0.1])
    mean = of_patients(predictions)
    assert (mean.sample, mean.patient, mean.label.tolist()) == (("p1", "p2"), ("p1", "p2"), [0, 1])
    assert mean.probability[:, 1] == pytest.approx([0.3, (0.9 + 0.1 + 0.3 + 0.1) / 4])
    assert score(mean)["accuracy"] == 1 / 2
    highest = of_patients(predictions, top_k=1)
    assert highest.probability[:, 1] == pytest.approx([0.4 / (0.4 + 0.8), 0.9 / (0.9 + 0.9)])
    two = of_patients(predictions, top_k=2)
    tumour, normal = (0.9 + 0.3) / 2, (0.9 + 0.9) / 2
    assert two.probability[1, 1] == pytest.approx(tumour / (tumour + normal))


@settings(max_examples=40, deadline=None)
@given(
    st.integers(2, 4), st.integers(1, 30), st.integers(1, 8), st.sampled_from([None, 1, 3, 100]), st.integers(0, 2**31)
)
def test_equal_to_a_loop(num_classes, num_tiles, num_patients, top_k, seed):
    rng = np.random.default_rng(seed)
    number = rng.integers(num_patients, size=num_tiles)
    label = rng.integers(num_classes, size=num_patients)
    names = [f"c{k}" for k in range(num_classes)]
    probability = rng.dirichlet(np.ones(num_classes), size=num_tiles)
    patient = [f"p{n}" for n in number]
    found = of_patients(
        Predictions([f"t{i}" for i in range(num_tiles)], patient, label[number], probability, names), top_k=top_k
    )
    assert found.sample == tuple(f"p{n}" for n in sorted(set(number.tolist())))
    for row, name in enumerate(found.sample):
        of_one = [p for p, owner in zip(probability, patient, strict=True) if owner == name]
        raw = []
        for k in range(num_classes):
            values = sorted((p[k] for p in of_one), reverse=True)[: top_k or len(of_one)]
            raw.append(sum(values) / len(values))
        assert found.probability[row] == pytest.approx(np.array(raw) / sum(raw), abs=1e-6)
        assert found.label[row] == label[int(name[1:])]


def test_order_of_tiles_carries_no_meaning():
    rng = np.random.default_rng(0)
    predictions = tiles([f"p{i % 3}" for i in range(12)], [i % 3 % 2 for i in range(12)], rng.random(12))
    turned = predictions.take(rng.permutation(12))
    for top_k in (None, 2):
        a, b = of_patients(predictions, top_k=top_k), of_patients(turned, top_k=top_k)
        assert a.sample == b.sample
        assert np.array_equal(a.probability, b.probability)


def test_patients_keep_their_fold():
    predictions = tiles(["p1", "p0", "p1"], [0, 1, 0], [0.2, 0.5, 0.9])
    assert of_patients(replace(predictions, fold=[3, 1, 3])).fold.tolist() == [1, 3]
    with pytest.raises(BadInput, match="of different folds"):
        of_patients(replace(predictions, fold=[3, 1, 2]))


def test_what_is_no_patient_score_is_refused():
    mixed = tiles([f"p{i // 2}" for i in range(10)], [0, 1] * 4 + [0, 0], [0.5] * 10)
    with pytest.raises(
        BadInput, match=r"4 of 5 patients have samples with different labels: 'p0', 'p1', 'p2' and 1 more"
    ):
        of_patients(mixed)
    nameless = tiles(["p", None], [0, 0], [0.5, 0.5])
    for function in (of_patients, recognition_rates):
        with pytest.raises(BadInput, match="1 of 2 samples name no patient: 't1'"):
            function(nameless)
    with pytest.raises(BadInput, match="top_k 0: expected 1 or more"):
        of_patients(mixed, top_k=0)


def test_a_recognition_rate_by_hand():
    # p1: 3 of 4 images right, p2: its only one wrong; 3 of 5 images are right
    predictions = tiles(["p1", "p1", "p2", "p1", "p1"], [1, 1, 0, 1, 1], [0.9, 0.9, 0.9, 0.9, 0.1])
    (rate,) = recognition_rates(predictions).values()
    assert rate.rate == pytest.approx((3 / 4 + 0) / 2)
    assert (rate.num_patients, rate.num_images) == (2, 5)
    assert score(predictions)["accuracy"] == pytest.approx(3 / 5)


def test_magnifications_are_scored_by_themselves():
    names = [
        "SOB_B_A-14-22549AB-40-001",
        "SOB_B_A-14-22549AB-40-002",
        "SOB_M_DC-14-2523-40-001",
        "SOB_M_DC-14-2523-400-001",
    ]
    patient, label = ["22549AB", "22549AB", "2523", "2523"], [0, 0, 1, 1]
    probability = [[0.8, 0.2], [0.2, 0.8], [0.1, 0.9], [0.9, 0.1]]
    rates = recognition_rates(Predictions(names, patient, label, probability, ("b", "m")), lambda s: s.split("-")[3])
    assert {name: (r.rate, r.num_patients, r.num_images) for name, r in rates.items()} == {
        "40": ((1 / 2 + 1) / 2, 2, 3),
        "400": (0, 1, 1),
    }
