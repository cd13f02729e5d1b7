"""Confounders: what was planted is read, nothing is read where nothing is, and what cannot be asked says so."""

import io

import numpy as np
import pytest
import torch
from scipy.stats import chi2_contingency
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import LeaveOneGroupOut

from raypath.errors import BadInput
from raypath.models.colour import ColourEncoder
from raypath.slides.phantom import draw_phantom
from raypath.slides.phantom_stain import draw_stain
from raypath.study import confounder_probe
from raypath.study.confounder_figures import confounder_figure
from raypath.study.confounder_probe import ask
from raypath.study.confounders import Confounder, confounder, cramers_v

SITES = ("east", "north", "west")


def simulated(*, of_site=0.0, of_patient=0.0, of_class=0.0, patients_each=8, samples_each=6, seed=0, odds=0.5):
    """Features [N, 12] of three sites: site, patient and class shift them by so many times their spread; `odds`: of class 1 in
    the first site, less in the second and third, for whole patients.
    """
    rng = np.random.default_rng(seed)
    num_patients = 3 * patients_each
    site = np.repeat(np.arange(3) % 3, patients_each)
    share = np.array([odds, 0.5, 1 - odds])[site]
    label = (np.arange(num_patients) % patients_each < share * patients_each).astype(int)
    means = of_site * rng.normal(size=(3, 12))[site] + of_patient * rng.normal(size=(num_patients, 12))
    means = means + of_class * rng.normal(size=(2, 12))[label]
    rows = np.repeat(np.arange(num_patients), samples_each)
    features = means[rows] + rng.normal(size=(len(rows), 12))
    return features, [SITES[s] for s in site[rows]], label[rows], [f"p{p}" for p in rows]


def test_a_planted_site_is_read_with_its_interval():
    found = confounder(*simulated(of_site=1.0, of_patient=0.3), name="site")
    assert found.is_read
    assert found.read.low > 0.6
    assert (found.num_groups, found.read.num_patients, found.read.level) == (3, 24, "patient")
    assert max(found.shuffled) < found.read.estimate
    assert found.words.startswith(f"site can be read from the features: balanced accuracy {found.read.estimate:.3f} [")
    assert "n = 24 patients" in found.words


def test_no_site_is_invented_on_clean_features():
    reads = []
    for seed in range(4):
        found = confounder(*simulated(of_patient=1.0, seed=seed, patients_each=6, samples_each=3), name="site")
        reads.append(found.is_read)
        assert abs(np.mean(found.shuffled) - 1 / 3) < 0.12
    assert sum(reads) <= 1


def test_patients_faces_are_not_taken_for_their_site():
    """Samples of one patient on both sides would let a probe know each site by its patients."""
    features, site, label, patient = simulated(of_patient=3.0, patients_each=3, samples_each=10, seed=3)
    found = confounder(features, site, label, patient, name="site")
    naive = confounder(features, site, label, [None] * len(site), name="site", num_permutations=1)
    assert naive.read.estimate > 0.9 > found.read.estimate
    assert not found.is_read
    assert naive.read.level == "image"
    assert "samples (no patients are known)" in naive.words


def test_an_encoder_that_knows_classes_is_not_said_to_know_sites_that_differ_in_them():
    found = confounder(*simulated(of_class=2.0, odds=0.9, patients_each=10, seed=1), name="site")
    assert found.read.estimate > 0.4  # the classes alone tell so much
    assert not found.is_read
    assert np.mean(found.shuffled) > 0.4
    assert found.cramers_v > 0.4
    assert found.guess.estimate > 0.6
    assert "alone guesses the class with balanced accuracy" in found.words
    apart = confounder(*simulated(of_class=2.0, patients_each=10, seed=1), name="site")
    assert apart.cramers_v < 0.1
    assert "site and class do not go together" in apart.words
    assert apart.guess.estimate < 0.6


def test_a_site_of_one_class_is_confounded_by_design_and_not_said_to_be_read():
    found = confounder(*simulated(of_site=2.0, of_class=2.0, odds=1.0), name="site")
    sites = np.array(simulated(odds=1.0)[1])
    assert set(np.array(simulated(odds=1.0)[2])[sites == "east"]) == {1}
    assert "site and class are confounded by design" in found.words


