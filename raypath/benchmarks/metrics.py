"""From predictions to scores.

One decision: predictions are the result, scores are a view of them. Per-sample probabilities with their sample and patient ids
are kept as Parquet, and every number and interval is computed from that file alone, so another metric years later needs no
network. A class that is absent among the labels makes some metrics undefined; it is named under "missing", and the mean is
taken over the classes that are there: never a silent zero, never a silent NaN.

Legend: N samples, K classes. What it costs: 4 K bytes per sample on disk.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from sklearn.metrics import confusion_matrix, f1_score, roc_auc_score

from raypath.errors import BadInput


@dataclass(frozen=True, eq=False)
class Predictions:
    """What an encoder said about every sample of a split; joined by `sample`, so the order carries no meaning."""

    sample: tuple[str, ...]
    patient: tuple[str | None, ...]
    label: np.ndarray
    """int64 [N], class numbers."""
    probability: np.ndarray
    """float32 [N, K], rows sum to 1."""
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "sample", tuple(self.sample))
        object.__setattr__(self, "patient", tuple(self.patient))
        object.__setattr__(self, "classes", tuple(self.classes))
        object.__setattr__(self, "label", np.asarray(self.label, dtype=np.int64))
        object.__setattr__(self, "probability", np.asarray(self.probability, dtype=np.float32))
        _check(self)

    @property
    def predicted(self) -> np.ndarray:
        """int64 [N], the most probable class (the first of equals)."""
        return self.probability.argmax(axis=1)

    def save(self, path: Path) -> None:
        """Write as Parquet: sample, patient, label, probability (a list of K float32); class names in the schema."""
        num_classes = len(self.classes)
        flat = pa.array(self.probability.reshape(-1), type=pa.float32())
        columns = {
            "sample": pa.array(self.sample, type=pa.string()),
            "patient": pa.array(self.patient, type=pa.string()),
            "label": pa.array(self.label, type=pa.int64()),
            "probability": pa.FixedSizeListArray.from_arrays(flat, num_classes),
        }
        table = pa.table(columns).replace_schema_metadata({"classes": json.dumps(self.classes)})
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, path)

    @classmethod
    def load(cls, path: Path) -> "Predictions":
        """Read what `save` wrote; BadInput for a file that is something else."""
        try:
            table = pq.read_table(path)
            classes = json.loads((table.schema.metadata or {})[b"classes"])
            flat = table["probability"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
            sample, patient = table["sample"].to_pylist(), table["patient"].to_pylist()
            return cls(sample, patient, table["label"].to_numpy(), flat.reshape(-1, len(classes)), classes)
        except (OSError, KeyError, ValueError, pa.ArrowInvalid) as error:
            raise BadInput(f"{path}: expected predictions as Predictions.save writes them ({error})") from None


def score(predictions: Predictions) -> dict[str, Any]:
    """Every score of a classification.

    Returns accuracy, balanced_accuracy (mean recall), macro_f1, auroc (binary, or one against the rest, macro), confusion (int64
    [K, K], rows are labels) and missing (classes without a sample). Means are over the classes with samples (macro_f1: labelled
    or predicted, as scikit-learn does); auroc is NaN where only one class has samples.
    """
    label, predicted = predictions.label, predictions.predicted
    numbers = np.arange(len(predictions.classes))
    confusion = confusion_matrix(label, predicted, labels=numbers)
    present = confusion.sum(axis=1) > 0
    recall = np.diag(confusion)[present] / confusion.sum(axis=1)[present]
    return {
        "accuracy": float(np.trace(confusion) / len(label)),
        "balanced_accuracy": float(recall.mean()),
        "macro_f1": float(f1_score(label, predicted, average="macro", zero_division=0)),
        "auroc": _auroc(label, predictions.probability),
        "confusion": confusion,
        "missing": tuple(predictions.classes[k] for k in numbers[~present]),
    }


def _auroc(label: np.ndarray, probability: np.ndarray) -> float:
    """Mean one-against-the-rest area over the classes with samples; for two classes that is the binary area, twice."""
    present = np.unique(label)
    if len(present) < 2:
        return float("nan")
    return float(np.mean([roc_auc_score(label == k, probability[:, k]) for k in present]))


def _check(predictions: Predictions) -> None:
    num_samples, num_classes = len(predictions.sample), len(predictions.classes)
    label, probability = predictions.label, predictions.probability
    shapes = (len(predictions.patient), label.shape, probability.shape)
    if num_samples == 0 or shapes != (num_samples, (num_samples,), (num_samples, num_classes)):
        raise BadInput(
            f"predictions: {num_samples} samples, {num_classes} classes, but patients, labels and probabilities have "
            f"shapes {shapes}; expected N, [N], [N, K] with N of at least 1"
        )
    if len(set(predictions.sample)) != num_samples:
        raise BadInput(f"predictions: {_twice(predictions.sample)!r} occurs twice; expected every sample once")
    if label.min() < 0 or label.max() >= num_classes:
        raise BadInput(f"predictions: labels from {label.min()} to {label.max()}; expected 0 to {num_classes - 1}")
    is_bad = ~np.isfinite(probability).all(axis=1) | (np.abs(probability.sum(axis=1) - 1) > 1e-2)
    if is_bad.any():
        first = int(np.argmax(is_bad))
        raise BadInput(
            f"predictions: {int(is_bad.sum())} rows are no probabilities, first {predictions.sample[first]!r}: "
            f"{probability[first].tolist()}; expected finite numbers that sum to 1 (did the encoder or the head diverge?)"
        )


def _twice(names: Sequence[str]) -> str:
    seen: set[str] = set()
    return next(name for name in names if name in seen or seen.add(name))
