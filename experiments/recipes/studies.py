"""Studies by name: which encoders on which benchmarks. A study of one's own is a TOML file (README, "Studies").

    python experiments/study.py transfer encoders=runs/ID,random,colour benchmarks=../data/my_set
    python experiments/study.py leave_one_out benchmarks='[{"path": "../data/a", "pool": "../data/a"}, ...]'

One decision: a named study holds what does not depend on anybody's disk; places are given on the command line.
"""

from itertools import product

from raypath.study.settings import BenchmarkEntry, EncoderEntry, LeaveOutSettings, StudyConfig
from recipes.mormont2020 import RATES, RELEASED, TAUS, name_of

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


def joint(network: str) -> StudyConfig:
    """The second paper's joint training, scored by its own heads.

    The paper chooses its settings on val and does not say them; these are those of the model that it released.
    """
    rate, tau = RELEASED[network]
    return StudyConfig(
        name=f"mormont_joint_{network}",
        question=f"How well does {network}, trained on all tasks at once, do on each by the head it has for it (arXiv 2005.02561)?",
        encoders=(EncoderEntry(name="joint", recipe=name_of(network, rate, tau, True), num_seeds=5), COLOUR),
        baseline=COLOUR.name,
        protocols=("head",),
        transfer=("evaluation=given",),
    )


def mormont_joint_resnet50() -> StudyConfig:
    """Second paper, ResNet-50: one training on all tasks, the scored ones' train part too, each tested by its own head; 5 seeds.

    python experiments/study.py mormont_joint_resnet50 pretraining='["pool=sets.txt"]' benchmarks='[{"path": DIR, "pool": DIR}]'
    """
    return joint("resnet50")


def mormont_joint_densenet121() -> StudyConfig:
    """Second paper, DenseNet-121: as `mormont_joint_resnet50`."""
    return joint("densenet121")


def released(network: str) -> StudyConfig:
    """The second paper's released model of one network on BreaKHis, against ImageNet in the same network."""
    return StudyConfig(
        name=f"mormont_released_{network}",
        question=f"Does the second paper's released {network} transfer to BreaKHis better than ImageNet (arXiv 2005.02561)?",
        encoders=(
            EncoderEntry(name="ImageNet", source=f"imagenet:{network}"),
            EncoderEntry(name="multi-task", recipe=f"mormont_released_{network}", released=True),
            COLOUR,
        ),
        baseline="ImageNet",
        benchmarks=tuple(
            BenchmarkEntry(
                kind="breakhis",
                name=f"BreaKHis {magnification}x fold {fold}",
                settings=(f"magnification={magnification}", f"published_fold={fold}", "split.share_val=0.1"),
            )
            for magnification, fold in product((40, 100, 200, 400), (1, 2, 3, 4, 5))
        ),
        protocols=("mormont_svm", "mormont_finetune"),
        num_seeds=1,
    )


def mormont_released_resnet50() -> StudyConfig:
    """Second paper, ResNet-50: the released model on BreaKHis (FE and FT, 5 folds x 4 magnifications, 10 % val by patient).

    python experiments/study.py mormont_released_resnet50 transfer='["benchmark.path=DIR"]' pretraining='["pool=sets.txt"]'
    """
    return released("resnet50")


def mormont_released_densenet121() -> StudyConfig:
    """Second paper, DenseNet-121: as `mormont_released_resnet50`."""
    return released("densenet121")


# name -> study
STUDIES = {
    "transfer": transfer,
    "leave_one_out": leave_one_out,
    "mormont_resnet50": mormont_resnet50,
    "mormont_densenet121": mormont_densenet121,
    "mormont_joint_resnet50": mormont_joint_resnet50,
    "mormont_joint_densenet121": mormont_joint_densenet121,
    "mormont_released_resnet50": mormont_released_resnet50,
    "mormont_released_densenet121": mormont_released_densenet121,
}
