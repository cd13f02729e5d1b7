"""Predictions of many workers, made one.

One decision: joined by sample id against the samples that were asked for. What came from which worker, in which order, and how
full the last batch was leaves no trace, so scores are the same to the last bit for any number of workers. A sample that comes
twice is refused even where both say the same: it is a batch that a sampler padded, and would count twice.

What it costs: one look at every id.
"""

from collections import Counter
from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from raypath.benchmarks.metrics.classification import Predictions
from raypath.benchmarks.metrics.pixels import PixelPredictions
from raypath.errors import BadInput

P = TypeVar("P", Predictions, PixelPredictions)


def gathered(parts: Sequence[P], samples: Sequence[str]) -> P:
    """The predictions of all `parts` in the order of `samples`, the ids that were expected.

    A worker without a sample has no part. Raises BadInput for no part, for parts of two kinds or with different classes, for
    objects or folds that only some of them have, and for samples that came twice, that nobody predicted, or that were not asked
    for: each with their number and the first name.
    """
    if not parts:
        raise BadInput(f"gathering: no worker predicted anything; expected {len(samples)} samples")
    first = parts[0]
    for part in parts:
        if type(part) is not type(first) or part.classes != first.classes:
            raise BadInput(
                f"gathering: {type(part).__name__} of classes {', '.join(part.classes)} beside {type(first).__name__} of "
                f"{', '.join(first.classes)}; expected one kind from every worker"
            )
    for what in ("objects", "fold"):
        if len({getattr(part, what, None) is None for part in parts}) > 1:
            raise BadInput(f"gathering: some parts have {what} and some do not; expected one kind from every worker")
    _check_ids([sample for part in parts for sample in part.sample], samples)
    place = {sample: row for row, sample in enumerate(sample for part in parts for sample in part.sample)}
    return _joined(parts).take([place[sample] for sample in samples])


def _check_ids(came: Sequence[str], expected: Sequence[str]) -> None:
    counts = Counter(came)
    for what, wrong in (
        ("are asked for twice", [s for s, times in Counter(expected).items() if times > 1]),
        ("came more than once", [s for s, times in counts.items() if times > 1]),
        ("came from no worker", [s for s in expected if s not in counts]),
        ("were not asked for", list(counts.keys() - set(expected))),
    ):
        if wrong:
            raise BadInput(
                f"gathering: {len(wrong)} samples {what}, e.g. {min(wrong)!r}; expected each of {len(expected)} samples once "
                "(do not pad the last batch)"
            )


def _joined(parts: Sequence[P]) -> P:
    """All parts, one after another."""
    sample = [sample for part in parts for sample in part.sample]
    patient = [patient for part in parts for patient in part.patient]
    if isinstance(parts[0], PixelPredictions):
        confusion, classes = np.concatenate([p.confusion for p in parts]), parts[0].classes
        has_objects = parts[0].objects is not None
        objects = [image for part in parts for image in part.objects] if has_objects else None
        return PixelPredictions(sample, patient, confusion, classes, objects)
    label, probability = (np.concatenate([getattr(p, name) for p in parts]) for name in ("label", "probability"))
    fold = None if parts[0].fold is None else np.concatenate([part.fold for part in parts])
    return Predictions(sample, patient, label, probability, parts[0].classes, fold)
