"""What every experiment does with its arguments, and how it ends, seen from inside and from a shell."""

import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1] / "experiments"))

import afterwards
import finetune
import launch
import pretrain
from recipes import PRETRAINING, kawai2023, mormont2020
from stages import PREVIOUS, stages_from_recipe, write_stages

from raypath.config import config_hash, from_dict, to_dict
from raypath.errors import BadInput, Diverged, Preempted, RaypathError, TooManyQuarantined
from raypath.models import build_encoder, save_encoder
from raypath.run_folder import RunFolder
from raypath.training.settings import PretrainConfig, check_settings
from raypath.training.source import open_source

EXPERIMENTS = Path(__file__).parents[1] / "experiments"


@pytest.mark.parametrize("name", PRETRAINING)
def test_a_recipe_is_a_whole_config_that_says_what_it_is(name):
    stages, again = (stages_from_recipe(PRETRAINING, name, []) for _ in range(2))
    for number, (config, same) in enumerate(zip(stages, again), start=1):
        assert isinstance(config, PretrainConfig)
        assert config.name == (name if len(stages) == 1 else f"{name}-{number}")
        assert from_dict(PretrainConfig, to_dict(config)) == config
        assert config_hash(same) == config_hash(config)
        check_settings(config)  # its parts go together
        assert (config.init == PREVIOUS) == (number > 1)
    assert len(PRETRAINING[name].__doc__.splitlines()[0]) > 20


def test_every_row_of_the_papers_has_its_recipe():
    assert len(mormont2020.GRID) == 4 * 3 * 2 * 2
    rates = {PRETRAINING[name]().optim.lr for name in mormont2020.GRID}
    assert rates == {1e-3, 1e-4, 1e-5, 1e-6}
    rows = [name for name in PRETRAINING if name.startswith("kawai_")]
    assert {f"kawai_{one}" for one in ("simclr_resnet50", "moco_resnet50", "byol_resnet50", "dino_vit_small")} < set(
        rows
    )
    assert sum("supervised" in name for name in rows) == sum("retrained" in name for name in rows) == 7
    assert {name for name, _ in kawai2023.PUBLISHED if name.startswith("kawai")} <= set(rows)


# RECIPES 1.3 and 2.3: optimiser, rate, the batch it is meant for, weight decay, share of warm-up, batch
PUBLISHED_SETTINGS = {
    "kawai_simclr_resnet50": ("lars", 0.6, 512, 1e-6, 0.1, 512),
    "kawai_moco_resnet50": ("sgd", 0.03, 256, 1e-4, 0.0, 256),
    "kawai_byol_resnet50": ("lars", 0.45, 512, 1e-6, 0.25, 512),
    "kawai_dino_vit_small": ("adamw", 5e-4, 256, 0.04, 0.25, 512),
    "kawai_supervised_resnet50": ("adamw", 5e-4, 512, 5e-5, 0.1, 4096),
    "kawai_retrained_vit_small": ("adamw", 5e-4, 512, 5e-5, 0.1, 4096),
    "mormont_resnet50_lr1e-4_tau5_warm": ("sgd", 1e-4, 0, 0.0, 0.0, 64),
    "mormont_released_densenet121": ("sgd", 1e-4, 0, 0.0, 0.0, 64),
}


@pytest.mark.parametrize("name", PUBLISHED_SETTINGS)
def test_recipes_have_the_papers_numbers(name):
    config = PRETRAINING[name]()
    optim = config.optim
    found = (optim.name, optim.lr, optim.lr_base_batch, optim.weight_decay, optim.warmup_share)
    assert (*found, config.loop.global_batch) == PUBLISHED_SETTINGS[name]
    assert config.reproduces


