"""Weights of other projects: every layout covers its encoder with equal features, and nothing loads by half."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from raypath.errors import BadInput
from raypath.models import EncoderSettings, build_encoder, import_weights, published_normalisation, save_encoder
from raypath.models.layouts import ALWAYS_IGNORED, LAYOUTS, REASONS
from raypath.models.weight_files import read_weight_file
from tests.models.foreign_files import (
    FOREIGN,
    PX,
    SMALL_RESNET,
    SMALL_VIT,
    pooled,
    prefixed,
    small_resnet,
    trunk,
    write,
)


def written(folder, contents):
    """The file of a project, as it would write it."""
    is_npz = all(isinstance(value, np.ndarray) for value in contents.values())
    path = folder / ("weights.npz" if is_npz else "weights.pth")
    write(contents, path)
    return path


def tiles_of(px, num=2):
    return torch.randint(0, 256, (num, px, px, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def weights_in(path):
    return set(read_weight_file(path).tensors)


@pytest.mark.parametrize("name", list(FOREIGN))
def test_every_layout_covers_its_encoder_with_equal_features(name, tmp_path):
    foreign = FOREIGN[name]()
    path = written(tmp_path, foreign.contents)
    encoder, coverage = import_weights(path, foreign.settings)
    assert coverage.layout == (foreign.layout or name)
    assert coverage.copy == foreign.copy
    assert coverage.matched.keys() | set(coverage.missing) == encoder.trunk.state_dict().keys()
    assert all(name.endswith("num_batches_tracked") for name in coverage.missing)
    assert coverage.ignored.keys() == foreign.left_behind
    # every tensor of the file is accounted for, once
    held = [
        *coverage.matched.values(),
        *(n for g, names in coverage.ignored.items() if g != "no tensor" for n in names),
    ]
    assert sorted(held) == sorted(weights_in(path))
    tiles = tiles_of(foreign.settings.input_px)
    with torch.inference_mode():
        features = encoder.eval()(tiles)
        expected = foreign.features(encoder.normalise(tiles))
    assert (
        features.std(0).mean() > 1e-3 * features.abs().mean()
    )  # features that do not see their tile would prove nothing
    torch.testing.assert_close(features, expected, rtol=1e-4, atol=1e-5)


ONE_OF_EACH_LAYOUT = [
    *("timm with classifier", "torchvision inception_v3", "torchvision efficientnet_b0", "torchvision vit of old"),
    *("torchvision detection", "torchvision segmentation", "open_clip vit", "open_clip resnet, mean", "bit"),
    *("moco v2", "moco v3", "simclr-pytorch", "dino", "dinov2", "dinov2 encoder", "mae", "patchtcga byol"),
    *("lightly, numbered", "lightly, named", "lightly dino", "solo-learn"),
]


@pytest.mark.parametrize("name", ONE_OF_EACH_LAYOUT)
def test_a_renamed_layer_is_refused_by_name(name, tmp_path):
    foreign = FOREIGN[name]()
    path = written(tmp_path, foreign.contents)
    _, coverage = import_weights(path, foreign.settings)
    separator = "/" if path.suffix == ".npz" else "."
    candidates = [pair for pair in coverage.matched.items() if separator in pair[1] and "batches" not in pair[1]]
    target, source = candidates[len(candidates) // 2]
    contents, renamed = with_renamed_layer(foreign.contents, source, separator)
    with pytest.raises(BadInput) as refused:
        import_weights(written(tmp_path, contents), foreign.settings)
    message = str(refused.value)
    assert f"1 missing in the file: {target};" in message
    assert f"1 in the file and not known: {renamed}" in message
    assert f"does not cover {foreign.settings.architecture}, nothing was loaded" in message
    assert f"Closest is layout {coverage.layout} " in message


def with_renamed_layer(contents, source, separator):
    """A copy in which the layer of one tensor (a name without wrappers) has another name, and that name without wrappers."""
    head, tail = source.rsplit(separator, 1)
    new = f"{head}_renamed{separator}{tail}"
    done = []

    def walk(values, path):
        changed = {}
        for key, value in values.items():
            whole = re.sub(r"(^|(?<=\.))module\.", "", f"{path}{key}")
            whole = re.sub(r"^(state_dict|model)\.", "", whole)
            if isinstance(value, dict):
                changed[key] = walk(value, f"{path}{key}.")
            elif whole == source:
                changed[key.removesuffix(f"{separator}{tail}") + f"_renamed{separator}{tail}"] = value
                done.append(key)
            else:
                changed[key] = value
        return changed

    changed = walk(contents, "")
    assert len(done) == 1
    return changed, new


def test_bit_agrees_with_timms_own_loader(tmp_path):
    foreign = FOREIGN["bit"]()
    path = written(tmp_path, foreign.contents)
    encoder, _ = import_weights(path, foreign.settings)
    oracle = timm.create_model(foreign.settings.architecture, num_classes=0, **foreign.settings.options)
    with torch.no_grad():
        oracle.load_pretrained(str(path))
    assert all(torch.equal(tensor, oracle.state_dict()[name]) for name, tensor in encoder.trunk.state_dict().items())


@pytest.mark.parametrize(
    ("name", "copy", "prefix"),
    [
        ("moco v2", "momentum", "encoder_k."),
        ("lightly dino", "student", "student_backbone."),
        ("solo-learn", "momentum", None),
    ],
)
def test_another_copy_can_be_taken(name, copy, prefix, tmp_path):
    path = written(tmp_path, FOREIGN[name]().contents)
    usual, coverage = import_weights(path, SMALL_RESNET)
    other, other_coverage = import_weights(path, SMALL_RESNET, copy=copy)
    assert other_coverage.copy == copy != coverage.copy
    assert all(source.startswith(prefix or "momentum_backbone.") for source in other_coverage.matched.values())
    assert f"{copy} copy" in coverage.ignored
    assert f"{coverage.copy} copy" in other_coverage.ignored
    assert not torch.equal(usual.eval()(tiles_of(PX)), other.eval()(tiles_of(PX)))


def test_raypaths_own_file_and_what_it_is_fed_with(tmp_path):
    encoder = build_encoder(replace(SMALL_RESNET, mean=(0.7, 0.5, 0.6)), seed=1)
    save_encoder(encoder, tmp_path / "encoder.safetensors")
    again, coverage = import_weights(tmp_path / "encoder.safetensors", encoder.settings)
    assert (coverage.layout, coverage.ignored, coverage.missing) == ("raypath", {}, ())
    assert torch.equal(again.eval()(tiles_of(PX)), encoder.eval()(tiles_of(PX)))
    with pytest.raises(BadInput, match=r"card says mean=\(0.7, 0.5, 0.6\), asked for is mean=\(0.485"):
        import_weights(tmp_path / "encoder.safetensors", SMALL_RESNET)


def test_what_others_write_into_the_metadata_is_not_looked_at(tmp_path):
    for text in ("resnet", "[1]", json.dumps({"width": 3})):
        save_file(dict(small_resnet().state_dict()), tmp_path / "other.safetensors", metadata={"encoder": text})
        assert import_weights(tmp_path / "other.safetensors", SMALL_RESNET)[1].layout == "timm"


def test_an_encoder_inside_another_model_by_its_prefix(tmp_path):
    model = small_resnet()
    path = written(tmp_path, {"state_dict": prefixed(model, "tower.cnn.") | {"other.weight": torch.ones(2)}})
    with pytest.raises(BadInput, match="does not cover resnet18"):
        import_weights(path, SMALL_RESNET)
    encoder, coverage = import_weights(path, SMALL_RESNET, prefix="tower.cnn.")
    assert coverage.ignored["outside the prefix"] == ("other.weight",)
    normalised = encoder.normalise(tiles_of(PX))
    torch.testing.assert_close(encoder.eval()(normalised), pooled(model)(normalised))
    with pytest.raises(BadInput, match="nothing there has that layout, copy or prefix"):
        import_weights(path, SMALL_RESNET, prefix="head.", layout="moco", copy="student")


def test_a_moving_average_beside_the_weights_is_taken_by_its_prefix(tmp_path):
    contents = {
        "state_dict": prefixed(small_resnet(0), "module."),
        "state_dict_ema": prefixed(small_resnet(1), "module."),
    }
    path = written(tmp_path, contents)
    plain, coverage = import_weights(path, SMALL_RESNET)
    assert coverage.ignored.keys() == {"classifier", "averaged copy"}
    averaged, _ = import_weights(path, SMALL_RESNET, prefix="state_dict_ema.")
    assert torch.equal(plain.trunk.conv1.weight, small_resnet(0).conv1.weight)
    assert torch.equal(averaged.trunk.conv1.weight, small_resnet(1).conv1.weight)


def test_a_bare_backbone_is_ascribed_to_nobodys_training(tmp_path):
    bare = prefixed(small_resnet(), "backbone.", ("fc",))
    coverage = import_weights(written(tmp_path, bare), SMALL_RESNET)[1]
    assert (coverage.layout, coverage.normalisation) == ("lightly", None)
    segmenter = bare | {"classifier.0.weight": torch.ones(2, 512, 3, 3), "classifier.4.bias": torch.ones(3)}
    coverage = import_weights(written(tmp_path, segmenter), SMALL_RESNET)[1]
    assert (coverage.layout, coverage.ignored.keys()) == ("torchvision segmentation", {"segmenter"})
    assert any("dilated" in note for note in coverage.notes)


def test_position_embeddings_of_another_grid_are_resampled_and_it_is_said(tmp_path):
    path = written(tmp_path, trunk(SMALL_VIT).state_dict())
    larger = replace(SMALL_VIT, input_px=96)
    encoder, coverage = import_weights(path, larger)
    assert "pos_embed resampled from 17 to 37 positions (timm, bicubic)" in coverage.notes
    assert "pos_embed resampled" in str(coverage)
    expected = timm.layers.resample_abs_pos_embed(trunk(SMALL_VIT).pos_embed, [6, 6], num_prefix_tokens=1)
    assert torch.equal(encoder.trunk.pos_embed, expected)
    assert import_weights(path, SMALL_VIT)[1].notes == ()


def test_half_precision_becomes_single_and_it_is_said(tmp_path):
    state = {n: t.half() if t.is_floating_point() else t for n, t in small_resnet().state_dict().items()}
    encoder, coverage = import_weights(written(tmp_path, state), SMALL_RESNET)
    assert "float16 became float32" in coverage.notes
    assert torch.equal(encoder.trunk.conv1.weight, small_resnet().conv1.weight.half().float())


def test_counters_that_old_files_lack_are_named(tmp_path):
    state = {n: t for n, t in small_resnet().state_dict().items() if not n.endswith("num_batches_tracked")}
    _, coverage = import_weights(written(tmp_path, state), SMALL_RESNET)
    assert len(coverage.missing) == sum(isinstance(layer, nn.BatchNorm2d) for layer in small_resnet().modules())
    assert f"missing    {len(coverage.missing):5d}  batch counters, left at 0" in str(coverage)


def with_change(change):
    state = dict(small_resnet().state_dict())
    change(state)
    return state


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda s: s.update({"layer1.0.conv1.weight": torch.ones(64, 64, 1, 1)}),
            r"1 of another shape or kind: layer1.0.conv1",
        ),
        (
            lambda s: s.update({"conv1.weight": torch.full_like(s["conv1.weight"], torch.nan)}),
            r"conv1.weight \(holds NaN",
        ),
        (lambda s: s.update({"bn1.bias": torch.ones(64, dtype=torch.int64)}), r"bn1.bias \(torch.int64 in the file"),
        (lambda s: s.pop("layer2.0.downsample.0.weight"), "1 missing in the file: layer2.0.downsample.0.weight"),
        (
            lambda s: s.update({"layer1.1.conv1.weight": torch.ones(1)}),
            "1 in the file and not known: layer1.1.conv1.weight",
        ),
        (lambda s: s.update({"fc.extra": torch.ones(1)}), "1 in the file and not known: fc.extra"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(change, said, tmp_path):
    with pytest.raises(BadInput, match=f"does not cover resnet18, nothing was loaded.*{said}"):
        import_weights(written(tmp_path, with_change(change)), SMALL_RESNET)


def test_a_deeper_network_is_no_superset(tmp_path):
    path = written(tmp_path, small_resnet().state_dict())
    with pytest.raises(BadInput, match="missing in the file: layer1.1.bn1.bias"):
        import_weights(path, EncoderSettings(architecture="resnet18", input_px=PX))
    deep = FOREIGN["torchvision resnet18"]()
    with pytest.raises(BadInput, match="in the file and not known: layer1.1.conv1.weight"):
        import_weights(written(tmp_path, deep.contents), SMALL_RESNET)


def test_names_that_are_not_unique_are_refused(tmp_path):
    twice = small_resnet().state_dict()
    with pytest.raises(BadInput, match="two tensors are called conv1.weight, one of them model.conv1.weight"):
        import_weights(written(tmp_path, {"state_dict": twice, "model": twice}), SMALL_RESNET)


class Trap:
    """An object that writes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_a_file_that_needs_objects_is_refused_and_nothing_runs(tmp_path):
    sprung = tmp_path / "sprung"
    torch.save({"state_dict": small_resnet().state_dict(), "callbacks": Trap(sprung)}, tmp_path / "trap.pth")
    with pytest.raises(BadInput, match=r"needs the Python object \w*\.open.*safetensors.torch.save_file"):
        import_weights(tmp_path / "trap.pth", SMALL_RESNET)
    torch.save(small_resnet(), tmp_path / "module.pth")
    with pytest.raises(BadInput, match=r"needs the Python object torchvision.models.resnet.ResNet"):
        import_weights(tmp_path / "module.pth", SMALL_RESNET)
    np.savez(tmp_path / "objects.npz", weights=np.array([Trap(sprung)], dtype=object))
    with pytest.raises(BadInput, match=r"not a sound .npz without objects"):
        import_weights(tmp_path / "objects.npz", SMALL_RESNET)
    assert not sprung.exists()


