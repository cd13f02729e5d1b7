"""From predictions to scores.

One decision: predictions are the result, scores are a view of them. Per-sample probabilities with their sample and patient ids
are kept as Parquet, and every number and interval is computed from that file alone, so another metric years later needs no
network. A class that is absent among the labels makes some metrics undefined; it is named under "missing", and the mean is
taken over the classes that are there: never a silent zero, never a silent NaN.

Predictions of nested folds come from classifiers of their own, each with a scale of its own (another penalty, another spread). So
they carry the number of their fold, and the area under the ROC curve, which compares samples with each other, compares those of
one fold only. What is asked of each sample by itself needs no such care.

Legend: N samples, K classes. What it costs: 4 K bytes per sample on disk; a score sorts the samples twice per class (0.2 s for
30,000 samples of two classes).
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from sklearn.metrics import average_precision_score, cohen_kappa_score, confusion_matrix, f1_score, roc_auc_score

from raypath.errors import BadInput

NUM_CONFIDENCE_BINS = 15  # Guo et al., On Calibration of Modern Neural Networks, ICML 2017, section 4


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
    fold: np.ndarray | None = None
    """int64 [N], who said it: samples of one number by the same classifier. None: all by one."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "sample", tuple(self.sample))
        object.__setattr__(self, "patient", tuple(self.patient))
        object.__setattr__(self, "classes", tuple(self.classes))
        object.__setattr__(self, "label", np.asarray(self.label, dtype=np.int64))
        object.__setattr__(self, "probability", np.asarray(self.probability, dtype=np.float32))
        if self.fold is not None:
            object.__setattr__(self, "fold", np.asarray(self.fold, dtype=np.int64))
        _check(self)

    @property
    def predicted(self) -> np.ndarray:
        """int64 [N], the most probable class (the first of equals)."""
        return self.probability.argmax(axis=1)

    def take(self, rows: Sequence[int]) -> "Predictions":
        """The given rows, in their order."""
        patient, sample = [self.patient[r] for r in rows], [self.sample[r] for r in rows]
        fold = None if self.fold is None else self.fold[rows]
        return Predictions(sample, patient, self.label[rows], self.probability[rows], self.classes, fold)

    def save(self, path: Path) -> None:
        """Write as Parquet: sample, patient, label, probability (a list of K float32), fold if any; class names in the schema."""
        num_classes = len(self.classes)
        flat = pa.array(self.probability.reshape(-1), type=pa.float32())
        columns = {
            "sample": pa.array(self.sample, type=pa.string()),
            "patient": pa.array(self.patient, type=pa.string()),
            "label": pa.array(self.label, type=pa.int64()),
            "probability": pa.FixedSizeListArray.from_arrays(flat, num_classes),
        }
        if self.fold is not None:
            columns["fold"] = pa.array(self.fold, type=pa.int64())
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
            fold = table["fold"].to_numpy() if "fold" in table.column_names else None
            return cls(sample, patient, table["label"].to_numpy(), flat.reshape(-1, len(classes)), classes, fold)
        except (OSError, KeyError, ValueError, pa.ArrowInvalid) as error:
            raise BadInput(f"{path}: expected predictions as Predictions.save writes them ({error})") from None


def score(predictions: Predictions) -> dict[str, Any]:
    """Every score of a classification.

    Returns
    -------
        accuracy, balanced_accuracy   share of samples that are right, mean recall
        macro_f1                      mean over the classes that are labelled or predicted, as scikit-learn does
        auroc                         area under the ROC curve: binary, or one against the rest, mean over classes; of several
                                      folds the share of pairs within a fold that are in order, each pair counting alike
        auprc                         average precision (the step-wise area, as scikit-learn defines it): of class 1 where there
                                      are two classes, else one against the rest, mean over classes; folds are ranked as one
        quadratic_kappa               for classes in an order: Cohen, Psychological Bulletin 70 (1968) 213, the disagreement of
                                      classes i and j weighs (i - j)^2
        log_loss                      mean of -ln of the label's probability, which counts as 2.2e-16 at least
        brier                         mean of the squared distance to the label, summed over classes, 0 to 2 (Brier, Monthly
                                      Weather Review 78 (1950) 1); for two classes twice the value that looks at class 1 only
        ece                           expected calibration error of the predicted class, 15 bins of equal width (Guo et al. 2017)
        confusion                     int64 [K, K], rows are labels
        missing                       classes without a sample

    Means over classes leave out what is missing. auroc and auprc are NaN where only one class has samples (auroc: in every fold),
    quadratic_kappa where only one class is labelled and predicted.

    """
    label, predicted = predictions.label, predictions.predicted
    numbers = np.arange(len(predictions.classes))
    confusion = confusion_matrix(label, predicted, labels=numbers)
    present = confusion.sum(axis=1) > 0
    recall = np.diag(confusion)[present] / confusion.sum(axis=1)[present]
    probability = predictions.probability.astype(np.float64)
    probability /= probability.sum(axis=1, keepdims=True)  # they were rounded to float32
    return {
        "accuracy": float(np.trace(confusion) / len(label)),
        "balanced_accuracy": float(recall.mean()),
        "macro_f1": float(f1_score(label, predicted, average="macro", zero_division=0)),
        "auroc": _auroc(predictions),
        "auprc": _auprc(label, predictions.probability),
        "quadratic_kappa": _quadratic_kappa(label, predicted, numbers),
        "log_loss": float(-np.log(np.maximum(_of(label, probability), np.finfo(np.float64).eps)).mean()),
        "brier": float(((probability - np.eye(len(numbers))[label]) ** 2).sum(axis=1).mean()),
        "ece": _calibration_error(label == predicted, probability.max(axis=1)),
        "confusion": confusion,
        "missing": tuple(predictions.classes[k] for k in numbers[~present]),
    }


