"""An export is the same encoder to plain timm, byte for byte the same twice, and says what it is."""

import json
import shutil

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file
from typer.testing import CliRunner

from raypath.cli import app
from raypath.data.pool import load_pool, open_pool
from raypath.errors import BadInput
from raypath.export_job import export, find_origin
from raypath.hashing import file_sha256
from raypath.import_job import import_encoder
from raypath.models import (
    EncoderSettings,
    build_encoder,
    export_encoder,
    import_weights,
    load_encoder,
    save_encoder,
    with_normalisation,
)
from raypath.models.encoder import Encoder
from raypath.slides.resize import resize
from raypath.training.checkpoint import verify
from tests.models.foreign_files import FOREIGN, SMALL_RESNET, write

TINY = EncoderSettings(
    architecture="resnet10t",
    options={"channels": [8, 16, 24, 32]},
    input_px=32,
    mpp=0.25,
    mpp_max=0.5,
    mean=(0.7, 0.5, 0.6),
    std=(0.2, 0.1, 0.3),
)
FAMILIES = {
    "resnet": TINY,
    "vit": EncoderSettings(
        architecture="vit_tiny_patch16_224",
        options={"embed_dim": 48, "depth": 2, "num_heads": 3, "patch_size": 8},
        input_px=32,
    ),
    "vit, mean of patches": EncoderSettings(
        architecture="vit_tiny_patch16_224",
        options={"embed_dim": 48, "depth": 2, "num_heads": 3, "global_pool": "avg"},
        input_px=64,
    ),
    "swin": EncoderSettings(
        architecture="swin_tiny_patch4_window7_224",
        options={"embed_dim": 24, "depths": [1, 1, 1, 1], "window_size": 2},
        input_px=64,
    ),
    "bit": EncoderSettings(
        architecture="resnetv2_50x1_bit.goog_in21k", options={"channels": [128, 256, 512, 1024]}, input_px=64
    ),
    "mobilenet": EncoderSettings(architecture="mobilenetv3_small_050", input_px=32),
    "dilated": EncoderSettings(architecture="resnet18", options={"output_stride": 8}, input_px=64),
}


def encoder_of(settings: EncoderSettings, seed: int = 0) -> Encoder:
    """With running statistics of one batch."""
    encoder = build_encoder(settings, seed=seed)
    with torch.no_grad():
        encoder.train()(tiles_of(settings.input_px, 4))
    return encoder.eval()


