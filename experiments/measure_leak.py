"""What a random split gives away where images were cut from few slides: a probe on random folds and on blocks of file numbers.

    RAYPATH_WEIGHTS=DIR python experiments/measure_leak.py SET [num_repeats=5]

SET is a folder or manifest of labelled images whose files end in a number (image_AC_2062.jpg) and name no patient.

One decision: both divisions have the same folds in size and classes. Each class is sorted by number and cut into NUM_BLOCKS runs of
neighbours, which are dealt to the folds whole; the random folds are the same fold numbers shuffled among the images of each class.
Every image is tested once per repeat and division, on a probe whose penalty was chosen on another fold. So the difference says
what it is worth to have neighbours in number on both sides, if numbers were given in the order of slides; where they were not, it
is none. Two intervals: images drawn again, and blocks drawn again (an image is no patient, neither is a block).

Costs one pass of the encoder over the set and 2 x repeats x folds probes: minutes on two cores for 650 images.
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import launch
import numpy as np
import torch
from command_line import pick
from launch import say

from raypath.benchmarks import Benchmark, Predictions, load_images, score
from raypath.data.image_files import read_image
from raypath.errors import BadInput
from raypath.protocols.encoders import open_encoder
from raypath.protocols.features import Features, features_of
from raypath.protocols.probe import ProbeSettings, fit_probe
from raypath.study.statistics import Difference, paired_difference

ENCODER, EXTENT_PX = "imagenet:tf_efficientnet_lite0", 160
NUM_BLOCKS, NUM_FOLDS, NUM_REPEATS = 10, 5, 5  # blocks of each class
METRIC = "balanced_accuracy"
PROBE = ProbeSettings(lowest_c=1e-5, highest_c=1.0, num_c=6)


def main(arguments: list[str]) -> None:
    """Measure and say it."""
    if not arguments or arguments[0] in ("--help", "-h"):
        say(__doc__)
        return
    given, rest = pick(arguments[1:], "num_repeats")
    if rest or (given and not (given.isdecimal() and int(given))):
        raise BadInput(f"{' '.join(arguments[1:])}: expected SET [num_repeats={NUM_REPEATS}]")
    num_repeats = int(given or NUM_REPEATS)
    benchmark = load_images(arguments[0])
    features = features_of_set(benchmark)
    blocks = blocks_of(features)
    scored = {"random": [], "blocks": []}
    for repeat in range(num_repeats):
        for name, folds in divisions(features.labels, blocks, seed=repeat).items():
            tested = tested_once(features, folds)
            say(f"repeat {repeat}, {name}: {METRIC} {score(tested)[METRIC]:.4f}")
            scored[name].append(tested)
    means = {name: np.mean([score(tested)[METRIC] for tested in found]) for name, found in scored.items()}
    say(
        f"{benchmark.name}, {len(features)} images, {num_repeats} repeats of {NUM_FOLDS} folds, {ENCODER}, {EXTENT_PX} px"
    )
    say(f"random folds {means['random']:.4f}, blocks of file numbers {means['blocks']:.4f}")
    say(f"random minus blocks, images drawn again: {as_words(difference(scored, features.names))}")
    block_names = [f"{features.classes[label]} {block}" for label, block in zip(features.labels, blocks)]
    say(f"random minus blocks, blocks drawn again: {as_words(difference(scored, block_names))}")


def features_of_set(benchmark: Benchmark) -> Features:
    """All samples, embedded; the split has no say."""
    rows, extent = benchmark.table, EXTENT_PX
    images = np.stack([read_image(path, extent) for path in rows["path"].to_pylist()])
    values = features_of(open_encoder(ENCODER, seed=0), images, torch.device("cpu"))
    names, patients = tuple(rows["sample"].to_pylist()), tuple(rows["patient"].to_pylist())
    return Features(values, rows["label"].to_numpy(), names, patients, benchmark.classes)


def blocks_of(features: Features) -> np.ndarray:
    """The block of every sample within its class, int64 [N]: runs of neighbours in file number, of equal length."""
    numbers, blocks = np.array([number_of(name) for name in features.names]), np.zeros(len(features), np.int64)
    for label in np.unique(features.labels):
        rows = np.flatnonzero(features.labels == label)
        if len(rows) < NUM_BLOCKS:
            raise BadInput(f"class {features.classes[label]}: {len(rows)} images; expected at least {NUM_BLOCKS}")
        in_order = rows[np.argsort(numbers[rows], kind="stable")]
        blocks[in_order] = np.arange(len(rows)) * NUM_BLOCKS // len(rows)
    return blocks


def number_of(name: str) -> int:
    """The number a file's name ends in; raises BadInput if there is none."""
    found = re.search(r"(\d+)\D*$", Path(name).stem)
    if found is None:
        raise BadInput(f"{name}: its name ends in no number; expected one like image_AC_2062.jpg")
    return int(found[1])


def divisions(labels: np.ndarray, blocks: np.ndarray, *, seed: int) -> dict[str, np.ndarray]:
    """The fold of every sample, int64 [N], under both divisions: as many of each class in each fold."""
    rng = np.random.default_rng(seed)
    by_block, at_random = np.zeros(len(labels), np.int64), np.zeros(len(labels), np.int64)
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        by_block[rows] = rng.permutation(np.arange(NUM_BLOCKS) % NUM_FOLDS)[blocks[rows]]
        at_random[rows] = rng.permutation(by_block[rows])
    return {"random": at_random, "blocks": by_block}


def tested_once(features: Features, folds: np.ndarray) -> Predictions:
    """Every sample as it is predicted when its fold is the test and the next fold chooses the penalty."""
    probability = np.zeros((len(features), len(features.classes)), np.float32)
    for fold in range(NUM_FOLDS):
        is_test, is_val = folds == fold, folds == (fold + 1) % NUM_FOLDS
        train, val = taken(features, ~(is_test | is_val)), taken(features, is_val)
        probability[is_test] = fit_probe(train, val, PROBE, metric=METRIC).probability(features.values[is_test])
    return features.predictions(probability)


def taken(features: Features, is_kept: np.ndarray) -> Features:
    """Some of the samples."""
    rows = np.flatnonzero(is_kept).tolist()
    names, patients = (tuple(column[row] for row in rows) for column in (features.names, features.patients))
    return Features(features.values[rows], features.labels[rows], names, patients, features.classes)


def difference(scored: dict[str, list[Predictions]], units: Sequence[str]) -> Difference:
    """Random minus blocks; `units` [N] are what is drawn again, each with all its repeats."""
    return paired_difference(*(joined(scored[name], units) for name in ("random", "blocks")), METRIC)


def joined(repeats: Sequence[Predictions], units: Sequence[str]) -> Predictions:
    """The predictions of all repeats as one, each unit in the place of a patient."""
    first = repeats[0]
    return replace(
        first,
        sample=tuple(f"{number} {sample}" for number, each in enumerate(repeats) for sample in each.sample),
        patient=tuple(units) * len(repeats),
        label=np.concatenate([each.label for each in repeats]),
        probability=np.concatenate([each.probability for each in repeats]),
    )


def as_words(found: Difference) -> str:
    """In points, with the interval and how many were drawn."""
    low, mid, high = (100 * value for value in (found.low, found.estimate, found.high))
    return f"{mid:+.1f} points [{low:+.1f}, {high:+.1f}], n = {found.num_patients}, {found.method}"


if __name__ == "__main__":
    launch.run(main)
