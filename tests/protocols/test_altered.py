"""What fitted protocols say of altered images: the model stays, the pixels change, and unaltered features are found as before."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image

from raypath.benchmarks import load_images, open_test, score
from raypath.config import canonical_json
from raypath.data.alterations import alter, parse_alteration
from raypath.data.images import Frame, read_pixels
from raypath.errors import BadInput
from raypath.protocols import FinetuneSettings, KnnSettings, ProbeSettings, SegmentSettings, fit, frozen
from raypath.protocols.feature_cache import FeatureCache
from raypath.protocols.fitting import embedder_of
from raypath.protocols.masked_samples import MaskedSamples
from raypath.protocols.pixel_colour import PixelColourSettings
from raypath.protocols.samples import Samples
from raypath.protocols.transfer import TransferConfig, feeding
from tests.protocols import segmented, small

pytestmark = pytest.mark.ray
CPU = torch.device("cpu")
UNET = SegmentSettings(crop_px=32, num_steps=32, batch=4, lr=1e-2, head="unet", jitter=0.0, validate_every=16)


@pytest.fixture(scope="module")
def home(tmp_path_factory, ray_instance):
    home = tmp_path_factory.mktemp("altered")
    small.write_encoder(home / "tiny.safetensors")
    small.write_set(home / "set", train=40, val=20, test=20)
    return home


@pytest.fixture(scope="module")
def benchmark(home):
    return load_images(home / "set", name="tiny-set")


@pytest.fixture(scope="module")
def rows(benchmark, tmp_path_factory):
    return open_test(benchmark, "colour", "test", ledger=tmp_path_factory.mktemp("ledger") / "ledger")


def test_samples_are_read_altered_by_their_ids(rows):
    plain = read_pixels(rows, Frame(extent_px=32))
    order = np.random.default_rng(0).permutation(len(rows))
    for text in ("hed=0.1", "grey"):
        read = Samples.of(rows.take(order), small.CLASSES, Frame(extent_px=32, alteration=text))
        expected = alter(plain[order], read.names, parse_alteration(text))
        np.testing.assert_array_equal(read.images, expected)


@pytest.mark.parametrize("text", ["grey", "jpeg=20"])
def test_what_is_said_of_altered_images_is_what_is_said_of_files_with_such_pixels(
    text, home, benchmark, rows, tmp_path
):
    config = TransferConfig(encoder="colour", protocol=ProbeSettings(), extent_px=32)
    fitted = fit(config, benchmark, features_root=home / "kept", device=CPU)
    paths = []
    for row in rows.to_pylist():
        paths.append(str(tmp_path / f"{len(paths)}.png"))
        pixels = np.asarray(Image.open(row["path"]))
        Image.fromarray(alter(pixels[None], [row["sample"]], parse_alteration(text))[0]).save(paths[-1])
    files = rows
    for column, values in (("path", paths), ("content", [None] * len(paths))):
        place = files.schema.get_field_index(column)
        files = files.set_column(place, files.schema.field(column), pa.array(values, pa.string()))
    plain, altered, of_files = fitted.predict(rows), fitted.predict(rows, text), fitted.predict(files)
    assert altered.sample == plain.sample
    np.testing.assert_array_equal(altered.probability, of_files.probability)
    assert (fitted.predict(files, "blur=1").probability != of_files.probability).any()  # contents that nobody knows
    assert (altered.probability != plain.probability).any()
    np.testing.assert_array_equal(fitted.predict(rows).probability, plain.probability)  # nothing was fitted anew
    with pytest.raises(BadInput, match="alteration='gray'"):
        fitted.predict(rows, "gray")


def test_altered_features_are_kept_apart_and_by_sample_and_plain_ones_where_they_were(
    home, benchmark, rows, monkeypatch, tmp_path
):
    computed, own = [], frozen.embed_rows

    def counted(encoder, rows, frame, **kwargs):
        computed.append((frame.alteration, len(rows)))
        return own(encoder, rows, frame, **kwargs)

    monkeypatch.setattr(frozen, "embed_rows", counted)
    config = TransferConfig(encoder=str(home / "tiny.safetensors"), protocol=KnnSettings())
    plain = embedder_of(config, benchmark, feeding(config, benchmark), tmp_path)
    first = plain.features(benchmark, rows)
    frame = plain.feeding.frame
    key = canonical_json([plain.identity, frame.extent_px, frame.side_px, frame.mpp])
    assert [path.name for path in tmp_path.iterdir()] == [FeatureCache(tmp_path, key).folder.name]

    jittered = replace(plain, feeding=plain.feeding.altered("hed=0.10"))
    copy = rows.set_column(0, rows.schema.field("sample"), [[f"copy of {s}" for s in rows["sample"].to_pylist()]])
    once, again, of_copies = (jittered.features(benchmark, asked).values for asked in (rows, rows, copy))
    assert computed == [("", 20), ("hed=0.1", 20), ("hed=0.1", 20)]  # the second time from the cache
    np.testing.assert_array_equal(once, again)
    assert (once != first.values).any(axis=1).all()
    assert (once != of_copies).any(axis=1).all()  # other ids draw others, although the contents are the same
    np.testing.assert_array_equal(plain.features(benchmark, rows).values, first.values)
    assert len(computed) == 3


def test_the_file_cannot_be_asked_of_altered_pixels(benchmark, rows):
    fitted = fit(TransferConfig(encoder="file", protocol=KnnSettings()), benchmark, features_root=None, device=CPU)
    with pytest.raises(BadInput, match="alteration=grey with encoder=file: it looks at files"):
        fitted.predict(rows, "grey")


def test_a_fine_tuned_network_is_asked_of_altered_images(home, benchmark, rows):
    config = TransferConfig(
        encoder=str(home / "tiny.safetensors"), protocol=FinetuneSettings(epochs=3, batch=8, lr=1e-2)
    )
    fitted = fit(config, benchmark, features_root=None, device=CPU)
    plain, grey = fitted.predict(rows), fitted.predict(rows, "grey")
    assert score(plain)["auroc"] > 0.9
    assert score(grey)["auroc"] < score(plain)["auroc"] - 0.1
    assert (fitted.predict(rows, "mpp=0.5").probability != plain.probability).any()


@pytest.fixture(scope="module")
def blobs(tmp_path_factory):
    return segmented.benchmark(tmp_path_factory.mktemp("blobs"))


@pytest.mark.parametrize("protocol", [UNET, PixelColourSettings()])
def test_a_segmentation_is_asked_of_altered_images_whose_pixels_stay(home, blobs, protocol):
    encoder = "colour" if isinstance(protocol, PixelColourSettings) else str(home / "tiny.safetensors")
    fitted = fit(TransferConfig(encoder=encoder, protocol=protocol), blobs, features_root=None, device=CPU)
    rows = blobs.rows("val")
    plain = fitted.predict(rows)
    for text in ("grey", "hed=0.3", "blur=2", "jpeg=5", "mpp=2"):
        altered = fitted.predict(rows, text)
        np.testing.assert_array_equal(altered.confusion.sum(2), plain.confusion.sum(2))  # the truth is the same
        assert (altered.confusion != plain.confusion).any(), text
    with pytest.raises(BadInput, match="alteration=mpp=0.8: it moves pixels"):
        fitted.predict(rows, "mpp=0.8")


def test_images_with_masks_are_altered_as_they_are_fed(blobs):
    rows = blobs.rows("val")

    def read(**how):
        return MaskedSamples.of(rows, blobs.classes, blobs.mask_rule, mpp=0.5, fed_mpp=1.0, **how)

    plain, blurred = read(), read(alteration="blur=2")
    for name, (image, mask), (made, same) in zip(plain.names, plain.masked, blurred.masked, strict=True):
        np.testing.assert_array_equal(made, alter(image[None], [name], parse_alteration("blur=2"))[0])
        np.testing.assert_array_equal(mask, same)
    np.testing.assert_array_equal(plain.truth[0], blurred.truth[0])
