import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter

from raypath.benchmarks import IMAGE_SCHEMA, load_images
from raypath.benchmarks.splits import near_duplicates
from raypath.benchmarks.splits.near_duplicates import compare, rings_of
from raypath.data.image_files import read_image
from raypath.errors import BadInput
from raypath.models import import_as_fed
from raypath.protocols.features import features_of
from raypath.study.feature_near_duplicates import (
    CERTAIN,
    LEAST_CONTENT,
    LEAST_CORRELATION,
    near_duplicates_by_features,
)

WIDTH = 64


def texture(number, side=96):
    """Blobs of some px: no two numbers look alike."""
    smooth = gaussian_filter(np.random.default_rng(number).normal(size=(side, side, 3)), (2.5, 2.5, 0))
    return Image.fromarray(np.uint8(np.clip(128 + 40 * smooth / smooth.std(), 0, 255)))


def table_of(folder, pictures):
    """A table of (name, picture), written as PNG."""
    folder.mkdir(exist_ok=True)
    for name, picture in pictures:
        picture.save(folder / f"{name}.png")
    rows = [{"sample": n, "label": 0, "split": "train", "path": str(folder / f"{n}.png")} for n, _ in pictures]
    return pa.Table.from_pylist(rows, schema=IMAGE_SCHEMA)


def features_for(subjects, *, noise=0.1, seed=0):
    """Features that know what is on a picture: a direction for each subject, and some noise."""
    rng = np.random.default_rng(seed)
    return np.stack([np.random.default_rng(1000 + s).normal(size=WIDTH) for s in subjects]) + noise * rng.normal(
        size=(len(subjects), WIDTH)
    )


def names_of(pairs):
    return [(pair.first, pair.second) for pair in pairs]


def test_copies_are_found_between_two_sets_and_nothing_else(tmp_path):
    first = table_of(tmp_path / "a", [(f"{n}", texture(n)) for n in range(20)])
    turned = texture(3).transpose(Image.Transpose.TRANSPOSE)
    second = table_of(
        tmp_path / "b", [("3", turned), ("b", texture(40)), ("c", texture(7).rotate(30, Image.Resampling.BICUBIC))]
    )
    pairs = near_duplicates_by_features(first, features_for(range(20)), second, features_for([3, 40, 7], seed=1))
    assert names_of(pairs) == [("3", "3"), ("7", "c")]
    assert pairs[0].correlation > 0.99
    assert pairs[0].cosine > 0.9
    assert str(pairs[0]).startswith("3 and 3, correlation 1.00, cosine 0.9")


def test_features_that_find_all_alike_or_lie_invent_nothing(tmp_path):
    first = table_of(tmp_path / "a", [(f"{n}", texture(n)) for n in range(12)])
    second = table_of(tmp_path / "b", [(f"{n}", texture(n)) for n in range(20, 32)])
    lying = features_for(range(12))
    assert near_duplicates_by_features(first, lying, second, lying) == []
    alike = np.ones((12, WIDTH)) + 1e-3 * features_for(range(12))
    assert near_duplicates_by_features(first, alike, second, alike, least_cosine=-1) == []


def test_nearly_empty_pictures_are_pairs_only_where_they_are_the_same(tmp_path):
    def edge(number):  # white, with a little tissue on one side
        picture = np.asarray(texture(number)).copy()
        picture[:, 24:] = 250
        return Image.fromarray(picture)

    rings = [rings_of(edge(number))[None] for number in (1, 2)]
    assert LEAST_CORRELATION < compare(*rings)[0] < CERTAIN
    assert max(own.std() for own in rings) < LEAST_CONTENT
    first = table_of(tmp_path / "a", [("edge", edge(1)), ("other", texture(5))])
    turned = edge(1).transpose(Image.Transpose.ROTATE_180)
    second = table_of(tmp_path / "b", [("alike", edge(2)), ("same", turned), ("third", texture(9))])
    pairs = near_duplicates_by_features(first, features_for([1, 5]), second, features_for([1, 1, 9], seed=1))
    assert names_of(pairs) == [("edge", "same")]


def test_what_features_do_not_propose_is_not_compared(tmp_path):
    first = table_of(tmp_path / "a", [(f"{n}", texture(n)) for n in range(12)])
    second = table_of(tmp_path / "b", [("copy", texture(5)), ("x", texture(50))])
    far = features_for([5 + 900, 50])
    assert near_duplicates_by_features(first, features_for(range(12)), second, far) == []
    assert names_of(near_duplicates_by_features(first, features_for(range(12)), second, features_for([5, 50]))) == [
        ("5", "copy")
    ]


def test_within_one_set_each_pair_comes_once_and_agrees_with_all_pairs_by_hand(tmp_path):
    subjects = [0, 1, 2, 0, 1, 3, 4, 5]
    pictures = [
        texture(s).transpose(Image.Transpose.ROTATE_90) if n > 2 else texture(s) for n, s in enumerate(subjects)
    ]
    table = table_of(tmp_path / "a", [(f"s{n}", picture) for n, picture in enumerate(pictures)])
    features = features_for(subjects)
    rings = np.stack([rings_of(picture) for picture in pictures])
    i, j = np.triu_indices(len(subjects), 1)
    slow = compare(rings[i], rings[j])[0]
    expected = {(f"s{a}", f"s{b}"): c for a, b, c in zip(i, j, slow) if c >= LEAST_CORRELATION}
    found = near_duplicates_by_features(table, features, table, features)
    assert {(pair.first, pair.second): pair.correlation for pair in found} == pytest.approx(expected, abs=1e-5)
    assert len(found) == 2
    centred = features - features.mean(axis=0)
    a, b = (centred[int(name[1:])] for name in (found[0].first, found[0].second))
    assert found[0].cosine == pytest.approx(a @ b / np.linalg.norm(a) / np.linalg.norm(b), abs=1e-5)


def test_features_that_do_not_fit_are_one_clear_line(tmp_path):
    table = table_of(tmp_path / "a", [("1", texture(1)), ("2", texture(2))])
    good = features_for([1, 2])
    for bad, message in [
        (good[:1], r"features \[1, 64\] for 2 samples"),
        (good[:, :3], "features of width 64 and 3"),
        (np.where(good == good[0, 0], np.nan, good), "not finite"),
    ]:
        with pytest.raises(BadInput, match=message):
            near_duplicates_by_features(table, good, table, bad)


@pytest.mark.real
def test_copies_of_lc25000_are_found_and_none_in_pcam(real_data):
    weights = real_data / "weights" / "tf_efficientnet_lite0.imagenet.safetensors"
    encoder = import_as_fed(weights, {"architecture": "tf_efficientnet_lite0"})[0]

    def of(name, num):
        rows = load_images(real_data / "labelled" / name, ignore_split=True).table
        rows = rows.take(np.random.default_rng(0).permutation(len(rows))[:num])
        images = np.stack([read_image(path, 96) for path in rows["path"].to_pylist()])
        return rows, features_of(encoder, images, torch.device("cpu"))

    rows, features = of("lc25000_lung", 480)
    copies = near_duplicates_by_features(rows, features, rows, features)
    assert 70 <= len(copies) <= 95
    assert any(pair.correlation < near_duplicates.LEAST_CORRELATION for pair in copies)  # to the rings alone strangers
    rows, features = of("pcam", 80)
    assert near_duplicates_by_features(rows, features, rows, features) == []
