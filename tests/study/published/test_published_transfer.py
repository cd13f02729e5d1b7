"""The tables and charts of transfer show the numbers they are given, and gaps as gaps."""

import io

import pytest
from matplotlib.colors import to_hex

from raypath.study.figures import ACCENT, FAINT, PALE
from raypath.study.published.results import Result
from raypath.study.published.transfer_bars import methods_figure
from raypath.study.published.transfer_deltas import delta_figure, deltas, judged
from raypath.study.published.transfer_tables import breakhis_table, network_table
from raypath.study.tables import Noted, Spread


def rule(mean_a, sigma_a, mean_b, sigma_b):
    return abs(mean_a - mean_b) > 2 * max(sigma_a, sigma_b)


def result(task, method, mean, sigma=None, network="resnet50", **more):
    return Result(task=task, network=network, method=method, mean=mean, sigma=sigma, num_repeats=5, **more)


RESULTS = [
    result("A", "fe_imagenet", 80.0, metric="acc", num_images=7),
    result("A", "fe_multitask", 83.0, 1.0, metric="acc"),
    result("A", "ft_imagenet", 90.0, 2.0, metric="acc"),
    result("A", "ft_multitask", 87.0, 1.0, metric="acc"),
    result("B", "fe_imagenet", 95.0, metric="auc"),
    result("B", "fe_multitask", 94.0, 0.1, metric="auc"),
    result("B", "ft_multitask", 97.0, 0.5, metric="auc"),
    result("C", "fe_imagenet", 70.0, metric="auc"),
    result("C", "fe_multitask", 75.0, None, metric="auc"),
    result("C", "ft_imagenet", 70.0, 0.1, metric="auc"),
    result("C", "ft_multitask", 75.0, None, metric="auc"),
    result("A", "fe_multitask", 1.0, 1.0, network="densenet121"),
]


def drawn(figure):
    figure.savefig(io.BytesIO(), format="svg")  # what is only found out while drawing is found out here
    (axes,) = figure.axes
    return axes


def hatched(axes):
    return [patch for patch in axes.patches if patch.get_hatch()]


def test_features_take_the_multitask_sigma_and_fine_tuning_the_larger():
    fe = deltas(RESULTS, "resnet50", "fe", rule=rule)
    assert [(d.task, d.difference, d.sigma, d.is_significant) for d in fe] == [
        ("A", 3.0, 1.0, True),  # the sigma of features that are the same each time counts as 0
        ("B", -1.0, 0.1, True),
        ("C", 5.0, None, None),
    ]
    ft = deltas(RESULTS, "resnet50", "ft", rule=rule)
    assert [(d.difference, d.sigma, d.is_significant) for d in ft] == [
        (-3.0, 2.0, False),
        (None, None, None),
        (5.0, None, None),
    ]
    assert [d.is_significant for d in deltas(RESULTS, "resnet50", "fe")] == [None] * 3
    assert [d.task for d in deltas(RESULTS, "resnet50", "fe", tasks=("C", "D"))] == ["C", "D"]


def test_the_rule_is_not_asked_where_a_sigma_is_not_known():
    scratch = result("A", "scratch", 50.0)
    assert judged(rule, RESULTS[1], scratch) is None
    assert judged(rule, RESULTS[1], RESULTS[0]) is True


def test_a_delta_chart_has_its_bars_errors_and_gaps():
    axes = drawn(delta_figure(deltas(RESULTS, "resnet50", "fe", rule=rule), "resnet50", "fe"))
    bars = [(patch.get_width(), to_hex(patch.get_facecolor())) for patch in axes.patches if not patch.get_hatch()]
    assert bars == [(3.0, ACCENT), (-1.0, ACCENT), (5.0, PALE)]
    errors = [tuple(collection.get_segments()[0][:, 0]) for collection in axes.collections]
    assert errors == [(1.0, 5.0), pytest.approx((-1.2, -0.8))]
    assert [text.get_text() for text in axes.texts] == ["+3.00", "\u22121.00", "+5.00 (no sigma)"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["A (acc)", "B (AUC)", "C (AUC)"]
    assert axes.get_title() == "ResNet-50, feature extraction"
    low, high = axes.get_xlim()
    assert low == -high
    fine = drawn(delta_figure(deltas(RESULTS, "resnet50", "ft", rule=rule), "resnet50", "ft"))
    assert [to_hex(patch.get_facecolor()) for patch in fine.patches if not patch.get_hatch()] == [FAINT, PALE]
    (gap,) = hatched(fine)
    assert gap.get_y() < 1 < gap.get_y() + gap.get_height()
    assert "not known" in [text.get_text() for text in fine.texts]


def test_a_chart_of_nothing_is_all_gaps():
    axes = drawn(delta_figure(deltas([], "resnet50", "fe", tasks=("A", "B")), "resnet50", "fe"))
    assert len(hatched(axes)) == len(axes.patches) == 2


def test_bars_of_methods_reach_their_scores_and_gaps_stay_gaps():
    more = [*RESULTS, result("A", "scratch", 64.0, 1.5, metric="acc")]
    axes = drawn(methods_figure(more, "resnet50", tasks=("A", "B")))
    tops = sorted(patch.get_y() + patch.get_height() for patch in axes.patches if not patch.get_hatch())
    assert tops == [64, 83, 87, 94, 97]
    assert axes.get_ylim()[0] == 60  # below 64 - 2 x 1.5
    assert "begins at 60" in axes.get_ylabel()
    assert len(hatched(axes)) == 3  # joint of A, scratch and joint of B
    errors = sorted(tuple(round(y, 6) for y in c.get_segments()[0][:, 1]) for c in axes.collections)
    assert errors == [(61, 67), (81, 85), (85, 89), (93.8, 94.2), (96, 98)]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["A\naccuracy", "B\nAUC"]


def test_the_table_of_a_network_says_what_is_significant_and_what_is_missing():
    table = network_table(RESULTS, "resnet50", rule=rule)
    first, second, third = table.rows
    better, worse = (f"significantly {word} than ImageNet with the same transfer" for word in ("better", "worse"))
    assert first == (
        "A",
        "accuracy",
        7,
        None,
        Spread(80.0),
        Noted(Spread(83.0, 1.0), (better,)),
        Spread(90.0, 2.0),
        Spread(87.0, 1.0),
        None,
    )
    assert second[5] == Noted(Spread(94.0, 0.1), (worse,))
    assert third[5] == Spread(75.0)
    assert third[2] is None
    assert "--: not known" in table.latex()
    assert "mean +- sigma over 5 repeats" in table.latex()


def test_breakhis_has_a_line_for_each_transfer_network_and_source():
    rows = [result("40x", "fe_imagenet", 85.0, 2.0), result("400x", "ft_other2019", 86.0, 1.0, network="new")]
    table = breakhis_table(rows, magnifications=("40x", "400x"))
    assert table.rows == (
        ("feature extraction", "ResNet-50", "ImageNet", Spread(85.0, 2.0), None),
        ("fine-tuning", "new", "other2019", None, Spread(86.0, 1.0)),
    )