def tiles_of(px: int, num: int = 2):
    return torch.randint(0, 256, (num, px, px, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def timm_features(model, settings, tiles):
    """What a person without raypath computes."""
    mean, std = torch.tensor(settings.mean), torch.tensor(settings.std)
    with torch.inference_mode():
        return model(((tiles / 255 - mean) / std).permute(0, 3, 1, 2))


@pytest.mark.parametrize("family", list(FAMILIES))
def test_plain_timm_has_equal_features(family, tmp_path):
    settings = FAMILIES[family]
    encoder, tiles = encoder_of(settings), tiles_of(settings.input_px)
    folder = export_encoder(encoder, tmp_path / "export")
    with torch.inference_mode():
        expected = encoder(tiles)

    found = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    # the same formula in another order of roundings; the exact statement follows
    scale = expected.abs().max().item()
    torch.testing.assert_close(timm_features(found, settings, tiles), expected, rtol=0, atol=5e-5 * scale)

    config = json.loads((folder / "config.json").read_text())
    built = timm.create_model(config["architecture"], num_classes=0, **config["model_args"]).eval()
    built.load_state_dict(load_file(folder / "model.safetensors"), strict=True)
    with torch.inference_mode():  # the same numbers in: the same numbers out
        assert torch.equal(built(encoder.normalise(tiles)), expected)
    assert config["num_features"] == expected.shape[1]

    data = timm.data.resolve_model_data_config(found)
    assert tuple(data["input_size"]) == (3, settings.input_px, settings.input_px)
    assert (tuple(data["mean"]), tuple(data["std"])) == (settings.mean, settings.std)
    assert (data["crop_pct"], data["interpolation"]) == (1.0, "bicubic")


def test_timm_puts_a_new_classifier_on_it(tmp_path):
    folder = export_encoder(encoder_of(TINY), tmp_path / "export")
    model = timm.create_model(f"local-dir:{folder}", pretrained=True, num_classes=5)
    assert model.fc.weight.shape == (5, 32)
    assert torch.equal(model.conv1[0].weight, load_file(folder / "model.safetensors")["conv1.0.weight"])


def test_the_example_of_the_card_runs(tmp_path, monkeypatch):
    folder = export_encoder(encoder_of(TINY), tmp_path / "export")
    text = (folder / "README.md").read_text()
    code = text.split("```python\n")[1].split("```")[0].replace(f"local-dir:{folder.name}", f"local-dir:{folder}")
    assert len(code.strip().splitlines()) == 6
    names = {}
    exec(code, names)  # our own text, three lines above
    assert names["features"].shape == (1, 32)


def test_two_exports_are_equal_byte_for_byte(tmp_path):
    first = export_encoder(encoder_of(TINY), tmp_path / "first" / "out", sections={"Trained on": {"slides": 3}})
    second = export_encoder(encoder_of(TINY), tmp_path / "second" / "out", sections={"Trained on": {"slides": 3}})
    names = sorted(path.name for path in first.iterdir())
    assert names == ["README.md", "config.json", "model.safetensors"]
    assert all((first / name).read_bytes() == (second / name).read_bytes() for name in names)
    with safe_open(first / "model.safetensors", framework="pt") as file:
        assert file.metadata() == {"format": "pt"}


def test_the_card_says_what_it_is(tmp_path):
    folder = export_encoder(
        encoder_of(TINY), tmp_path / "export", exported_copy="momentum", license_name="CC-BY-4.0", sections={"Notes": {"a|b": 1}}
    )  # fmt: skip
    text = (folder / "README.md").read_text()
    for row in (
        "| exported copy | momentum |",
        "| licence | CC-BY-4.0 |",
        "| features | 32 per tile, pooling: avg |",
        "| um per px | 0.25 to 0.5 at the input; where it was trained on random crops, theirs |",
        "| normalisation | (RGB / 255 - mean) / std |",
        "| mean | 0.7, 0.5, 0.6 |",
        "| tiles | RGB, 32 x 32 px |",
        "| a\\|b | 1 |",
        f"| model.safetensors | {file_sha256(folder / 'model.safetensors')} |",
        f"| config.json | {file_sha256(folder / 'config.json')} |",
        f"| timm | {timm.__version__} |",
        'license: "CC-BY-4.0"',
    ):
        assert row in text, row
    assert "licence | not stated" in (export_encoder(encoder_of(TINY), tmp_path / "plain") / "README.md").read_text()


def test_only_an_earlier_export_is_replaced(tmp_path):
    folder = export_encoder(encoder_of(TINY), tmp_path / "export")
    before = (folder / "model.safetensors").read_bytes()
    assert (export_encoder(encoder_of(TINY, seed=1), folder) / "model.safetensors").read_bytes() != before
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(BadInput, match=r"holds other files \(README.md, config.json, model.safetensors\)"):
        export_encoder(encoder_of(TINY), folder)
    assert (folder / "notes.txt").read_text() == "mine"

    theirs = tmp_path / "theirs"  # the same three names, but timm's own
    theirs.mkdir()
    for name in ("config.json", "model.safetensors", "README.md"):
        (theirs / name).write_text("{}")
    with pytest.raises(BadInput, match="holds other files"):
        export_encoder(encoder_of(TINY), theirs)
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput, match="expected a folder, there is a file"):
        export_encoder(encoder_of(TINY), tmp_path / "file")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["export", "file", "theirs"]  # and no draft stays


# --- from a run


def call(*arguments):
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


CONFIG = {
    "encoder": {},
    "objective": {"kind": "dino", "student_temperature": 0.1},
    "views": {"extent_px": 32},
    "optim": {"name": "adamw"},
    "loop": {"num_steps": 40, "global_batch": 8},
    "index": "/data/study/tiles/index",
    "splits": ["train"],
    "init": "/home/someone/runs/first-1/checkpoints/step-00000040/encoder.safetensors",
    "seed": 3,
}


def write_checkpoint(run, step, seed, about):
    """A checkpoint as training writes it, around an encoder without training."""
    from raypath.objectives import SimCLRSettings, build_objective
    from raypath.training.checkpoint import save_checkpoint
    from raypath.training.loop import TrainState

    objective = build_objective(SimCLRSettings(hidden_width=8, out_width=4), encoder_of(TINY, seed))
    state = TrainState(objective, torch.optim.SGD(objective.parameters(), lr=0.1), step=step)
    return save_checkpoint(run / "checkpoints", state, about)


@pytest.fixture
def run(tmp_path):
    """A run with two checkpoints, a best look at step 20, and metrics; its last step is 40."""
    run = tmp_path / "runs" / "first-20260101-000000-abcd"
    run.mkdir(parents=True)
    (run / "config.json").write_text(json.dumps(CONFIG))
    about = {"config": CONFIG, "config_hash": "c" * 64, "index_hash": "i" * 64, "versions": {"ray": "2.60.0"}}
    write_checkpoint(run, 20, 1, about | {"exported_copy": "momentum"})
    write_checkpoint(run, 40, 2, about | {"exported_copy": "momentum"})
    (run / "best").mkdir()
    save_encoder(encoder_of(TINY, 1), run / "best" / "encoder.safetensors")
    (run / "best" / "best.json").write_text(json.dumps({"step": 20, "score": 0.8125}))
    lines = [
        {"step": 20, "time": 1, "metrics": {"loss": 3.5, "monitor/knn": 0.8125, "health/rankme": 9.5, "step_s": 0.2}},
        {"step": 40, "time": 2, "metrics": {"loss": 2.25, "tiles_per_s": 99.0}},
    ]
    (run / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)) + '\n{"step": 41, "tor')
    return run