def test_one_scanner_more_on_each_patient_is_read_within_patients():
    features, _, label, patient = simulated(of_patient=2.0, patients_each=4)
    scanner = np.arange(len(label)) % 2
    rng = np.random.default_rng(0)
    clean = confounder(features, [f"s{s}" for s in scanner], label, patient, name="scanner")
    assert not clean.is_read
    shifted = features + 1.5 * scanner[:, None] * rng.normal(size=12)
    found = confounder(shifted, [f"s{s}" for s in scanner], label, patient, name="scanner")
    assert found.is_read
    assert (found.num_groups, found.read.num_patients) == (2, 12)


def test_patients_are_told_apart_within_patients():
    features, _, label, patient = simulated(of_patient=2.0, patients_each=4)
    found = confounder(features, patient, label, patient, name="patient")
    assert found.is_read
    assert found.num_groups == 12
    assert (found.guess, found.cramers_v) == (None, None)
    features = np.random.default_rng(0).normal(size=features.shape)
    assert not confounder(features, patient, label, patient, name="patient").is_read


def test_a_short_script_reads_the_same():
    """Leave-one-patient-out by scikit-learn, where folds cannot differ: two patients of each site."""
    features, site, label, patient = simulated(of_site=1.0, patients_each=2, samples_each=10, seed=4)
    found = confounder(features, site, label, patient, name="site", num_permutations=1)
    number = np.unique(site, return_inverse=True)[1]
    halves = np.array([int(p[1:]) % 2 for p in patient])
    model = LogisticRegression(C=0.1, class_weight="balanced", max_iter=1000)
    said = np.empty(len(number), int)
    for train, test in LeaveOneGroupOut().split(features, number, halves):
        mean, spread = features[train].mean(0), features[train].std(0)
        said[test] = model.fit((features[train] - mean) / spread, number[train]).predict(
            (features[test] - mean) / spread
        )
    assert found.read.estimate == pytest.approx(
        balanced_accuracy_score(number, said), abs=0.08
    )  # folds may pair others


@pytest.mark.parametrize(
    ("site", "reason"),
    [
        (["a"] * 6, "1 site known"),
        ([None] * 6, "0 site known"),
        (["a", "a", "a", "a", "b", "b"], "of 2 groups fewer than two have two patients or more"),
    ],
)
def test_what_cannot_be_asked_says_why(site, reason):
    patient = ["p0", "p0", "p1", "p1", "p2", "p2"]
    found = confounder(np.random.default_rng(0).normal(size=(6, 3)), site, np.arange(6) % 2, patient, name="site")
    assert found.reason.startswith(reason)
    assert (found.read, found.p_value, found.is_read) == (None, None, False)
    assert found.words.startswith("site: cannot be asked, ")


def test_what_is_left_out_is_counted(monkeypatch):
    monkeypatch.setattr(confounder_probe, "MAX_GROUPS", 2)
    monkeypatch.setattr(confounder_probe, "MAX_SAMPLES", 30)
    features, site, label, patient = simulated(of_site=1.0)
    site[0] = None
    site[-6:] = ["alone"] * 6
    asked = ask(site, label, patient, name="site", seed=0)
    assert len(asked.rows) == 30
    assert {site[row] for row in asked.rows} == {"east", "north"}
    assert set(np.bincount(asked.unit)) <= {1, 2}  # evenly of all 16 patients
    assert asked.notes == (
        "1 samples without site left out",
        "1 of 4 groups left out: of a single patient",
        "the 2 largest of 3 groups asked",
        "30 of 95 samples asked, evenly of all patients",
    )
    assert confounder(features, site, label, patient, name="site").words.endswith(asked.notes[-1])


def test_shuffles_keep_patients_whole_and_classes_among_themselves():
    _, site, label, patient = simulated(odds=0.75)
    asked = ask(site, label, patient, name="site", seed=0)
    rng = np.random.default_rng(0)
    moved = 0
    for _ in range(20):
        shuffled = asked.shuffled(rng)
        moved += (shuffled != asked.group).sum()
        for unit in range(asked.unit.max() + 1):
            assert len(set(shuffled[asked.unit == unit])) == 1
        for k in (0, 1):
            assert sorted(shuffled[asked.label == k]) == sorted(asked.group[asked.label == k])
    assert moved > 500


