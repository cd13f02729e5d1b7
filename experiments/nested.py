"""An encoder scored by nested folds: in each outer fold the protocol is fitted anew, and the fold's test is opened once.

    runs/ID/folds/00/split.csv                                   who is trained on, who chooses, who is tested, fold by fold
    PLACE/fold-00.val.parquet, fold-00.json, fold-00.test.parquet   what was said, how it was reached; the last closes the fold

One decision: a fold is opened and written down before the next one begins, so what a run has opened it never opens again; another
run of the same encoder is refused at its first used-up fold, before anything is trained, or counted (reopen=true).

What it costs: folds x repeats fittings; the features of a frozen encoder once, as they belong to contents and not to folds (but
for `random_bn` and `batch_norm`, whose statistics come from each fold's training images).
"""

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from launch import say
from scoring import LEDGER, open_and_score, scores_of

from raypath.benchmarks import Benchmark, Predictions, check_unopened
from raypath.benchmarks.metrics.pixels import PixelPredictions
from raypath.benchmarks.splits.folds import nested, pool
from raypath.errors import BadInput
from raypath.protocols import Fitted
from raypath.protocols.encoders import encoder_id
from raypath.protocols.transfer import TransferConfig
from raypath.run_folder import RunFolder
from raypath.study.statistics import Interval

MAX_WAYS = 3  # that are told, of how folds were fitted


@dataclass(frozen=True, eq=False)
class FoldScores:
    """One encoder by nested folds."""

    pooled: tuple[Predictions | PixelPredictions, ...]
    """One per repeat, every sample once, said by the fold that was not fitted on it."""
    val_scores: tuple[float, ...]
    """The primary metric on the val of each fold."""
    repeats: tuple[float, ...]
    """The primary metric of each of `pooled`."""
    how: str


def outer_folds(config: TransferConfig, benchmark: Benchmark, together: Sequence[tuple[str, str]]) -> list[Benchmark]:
    """The folds of the config's evaluation, repeat after repeat; no fold divides the pairs of samples in `together`.

    Raises BadInput where a class has too few patients for them, or too few that are no near-duplicates.
    """
    how = {"num_folds": config.num_folds, "num_repeats": config.num_repeats, "seed": config.seed}
    try:
        return list(nested(benchmark, **how, together=together))
    except BadInput as error:
        if not together:
            raise
        raise BadInput(
            f"{error}. It may be the {len(together)} pairs of near-duplicates, each kept in one fold: if their sheet shows pictures"
            " that are none, set 'benchmark.split.waive=[\"near_duplicate\"]'"
        ) from None


def write_folds(folds: Sequence[Benchmark], run: RunFolder) -> None:
    """The split of every fold, beside the run."""
    for number, fold in enumerate(folds):
        fold.write_split(run.path / "folds" / f"{number:02}")


def check_folds(
    config: TransferConfig, folds: Sequence[Benchmark], place: Path | None, *, ledger: Path, unless: str | None = None
) -> None:
    """Raise the BadInput of the first fold whose test is used up; what lies in `place` is this run's own."""
    who = encoder_id(config.encoder, seed=config.seed)
    for number, fold in enumerate(folds):
        if place is None or not _kept(place, number).exists():
            check_unopened(
                fold, who, ledger=ledger / LEDGER, unless=reason_of(unless, number, folds) if unless else None
            )


def score_folds(
    config: TransferConfig,
    benchmark: Benchmark,
    folds: Sequence[Benchmark],
    fit: Callable[[int, Benchmark], Fitted],
    place: Path,
    *,
    reason: str,
    ledger: Path,
    reopen: bool = False,
    is_resumable: bool = False,
    log: Callable[[dict[str, float], int], None] = lambda metrics, fold: None,
) -> FoldScores:
    """Fit and test every fold by `fit(number, fold)`; `log(metrics, fold)` hears the scores of each.

    `is_resumable`: an opening whose score did not reach `place` does not count, the run goes on with that fold. Raises what
    `fit` raises, and BadInput for a fold whose test was opened before, without `reopen`.
    """
    place.mkdir(parents=True, exist_ok=True)
    metric, tests, vals, ways = benchmark.primary, [], [], []
    kind = PixelPredictions if benchmark.kind == "segmentation" else Predictions
    for number, fold in enumerate(folds):
        kept = _kept(place, number)
        val_path, how_path = kept.with_name(f"fold-{number:02}.val.parquet"), kept.with_name(f"fold-{number:02}.json")
        if not kept.exists():
            fitted = fit(number, fold)
            fitted.val.save(val_path)
            how_path.write_text(json.dumps({"how": fitted.how}) + "\n")
            own = reason_of(reason, number, folds)
            unless = own if is_resumable else None
            test = open_and_score(config, fold, fitted.predict, reason=own, ledger=ledger, reopen=reopen, unless=unless)
            test.save(kept)
        val, test = kind.load(val_path), kind.load(kept)
        scores = scores_of("fold_val", val) | scores_of("fold_test", test)
        tests, vals = [*tests, test], [*vals, scores[f"fold_val_{metric}"]]
        ways.append(json.loads(how_path.read_text())["how"])
        log({name: value for name, value in scores.items() if np.isfinite(value)}, number)
        say(
            f"{place_of(config, number)}: {metric} val {vals[-1]:.3f}, test {scores[f'fold_test_{metric}']:.3f} "
            f"({len(test.sample)} samples); {ways[-1]}"
        )
    pooled = tuple(pool(tests, benchmark, num_repeats=config.num_repeats))
    each = tuple(scores_of("test", predictions)[f"test_{metric}"] for predictions in pooled)
    return FoldScores(pooled, tuple(vals), each, _told(ways))


def reason_of(reason: str, number: int, folds: Sequence[Benchmark]) -> str:
    """What the ledger says of a fold's opening."""
    return f"{reason}, outer fold {number + 1} of {len(folds)}"


def place_of(config: TransferConfig, number: int) -> str:
    """Which fold, for people."""
    repeat, fold = divmod(number, config.num_folds)
    repeats = f", repeat {repeat + 1} of {config.num_repeats}" if config.num_repeats > 1 else ""
    return f"fold {fold + 1} of {config.num_folds}{repeats}"


def text_of_folds(scores: FoldScores, interval: Interval, metric: str) -> str:
    """The score with its interval, and what the other repeats say."""
    unit = "patients" if interval.level == "patient" else "images (not patients: the interval is too narrow)"
    text = f"{metric} {interval.estimate:.3f} [{interval.low:.3f}, {interval.high:.3f}], 95 % over {interval.num_patients} {unit}"
    if len(scores.repeats) == 1:
        return text
    low, high = min(scores.repeats), max(scores.repeats)
    mean = float(np.mean(scores.repeats))
    return f"{text}, repeat 1; mean of {len(scores.repeats)} repeats {mean:.3f} ({low:.3f} to {high:.3f})"


def _kept(place: Path, number: int) -> Path:
    return place / f"fold-{number:02}.test.parquet"


def _told(ways: Sequence[str]) -> str:
    """How the folds were fitted, the common ways first."""
    common = Counter(ways).most_common()
    told = [f"{way} ({num} folds)" if num > 1 else way for way, num in common[:MAX_WAYS]]
    num_more = len(common) - MAX_WAYS
    more = f"; {num_more} other way{'s' if num_more > 1 else ''}" if num_more > 0 else ""
    return f"{len(ways)} outer folds: {'; '.join(told)}{more}"