def test_a_run_is_exported_with_what_its_files_say(run, tmp_path):
    result = call("export", run, "--to", tmp_path / "out", "--license", "Apache-2.0")
    assert result.exit_code == 0, result.output
    assert "exported the momentum copy" in result.stdout
    text = (tmp_path / "out" / "README.md").read_text()
    for row in (
        "| exported copy | momentum |",
        "| objective | dino |",
        '| settings | {"kind": "dino", "student_temperature": 0.1} |',
        "| steps | 40 of 40, 8 tiles each |",
        "| chosen | last checkpoint |",
        "| started from | first-1/checkpoints/step-00000040/encoder.safetensors |",
        f"| run | {run.name} |",
        "| index | tiles/index |",
        f"| index hash | {'i' * 64} |",
        "## Metrics at step 40",
        "| loss | 2.25 |",
        "| monitor/knn | 0.8125 (step 20) |",
        "| health/rankme | 9.5 (step 20) |",
        "| ray, at training | 2.60.0 |",
    ):
        assert row in text, row
    assert "tiles_per_s" not in text
    assert str(tmp_path) not in text + (tmp_path / "out" / "config.json").read_text()
    newest = load_encoder(run / "checkpoints" / "step-00000040" / "encoder.safetensors").eval()
    model = timm.create_model(f"local-dir:{tmp_path / 'out'}", pretrained=True).eval()
    torch.testing.assert_close(timm_features(model, TINY, tiles_of(32)), newest(tiles_of(32)), rtol=1e-5, atol=1e-6)

    assert 'timm.create_model("local-dir:out", pretrained=True)' in text
    assert "| ended |" not in text  # at its last step, which need not be said
    again = call("export", run, "--to", tmp_path / "again" / "out", "--license", "Apache-2.0")
    assert again.exit_code == 0
    for path in (tmp_path / "out").iterdir():
        assert path.read_bytes() == (tmp_path / "again" / "out" / path.name).read_bytes()


