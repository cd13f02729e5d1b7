"""The published numbers of the second paper, read from their files, give what the paper prints."""

import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[3] / "experiments"))

import published
from matplotlib.figure import Figure
from recipes import mormont2020

from raypath.benchmarks.pool22 import TASKS
from raypath.errors import BadInput
from raypath.study.leave_out import PAPER_EVALUATED
from raypath.study.published.golden import MAGNIFICATIONS, read_breakhis, read_mtask_results, read_pool
from raypath.study.published.pool import pool_table
from raypath.study.published.results import METHODS, by_place, tasks_of
from raypath.study.published.transfer_deltas import deltas
from raypath.study.published.transfer_tables import breakhis_table, network_table

ROOT = Path(__file__).parents[3]
GOLDEN = Path(os.environ.get("RAYPATH_REAL_DATA", ROOT / "../shared/data")) / "golden"
NETWORKS = ("densenet121", "resnet50")
HEAD = (
    "network,task,metric,train_plus_val,scratch_mean,scratch_std,fe_imagenet,fe_mtask_mean,fe_mtask_std,"
    "ft_imagenet_mean,ft_imagenet_std,ft_mtask_mean,ft_mtask_std,joint_mean,joint_std\n"
)


def real(test):
    return pytest.mark.real(pytest.mark.skipif(not GOLDEN.is_dir(), reason=f"no published numbers at {GOLDEN}")(test))


def rule(mean_a, sigma_a, mean_b, sigma_b):
    return abs(mean_a - mean_b) > 2 * max(sigma_a, sigma_b)


def name_file(figure, path, **how):
    path.touch()


@pytest.fixture
def results():
    return read_mtask_results(GOLDEN / "mtask_results.csv")


@real
def test_the_counts_that_the_paper_prints(results):
    found = {way: [d for n in NETWORKS for d in deltas(results, n, way, rule=rule)] for way in ("fe", "ft")}
    counts = {
        way: (
            len(own),
            sum(d.difference > 0 for d in own),
            sum(d.difference > 0 and d.is_significant for d in own),
            sum(d.difference < 0 and d.is_significant for d in own),
        )
        for way, own in found.items()
    }
    assert counts == {"fe": (20, 15, 11, 2), "ft": (20, 11, 0, 0)}


@real
def test_all_numbers_are_read_and_agree_with_the_recipes(results):
    places = by_place(results)
    assert len(places) == 2 * 10 * len(METHODS)
    assert tasks_of(results) == PAPER_EVALUATED
    for (network, task), (features, tuned) in mormont2020.PUBLISHED.items():
        own = [places[task, network, method].mean for method in ("fe_multitask", "ft_multitask")]
        assert own == [features, tuned]
    line = network_table(results, "densenet121", rule=rule).latex().splitlines()[7]
    assert line.startswith(r"BoneMarrow & accuracy & 652 & $70.49 \pm 1.47$ & $71.52$ & $75.05 \pm 0.70$\tnote{a} &")


@real
def test_breakhis_and_the_pool():
    table = breakhis_table(read_breakhis(GOLDEN / "breakhis.csv"), magnifications=MAGNIFICATIONS)
    assert len(table.rows) == 10
    assert "feature extraction,DeCAF,Spanhol et al. 2017,84.00,6.90,83.90,5.90,86.30,3.50,82.10,2.40" in table.csv()
    lines = read_pool(GOLDEN / "mtask_pool.csv")
    total = pool_table(lines, "pool").rows[-1]
    assert total[2] == 81
    assert total[3:11:2] == (663_918, 104_363, 114_519, 882_800)
    assert total[10] == 6_101
    for line, task in zip(lines, TASKS, strict=True):
        assert (line.name, line.num_classes, line.split_by) == (task.name, task.num_classes, task.split_by)
        assert line.splits == {"train": task.train, "val": task.val, "test": task.test}


@real
def test_the_script_writes_every_table_and_figure(tmp_path, capsys, monkeypatch):
    save = (
        Figure.savefig
    )  # one of each kind of file is drawn, which takes a second, and of the others the name is written
    monkeypatch.setattr(
        Figure,
        "savefig",
        lambda own, path, **how: (save if "ours_resnet50_fe_delta" in path.name else name_file)(own, path, **how),
    )
    trials, ours = tmp_path / "trials.csv", tmp_path / "ours.csv"
    trials.write_text("network,task,rate,tau,is_warm,seed,score\nresnet50,idc,1e-4,5,true,0,81.25\n")
    ours.write_text("task,network,method,metric,num_images,mean,sigma,num_repeats\nidc,resnet50,joint,acc,9,90,1,3\n")
    out = tmp_path / "out"
    published.published([f"golden={GOLDEN}", f"out={out}", f"results={ours}", f"trials={trials}"], rule=rule)
    names = {path.name for path in out.iterdir()}
    figures = {
        f"mormont2020_{n}_{what}" for n in NETWORKS for what in ("fe_delta", "ft_delta", "methods", "rates", "tau")
    }
    figures |= {f"ours_resnet50_{what}" for what in ("fe_delta", "ft_delta", "methods", "rates", "tau")} | {
        "kawai2023_grid"
    }
    tables = {"kawai2023_grid", "mormont2020_breakhis", "mormont2020_pool", "ours_resnet50"}
    tables |= {f"mormont2020_{network}" for network in NETWORKS}
    assert names == {f"{n}.{s}" for n in figures for s in ("png", "svg")} | {
        f"{n}.{s}" for n in tables for s in ("csv", "tex")
    }
    assert "significantly better" in (out / "mormont2020_resnet50.csv").read_text()
    png, svg = (out / f"ours_resnet50_fe_delta.{suffix}" for suffix in ("png", "svg"))
    assert png.read_bytes()[1:4] == b"PNG"
    assert "<svg" in svg.read_text()[:1000]
    assert len(capsys.readouterr().out.splitlines()) == len(figures) + len(tables)


def test_an_empty_cell_is_no_result(tmp_path):
    path = tmp_path / "mtask_results.csv"
    path.write_text(HEAD + "resnet50,Lung,acc,5443,,,91.67,91.15,0.41,92.73,,,,,\n")
    places = by_place(read_mtask_results(path))
    assert {method for *_, method in places} == {"fe_imagenet", "fe_multitask", "ft_imagenet"}
    assert places["Lung", "resnet50", "ft_imagenet"].sigma is None
    path.write_text(HEAD + "resnet50,Lung,acc,5443,x,,91.67,91.15,0.41,92.73,,,,,\n")
    with pytest.raises(BadInput, match="line 2: scratch_mean='x'"):
        read_mtask_results(path)


def test_a_total_that_is_no_sum_is_refused(tmp_path):
    path = tmp_path / "mtask_pool.csv"
    head = "name,type,classes,train_img,train_ps,val_img,val_ps,test_img,test_ps,total_img,total_ps,split_by\n"
    path.write_text(head + "Lung,CLF,10,1,1,2,1,3,1,7,3,slide\n")
    with pytest.raises(BadInput, match="line 2: total_img=7 is not the sum"):
        read_pool(path)


@pytest.mark.parametrize(
    ("arguments", "message"), [(["out=x"], "expected golden=DIR"), (["golden=a", "out=b", "gold=c"], "gold")]
)
def test_the_script_says_what_it_wants(arguments, message):
    with pytest.raises(BadInput, match=message):
        published.published(arguments)
