"""What scoring needs, for one encoder or many: where features lie, the door to the test, scores and tags for MLflow.

One decision: there is one ledger for all runs, and one function that hands test rows to a fitted protocol.
"""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch

from raypath.benchmarks import Benchmark, open_test, score
from raypath.benchmarks.metrics.patients import of_patients, recognition_rates
from raypath.benchmarks.metrics.pixels import PixelPredictions, score_pixels
from raypath.benchmarks.published.breakhis import BreaKHisSettings, magnification_of
from raypath.config import config_hash
from raypath.errors import Preempted
from raypath.protocols.encoders import encoder_id, monitors_of, short_name
from raypath.protocols.monitor import check_not_monitored
from raypath.protocols.trained import Said
from raypath.protocols.transfer import TransferConfig
from raypath.run_folder import runs_root
from raypath.study.statistics import Interval

LEDGER = "test_openings.jsonl"
TOP_K = 10  # samples of a patient: the middle one of 1, 5, 10, 50, 100 of mahmoodlab/CONCH@e9c9e5b7, zeroshot_path.py


def refuse_monitored(source: str, benchmark: Benchmark) -> None:
    """Raise BadInput if the benchmark is the set that was watched while the encoder was pretrained."""
    for declared in monitors_of(source):
        check_not_monitored(declared, benchmark)


def status_of(error: BaseException) -> str:
    """How MLflow calls a run that ended with `error`."""
    return "KILLED" if isinstance(error, Preempted | KeyboardInterrupt | SystemExit) else "FAILED"


def scores_of(split: str, predictions: Said) -> dict[str, float]:
    """The scores of a split that are one number each, named for MLflow."""
    scores = score_pixels(predictions) if isinstance(predictions, PixelPredictions) else score(predictions)
    return {f"{split}_{name}": value for name, value in scores.items() if isinstance(value, float)}


def open_and_score(
    config: TransferConfig,
    benchmark: Benchmark,
    predict: Callable[[pa.Table], Said],
    *,
    reason: str,
    ledger: Path,
    reopen: bool = False,
    unless: str | None = None,
) -> Said:
    """The predictions on test, after the opening was written into the ledger."""
    who = encoder_id(config.encoder, seed=config.seed)
    rows = open_test(benchmark, who, reason, ledger=ledger / LEDGER, reopen=reopen, unless=unless)
    return predict(rows)


def features_root() -> Path:
    """Where features are kept, for all runs."""
    return runs_root() / "features"


def device_here() -> torch.device:
    """The GPU of this machine, if it has one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def transfer_tags(config: TransferConfig, benchmark: Benchmark) -> dict[str, Any]:
    """The lineage tags of a transfer."""
    return {
        "encoder": short_name(config.encoder),
        "benchmark": benchmark.name,
        "protocol": config.protocol.kind,
        "fraction": f"{config.per_class_train} per class" if config.per_class_train else f"{config.fraction_train:.0%}",
        "seed": config.seed,
        "config_hash": config_hash(config),
        "data_hash": benchmark.data_hash,
        "raypath.evaluation": config.evaluation,
        "raypath.encoder_id": encoder_id(config.encoder, seed=config.seed),
        **benchmark.tags,
    }


def patient_scores_of(split: str, predictions: Said, config: TransferConfig) -> dict[str, float]:
    """Scores of patients, named for MLflow; empty where there is no such thing.

    {split}_patient_...         of what their samples say together, where some patient has several samples and each has one label:
                                the mean of all of them
    {split}_patient_top10_...   the same, where some patient has more than TOP_K samples: of each class its TOP_K highest alone, so
                                that a class which few tiles show is not outvoted
    {split}_recognition_rate_...   of BreaKHis, at each magnification
    """
    if isinstance(predictions, PixelPredictions) or None in predictions.patient:
        return {}
    scores = {}
    kinds = set(zip(predictions.patient, predictions.label.tolist(), strict=True))
    num_samples = Counter(predictions.patient)
    if len(kinds) == len(num_samples) < len(predictions.sample):
        scores |= scores_of(f"{split}_patient", of_patients(predictions))
        if max(num_samples.values()) > TOP_K:
            scores |= scores_of(f"{split}_patient_top{TOP_K}", of_patients(predictions, top_k=TOP_K))
    if isinstance(config.benchmark, BreaKHisSettings):
        rates = recognition_rates(predictions, lambda sample: f"{magnification_of(sample)}x")
        scores |= {f"{split}_recognition_rate_{name}": rate.rate for name, rate in rates.items()}
    return scores


def text_of(interval: Interval, *, signed: bool = False) -> str:
    """0.812 [0.75, 0.86]"""
    sign = "+" if signed else ""
    return f"{interval.estimate:{sign}.3f} [{interval.low:{sign}.2f}, {interval.high:{sign}.2f}]"
