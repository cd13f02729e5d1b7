"""Where a training starts: the weights, what is fed to them, and how many steps its epochs are."""

from dataclasses import replace

import pytest
import torch

from raypath.errors import BadInput
from raypath.hashing import file_sha256
from raypath.models import EncoderSettings, build_encoder, grid_embedding, save_encoder
from raypath.objectives import MAESettings
from raypath.run_folder import RunFolder
from raypath.training.loop import LoopSettings
from raypath.training.source import check_config, open_source
from raypath.training.start import resolve_start, resolve_steps, start_encoder, start_hash

OTHER = EncoderSettings(
    architecture="resnet10t",
    options={"channels": [8, 16, 32, 64]},
    input_px=48,
    mean=(0.7, 0.5, 0.6),
    std=(0.2, 0.2, 0.2),
)
LITE = EncoderSettings(architecture="tf_efficientnet_lite0", input_px=32)


def weights_equal(one, other):
    return all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values()))


def test_random_weights_need_nothing(config):
    resolved, note = resolve_start(config)
    assert (resolved, note) == (config, "random weights")
    assert start_hash(config) == "random"
    source = open_source(config)
    encoder = start_encoder(config, source)
    assert weights_equal(encoder, build_encoder(config.encoder, seed=config.seed))
    crops = config.views.min_scale, config.views.max_scale
    assert crops == (0.2, 1.0)
    tile, view = 0.5 * 64, 32  # um per px at which tiles of 64 px, and crops of them, fill views of 32 px
    assert encoder.settings.mpp == pytest.approx(tile * 0.2**0.5 / view)
    assert encoder.settings.mpp_max == pytest.approx(tile / view)


def test_who_says_the_scale_says_that_of_the_tiles_or_of_the_views(config):
    source = open_source(config)
    for mpp, mpp_max in ((0.5, None), (0.5, 0.5), source.mpp_range, (None, 1.0), (None, None)):
        said = replace(config, encoder=replace(config.encoder, mpp=mpp, mpp_max=mpp_max))
        check_config(said, source)
        assert start_encoder(said, source).settings.mpp == source.mpp_range[0]
    for mpp, mpp_max in ((0.25, None), (0.5, 1.0), (None, 0.7)):
        with pytest.raises(BadInput, match="have 0.5 to 0.5 um per px .their views 0.447 to 1.: leave both out"):
            check_config(replace(config, encoder=replace(config.encoder, mpp=mpp, mpp_max=mpp_max)), source)


def test_an_objective_with_fixed_positions_has_them_from_random_weights_only(config, tmp_path):
    vit = replace(OTHER, architecture="vit_tiny_patch16_224", options={"embed_dim": 48, "depth": 1, "num_heads": 3})
    vit = replace(vit, input_px=config.encoder.input_px)
    config = replace(config, encoder=vit, objective=MAESettings(decoder_width=16, decoder_depth=1, decoder_heads=1))
    source = open_source(config)
    fixed = start_encoder(config, source).trunk.pos_embed
    assert not fixed.requires_grad
    assert torch.equal(fixed[0, 1:], grid_embedding(vit.input_px // 16, 48))
    theirs = build_encoder(vit, seed=7)
    save_encoder(theirs, tmp_path / "encoder.safetensors")
    learnt = start_encoder(replace(config, init=str(tmp_path / "encoder.safetensors")), source).trunk.pos_embed
    assert learnt.requires_grad
    assert torch.equal(learnt, theirs.trunk.pos_embed)


def test_an_encoder_of_raypath_brings_its_normalisation_and_options(config, tmp_path):
    path = tmp_path / "encoder.safetensors"
    theirs = build_encoder(OTHER, seed=7)
    save_encoder(theirs, path)
    wanted = replace(config, init=str(path), encoder=replace(config.encoder, options={"drop_path_rate": 0.1}))
    resolved, note = resolve_start(wanted)
    assert resolved.encoder.mean == OTHER.mean
    assert resolved.encoder.options == {"channels": [8, 16, 32, 64], "drop_path_rate": 0.1}
    assert resolved.encoder.input_px == config.encoder.input_px  # the size is the new training's
    assert str(path) in note
    assert start_hash(resolved) == file_sha256(path)
    assert weights_equal(start_encoder(resolved, open_source(config)), theirs)


def test_another_architecture_is_refused_and_so_is_what_is_not_there(config, tmp_path):
    path = tmp_path / "encoder.safetensors"
    save_encoder(build_encoder(OTHER, seed=7), path)
    with pytest.raises(BadInput, match=r"weights of resnet10t; set encoder\.architecture=resnet10t \(now resnet18\)"):
        resolve_start(replace(config, init=str(path), encoder=EncoderSettings(architecture="resnet18")))
    with pytest.raises(BadInput, match="init=nowhere: there is no such folder or file; expected random, imagenet"):
        resolve_start(replace(config, init="nowhere"))
    run = RunFolder.create(tmp_path, "empty", config)
    with pytest.raises(BadInput, match="no valid checkpoint in this run"):
        resolve_start(replace(config, init=str(run.path)))


def test_imagenet_weights_are_a_local_file_and_bring_their_own_mean(config, tmp_path, monkeypatch):
    imagenet = replace(config, init="imagenet", encoder=LITE)
    monkeypatch.delenv("RAYPATH_WEIGHTS", raising=False)
    with pytest.raises(BadInput, match="init=imagenet: RAYPATH_WEIGHTS is not set"):
        resolve_start(imagenet)
    monkeypatch.setenv("RAYPATH_WEIGHTS", str(tmp_path))
    with pytest.raises(BadInput, match=r"no file tf_efficientnet_lite0\* in RAYPATH_WEIGHTS"):
        resolve_start(imagenet)
    from safetensors.torch import save_file

    theirs = build_encoder(LITE, seed=3)
    names = {name.removeprefix("trunk."): tensor.contiguous() for name, tensor in theirs.state_dict().items()}
    save_file(names, tmp_path / "tf_efficientnet_lite0.safetensors")
    resolved, note = resolve_start(imagenet)
    assert resolved.encoder.mean == resolved.encoder.std == (0.5, 0.5, 0.5)  # timm's for this architecture
    assert "matched" in note
    assert weights_equal(start_encoder(resolved, open_source(config)), theirs)


def test_batch_norm_is_adapted_to_the_first_batches_without_a_change_of_output(config):
    source = open_source(config)
    before = start_encoder(config, source).eval()
    after = start_encoder(replace(config, adapt_batch_norm=2), source).eval()
    tiles = torch.from_numpy(source.reader().read(torch.arange(8).numpy())["image"])
    assert not torch.equal(before.trunk.bn1.running_mean, after.trunk.bn1.running_mean)
    torch.testing.assert_close(before(tiles), after(tiles), rtol=1e-3, atol=1e-4)


def test_epochs_become_steps(config):
    source = open_source(config)
    length = source.plan.epoch_length
    epochs = replace(config, loop=LoopSettings(num_epochs=2.5, global_batch=24))
    resolved = resolve_steps(epochs, source).loop
    assert resolved.num_steps == -(-int(2.5 * length) // 24)
    assert resolved.num_epochs == 0
    assert resolve_steps(config, source) == config
