"""From segmented images to scores: intersection over union, Dice, recall and accuracy of pixels.

One decision: an image is its confusion matrix. Every score here is a function of how many pixels of class i were called class j,
counts of images add up, and so the pixels of a whole test set are pooled exactly, in whole numbers, in any order and over any
number of workers. Masks are never kept; predictions are K * K numbers per image with its sample and patient ids, and another
score years later needs no network. Where masks number objects, an image has the sums of its objects besides (see `objects`).

Pooled over the set, as Kawai et al. 2023 score segPANDA200 (their class DiceJaccardAccuracy): with TP, FP, FN the pixels of a
class over all images, "micro" sums them over classes before it divides, "macro" is the mean over classes, the background class
among them. A class that occurs in no truth and no prediction has no value: it is named under "missing" and left out of the means.
The mean over images is another number (small images weigh as much as large ones), so it has a name of its own.

Legend: N images, K classes. What it costs: one pass over the pixels of an image; on disk 8 K * K bytes per image, 72 for objects.
"""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from raypath.benchmarks.metrics.objects import ObjectCounts, score_objects
from raypath.errors import BadInput

_OBJECTS = pa.struct(
    [
        *((name, pa.int64()) for name in ("num_true", "num_predicted", "num_matched", "area_true", "area_predicted")),
        *((f"{what}_{side}", pa.float64()) for what in ("dice", "hausdorff") for side in ("true", "predicted")),
    ]
)
"""ObjectCounts on disk."""