def test_recipes_have_the_papers_losses_and_views():
    recipe = {name: PRETRAINING[name]() for name in PUBLISHED_SETTINGS}
    simclr, moco, byol, dino = (recipe[name] for name in list(recipe)[:4])
    assert (simclr.objective.temperature, simclr.objective.out_width, simclr.views.min_scale) == (0.1, 128, 0.08)
    assert simclr.encoder.mean == (0, 0, 0)  # "no normalise"
    assert (moco.objective.queue_size, moco.objective.momentum, moco.objective.temperature) == (65536, 0.999, 0.2)
    assert (byol.objective.momentum, byol.objective.has_probe, byol.optim.start_lr) == (0.99, True, 0.45)
    assert (dino.objective.out_width, dino.optim.final_weight_decay, dino.optim.clip_norm) == (65536, 0.4, 3.0)
    assert (dino.views.num_local_views, dino.views.local_px, dino.views.local_scale) == (8, 96, (0.05, 0.4))
    warm = recipe["mormont_resnet50_lr1e-4_tau5_warm"]
    assert (warm.objective.tau, warm.objective.warmup_share, warm.loop.num_steps) == (5, 0.1, 50_000)
    assert not warm.optim.has_cosine
    assert (warm.tasks.tasks, warm.init, warm.adapt_batch_norm) == ("iid", "imagenet", 20)
    assert recipe["mormont_released_densenet121"].splits == ("train", "val", "test")


def test_a_setting_goes_to_every_stage_or_to_the_one_it_names():
    name = "simclr_then_supervised_small"
    first, second = stages_from_recipe(PRETRAINING, name, ["loop.num_steps=7", "2.optim.lr=0.5"])
    assert (first.loop.num_steps, second.loop.num_steps) == (7, 7)
    assert (first.optim.lr, second.optim.lr) == (4e-3, 0.5)
    with pytest.raises(BadInput, match=r"3\.optim\.lr=1: .* has 2 stage\(s\), there is no stage 3"):
        stages_from_recipe(PRETRAINING, name, ["3.optim.lr=1"])


