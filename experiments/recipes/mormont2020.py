"""The second paper: Mormont, Geurts, Maree 2020 (arXiv 2005.02561), multi-task pretraining on a pool of 22 tasks.

    RAYPATH_WEIGHTS=DIR python experiments/pretrain.py mormont_resnet50_lr1e-4_tau5_warm 'pool=sets.txt' seed=0

The grid is 2 networks x 4 learning rates x 3 values of tau x with or without warm-up: 48 combinations, 5 seeds each, 50,000 steps
of 64 images, from ImageNet weights (RECIPES 2.3). The paper took about 10 hours of one GPU for each. Of the 22 tasks 13 are
public: a pool holds those that are there, one labelled set a line. Numbers of the paper are per task and for the best combination
of each network (RECIPES 2.5): `PUBLISHED`; a single combination has none (null).
"""

from dataclasses import replace
from itertools import product

from raypath.data.task_plan import TaskSettings
from raypath.data.views import ViewSettings
from raypath.models import EncoderSettings
from raypath.objectives import MultitaskSettings
from raypath.training.loop import LoopSettings
from raypath.training.optim import OptimSettings
from raypath.training.settings import PretrainConfig, WorkerSettings

NETWORKS = {"resnet50": "resnet50", "densenet121": "densenet121"}
RATES = ("1e-3", "1e-4", "1e-5", "1e-6")
TAUS = (1, 5, 10)
RELEASED = {"resnet50": ("1e-3", 1), "densenet121": ("1e-4", 5)}
"""Rate and tau of the released models; both with warm-up (RECIPES 2.4)."""

# (network, task): mean over 5 seeds of frozen features with an SVM, and of fine-tuning; accuracy or AUROC in percent
PUBLISHED = {
    ("densenet121", "BoneMarrow"): (75.05, 85.16),
    ("densenet121", "MouseLba"): (77.63, 89.41),
    ("densenet121", "HumanLba"): (79.73, 90.48),
    ("densenet121", "Lung"): (91.40, 92.41),
    ("densenet121", "Necrosis"): (99.61, 98.75),
    ("densenet121", "ProliferativePattern"): (88.77, 87.27),
    ("densenet121", "CellInclusion"): (98.05, 99.67),
    ("densenet121", "Glomeruli"): (99.40, 99.75),
    ("densenet121", "Breast2"): (94.40, 96.00),
    ("densenet121", "Breast1"): (96.42, 98.62),
    ("resnet50", "BoneMarrow"): (78.00, 85.04),
    ("resnet50", "MouseLba"): (79.31, 88.36),
    ("resnet50", "HumanLba"): (82.97, 89.95),
    ("resnet50", "Lung"): (91.15, 92.61),
    ("resnet50", "Necrosis"): (99.21, 99.08),
    ("resnet50", "ProliferativePattern"): (89.47, 88.60),
    ("resnet50", "CellInclusion"): (97.00, 99.65),
    ("resnet50", "Glomeruli"): (99.36, 99.78),
    ("resnet50", "Breast2"): (94.75, 95.67),
    ("resnet50", "Breast1"): (96.68, 97.85),
}


def mormont(network: str, rate: str, tau: int, is_warm: bool) -> PretrainConfig:
    """One of the 48 combinations."""
    return PretrainConfig(
        name=name_of(network, rate, tau, is_warm),
        reproduces="mormont2020",
        init="imagenet",
        adapt_batch_norm=20,  # multitask-dipath@4874b2bb: n_iter=20
        encoder=EncoderSettings(architecture=NETWORKS[network], input_px=224),
        objective=MultitaskSettings(tau=float(tau), warmup_share=0.1 if is_warm else 0.0),
        views=ViewSettings(num_views=1, min_scale=1.0, jitter_p=0.0, gray_p=0.0, blur_p=0.0),  # flips alone
        tasks=TaskSettings(tasks="iid"),
        loop=LoopSettings(num_steps=50_000, global_batch=64, checkpoint_every=1_000),
        optim=OptimSettings(name="sgd", lr=float(rate), momentum=0.9, weight_decay=0.0, has_cosine=False),
        workers=WorkerSettings(num_workers=1, use_gpu=True, cpus_per_worker=1.0),
    )


def name_of(network: str, rate: str, tau: int, is_warm: bool) -> str:
    """What the recipe of a combination is called."""
    return f"mormont_{network}_lr{rate}_tau{tau}{'_warm' if is_warm else ''}"


def _recipe(network: str, rate: str, tau: int, is_warm: bool):
    def recipe() -> PretrainConfig:
        return mormont(network, rate, tau, is_warm)

    warm = "with 5,000 steps of warm-up" if is_warm else "without warm-up"
    recipe.__doc__ = f"Multi-task pool, {network}, rate {rate}, heads x {tau}, {warm}: numbers null (paper 2, grid)."
    return recipe


GRID = {name_of(*combination): _recipe(*combination) for combination in product(NETWORKS, RATES, TAUS, (False, True))}


def mormont_released_densenet121() -> PretrainConfig:
    """Released DenseNet-121 (1e-4, heads x 5, warm-up), trained on all splits of the pool: BreakHis FE 84.7 to 87.2 (paper 2)."""
    return _released("densenet121")


def mormont_released_resnet50() -> PretrainConfig:
    """Released ResNet-50 (1e-3, heads x 1, warm-up), trained on all splits of the pool: BreakHis FE 84.0 to 89.2 (paper 2)."""
    return _released("resnet50")


def _released(network: str) -> PretrainConfig:
    config = mormont(network, *RELEASED[network], True)
    return replace(config, name=f"mormont_released_{network}", splits=("train", "val", "test"))