def test_cramers_v_is_that_of_chi_square_less_its_bias():
    rng = np.random.default_rng(0)
    first = rng.integers(0, 4, 200)
    second = np.where(rng.random(200) < 0.5, first % 3, rng.integers(0, 3, 200))
    counts = np.zeros((4, 3))
    np.add.at(counts, (first, second), 1)
    phi2 = chi2_contingency(counts, correction=False).statistic / 200
    rows, columns = (length - (length - 1) ** 2 / 199 for length in (4, 3))
    expected = np.sqrt(max(0, phi2 - 3 * 2 / 199) / (min(rows, columns) - 1))
    assert cramers_v(first, second) == pytest.approx(expected)
    assert cramers_v(first, first) == pytest.approx(1)
    assert np.mean([cramers_v(rng.integers(0, 6, 30), rng.integers(0, 3, 30)) for _ in range(200)]) < 0.15
    assert cramers_v(first, np.zeros(200, int)) is None


def test_lengths_and_broken_features_are_refused():
    features, site, label, patient = simulated()
    with pytest.raises(BadInput, match=r"features \(144, 12\), 143 groups"):
        confounder(features, site[1:], label, patient, name="site")
    features[3, 3] = np.nan
    with pytest.raises(BadInput, match="confounder site: features that are not finite"):
        confounder(features, site, label, patient, name="site")


@pytest.fixture(scope="module")
def phantom_tiles():
    """Tiles uint8 [N, 64, 64, 3] of phantoms of three sites with four patients each, with site, class and patient."""
    tiles, site, label, patient = [], [], [], []
    for number in range(12):
        own = number % 3
        stain = draw_stain(site_rng=np.random.default_rng((7, own)), patient_rng=np.random.default_rng((8, number)))
        image, mask = draw_phantom(512, stain=stain, rng=np.random.default_rng((9, number)))
        for row in range(8):
            for column in range(8):
                values, counts = np.unique(mask[4 * row : 4 * row + 4, 4 * column : 4 * column + 4], return_counts=True)
                if values[counts.argmax()] and counts.max() >= 12:
                    tiles.append(image[64 * row : 64 * row + 64, 64 * column : 64 * column + 64])
                    site.append(SITES[own])
                    label.append(int(values[counts.argmax()]) - 1)
                    patient.append(f"patient {number}")
    return np.stack(tiles), site, np.array(label), patient


def test_colour_features_of_phantoms_tell_their_site(phantom_tiles):
    tiles, *who = phantom_tiles
    features = ColourEncoder()(torch.from_numpy(tiles)).numpy()
    found = confounder(features, *who, name="site")
    assert found.p_value < 0.05, found.words
    assert found.read.estimate > max(0.7, *found.shuffled)
    assert found.cramers_v < 0.3  # every slide holds every class


def test_the_figure_shows_scores_shuffles_and_what_cannot_be_asked(phantom_tiles):
    found = confounder(*simulated(of_site=1.0), name="site")
    none = Confounder(name="scanner", num_groups=1, reason="1 scanner known; expected 2 or more")
    figure = confounder_figure([("imagenet", found), ("imagenet", none)])
    figure.savefig(io.BytesIO(), format="svg")
    (axes,) = figure.axes
    dots, chance, bar, mark = axes.lines
    np.testing.assert_array_equal(np.sort(dots.get_xdata()), np.sort(found.shuffled))
    assert list(chance.get_xdata()) == [1 / 3] * 2
    assert list(bar.get_xdata()) == [found.read.low, found.read.high]
    assert list(mark.get_xdata()) == [found.read.estimate]
    assert [text.get_text() for text in axes.texts] == [f"{found.read.estimate:.2f}", "cannot be asked"]
    names = [label.get_text().replace("\n", " ") for label in axes.get_yticklabels()]
    assert names == ["imagenet: site (3)", "imagenet: scanner (1)"]
