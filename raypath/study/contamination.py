"""Whether an encoder has met the test before: what its pretrainings saw, held against a benchmark.

    clean          nothing of the test was seen
    transductive   slides, patients or images of the test were seen without labels, as self-supervised pretraining sees them
    dirty          they were seen with labels, whatever these said
    waived         somebody let it pass, by the name of the rule
    unknown        it is not known what was seen

One decision: only the test counts. What was seen of train and val is noted, not judged: a benchmark is trained on that anyway. A
nested set is all test. Every rule (`contamination_rules`) needs evidence; where only names of collections are known, and only a
part of one is of the other, that is never "dirty". Nothing is taken out of a test to mend it.

What it costs: the bytes of the benchmark's images once (of slides, only those as large as a seen one), and for pools the search for
near-duplicates, which decodes pool and test. Tiles of pretraining *slides* are too many for that: those that show a sample of the
benchmark are handed over (`tiles`) by whoever has features to propose them.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from raypath.benchmarks import Benchmark
from raypath.benchmarks.splits.making import MAX_LISTED
from raypath.benchmarks.splits.near_duplicates import Progress
from raypath.errors import BadInput
from raypath.study.contamination_rules import (
    RULES,
    Hits,
    Row,
    Rule,
    SeenTile,
    same_collections,
    same_contents,
    same_names,
    same_pictures,
    same_tiles,
)
from raypath.study.seen import Seen, Training

Status = Literal["clean", "transductive", "dirty", "waived", "unknown"]
Side = Literal["test", "train and val"]
TAG = "raypath.contamination"

_NOTED: tuple[Rule, ...] = ("site", "number")  # one hospital, or one running number, is no leak
_WHAT: dict[Rule, str] = {
    "content": "are files with the bytes of some that {run} saw",
    "slide": "are of slides that {run} saw",
    "patient": "are of patients that {run} saw",
    "case": "are of TCGA cases that {run} saw",
    "near_duplicate": "show the pictures of images that {run} saw",
    "corpus": "are of collections that {run} saw",
    "corpus_part": "may be of what {run} saw",
    "site": "are of TCGA's tissue source sites that {run} saw (noted only)",
    "number": "are numbered as patients or slides that {run} saw (noted only: a number is no name)",
}


@dataclass(frozen=True)
class Finding:
    """What one pretraining saw of one side of a benchmark, by one rule."""

    rule: Rule
    of: Side
    run: str
    num: int
    """Samples that it concerns, of `num_samples` on that side."""
    num_samples: int
    names: tuple[str, ...]
    """The first ten of `num_names` slides, patients, cases, pairs or reasons."""
    num_names: int
    uses_labels: bool

    @property
    def is_judged(self) -> bool:
        """Whether it counts for the status."""
        return self.of == "test" and self.rule not in _NOTED

    @property
    def is_dirty(self) -> bool:
        """Whether it makes a benchmark dirty, unless it is waived."""
        return self.is_judged and self.uses_labels and self.rule != "corpus_part"

    def __str__(self) -> str:
        more = f"; ... and {self.num_names - len(self.names)} more" if self.num_names > len(self.names) else ""
        what = _WHAT[self.rule].format(run=f"{self.run} ({'with' if self.uses_labels else 'without'} labels)")
        return f"{self.rule}: {self.num} of {self.num_samples} {self.of} samples {what}: {'; '.join(self.names)}{more}"


@dataclass(frozen=True)
class Contamination:
    """The verdict on one encoder and one benchmark."""

    benchmark: str
    status: Status
    findings: tuple[Finding, ...]
    waived: tuple[Rule, ...]
    """Rules that were waived and would have counted."""
    unknown: tuple[str, ...]
    """Pretrainings of which it is not known what they saw, with the reason."""

    @property
    def tag(self) -> dict[str, str]:
        """For every run on the benchmark: the status and the rules that led to it."""
        rules = self.waived if self.status == "waived" else dict.fromkeys(f.rule for f in self.findings if f.is_judged)
        return {TAG: f"{self.status} ({', '.join(rules)})" if rules else self.status}

    @property
    def line(self) -> str:
        """For the report: the status, a sentence for each finding (those that were judged first), and what is not known."""
        parts = [str(finding) for finding in sorted(self.findings, key=lambda finding: not finding.is_judged)]
        parts += [f"not known: {text}" for text in self.unknown]
        return f"{self.benchmark}: " + "; ".join([self.tag[TAG], *parts])


def contamination_of(
    seen: Seen,
    benchmark: Benchmark,
    *,
    is_nested: bool = False,
    waive: Sequence[Rule] = (),
    compares_pictures: bool = True,
    tiles: Sequence[SeenTile] = (),
    progress: Progress | None = None,
) -> Contamination:
    """Hold what was seen against the rows of a benchmark; `is_nested`: every sample is in the test of some fold.

    `compares_pictures=False` leaves out the search for near-duplicates of a pool's images; `tiles` are samples that tiles of slides
    are known to show. Raises BadInput for a rule in `waive`
    that is none, and for a file that cannot be read.
    """
    strange = [rule for rule in waive if rule not in RULES]
    if strange:
        raise BadInput(f"waive={','.join(strange)}: expected names among {', '.join(RULES)}")
    sides: dict[Side, list[Row]] = {"test": [], "train and val": []}
    for row in benchmark.table.to_pylist():
        sides["test" if is_nested or row["split"] == "test" else "train and val"].append(row)
    digests: dict[str, str] = {}
    findings = []
    for training in seen.trainings:
        for side, rows in sides.items():
            hits = same_contents(training, rows, digests) | same_names(training, rows)
            hits |= same_collections(training, benchmark.name, rows)
            if side == "test":
                pictures = same_pictures(training, rows, list(hits["content"]), progress) if compares_pictures else {}
                hits["near_duplicate"] = {**same_tiles(training, rows, tiles), **pictures.get("near_duplicate", {})}
            findings += _findings(hits, training, side, len(rows))
    judged = [finding for finding in findings if finding.is_judged]
    waived = tuple(dict.fromkeys(finding.rule for finding in judged if finding.rule in waive))
    unknown = tuple(str(training) for training in seen.trainings if training.unknown)
    left = [finding for finding in judged if finding.rule not in waived]
    return Contamination(benchmark.name, _status(left, waived, unknown), tuple(findings), waived, unknown)


def check_contamination(found: Contamination) -> Contamination:
    """What was given; raises BadInput, with the findings and the remedies, if it is dirty."""
    if found.status == "dirty":
        bad = [finding for finding in found.findings if finding.is_dirty and finding.rule not in found.waived]
        rules = ",".join(dict.fromkeys(finding.rule for finding in bad))
        raise BadInput(
            f"{found.benchmark}: the encoder was trained with labels on its test: {'; '.join(map(str, bad))}; take an encoder that"
            f" did not see it, leave the benchmark out, or waive it by name: waive={rules}"
        )
    return found


def _findings(hits: Hits, training: Training, side: Side, num_samples: int) -> Iterator[Finding]:
    for rule, found in hits.items():
        if found:
            names = list(dict.fromkeys(found.values()))
            listed = tuple(names[:MAX_LISTED])
            yield Finding(rule, side, training.name, len(found), num_samples, listed, len(names), training.uses_labels)


def _status(left: Sequence[Finding], waived: Sequence[Rule], unknown: Sequence[str]) -> Status:
    if any(finding.is_dirty for finding in left):
        return "dirty"
    if waived:
        return "waived"
    return "transductive" if left else "unknown" if unknown else "clean"
