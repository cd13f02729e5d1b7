"""Recompute a score and its interval from a saved predictions file, with scikit-learn and numpy alone.

python tests/study/independent_check.py FILE.parquet ...
"""

import json
import sys

import numpy as np
import pyarrow.parquet as pq
from sklearn.metrics import balanced_accuracy_score, confusion_matrix


def recompute(path, num_resamples=1000, seed=0):
    """(score, low, high): balanced accuracy, 95 % bootstrap-t over patients, one resample after the other."""
    table = pq.read_table(path).to_pydict()
    label, patient = np.array(table["label"]), np.array(table["patient"])
    predicted = np.array(table["probability"]).argmax(axis=1)
    rows = [np.flatnonzero(patient == name) for name in np.unique(patient)]
    of_patient = np.array([confusion_matrix(label[r], predicted[r], labels=range(label.max() + 1)) for r in rows])

    def estimate_and_error(drawn):
        confusion = of_patient[drawn].sum(axis=0)
        without = np.stack([confusion, *(confusion - of_patient[drawn])])
        recalls = np.diagonal(without, axis1=1, axis2=2) / without.sum(axis=2)
        estimate, *left = np.nanmean(recalls, axis=1)
        return estimate, np.sqrt((len(left) - 1) * np.var(left))

    rng, everyone = np.random.default_rng(seed), np.arange(len(rows))
    estimate, error = estimate_and_error(everyone)
    draws = [estimate_and_error(rng.integers(len(rows), size=len(rows))) for _ in range(num_resamples)]
    low, high = np.quantile([(value - estimate) / spread for value, spread in draws], [0.025, 0.975])
    return balanced_accuracy_score(label, predicted), estimate - high * error, estimate - low * error


if __name__ == "__main__":
    print(json.dumps({path: recompute(path) for path in sys.argv[1:]}))