def _auroc(predictions: Predictions) -> float:
    """Mean one-against-the-rest area over the classes with pairs; for two classes that is the binary area, twice."""
    label, fold = predictions.label, predictions.fold
    rows_of = [np.arange(len(label))] if fold is None else [np.flatnonzero(fold == f) for f in np.unique(fold)]
    areas = []
    for k in np.unique(label):
        num_won = num_pairs = 0.0
        for rows in rows_of:
            is_positive = label[rows] == k
            pairs = int(is_positive.sum()) * int((~is_positive).sum())
            if pairs:
                num_won += pairs * roc_auc_score(is_positive, predictions.probability[rows, k])
                num_pairs += pairs
        areas += [num_won / num_pairs] if num_pairs else []
    return float(np.mean(areas)) if areas else float("nan")


def _auprc(label: np.ndarray, probability: np.ndarray) -> float:
    """Average precision of class 1 of two, or its mean over the classes with samples."""
    present = np.unique(label)
    if len(present) < 2:
        return float("nan")
    positive = [1] if probability.shape[1] == 2 else present
    return float(np.mean([average_precision_score(label == k, probability[:, k]) for k in positive]))


def _quadratic_kappa(label: np.ndarray, predicted: np.ndarray, numbers: np.ndarray) -> float:
    if len(np.union1d(label, predicted)) < 2:
        return float("nan")  # no disagreement is possible, so there is none to compare with
    return float(cohen_kappa_score(label, predicted, labels=numbers, weights="quadratic"))


def _calibration_error(is_right: np.ndarray, confidence: np.ndarray) -> float:
    """Mean over samples of |share that is right - mean confidence| of their bin; bin edges belong to the bin below."""
    number = np.ceil(confidence * NUM_CONFIDENCE_BINS).astype(np.int64)
    excess = np.bincount(number, weights=is_right - confidence)
    return float(np.abs(excess).sum() / len(confidence))


def _of(label: np.ndarray, probability: np.ndarray) -> np.ndarray:
    """The probability of each sample's label, [N]."""
    return probability[np.arange(len(label)), label]


def _check(predictions: Predictions) -> None:
    num_samples, num_classes = len(predictions.sample), len(predictions.classes)
    label, probability = predictions.label, predictions.probability
    shapes = (len(predictions.patient), label.shape, probability.shape)
    if num_samples == 0 or shapes != (num_samples, (num_samples,), (num_samples, num_classes)):
        raise BadInput(
            f"predictions: {num_samples} samples, {num_classes} classes, but patients, labels and probabilities have "
            f"shapes {shapes}; expected N, [N], [N, K] with N of at least 1"
        )
    if predictions.fold is not None and predictions.fold.shape != (num_samples,):
        raise BadInput(
            f"predictions: {num_samples} samples, folds of shape {predictions.fold.shape}; expected [N], or None"
        )
    if len(set(predictions.sample)) != num_samples:
        raise BadInput(f"predictions: {_twice(predictions.sample)!r} occurs twice; expected every sample once")
    if label.min() < 0 or label.max() >= num_classes:
        raise BadInput(f"predictions: labels from {label.min()} to {label.max()}; expected 0 to {num_classes - 1}")
    is_possible = np.isfinite(probability) & (probability >= 0)
    is_bad = ~is_possible.all(axis=1) | (np.abs(probability.sum(axis=1) - 1) > 1e-2)
    if is_bad.any():
        first = int(np.argmax(is_bad))
        raise BadInput(
            f"predictions: {int(is_bad.sum())} rows are no probabilities, first {predictions.sample[first]!r}: "
            f"{probability[first].tolist()}; expected numbers of 0 or more that sum to 1 (did the encoder or the head diverge?)"
        )


def _twice(names: Sequence[str]) -> str:
    seen: set[str] = set()
    return next(name for name in names if name in seen or seen.add(name))