@dataclass(frozen=True, eq=False)
class PixelPredictions:
    """How often each class was called each class in every image; joined by `sample`, so the order carries no meaning."""

    sample: tuple[str, ...]
    patient: tuple[str | None, ...]
    confusion: np.ndarray
    """int64 [N, K, K], pixels of each image: rows are the truth, columns what was predicted."""
    classes: tuple[str, ...]
    objects: tuple[ObjectCounts, ...] | None = None
    """What the objects of each image come to; None: the masks number none."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "sample", tuple(self.sample))
        object.__setattr__(self, "patient", tuple(self.patient))
        object.__setattr__(self, "classes", tuple(self.classes))
        object.__setattr__(self, "confusion", np.asarray(self.confusion))
        object.__setattr__(self, "objects", None if self.objects is None else tuple(self.objects))
        _check(self)
        object.__setattr__(self, "confusion", self.confusion.astype(np.int64))

    def take(self, rows: Sequence[int]) -> "PixelPredictions":
        """The given rows, in their order."""
        patient, sample = [self.patient[r] for r in rows], [self.sample[r] for r in rows]
        objects = None if self.objects is None else [self.objects[r] for r in rows]
        return PixelPredictions(sample, patient, self.confusion[rows], self.classes, objects)

    def save(self, path: Path) -> None:
        """Write as Parquet: sample, patient, confusion (a list of K * K int64, row by row), objects (the fields of
        ObjectCounts, where there are any); class names in the schema.
        """
        flat = pa.array(self.confusion.reshape(-1), type=pa.int64())
        columns = {
            "sample": pa.array(self.sample, type=pa.string()),
            "patient": pa.array(self.patient, type=pa.string()),
            "confusion": pa.FixedSizeListArray.from_arrays(flat, len(self.classes) ** 2),
        }
        if self.objects is not None:
            columns["objects"] = pa.array([asdict(image) for image in self.objects], type=_OBJECTS)
        table = pa.table(columns).replace_schema_metadata({"classes": json.dumps(self.classes)})
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, path)

    @classmethod
    def load(cls, path: Path) -> "PixelPredictions":
        """Read what `save` wrote; BadInput for a file that is something else."""
        try:
            table = pq.read_table(path)
            classes = json.loads((table.schema.metadata or {})[b"classes"])
            flat = table["confusion"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
            confusion = flat.reshape(-1, len(classes), len(classes))
            kept = table["objects"].to_pylist() if "objects" in table.column_names else None
            objects = None if kept is None else [ObjectCounts(**image) for image in kept]
            return cls(table["sample"].to_pylist(), table["patient"].to_pylist(), confusion, classes, objects)
        except (OSError, KeyError, TypeError, ValueError, pa.ArrowInvalid) as error:
            raise BadInput(f"{path}: expected predictions as PixelPredictions.save writes them ({error})") from None


def pixel_confusion(
    truth: np.ndarray, predicted: np.ndarray, num_classes: int, *, ignore: int | None = None
) -> np.ndarray:
    """How many pixels of each class were called each class, int64 [K, K] (rows: truth, columns: predicted).

    `truth`, `predicted`: integers [H, W], class numbers below `num_classes`. Pixels whose truth is `ignore` are not counted; a
    prediction has no such value. Raises ValueError for unequal shapes and for a value that is no class.
    """
    if truth.shape != predicted.shape:
        raise ValueError(f"truth is {truth.shape}, the prediction {predicted.shape}: expected the same pixels")
    if ignore is not None:
        is_counted = truth != ignore
        truth, predicted = truth[is_counted], predicted[is_counted]
    for what, values in (("truth", truth), ("prediction", predicted)):
        if values.size and (values.min() < 0 or values.max() >= num_classes):
            raise ValueError(
                f"the {what} has values from {values.min()} to {values.max()}: expected classes 0 to {num_classes - 1}"
            )
    pairs = truth.reshape(-1).astype(np.int64) * num_classes + predicted.reshape(-1)
    return np.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes)


def score_pixels(predictions: PixelPredictions) -> dict[str, Any]:
    """Every score of a segmentation, from the pixels of all images together.

    Returns
    -------
        miou_macro, dice_macro        mean of `iou` and `dice` over the classes that occur in truth or prediction
        miou_micro, dice_micro        from TP, FP and FN summed over classes
        mean_pixel_accuracy           mean recall over the classes that occur in the truth
        pixel_accuracy                share of pixels that are right (which equals dice_micro)
        iou, dice                     {class: value}, NaN for a missing class
        mean_image_miou, mean_image_dice   the macro scores of each image by itself, then their mean over images with pixels
        confusion                     int64 [K, K], rows are the truth
        missing                       classes that occur in no truth and no prediction
        object_f1 and its like        all that `score_objects` gives, where masks number objects

    IoU is TP / (TP + FP + FN), Dice 2 TP / (2 TP + FP + FN). Raises BadInput where no image has a counted pixel.

    """
    confusion = predictions.confusion.sum(axis=0)
    if confusion.sum() == 0:
        raise BadInput(
            f"pixel predictions: none of {len(predictions.sample)} images has a counted pixel; expected labelled pixels"
        )
    right, labelled, called = np.diagonal(confusion), confusion.sum(axis=1), confusion.sum(axis=0)
    is_known, is_labelled = labelled + called > 0, labelled > 0
    iou, dice = overlaps(confusion)
    with_pixels = predictions.confusion[predictions.confusion.sum(axis=(1, 2)) > 0]
    image_iou, image_dice = overlaps(with_pixels)
    return {
        "miou_macro": float(np.nanmean(iou)),
        "miou_micro": float(right.sum() / (labelled + called - right).sum()),
        "dice_macro": float(np.nanmean(dice)),
        "dice_micro": float(2 * right.sum() / (labelled + called).sum()),
        "mean_pixel_accuracy": float((right[is_labelled] / labelled[is_labelled]).mean()),
        "pixel_accuracy": float(right.sum() / confusion.sum()),
        "iou": dict(zip(predictions.classes, iou.tolist(), strict=True)),
        "dice": dict(zip(predictions.classes, dice.tolist(), strict=True)),
        "mean_image_miou": float(np.nanmean(image_iou, axis=1).mean()),
        "mean_image_dice": float(np.nanmean(image_dice, axis=1).mean()),
        "confusion": confusion,
        "missing": tuple(name for name, is_there in zip(predictions.classes, is_known, strict=True) if not is_there),
        **({} if predictions.objects is None else score_objects(predictions.objects)),
    }


def overlaps(confusion: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """IoU and Dice of each class, float64 [..., K], of counts [..., K, K]; NaN for a class that occurs nowhere."""
    right = np.diagonal(confusion, axis1=-2, axis2=-1)
    both = confusion.sum(axis=-1) + confusion.sum(axis=-2)  # 2 TP + FP + FN
    with np.errstate(invalid="ignore"):  # 0 / 0 is the NaN that is meant
        return right / (both - right), 2 * right / both


def _check(predictions: PixelPredictions) -> None:
    num_samples, num_classes, confusion = len(predictions.sample), len(predictions.classes), predictions.confusion
    expected = (num_samples, num_classes, num_classes)
    if num_samples == 0 or num_classes == 0 or len(predictions.patient) != num_samples or confusion.shape != expected:
        raise BadInput(
            f"pixel predictions: {num_samples} samples, {num_classes} classes, but {len(predictions.patient)} patients and "
            f"counts of shape {confusion.shape}; expected N and [N, K, K] with N and K of at least 1"
        )
    if predictions.objects is not None and len(predictions.objects) != num_samples:
        raise BadInput(
            f"pixel predictions: the objects of {len(predictions.objects)} images for {num_samples} samples; expected one each"
        )
    if len(set(predictions.sample)) != num_samples:
        twice, _ = Counter(predictions.sample).most_common(1)[0]
        raise BadInput(f"pixel predictions: {twice!r} occurs twice; expected every sample once")
    if confusion.dtype.kind not in "iu":
        raise BadInput(f"pixel predictions: counts of type {confusion.dtype}; expected whole numbers of pixels")
    if confusion.min() < 0:
        first = predictions.sample[int(np.argmax((confusion < 0).any(axis=(1, 2))))]
        raise BadInput(
            f"pixel predictions: {first!r} has {confusion.min()} pixels of a kind; expected counts of 0 or more"
        )