def test_the_tasks_of_a_pool_are_named_with_their_classes_and_images(run, tmp_path):
    for number in range(5):
        path = tmp_path / "cells" / ("round" if number < 3 else "flat") / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (number, 0, 0)).save(path)
    pool = load_pool(str(tmp_path / "cells"), ("train",))
    config = CONFIG | {"index": "", "pool": str(tmp_path / "cells")}
    write_checkpoint(run, 40, 2, {"config": config, "index_hash": pool.hash, "classes": [["flat", "round"]]})
    assert "| task cells | 5 images of 2 classes: flat, round |" in exported_card(run, tmp_path / "out")
    (tmp_path / "cells" / "flat" / "4.png").unlink()  # no longer the pool it was trained on
    open_pool.cache_clear()  # another process would look anew
    card = exported_card(run, tmp_path / "out")
    assert "task cells" not in card
    assert "| classes | 2 |" in card


def test_the_best_look_is_exported_when_asked_for(run, tmp_path):
    assert call("export", run, "--to", tmp_path / "out", "--copy", "best").exit_code == 0
    text = (tmp_path / "out" / "README.md").read_text()
    assert "| chosen | best by the monitor, score 0.8125 |" in text
    assert "| steps | 20 of 40, 8 tiles each |" in text
    assert "| loss | 3.5 |" in text  # of that step, not of the last
    exported = load_file(tmp_path / "out" / "model.safetensors")
    best = load_file(run / "best" / "encoder.safetensors")
    assert all(torch.equal(exported[name.removeprefix("trunk.")], tensor) for name, tensor in best.items())
    shutil.rmtree(run / "best")
    refused = call("export", run, "--to", tmp_path / "none", "--copy", "best")
    assert refused.exit_code == 2
    assert "no best encoder was kept" in refused.stderr


