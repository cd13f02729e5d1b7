"""What reaches an encoder, in px and um per px: the papers' numbers, small samples, unknown scales."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from raypath.benchmarks import load_images
from raypath.benchmarks.splits.folds import nested
from raypath.data.image_files import read_image
from raypath.data.images import Frame
from raypath.errors import BadInput
from raypath.models import ColourEncoder, EncoderSettings, build_encoder
from raypath.protocols import scale
from raypath.protocols.scale import Feeding, crops_fed, feeding_of, sides_of


def encoder_at(input_px, mpp=None, mpp_max=None, **options):
    settings = EncoderSettings(architecture="resnet10t", options={"channels": [8, 8, 16, 16]}, input_px=input_px)
    return build_encoder(EncoderSettings(**{**settings.__dict__, "mpp": mpp, "mpp_max": mpp_max, **options}), seed=0)


@pytest.fixture
def set_of(tmp_path):
    """A benchmark of images of given sizes."""

    def make(*sizes, mpp=None):
        for split in ("train", "val", "test"):
            for label in "ab":
                (tmp_path / split / label).mkdir(parents=True, exist_ok=True)
                for number, size in enumerate(sizes):
                    pixels = np.random.default_rng([number, ord(label)]).integers(0, 255, (size[1], size[0], 3))
                    Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / split / label / f"{number}.png")
        return load_images(tmp_path, name="tiny", mpp=mpp)

    return make


def test_the_first_papers_crop_is_match_mpp(set_of):
    """512 px at 0.39 um, an encoder of 224 px at 0.5 um: the middle 287 px, as the authors' CenterCrop(287)."""
    fed = feeding_of(encoder_at(224, mpp=0.5), set_of((512, 512), mpp=0.39), "match_mpp")
    assert fed.frame == Frame(extent_px=224, side_px=287, mpp=0.39)
    assert fed.mpp == pytest.approx(0.4997, abs=1e-4)
    assert fed.mismatch == 1.0 or fed.mismatch == pytest.approx(1, abs=1e-3)
    assert not fed.is_mismatched


def test_the_whole_sample_is_resized_and_the_scale_that_comes_of_it_is_flagged(set_of):
    benchmark = set_of((96, 96), mpp=0.972)
    fed = feeding_of(encoder_at(224, mpp=0.5), benchmark, "resize")
    assert fed.frame == Frame(extent_px=224)
    assert fed.mpp == pytest.approx(0.972 * 96 / 224)
    assert fed.mismatch == pytest.approx(0.5 / (0.972 * 96 / 224))
    assert not fed.is_mismatched
    far = feeding_of(encoder_at(224, mpp=0.25), benchmark, "resize")
    assert far.is_mismatched
    assert far.tags == {"raypath.um_per_px": "0.4166", "raypath.scale_mismatch": "1.67"}
    assert "1.67 times off" in str(far)
    inside = feeding_of(encoder_at(224, mpp=0.25, mpp_max=0.5), benchmark, "resize")
    assert inside.mismatch == 1.0


def test_a_small_sample_is_fed_at_its_own_extent_and_nothing_is_invented(set_of):
    benchmark = set_of((60, 50), (70, 52), mpp=1.0)
    native = feeding_of(encoder_at(224), benchmark, "native")
    assert native.frame == Frame(extent_px=50, side_px=50, mpp=1.0)
    matched = feeding_of(encoder_at(224, mpp=0.5), benchmark, "match_mpp")
    assert matched.frame == Frame(extent_px=100, side_px=50, mpp=1.0)
    assert matched.mpp == 0.5
    vit = {"architecture": "vit_tiny_patch16_224", "options": {"embed_dim": 48, "depth": 1, "num_heads": 3}}
    tokens = feeding_of(encoder_at(64, **vit), benchmark, "native")
    assert tokens.frame.extent_px == tokens.frame.side_px == 48
    with pytest.raises(BadInput, match="samples of 50 px are less than a token of 64 px"):
        feeding_of(encoder_at(64, **{**vit, "options": {**vit["options"], "patch_size": 64}}), benchmark, "native")


def test_an_unknown_scale_is_said_and_never_matched(set_of):
    unknown = set_of((50, 50))
    fed = feeding_of(ColourEncoder(), unknown, "native")
    assert (fed.mpp, fed.trained_mpp, fed.mismatch) == (None, None, None)
    assert fed.tags == {"raypath.um_per_px": "unknown"}
    assert "um per px not known" in str(fed)
    with pytest.raises(BadInput, match="um per px of tiny is not known; give benchmark.mpp"):
        feeding_of(encoder_at(32, mpp=0.5), unknown, "match_mpp")
    with pytest.raises(BadInput, match="um per px of the encoder is not known"):
        feeding_of(encoder_at(32), set_of((50, 50), mpp=0.5), "match_mpp")


