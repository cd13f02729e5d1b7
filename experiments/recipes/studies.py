"""Studies by name: which encoders on which benchmarks. A study of one's own is a TOML file (README, "Studies").

    python experiments/study.py transfer encoders=runs/ID,random,colour benchmarks=../data/my_set
    python experiments/study.py leave_one_out benchmarks='[{"path": "../data/a", "pool": "../data/a"}, ...]'

One decision: a named study holds what does not depend on anybody's disk; places are given on the command line.
"""

from dataclasses import replace
from itertools import product

from raypath.study.settings import BenchmarkEntry, EncoderEntry, LeaveOutSettings, StudyConfig
from recipes.mormont2020 import NETWORKS, RATES, TAUS

COLOUR = EncoderEntry(name="colour", source="colour")


def transfer() -> StudyConfig:
    """Encoders that are there, or recipes, on labelled sets, by a probe: set encoders=... and benchmarks=..."""
    return StudyConfig(name="transfer", encoders=(COLOUR,))


def leave_one_out() -> StudyConfig:
    """Second paper, small: multi-task training on all benchmarks but one, from ImageNet, by an SVM before and after; 3 seeds."""
    return StudyConfig(
        name="leave_one_out",
        question="Does multi-task pretraining on pathology sets help on a set that it has not seen?",
        encoders=(
            EncoderEntry(name="ImageNet", source="imagenet:tf_efficientnet_lite0"),
            EncoderEntry(
                name="multi-task",
                recipe="multitask_small",
                settings=(
                    "init=imagenet",
                    "encoder.architecture=tf_efficientnet_lite0",
                    "encoder.options={}",
                    "encoder.input_px=112",
                    "views.extent_px=112",
                    "loop.num_steps=150",
                    "loop.global_batch=64",
                    "loop.checkpoint_every=150",
                    "loop.channels_last=true",
                    "optim.lr=0.003",
                    "adapt_batch_norm=20",
                    "workers.num_workers=1",
                    "workers.torch_threads=2",
                    "workers.cpus_per_worker=1",
                ),
                num_seeds=3,
                leave_out=True,
            ),
            EncoderEntry(name="random", source="random", num_seeds=3),
            COLOUR,
        ),
        baseline="ImageNet",
        protocols=("probe",),
        transfer=("extent_px=112",),
    )


def mormont() -> StudyConfig:
    """Second paper: 48 combinations x left-out sets x 5 seeds, selection, then FE, FT, scratch (8 sets: 1,920 trainings)."""
    multitask = [
        EncoderEntry(
            name=f"multi-task {network}",
            recipe=f"mormont_{network}_lr1e-3_tau1",
            num_seeds=5,
            leave_out=True,
        )
        for network in NETWORKS
    ]
    imagenet = [EncoderEntry(name=f"ImageNet {network}", source=f"imagenet:{network}") for network in NETWORKS]
    scratch = [
        EncoderEntry(name=f"scratch {network}", source=f"random:{network}", protocols=("mormont_finetune",))
        for network in NETWORKS
    ]
    return StudyConfig(
        name="mormont",
        question="Does multi-task pretraining on a pool of pathology tasks transfer better than ImageNet (arXiv 2005.02561)?",
        encoders=(*imagenet, *multitask, *scratch, COLOUR),
        baseline=f"ImageNet {next(iter(NETWORKS))}",
        protocols=("mormont_svm", "mormont_finetune"),
        num_seeds=5,
        transfer=("evaluation=given",),
        leave_out=LeaveOutSettings(
            grid={
                "optim.lr": [float(rate) for rate in RATES],
                "objective.tau": [float(tau) for tau in TAUS],
                "objective.warmup_share": [0.0, 0.1],
            }
        ),
    )


def mormont_joint() -> StudyConfig:
    """Second paper: `mormont`, and the joint training on all tasks, the scored ones' train part too."""
    study = mormont()
    joint = [
        EncoderEntry(name=f"joint {network}", recipe=f"mormont_{network}_lr1e-4_tau5_warm", num_seeds=5)
        for network in NETWORKS
    ]
    return replace(study, name="mormont_joint", encoders=(*study.encoders, *joint))


def mormont_released() -> StudyConfig:
    """Second paper: the released models on BreaKHis (FE, FT, 5 folds x 4): set transfer='["benchmark.path=DIR"]'."""
    released = [
        EncoderEntry(name=f"multi-task {network}", recipe=f"mormont_released_{network}", num_seeds=1)
        for network in NETWORKS
    ]
    imagenet = [EncoderEntry(name=f"ImageNet {network}", source=f"imagenet:{network}") for network in NETWORKS]
    return StudyConfig(
        name="mormont_released",
        question="Do the second paper's released models transfer to BreaKHis better than ImageNet?",
        encoders=(*imagenet, *released, COLOUR),
        benchmarks=tuple(
            BenchmarkEntry(
                kind="breakhis",
                name=f"BreaKHis {magnification}x fold {fold}",
                settings=(f"magnification={magnification}", f"published_fold={fold}"),
            )
            for magnification, fold in product((40, 100, 200, 400), (1, 2, 3, 4, 5))
        ),
        protocols=("mormont_svm", "mormont_finetune"),
        num_seeds=1,
    )


# name -> study
STUDIES = {
    "transfer": transfer,
    "leave_one_out": leave_one_out,
    "mormont": mormont,
    "mormont_joint": mormont_joint,
    "mormont_released": mormont_released,
}