def test_a_broken_checkpoint_is_passed_over_and_never_exported(run, tmp_path):
    newest = run / "checkpoints" / "step-00000040"
    (newest / "encoder.safetensors").write_bytes((newest / "encoder.safetensors").read_bytes()[:-8] + b"12345678")
    card = exported_card(run, tmp_path / "run")
    assert "steps | 20 of 40" in card
    assert "| ended | stopped at step 20, before its last step 40 |" in card
    with pytest.raises(BadInput, match=r"encoder.safetensors: its sha256 is not the one in checkpoint.json"):
        export(newest, tmp_path / "out")
    with pytest.raises(BadInput, match="its sha256 is not the one"):
        export(newest / "encoder.safetensors", tmp_path / "out")
    shutil.rmtree(run / "checkpoints")
    (run / "checkpoints").mkdir()
    with pytest.raises(BadInput, match="no valid checkpoint in this run"):
        export(run, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def exported_card(source, folder):
    export(source, folder)
    return (folder / "README.md").read_text()


def test_a_checkpoint_and_its_file_are_the_run(run, tmp_path):
    checkpoint = run / "checkpoints" / "step-00000020"
    assert verify(checkpoint)
    by_folder = exported_card(checkpoint, tmp_path / "one" / "card")
    assert by_folder == exported_card(checkpoint / "encoder.safetensors", tmp_path / "other" / "card")
    assert "| steps | 20 of 40, 8 tiles each |" in by_folder
    assert "| loss | 3.5 |" in by_folder


@pytest.mark.parametrize(
    ("kind", "copy"), [("byol", "online"), ("moco", "query"), ("dinov2", "momentum"), ("simclr", "encoder")]
)
def test_checkpoints_that_do_not_say_their_copy_go_by_the_objective(kind, copy, tmp_path):
    about = {"config": CONFIG | {"objective": {"kind": kind}}, "versions": {}}
    checkpoint = write_checkpoint(tmp_path / "run", 20, 1, about)
    assert f"| exported copy | {copy} |" in exported_card(checkpoint, tmp_path / "out")


def test_what_is_no_encoder_is_refused(tmp_path):
    for source, said in ((tmp_path / "nothing", "expected runs/ID"), (tmp_path, "expected runs/ID")):
        with pytest.raises(BadInput, match=said):
            export(source, tmp_path / "out")
    save_encoder(encoder_of(TINY), tmp_path / "encoder.safetensors")
    assert find_origin(tmp_path / "encoder.safetensors").checkpoint == {}
    for copy, said in (("best", "only a run"), ("first", "expected last or best")):
        with pytest.raises(BadInput, match=said):
            export(tmp_path / "encoder.safetensors", tmp_path / "out", copy=copy)


# --- from another project, through raypath, to timm


def test_an_import_is_an_encoder_file_and_its_export_names_the_source(tmp_path):
    foreign = FOREIGN["simclr-pytorch"]()
    write(foreign.contents, tmp_path / "simclr.pth")
    options = json.dumps(SMALL_RESNET.options)
    arguments = ("--architecture", "resnet18", "--options", options, "--input-px", 64, "--mpp", 0.5)
    result = call("import", tmp_path / "simclr.pth", *arguments, "--to", tmp_path / "imported")
    assert result.exit_code == 0, result.output
    assert "layout simclr-pytorch" in result.stdout
    assert "input 64 px, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0) (of the layout simclr-pytorch)" in result.stdout
    encoder = load_encoder(tmp_path / "imported" / "encoder.safetensors").eval()
    assert (encoder.settings.mpp, encoder.settings.input_px) == (0.5, 64)
    tiles = tiles_of(64)
    torch.testing.assert_close(encoder(tiles), foreign.features(tiles.permute(0, 3, 1, 2) / 255), rtol=1e-4, atol=1e-5)

    text = exported_card(tmp_path / "imported" / "encoder.safetensors", tmp_path / "out")
    assert "| layout | simclr-pytorch |" in text
    assert f"| sha256 | {file_sha256(tmp_path / 'simclr.pth')} |" in text
    model = timm.create_model(f"local-dir:{tmp_path / 'out'}", pretrained=True).eval()
    torch.testing.assert_close(timm_features(model, encoder.settings, tiles), encoder(tiles), rtol=1e-5, atol=1e-5)

    back, coverage = import_weights(tmp_path / "out" / "model.safetensors", encoder.settings)  # and round again
    assert coverage.layout == "timm"
    assert torch.equal(back.eval()(tiles), encoder(tiles))


def test_an_import_says_whose_normalisation_it_took(tmp_path):
    write(FOREIGN["timm with classifier"]().contents, tmp_path / "weights.pth")
    settings = {"architecture": "resnet18", "options": SMALL_RESNET.options}
    path, _, said = import_encoder(tmp_path / "weights.pth", tmp_path / "to", settings)
    assert "input 224 px, mean=(0.485, 0.456, 0.406)" in said
    assert "(timm's for resnet18, the file does not say)" in said
    given = settings | {"mean": (0.5, 0.5, 0.5), "std": (0.2, 0.2, 0.2)}
    path, coverage, said = import_encoder(
        tmp_path / "weights.pth", tmp_path / "to", given
    )  # an earlier import is replaced
    assert "(as given)" in said
    assert load_encoder(path).settings.std == (0.2, 0.2, 0.2)
    assert json.loads((tmp_path / "to" / "coverage.json").read_text())["sha256"] == coverage.sha256
    (tmp_path / "to" / "notes.txt").write_text("mine")
    with pytest.raises(BadInput, match="holds other files"):
        import_encoder(tmp_path / "weights.pth", tmp_path / "to", given)


def test_an_export_comes_back_with_its_own_normalisation(tmp_path):
    """timm's weights of this architecture have another; the config.json beside the file says what these were trained with."""
    save_encoder(encoder_of(TINY), tmp_path / "encoder.safetensors")
    call("export", tmp_path / "encoder.safetensors", "--to", tmp_path / "out")
    options = json.dumps(TINY.options)
    told = ("--architecture", TINY.architecture, "--options", options, "--to", tmp_path / "in")
    result = call("import", tmp_path / "out" / "model.safetensors", *told)
    assert "of the config.json beside model.safetensors" in result.output
    again = load_encoder(tmp_path / "in" / "encoder.safetensors").settings
    assert again.mean == pytest.approx(TINY.mean)
    assert again.std == pytest.approx(TINY.std)
    assert (again.input_px, again.mpp, again.mpp_max) == (TINY.input_px, TINY.mpp, TINY.mpp_max)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--mean", "0.5,0.5,0.5"), "expected both --mean and --std"),
        (("--mean", "0.5", "--std", "1,1,1"), "mean=0.5: expected three numbers"),
        (("--mean", "0,0,0", "--std", "1,0,1"), "std=1,0,1: expected three numbers above 0"),
        (("--options", "[1]"), "expected a JSON object"),
        (("--options", "{"), "expected a JSON object"),
        (("--layout", "mocco"), "layout='mocco': expected auto or one of"),
        (("--copy", "student"), "nothing there has that layout, copy or prefix"),
        ((), "does not cover resnet18"),
        (
            ("--architecture", "tf_efficientnet_lit0"),
            "timm has no such architecture; the closest names are tf_efficientnet_lite0",
        ),
    ],
)
def test_an_import_that_cannot_be_is_one_line_and_leaves_nothing(arguments, said, tmp_path):
    write(FOREIGN["timm without classifier"]().contents, tmp_path / "weights.pth")
    result = call("import", tmp_path / "weights.pth", "--architecture", "resnet18", "--to", tmp_path / "to", *arguments)
    assert result.exit_code == 2
    assert said in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "to").exists()


