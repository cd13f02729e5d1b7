"""A script that shares no line with raypath comes to the same scores and intervals, from the saved files alone."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from raypath.benchmarks import Predictions, score
from raypath.study.statistics import score_interval

SCRIPT = Path(__file__).with_name("independent_check.py")


def predictions_of(skill, rng):
    sizes = rng.integers(4, 12, size=12)
    patient = np.repeat(np.arange(12), sizes)
    label = rng.integers(3, size=len(patient))
    is_right = rng.random(len(patient)) < 1 / (1 + np.exp(-skill - rng.normal(0, 0.8, 12)[patient]))
    predicted = np.where(is_right, label, (label + 1 + rng.integers(2, size=len(label))) % 3)
    probability = 0.7 * np.eye(3)[predicted] + 0.1
    return Predictions([f"s{i}" for i in range(len(label))], [f"p{p}" for p in patient], label, probability, "abc")


def test_three_saved_cells_come_to_the_same_numbers(tmp_path):
    assert "raypath" not in SCRIPT.read_text().split('"""')[2], "the script must not lean on what it checks"
    rng = np.random.default_rng(7)
    cells = {str(tmp_path / f"cell{n}.parquet"): predictions_of(skill, rng) for n, skill in enumerate((0.3, 0.9, 1.5))}
    for path, predictions in cells.items():
        predictions.save(Path(path))
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *cells],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    for path, predictions in cells.items():
        estimate, low, high = found[path]
        interval = score_interval(Predictions.load(Path(path)), num_resamples=4000)
        assert interval.method == "bootstrap-t"
        assert estimate == pytest.approx(interval.estimate, abs=1e-12)
        assert estimate == pytest.approx(score(predictions)["balanced_accuracy"], abs=1e-12)
        # the 2.5 % quantile of 1,000 draws is known to some 7 % of the half width
        assert [low, high] == pytest.approx(
            [interval.low, interval.high], abs=0.15 * (interval.high - interval.low) / 2
        )
