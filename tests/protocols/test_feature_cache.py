"""Features are computed once per content, whatever the order, the split or who asks, and damage is named."""

import hashlib

import numpy as np
import pyarrow as pa
import pytest

from raypath.errors import BadInput
from raypath.protocols.feature_cache import FeatureCache


def rows(*names: str | None) -> pa.Table:
    contents = [name and hashlib.sha256(name.encode()).hexdigest() for name in names]
    return pa.table({"name": list(names), "content": pa.array(contents, pa.string())})


class Computed:
    """Features that say which name they belong to, and a record of what was asked."""

    def __init__(self):
        self.asked: list[list[str]] = []

    def __call__(self, table: pa.Table) -> np.ndarray:
        names = table["name"].to_pylist()
        self.asked.append(names)
        return np.array([[ord(name[0]), len(name)] if name else [0, 0] for name in names], np.float32)


def test_only_what_is_new_is_computed_and_order_does_not_matter(tmp_path):
    compute, cache = Computed(), FeatureCache(tmp_path, "encoder")
    first, num_first = cache.features(rows("a", "bb"), compute)
    again, num_again = FeatureCache(tmp_path, "encoder").features(rows("ccc", "bb", "a", "bb"), compute)
    assert compute.asked == [["a", "bb"], ["ccc"]]
    assert (num_first, num_again) == (2, 1)
    assert first.tolist() == [[97, 1], [98, 2]]
    assert again.tolist() == [[99, 3], [98, 2], [97, 1], [98, 2]]
    assert again.dtype == np.float32
    assert cache.features(rows("bb"), compute)[1] == 0


def test_another_encoder_shares_nothing(tmp_path):
    compute = Computed()
    for key in ("one", "two"):
        FeatureCache(tmp_path, key).features(rows("a"), compute)
    assert len(compute.asked) == 2


def test_samples_of_unknown_content_are_computed_every_time(tmp_path):
    compute, cache = Computed(), FeatureCache(tmp_path, "encoder")
    for _ in range(2):
        values, num = cache.features(rows("a", None), compute)
    assert compute.asked == [["a", None], [None]]
    assert num == 1
    assert values.tolist() == [[97, 1], [0, 0]]


def test_a_damaged_part_is_named_with_the_remedy(tmp_path):
    cache = FeatureCache(tmp_path, "encoder")
    cache.features(rows("a"), Computed())
    (part,) = cache.folder.glob("part-*")
    part.write_bytes(part.read_bytes()[:-20])
    with pytest.raises(BadInput, match=r"part-\w+\.parquet: not a sound file of features .*; delete it"):
        cache.features(rows("a"), Computed())
    assert sorted(path.name for path in cache.folder.iterdir()) == [part.name]  # no draft stays