def test_other_files_are_refused(tmp_path):
    def refused(name, data, said):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(BadInput, match=said):
            import_weights(tmp_path / name, SMALL_RESNET)

    refused("text.pth", b"not weights", "is no file of torch.save|not a readable file of torch.save")
    refused("text.npz", b"not weights", "not a sound .npz")
    refused("text.safetensors", b"not weights", "not a sound safetensors file")
    refused("weights.h5", b"", "expected a file ending in .safetensors, .npz, .pth")
    whole = written(tmp_path, small_resnet().state_dict()).read_bytes()
    refused("cut.pth", whole[: len(whole) // 2], "not a readable file of torch.save")
    with pytest.raises(BadInput, match="there is no such file"):
        import_weights(tmp_path / "absent.pth", SMALL_RESNET)
    torch.save([torch.ones(2)], tmp_path / "list.pth")
    with pytest.raises(BadInput, match="expected tensors by name, the file holds a list"):
        import_weights(tmp_path / "list.pth", SMALL_RESNET)
    torch.save({"epoch": 3}, tmp_path / "empty.pth")
    with pytest.raises(BadInput, match="holds no tensor, only epoch"):
        import_weights(tmp_path / "empty.pth", SMALL_RESNET)


def test_an_unknown_layout_and_architecture_are_answered_with_known_ones(tmp_path):
    path = written(tmp_path, small_resnet().state_dict())
    with pytest.raises(BadInput, match="layout='mocco': expected auto or one of raypath, timm"):
        import_weights(path, SMALL_RESNET, layout="mocco")
    with pytest.raises(BadInput, match=r"encoder.architecture=resnot18: .*the closest names are resnet18"):
        import_weights(path, replace(SMALL_RESNET, architecture="resnot18"))
    with pytest.raises(BadInput, match=r"Tried: moco[.;]"):
        import_weights(path, SMALL_RESNET, layout="moco")


def test_a_refusal_says_which_copies_a_file_has(tmp_path):
    contents = {"student": prefixed(trunk(SMALL_VIT), "module.backbone.")}
    with pytest.raises(BadInput, match="the file also has copy=student of dino"):
        import_weights(written(tmp_path, contents), SMALL_VIT)
    assert import_weights(written(tmp_path, contents), SMALL_VIT, copy="student")[1].layout == "dino"


def test_the_report_names_everything_and_is_plain_values(tmp_path):
    path = written(tmp_path, FOREIGN["moco v2"]().contents)
    _, coverage = import_weights(path, replace(SMALL_RESNET, mean=(0.5, 0.5, 0.5)))
    text = str(coverage)
    assert f"matched    {len(coverage.matched):5d}" in text
    assert re.search(r"missing +0  none", text)
    assert "2  queue (the negatives of MoCo): queue, queue_ptr" in text
    assert "weights in this layout are trained with mean=(0.485" in text
    values = json.loads(json.dumps(coverage.as_dict()))
    assert values["matched"]["conv1.weight"] == "encoder_q.conv1.weight"
    assert values["file"] == "weights.pth"
    assert len(values["sha256"]) == 64


def test_every_group_has_its_reason():
    groups = {group for layout in LAYOUTS.values() for group in layout.ignored} | ALWAYS_IGNORED.keys()
    assert groups <= REASONS.keys()
    assert set(REASONS) - groups == {"no tensor", "outside the prefix"}


def test_timms_published_normalisation():
    assert published_normalisation("tf_efficientnet_lite0") == (((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)), 224)
    assert published_normalisation("inception_v3")[1] == 299
    with pytest.raises(BadInput, match="encoder.architecture=resnot18: timm has no such architecture"):
        published_normalisation("resnot18")