def test_what_is_read_is_the_middle(set_of, tmp_path):
    benchmark = set_of((60, 50))
    assert set(sides_of(benchmark)) == {50.0}
    path = benchmark.table["path"][0].as_py()
    whole = np.asarray(Image.open(path))
    np.testing.assert_array_equal(read_image(path, 20, side_px=20), whole[15:35, 20:40])
    with pytest.raises(ValueError, match="smaller than the 51 px"):
        read_image(path, 20, side_px=51)


@pytest.mark.parametrize(("mpp", "expected"), [(0.1, 2.0), (0.2, 1.0), (0.4, 1.0), (0.6, 1.5)])
def test_the_mismatch_is_a_ratio_to_the_nearest_end_of_the_range(mpp, expected):
    fed = Feeding(frame=Frame(extent_px=1), mpp=mpp, trained_mpp=(0.2, 0.4))
    assert fed.mismatch == pytest.approx(expected)


@pytest.mark.parametrize(
    ("how", "mpp", "frame", "tags"),
    [
        ("resize", 0.4, Frame(extent_px=256, side_px=256, mpp=0.4), {"raypath.um_per_px": "0.4"}),
        ("native", 0.4, Frame(extent_px=256, side_px=256, mpp=0.4), {"raypath.um_per_px": "0.4"}),
        ("native", 0.2, Frame(extent_px=256, side_px=256, mpp=0.2), {"raypath.um_per_px": "0.2"}),
        ("native", None, Frame(extent_px=256, side_px=256), {"raypath.um_per_px": "unknown"}),
        ("match_mpp", 0.25, Frame(extent_px=256, side_px=512, mpp=0.25), {"raypath.um_per_px": "0.5"}),
        ("match_mpp", 1.6, Frame(extent_px=256, side_px=128, mpp=1.6), {"raypath.um_per_px": "0.8"}),
        ("match_mpp", 0.7, Frame(extent_px=256, side_px=256, mpp=0.7), {"raypath.um_per_px": "0.7"}),
    ],
)
def test_crops_are_of_images_as_they_are_or_at_the_nearest_scale_of_the_range(set_of, how, mpp, frame, tags):
    benchmark = set_of((40, 40), mpp=mpp)
    fed = crops_fed(encoder_at(224, mpp=0.5, mpp_max=0.8), benchmark, how, 256)
    assert fed.frame == frame
    flag = {"raypath.scale_mismatch": "2.50"} if (how, mpp) == ("native", 0.2) else {}
    assert fed.tags == tags | flag
    assert str(fed).startswith(f"crops of {frame.side_px} px at 256 px (")
    assert fed.is_mismatched == bool(flag)


def test_crops_are_never_matched_to_a_scale_that_nobody_knows(set_of):
    with pytest.raises(BadInput, match="um per px of tiny is not known; give benchmark.mpp"):
        crops_fed(encoder_at(32, mpp=0.5), set_of((50, 50)), "match_mpp", 32)
    with pytest.raises(BadInput, match="um per px of the encoder is not known"):
        crops_fed(encoder_at(32), set_of((50, 50), mpp=0.5), "match_mpp", 32)


def test_files_are_asked_once_for_their_size_by_all_folds_and_anew_where_contents_change(set_of, monkeypatch):
    asked, own = [], scale.size_of
    monkeypatch.setattr(scale, "size_of", lambda path, item: asked.append(path) or own(path, item=item))
    sizes = [(50, 60), (70, 40), (61, 45), (44, 80), (52, 53)]
    benchmark = set_of(*sizes, mpp=0.5)
    folds = list(nested(benchmark, num_folds=3, num_repeats=2))
    for fold in [benchmark, *folds, set_of(*sizes, mpp=0.5)]:
        fed = feeding_of(encoder_at(32, mpp=1.0), fold, "match_mpp")
        assert fed.frame == Frame(extent_px=20, side_px=40, mpp=0.5)
        assert sorted(set(sides_of(fold))) == [40, 44, 45, 50, 52]
    assert len({fold.data_hash for fold in folds}) == 6
    assert sorted(asked) == sorted(benchmark.table["path"].to_pylist())  # each file once
    asked.clear()
    smaller = set_of(*sizes[:-1], (52, 30), mpp=0.5)  # other bytes under the same names
    assert feeding_of(encoder_at(32, mpp=1.0), smaller, "match_mpp").frame.side_px == 30
    assert len(asked) == 30
    asked.clear()
    place = smaller.table.schema.get_field_index("content")
    nothing = pa.nulls(30, pa.string())
    unknown = replace(smaller, table=smaller.table.set_column(place, smaller.table.schema.field("content"), nothing))
    for _ in range(2):
        assert sides_of(unknown).min() == 30
    assert len(asked) == 60