def test_the_list_shows_every_recipe_with_its_first_line(capsys):
    pretrain.main(["--list"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(PRETRAINING)
    assert all(PRETRAINING[line.split()[0]].__doc__.splitlines()[0] in line for line in lines)


def test_a_person_is_told_of_a_warm_up_that_outlasts_the_run(capsys):
    pretrain.announce(stages_from_recipe(PRETRAINING, "demo", ["loop.num_steps=10"])[0])
    assert "15 steps of warm-up, but loop.num_steps=10: the rate never reaches optim.lr" in capsys.readouterr().out
    pretrain.announce(stages_from_recipe(PRETRAINING, "demo", [])[0])
    assert "warm-up" not in capsys.readouterr().out


def test_the_end_of_a_run_says_what_can_be_done_with_it(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    run = RunFolder.create(tmp_path / "runs", "run", PretrainConfig())
    write_stages(run, [PretrainConfig()], stage=1)
    pretrain.say_stage(run)
    pretrain.say_next(run)
    stage, *following = capsys.readouterr().out.splitlines()
    assert stage == f"stage 1 of 2: {run.id}"
    assert following == [
        f"next: python experiments/sweep.py my-images --encoder runs/{run.id},random,colour",
        f"      raypath export runs/{run.id} --to my-encoder",
    ]
    monkeypatch.chdir("/")
    write_stages(run, [])
    pretrain.say_stage(run)
    assert capsys.readouterr().out == ""  # the only one


def test_overrides_reach_the_recipe_and_an_unknown_one_lists_them():
    assert stages_from_recipe(PRETRAINING, "demo", ["loop.num_steps=7"])[0].loop.num_steps == 7
    with pytest.raises(
        BadInput, match=r"^'byol': there is no such recipe; did you mean byol_small\? --list shows all \d+$"
    ):
        stages_from_recipe(PRETRAINING, "byol", [])
    with pytest.raises(BadInput, match="did you mean simclr_small or simclr_tiles") as caught:
        stages_from_recipe(PRETRAINING, "simclr_smal", [])
    assert len(str(caught.value)) < 150


@pytest.mark.parametrize(
    ("assignment", "said"),
    [
        ("optim.lr=-1", "optim.lr=-1.0: expected above 0"),
        ("loop.num_steps=0", "loop.num_steps=0: expected 1 or more"),
        ("splits=test", """splits: expected a list in square brackets ('splits=["test"]'), got 'test'"""),
        ("views.blur_p=[2,0.5]", "views.blur_p=(2.0, 0.5): expected 0 to 1"),
        ("optim.betas=0.9", "optim.betas: expected a list in square brackets, got 0.9"),
        ("optim.warmup=3", "optim.warmup: there is no setting 'warmup' here; did you mean 'warmup_steps' or 'warmup_share'?"),
    ],
)  # fmt: skip
def test_a_setting_that_is_refused_is_named_with_its_value_and_nothing_else(assignment, said):
    with pytest.raises(BadInput) as caught:
        stages_from_recipe(PRETRAINING, "demo", [assignment])
    assert str(caught.value) == said


def test_sigterm_means_what_ctrl_c_means(monkeypatch):
    before = signal.getsignal(signal.SIGTERM)
    as_ray_does = partial(signal.signal, signal.SIGTERM, signal.SIG_IGN)
    monkeypatch.setattr(launch, "join_or_start", lambda say: as_ray_does())
    try:
        launch.start_ray()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (BadInput("x"), 2),
        (TooManyQuarantined("x"), 3),
        (Diverged("x"), 4),
        (Preempted("x"), 75),
        (RaypathError("x"), 1),
    ],
)
def test_an_error_is_one_line_and_the_exit_code_of_its_class(error, code, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["experiment.py"])

    def experiment(arguments):
        raise error

    with pytest.raises(SystemExit) as raised:
        launch.run(experiment)
    assert raised.value.code == code
    assert capsys.readouterr().err == f"{type(error).__name__}: x\n"


def test_every_experiment_gets_its_options_as_settings(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["index.py", "slides", "--out", "my-index", "--extent-px=64", "mpp=0.5"])
    given = []
    launch.run(given.extend)
    assert given == ["slides", "out=my-index", "extent_px=64", "mpp=0.5"]
    monkeypatch.setattr(sys, "argv", ["index.py", "slides", "--out"])
    with pytest.raises(SystemExit) as raised:
        launch.run(given.extend)
    assert raised.value.code == 2
    assert capsys.readouterr().err.startswith("BadInput: --out: expected a value after it")


def test_an_error_of_ours_keeps_its_traceback(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["experiment.py"])

    def experiment(arguments):
        raise KeyError("a slip in the code")

    with pytest.raises(KeyError, match="a slip in the code"):
        launch.run(experiment)


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_asks_the_run_to_stop_and_the_old_answer_comes_back(signum, tmp_path, capsys):
    run = RunFolder.create(tmp_path, "run", PretrainConfig())
    before = signal.getsignal(signum)
    run.stop.touch()  # by hand, before: the first signal is the first one all the same
    with launch.stopping_on_signals(run):
        os.kill(os.getpid(), signum)
        assert run.stop.exists()
    assert signal.getsignal(signum) is before
    assert f"exit 75; go on with resume={run.path}" in capsys.readouterr().out


@pytest.fixture
def cells(tmp_path):
    """A labelled set of two classes with three images each."""
    for number in range(6):
        path = tmp_path / "cells" / f"class{number % 2}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (64, 64), (40 * number, 0, 0)).save(path)
    return tmp_path / "cells"


def test_an_image_that_is_drawn_twice_is_shown_once_and_is_no_neighbour_of_its_own(cells, tmp_path, monkeypatch):
    assignments = [f"pool={cells}", "tasks.tasks=iid", "views.extent_px=32", "encoder.input_px=32"]
    (config,) = stages_from_recipe(PRETRAINING, "supervised_small", assignments)
    save_encoder(build_encoder(config.encoder, seed=0), tmp_path / "encoder.safetensors")
    source, shown = open_source(config), {}
    drawn = source.reader().read(np.arange(source.plan.epoch_length))["tile"]
    assert len(set(drawn.tolist())) < len(drawn) == 6

    def sheet(images, features, names, **words):
        shown.update(words, images=images, names=names)

    monkeypatch.setattr(afterwards, "neighbour_sheet", sheet)
    afterwards.sheet_of(config, source, tmp_path / "encoder.safetensors")
    assert len(shown["images"]) == len(set(drawn.tolist())) == len({image.tobytes() for image in shown["images"]})
    assert (shown["one"], shown["group"], set(shown["names"])) == ("image", "set", {"cells"})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["simclr_small", "index=nope"], "nope"),
        (["simclr_small", "index=nope", "monitor.path=gone"], "monitor.path=gone: gone: there is no such folder or manifest"),
        (["supervised_small", "pool=cells", "workers.num_workers=5"], "num_workers=5 must divide"),
        (["supervised_small", "pool=cells", "init=imagenet"], "init=imagenet: RAYPATH_WEIGHTS is not set"),
        (["supervised_small", "pool=cells", "monitor.path=cells/class0"], "monitor.path=cells/class0: .*no images"),
        (["simclr_then_supervised_small", "pool=cells", "2.workers.num_workers=5"], "num_workers=5 must divide"),
    ],
)  # fmt: skip
def test_a_pretraining_that_cannot_work_is_refused_before_ray_starts(arguments, message, cells, monkeypatch):
    monkeypatch.setattr(launch, "start_ray", lambda: pytest.fail("Ray was started"))
    monkeypatch.setenv("RAYPATH_RUNS", str(cells.parent / "runs"))
    monkeypatch.delenv("RAYPATH_WEIGHTS", raising=False)
    monkeypatch.chdir(cells.parent)
    with pytest.raises(BadInput, match=message):
        pretrain.main(arguments)
    assert [path.name for path in cells.parent.iterdir()] == ["cells"]


