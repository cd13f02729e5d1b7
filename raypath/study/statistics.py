"""How sure a score is, and whether two encoders differ: intervals that know about patients, and about pretraining seeds.

Images of one patient resemble each other, so the patient is what is drawn again: an interval over images is too narrow. Where no
sample names a patient, or all are of one, each image stands for itself and the result says level "image".

One decision: a statistic is a weighted sum of the scores of predictions (`alignment`): the mean over an encoder's checkpoints of
the mean over fit seeds, or one such mean minus another. It has two populations. "checkpoint": these weights, other patients.
"recipe": the same pretraining done again from another seed, and other patients. Where nested folds were drawn three times or more,
other draws are in both (`draws`); what training on other patients would have made of a classifier is in neither.

    method         patients drawn again how
    bootstrap-t    by resampling, each resample judged by its own jackknife error (`resampling`, with when it gives way)
    percentile     by resampling, plain quantiles: covers too rarely below some 100 patients, for comparison
    image          images, as if each were a patient: far too narrow, for showing just that

The area under the ROC curve is no function of counts; it has a closed form of its own (`auroc`, Student's t over patients or
images), which "percentile" does not know. A recipe's interval puts the seeds' part beside that of the patients (`seeds`).

Measured by experiments/measure_statistics.py (balanced accuracy, patients of uneven size, nominal 95 %, 1,000 studies each, so
give or take 0.7): bootstrap-t covers 93.0 to 95.3 % from 20 patients on and 91.0 to 95.4 % at 5 and 8, percentile 81 % at 5 and
93 % at 44 patients, image 59 to 64 % of scores and 80 to 84 % of differences at any number. With 300 studies each, give or take
1.3: near the top (accuracies of 0.94 to 0.99, 20 and 44 patients) bootstrap-t and the exact bounds it gives way to cover 92.0 to
99.0 % of scores and 92.7 to 96.3 % of differences, percentile 85 to 91 % of scores; the AUROC of five nested folds with scales of
their own covers 92.0 to 97.7 % (20, 44 and 100 patients), ranked as if one classifier had said it all 1 to 93 % of scores.

What it costs: a score or a difference of 300 patients, 12 classes, 2,000 resamples takes 0.2 s; times the members.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.special import expit, logit
from scipy.stats import t as t_distribution

from raypath.benchmarks.benchmark import Primary
from raypath.benchmarks.metrics.classification import Predictions
from raypath.errors import BadInput
from raypath.study.alignment import Checkpoints, Members, groups_of, members_of
from raypath.study.auroc import auroc_influence
from raypath.study.counts import COUNTED
from raypath.study.draws import FEWEST_DRAWS, with_draws
from raypath.study.few_errors import share_bounds
from raypath.study.resampling import Ends, bootstrap_t, patterns_of, percentile, scores_under
from raypath.study.seeds import with_seeds

METRICS = ("accuracy", "balanced_accuracy", "auroc", "quadratic_kappa", "miou_macro", "dice_macro")
Population = Literal["checkpoint", "recipe"]
Method = Literal["bootstrap-t", "percentile", "image"]


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A score with its confidence interval, as a fraction (0 to 1; a kappa -1 to 1)."""

    estimate: float
    low: float
    high: float
    num_patients: int
    """Units that were resampled: patients, or images at level "image"."""
    num_samples: int
    level: Literal["patient", "image"]
    method: Literal["bootstrap-t", "percentile", "image", "t", "clopper-pearson"]
    """What was done: "t" is the closed form of the AUROC; bootstrap-t may have given way to "percentile" or "clopper-pearson"."""
    remark: str = ""
    """What a reader must know of how it was had, in a few words: another method than was asked for, and why."""
    population: Population = "checkpoint"
    num_checkpoints: int = 1
    """Pretraining seeds (of a difference: of `a`)."""
    num_seeds: int = 1
    """Fit seeds of each checkpoint, the fewest where they differ (of a difference: of `a`)."""


@dataclass(frozen=True, kw_only=True)
class Difference(Interval):
    """Score of `a` minus score of `b` on the same samples (-1 to 1; of kappas -2 to 2)."""

    num_checkpoints_b: int = 1
    """Pretraining seeds of `b`."""

    @property
    def is_clear(self) -> bool:
        """Whether the interval leaves out zero (and has a width)."""
        return self.low < self.high and not self.low <= 0 <= self.high


def score_interval(
    predictions: Checkpoints,
    metric: Primary = "balanced_accuracy",
    *,
    population: Population = "checkpoint",
    num_draws: int = 1,
    method: Method = "bootstrap-t",
    num_resamples: int = 2000,
    seed: int = 0,
    confidence: float = 0.95,
) -> Interval:
    """The score of one encoder with its interval; `predictions` is one, or checkpoints x fit seeds of them.

    `num_draws`: of nested folds, which the fits of every checkpoint have in turn; from 3 on the interval holds their spread.
    Raises BadInput for another metric, method or population, a metric that these predictions do not have (pixels or labels),
    fewer than two samples, predictions that are not about the same samples, a recipe of fewer than 3 checkpoints, or fewer fits
    than draws.
    """
    members = members_of(predictions)
    return Interval(**_interval(members, metric, population, num_draws, method, num_resamples, seed, confidence))


