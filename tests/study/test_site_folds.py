"""Leave-site-out: every site is the test once, no patient is on two sides, and what cannot be divided is refused in one line."""

import pyarrow as pa
import pytest

from raypath.benchmarks import IMAGE_SCHEMA, Benchmark
from raypath.benchmarks.splits.leakage import find_leaks
from raypath.errors import BadInput
from raypath.study.site_folds import leave_site_out, sites_of


def benchmark_of(*, num_patients=30, num_each=3, without=()):
    """Patients of sites A, B and C in turn, of two classes; `without`: (site, label) that do not occur."""
    rows = [
        {"sample": f"{p:03}/{i}", "path": f"{p:03}-{i}.png", "label": label, "patient": f"p{p}", "split": "train"}
        for p in range(num_patients)
        for i in range(num_each)
        if ("ABC"[p % 3], label := p // 3 % 2) not in without
    ]
    return Benchmark(
        name="set",
        classes=("a", "b"),
        primary="accuracy",
        mpp=None,
        table=pa.Table.from_pylist(rows, schema=IMAGE_SCHEMA),
        data_hash="of the set",
        split_note="split as given",
    )


SITE_OF = {f"p{p}": "ABC"[p % 3] for p in range(30)}


def test_every_site_is_the_test_once_and_no_patient_is_on_two_sides():
    benchmark = benchmark_of()
    folds = leave_site_out(benchmark, SITE_OF)
    tested = []
    for fold, site in zip(folds, "ABC", strict=True):
        rows = fold.table.to_pylist()
        tests = [row for row in rows if row["split"] == "test"]
        assert {SITE_OF[row["patient"]] for row in tests} == {site}
        assert site not in {SITE_OF[row["patient"]] for row in rows if row["split"] != "test"}
        assert {(row["split"], row["label"]) for row in rows} == {
            (s, k) for s in ("train", "val", "test") for k in (0, 1)
        }
        assert 8 <= sum(row["split"] == "val" for row in rows) <= 16  # 20 % of 60
        assert not find_leaks(fold.table)
        assert f"leave-site-out, {site} is the test" in fold.split_note
        assert fold.table.schema == IMAGE_SCHEMA
        tested += [row["sample"] for row in tests]
    assert sorted(tested) == sorted(benchmark.table["sample"].to_pylist())
    assert len({fold.data_hash for fold in folds} | {benchmark.data_hash}) == 4


def test_folds_do_not_hang_on_the_order_of_rows():
    benchmark = benchmark_of()
    turned = Benchmark(**{**vars(benchmark), "table": benchmark.table.take(list(range(len(benchmark.table)))[::-1])})
    for one, other in zip(leave_site_out(benchmark, SITE_OF), leave_site_out(turned, SITE_OF), strict=True):
        assert one.data_hash == other.data_hash
        assert one.table.sort_by("sample") == other.table.sort_by("sample")


def test_a_site_is_known_by_sample_patient_or_slide():
    benchmark = benchmark_of(num_patients=3, num_each=1)
    slides = pa.array(["s0", "s1", "s2"], pa.string())
    table = benchmark.table.set_column(IMAGE_SCHEMA.get_field_index("slide"), IMAGE_SCHEMA.field("slide"), slides)
    benchmark = Benchmark(**{**vars(benchmark), "table": table})
    named = {"s0": "by slide", "s1": "by slide", "s2": "by slide", "p1": "by patient", "p2": "no", "002/0": "by sample"}
    assert sites_of(benchmark, named) == ["by slide", "by patient", "by sample"]


@pytest.mark.parametrize(
    ("benchmark", "site_of", "message"),
    [
        (benchmark_of(), dict.fromkeys(SITE_OF, "A"), "set: all samples are of one site, A"),
        (benchmark_of(without=[("B", 1)]), SITE_OF, "set: B has no 'b'; expected every class at every site"),
        (benchmark_of(), {p: s for p, s in SITE_OF.items() if p != "p7"}, "no site for 3 of 90 samples, e.g. 007/0"),
        (benchmark_of(), SITE_OF | {"000/1": "B"}, "1 patients stand in more than one split: p0"),
    ],
)
def test_what_cannot_be_divided_is_refused_in_one_line(benchmark, site_of, message):
    with pytest.raises(BadInput, match=message) as caught:
        leave_site_out(benchmark, site_of)
    assert "\n" not in str(caught.value)
