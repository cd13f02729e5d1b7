"""Rows are read from files as they are, and a gap in a file is no result."""

import statistics

import pytest

from raypath.errors import BadInput
from raypath.study.published.results import Result, Trial, by_place, read_results, read_trials, summarised, tasks_of

PLACE = {"task": "Lung", "network": "resnet50", "method": "joint"}


def test_repeats_are_a_mean_and_a_sample_deviation():
    scores = [70.0, 72.5, 71.0]
    result = summarised(scores, **PLACE, metric="acc")
    assert result.mean == pytest.approx(statistics.mean(scores))
    assert result.sigma == pytest.approx(statistics.stdev(scores))
    assert (result.num_repeats, result.metric) == (3, "acc")
    assert summarised([70.0], **PLACE).sigma is None
    with pytest.raises(BadInput, match="Lung, resnet50, joint: no scores"):
        summarised([], **PLACE)


def test_what_is_no_number_is_no_result():
    with pytest.raises(BadInput, match="mean=nan"):
        summarised([float("nan")], **PLACE)
    with pytest.raises(BadInput, match="sigma=-1"):
        Result(**PLACE, mean=1, sigma=-1, num_repeats=2)


def test_two_results_of_one_place_are_refused():
    one, other = (Result(**PLACE, mean=mean, sigma=None, num_repeats=1) for mean in (1, 2))
    with pytest.raises(BadInput, match="Lung, resnet50, joint: two results"):
        by_place([one, other])
    assert by_place([one]) == {("Lung", "resnet50", "joint"): one}
    assert tasks_of([one, other]) == ("Lung",)


def test_results_of_ours_are_read_with_their_gaps(tmp_path):
    path = tmp_path / "ours.csv"
    path.write_text(
        "task,network,method,metric,num_images,mean,sigma,num_repeats\n"
        "Lung,resnet50,joint,acc,5443,90.5,0.25,3\n"
        "Lung,resnet50,scratch,acc,,80,,1\n"
        "Lung,resnet50,ft_imagenet,acc,5443,,,0\n"
    )
    first, second = read_results(path)
    assert first == Result(**PLACE, metric="acc", num_images=5443, mean=90.5, sigma=0.25, num_repeats=3)
    assert (second.num_images, second.sigma) == (None, None)
    path.write_text(path.read_text().replace("90.5", "high"))
    with pytest.raises(BadInput, match="line 2: mean='high'; expected a number"):
        read_results(path)


def test_trials_are_read_with_their_gaps(tmp_path):
    path = tmp_path / "trials.csv"
    head = "network,task,rate,tau,is_warm,seed,score\n"
    path.write_text(head + "resnet50,Lung,1e-4,5,True,2,81.25\nresnet50,Lung,1e-4,5,false,2,\n")
    assert read_trials(path) == [
        Trial(network="resnet50", task="Lung", rate="1e-4", tau="5", is_warm=True, seed=2, score=81.25)
    ]
    path.write_text(head + "resnet50,Lung,1e-4,5,yes,2,81.25\n")
    with pytest.raises(BadInput, match="line 2: is_warm='yes'; expected true or false"):
        read_trials(path)
    path.write_text(head + "resnet50,Lung,1e-4,5,true,,81.25\n")
    with pytest.raises(BadInput, match="line 2: seed=''; expected a number"):
        read_trials(path)