def paired_difference(
    a: Checkpoints,
    b: Checkpoints,
    metric: Primary = "balanced_accuracy",
    *,
    population: Population = "checkpoint",
    num_draws: int = 1,
    method: Method = "bootstrap-t",
    num_resamples: int = 2000,
    seed: int = 0,
    confidence: float = 0.95,
) -> Difference:
    """Score of `a` minus score of `b`, resampling the patients of both together; each is one prediction, or checkpoints x fits.

    The pretraining seeds of `a` and `b` are independent, even where their numbers are equal: one number draws other weights in
    other objectives. Raises BadInput as `score_interval` does; of a recipe each side has 1 checkpoint, which is fixed (ImageNet,
    colour), or 3 and more, and one side has more.
    """
    members = members_of(a, b)
    fields = _interval(members, metric, population, num_draws, method, num_resamples, seed, confidence)
    return Difference(**fields, num_checkpoints_b=members.num_checkpoints(1))


def check_metric(metric: str, members: Members) -> None:
    """Raise BadInput for a metric that is unknown, or that these predictions do not have."""
    if metric not in METRICS:
        raise BadInput(f"metric {metric!r}: expected one of {', '.join(METRICS)}")
    first = members.predictions[0]
    kind = Predictions if metric == "auroc" else COUNTED[metric].kind
    if not isinstance(first, kind):
        raise BadInput(f"metric {metric!r} is a score of {kind.__name__}, not of {type(first).__name__}")


def _interval(members: Members, metric, population, num_draws, method, num_resamples, seed, confidence) -> dict:
    """The fields of an Interval."""
    check_metric(metric, members)
    for what, value, allowed in (("population", population, Population), ("method", method, Method)):
        if value not in allowed.__args__:
            raise BadInput(f"{what} {value!r}: expected one of {', '.join(allowed.__args__)}")
    first = members.predictions[0]
    group_of, num_groups, is_by_patient = groups_of(first, by_image=method == "image")
    if metric == "auroc":
        scores, ends = _of_areas(members, group_of, num_groups, method, confidence)
    else:
        settings = (num_resamples, seed, confidence)
        scores, ends = _of_counts(members, metric, group_of, num_groups, method, settings)
    estimate, (low, high, used, remark) = float(scores @ members.weight), ends
    if low == high and not remark:
        remark = "no width: too few errors to tell"
    if population == "recipe":
        low, high = with_seeds(members, scores, low, high, confidence)
    if num_draws >= FEWEST_DRAWS:
        low, high = with_draws(members, scores, low, high, num_draws, confidence)
    least, most = (0.0, 1.0) if metric == "auroc" else COUNTED[metric].bounds
    if members.num_sides == 2:
        least, most = least - most, most - least
    low, high = np.clip([low, high], least, most)
    return {
        "estimate": estimate,
        "low": float(low),
        "high": float(high),
        "num_patients": num_groups,
        "num_samples": len(first.sample),
        "level": "patient" if is_by_patient else "image",
        "method": "image" if method == "image" else used,
        "remark": remark,
        "population": population,
        "num_checkpoints": members.num_checkpoints(0),
        "num_seeds": members.num_seeds(0),
    }


def _of_counts(members, metric, group_of, num_groups, method, settings) -> tuple[np.ndarray, Ends]:
    """The members' scores [M], and the interval, of a score that is a function of counts."""
    counted = COUNTED[metric]
    patterns = patterns_of([counted.count(each, group_of, num_groups) for each in members.predictions])
    (scores,) = scores_under(patterns.multiplicity[None].astype(float), patterns, counted)
    if np.isnan(scores).any():  # a kappa of one class only
        return scores, Ends(np.nan, np.nan, "percentile")
    by = bootstrap_t if method == "bootstrap-t" else percentile
    return scores, by(patterns, counted, members.weight, *settings)


def _of_areas(members, group_of, num_groups, method, confidence) -> tuple[np.ndarray, Ends]:
    """The same of the area under the ROC curve, from the influence of every patient."""
    if method == "percentile":
        raise BadInput("method 'percentile' has no AUROC, which has a closed form: expected bootstrap-t or image")
    parts = [auroc_influence(each, group_of, num_groups) for each in members.predictions]
    areas = np.array([area for area, _ in parts])
    estimate, influence = areas @ members.weight, members.weight @ np.array([values for _, values in parts])
    error = np.sqrt(num_groups / (num_groups - 1) * (influence**2).sum())
    label = members.predictions[0].label
    fewest = min(len(np.unique(group_of[label == k])) for k in np.unique(label))  # patients of the rarest class
    reach = t_distribution.ppf((1 + confidence) / 2, max(fewest - 1, 1)) * error
    if members.num_sides == 1 and 0 < estimate < 1:
        # on the log-odds scale, where an area near 1 is not squeezed against its bound
        low, high = expit(logit(estimate) + np.array([-1, 1]) * reach / (estimate * (1 - estimate)))
        return areas, Ends(low, high, "t")
    if members.num_sides == 1 and not np.isnan(estimate):
        low, high = share_bounds(estimate, 0, num_groups, fewest, confidence)
        return areas, Ends(
            low, high, "clopper-pearson", "exact bounds by patients of the rarest class: no pair out of order"
        )
    return areas, Ends(estimate - reach, estimate + reach, "t")
