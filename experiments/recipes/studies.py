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


def mormont(network: str) -> StudyConfig:
    """The second paper's protocol for one network, as its selection and results are."""
    return StudyConfig(
        name=f"mormont_{network}",
        question=f"Does {network}, trained on a pool of pathology tasks, transfer better than ImageNet (arXiv 2005.02561)?",
        encoders=(
            EncoderEntry(name="ImageNet", source=f"imagenet:{network}"),
            EncoderEntry(name="multi-task", recipe=f"mormont_{network}_lr1e-3_tau1", num_seeds=5, leave_out=True),
            EncoderEntry(name="scratch", source=f"random:{network}", num_seeds=5, protocols=("mormont_finetune",)),
            COLOUR,
        ),
        baseline="ImageNet",
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


def mormont_resnet50() -> StudyConfig:
    """Second paper, ResNet-50: 24 combinations x left-out sets x 5 seeds (8 sets: 960), selection, then FE, FT, scratch."""
    return mormont("resnet50")


def mormont_densenet121() -> StudyConfig:
    """Second paper, DenseNet-121: as `mormont_resnet50`."""
    return mormont("densenet121")


def mormont_joint() -> StudyConfig:
    """Second paper: training on all tasks jointly, the scored ones' train part too (1e-4, heads x 5, warm-up), 5 seeds."""
    study = mormont("densenet121")
    joint = EncoderEntry(name="joint", recipe="mormont_densenet121_lr1e-4_tau5_warm", num_seeds=5)
    encoders = (study.encoders[0], joint, COLOUR)
    return replace(study, name="mormont_joint", encoders=encoders, leave_out=LeaveOutSettings())


def mormont_released() -> StudyConfig:
    """Second paper: the released models on BreaKHis (FE, FT, 5 folds x 4): see below for what to set.

    python experiments/study.py mormont_released transfer='["benchmark.path=DIR"]' pretraining='["pool=sets.txt"]'
    """
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
    "mormont_resnet50": mormont_resnet50,
    "mormont_densenet121": mormont_densenet121,
    "mormont_joint": mormont_joint,
    "mormont_released": mormont_released,
}