@pytest.mark.real
def test_imagenet_weights_in_and_out_have_equal_features(real_data, tmp_path):
    source = real_data / "weights" / "tf_efficientnet_lite0.imagenet.safetensors"
    path, coverage, _ = import_encoder(
        source, tmp_path / "in", {"architecture": "tf_efficientnet_lite0", "input_px": 160}
    )
    assert coverage.ignored == {"classifier": ("classifier.bias", "classifier.weight")}
    export(path, tmp_path / "out")
    published = timm.create_model("tf_efficientnet_lite0", num_classes=1000).eval()
    published.load_state_dict(load_file(source), strict=True)
    published.reset_classifier(0)
    reloaded = timm.create_model(f"local-dir:{tmp_path / 'out'}", pretrained=True).eval()
    encoder, tiles = load_encoder(path).eval(), tiles_of(160, 4)
    with torch.inference_mode():
        assert torch.equal(reloaded(encoder.normalise(tiles)), encoder(tiles))
        assert torch.equal(published(encoder.normalise(tiles)), encoder(tiles))
        expected = timm_features(published, encoder.settings, tiles)
    torch.testing.assert_close(timm_features(reloaded, encoder.settings, tiles), expected, rtol=0, atol=0)
    torch.testing.assert_close(encoder(tiles), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.real
def test_what_is_fed_wrongly_has_other_features(real_data):
    """Each of the usual mistakes moves the features by more than a tenth of them; the correct ones are timm's to six digits."""
    rows = (real_data / "labelled" / "pcam" / "manifest.csv").read_text().splitlines()[1:41]
    images = np.stack([np.asarray(Image.open(real_data / "labelled" / "pcam" / row.split(",")[0])) for row in rows])
    tiles = torch.from_numpy(resize(images, 160))
    settings = EncoderSettings(
        architecture="tf_efficientnet_lite0", input_px=160, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)
    )
    weights = real_data / "weights" / "tf_efficientnet_lite0.imagenet.safetensors"
    encoder = import_weights(weights, settings)[0].eval()
    imagenet = with_normalisation(encoder, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)).eval()
    nearest = torch.nn.functional.interpolate(torch.from_numpy(images).permute(0, 3, 1, 2), (160, 160), mode="nearest")

    def change(features):
        return ((features - correct).norm(dim=1) / correct.norm(dim=1)).median().item()

    with torch.inference_mode():
        correct = encoder(tiles)
        assert change(timm_features(encoder.trunk, settings, tiles)) < 1e-5
        assert change(imagenet(tiles)) > 0.1
        assert change(encoder(nearest.permute(0, 2, 3, 1).contiguous())) > 0.1
        assert change(encoder.train()(tiles)) > 0.1
