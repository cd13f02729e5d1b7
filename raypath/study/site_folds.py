"""Leave-site-out: each site is the test once, and the others train and choose.

One decision: as in `benchmarks.splits.folds`, a fold is a benchmark: the whole set with another split and a hash of its own, so
that sweeps, ledger and cells of a study run on it as they are. Val is 20 % of the other sites' patients, stratified; it is of
sites that train, so what is chosen there is chosen for known sites.

The tables of benchmarks know no site: it is given by the names of samples, patients or slides. A site that lacks a class cannot be
tested alone and is refused, not merged with another: which sites belong together is for a person to say, by giving them one name.
"""

from collections.abc import Mapping
from dataclasses import replace

import pyarrow as pa

from raypath.benchmarks import Benchmark
from raypath.benchmarks.benchmark import hash_rows
from raypath.benchmarks.splits.folds import undivided_groups
from raypath.benchmarks.splits.leakage import check_leaks, find_leaks
from raypath.benchmarks.splits.making import MAX_LISTED, NEW_VAL, check_classes, deal
from raypath.errors import BadInput


def sites_of(benchmark: Benchmark, site_of: Mapping[str, str]) -> list[str]:
    """The site of every row of the benchmark's table, by the name of its sample, else its patient, else its slide.

    Raises BadInput naming samples that have none.
    """
    columns = (benchmark.table[name].to_pylist() for name in ("sample", "patient", "slide"))
    rows = list(zip(*columns, strict=True))
    sites = [next((site_of[name] for name in names if name in site_of), None) for names in rows]
    without = [sample for (sample, *_), site in zip(rows, sites, strict=True) if site is None]
    if without:
        raise BadInput(
            f"{benchmark.name}: no site for {len(without)} of {len(rows)} samples, e.g. {', '.join(without[:MAX_LISTED])};"
            " expected one for the name of each sample, patient or slide"
        )
    return sites


def leave_site_out(benchmark: Benchmark, site_of: Mapping[str, str], *, seed: int = 0) -> list[Benchmark]:
    """A fold for each site (in the order of their names), of which it is the test.

    `site_of`: by sample, patient or slide. Raises BadInput for fewer than two sites, for a site that lacks a class (or leaves the
    others without), and for a patient of two sites.
    """
    sites = sites_of(benchmark, site_of)
    names = sorted(set(sites))
    if len(names) < 2:
        raise BadInput(
            f"{benchmark.name}: all samples are of one site, {names[0]}; leaving it out leaves nothing to train on"
        )
    _check_sites(benchmark, sites)
    groups = undivided_groups(benchmark.table)
    return [_fold(benchmark, sites, groups, site, seed) for site in names]


def _check_sites(benchmark: Benchmark, sites: list[str]) -> None:
    classes = benchmark.strata or benchmark.classes
    present = set(zip(sites, benchmark.table["label"].to_pylist(), strict=True))
    lacking = {
        site: [name for number, name in enumerate(classes) if (site, number) not in present]
        for site in sorted(set(sites))
    }
    lines = [f"{site} has no {', '.join(map(repr, names))}" for site, names in lacking.items() if names]
    if lines:
        raise BadInput(
            f"{benchmark.name}: {'; '.join(lines[:MAX_LISTED])}; expected every class at every site that is left out: give sites"
            " that belong together one name, or leave the class out (benchmark.drop_classes)"
        )


def _fold(benchmark: Benchmark, sites: list[str], groups: list[str], site: str, seed: int) -> Benchmark:
    table, name = benchmark.table, f"{benchmark.name}, site {site}"
    labels = table["label"].to_pylist()
    rest = [number for number, own in enumerate(sites) if own != site]
    dealt = deal([labels[number] for number in rest], [groups[number] for number in rest], NEW_VAL, seed=seed)
    splits = ["test"] * len(table)
    for number, split in zip(rest, dealt, strict=True):
        splits[number] = split
    place = table.schema.get_field_index("split")
    table = table.set_column(place, table.schema.field("split"), pa.array(splits, pa.string()))
    waived = check_leaks(find_leaks(table), benchmark.waived, name=name)
    strata = benchmark.strata or benchmark.classes
    check_classes(labels, splits, strata, name=name)
    columns = (table["sample"].to_pylist(), labels, splits, table["patient"].to_pylist())
    rows = zip(*columns, [benchmark.data_hash] * len(table), strict=True)  # contents are in the hash of the set
    made = f"leave-site-out, {site} is the test, val 20 % of the other {len(set(sites)) - 1} (seed {seed})"
    notes = filter(None, [made, waived, f"of the set: {benchmark.split_note}"])
    return replace(
        benchmark, table=table, data_hash=hash_rows(rows, strata), split_note="; ".join(notes), is_split_chosen=True
    )