def script(name: str, *arguments: str, home: Path) -> subprocess.CompletedProcess:
    environment = os.environ | {"RAYPATH_RUNS": str(home / "runs")}
    environment.pop("RAY_ADDRESS", None)
    command = [sys.executable, str(EXPERIMENTS / name), *arguments]
    return subprocess.run(command, cwd=home, env=environment, capture_output=True, text=True, timeout=120)


def test_from_a_shell_bad_input_is_one_line_and_2_before_anything_starts(tmp_path):
    done = script("sweep.py", "--encoder", "x.safetensors", "--protocl.lr=1", home=tmp_path)
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("BadInput: protocl.lr: there is no setting 'protocl' here; did you mean 'protocol'")
    assert done.stdout == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["benchmark.path=x"], "encoder: which one"),
        (["encoder=colour", "benchmark.path=x"], "encoder=colour has nothing to fine-tune: set protocol.kind=probe"),
        (["encoder=x.safetensors", "test=yes"], "test=yes: expected test=true or test=false"),
        (["encoder=random", "benchmark.path=x"], "encoder=random: say whose architecture"),
        (["encoder=x", "protocol.lr=0"], "lr=0"),
        (["encoder=x", "protocol.kind=probe", "protocol.num_c=0"], "num_c=0, max_iter=5000: expected 1 or more"),
        (["encoder=x", "protocol.kind=probe", "protocol.lowest_c=0"], "expected 0 < lowest_c <= highest_c"),
        (["encoder=x", "extent_px=-1"], "extent_px=-1: expected 0 or more"),
    ],
)
def test_a_fine_tuning_that_makes_no_sense_is_refused_before_ray_starts(arguments, message, monkeypatch):
    monkeypatch.setattr(launch, "start_ray", lambda: pytest.fail("Ray was started"))
    with pytest.raises(BadInput, match=message):
        finetune.main(arguments)
