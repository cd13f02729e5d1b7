"""What an encoder of a study is to the second paper, so that its tables know where a score belongs.

One decision: it follows from what the entry says and from how it was scored, never from a name. ImageNet's weights are "ImageNet";
what left the task out of its pool, or is declared `released` (a pool that holds none of the benchmarks), is "multi-task"; random
weights that are fine-tuned are "scratch"; and a head of a task's own is "joint", whatever its encoder is called. Anything else is
nothing that the paper has, and stands in the report alone.
"""

from raypath.study.places import Place
from raypath.study.results import StudyResults
from raypath.study.settings import EncoderEntry

_FINETUNED, _OWN_HEAD = "finetune", "head"


def method_of(entry: EncoderEntry, place: Place) -> str | None:
    """One of `results.METHODS`; None for what the paper does not have."""
    kind = place.scored[0].record["config"]["protocol"]["kind"]
    if kind == _OWN_HEAD:
        return "joint"
    source = entry.source.partition(":")[0]
    if source.startswith("random"):
        return "scratch" if kind == _FINETUNED else None
    prefix = "ft" if kind == _FINETUNED else "fe"
    if source == "imagenet":
        return f"{prefix}_imagenet"
    return f"{prefix}_multitask" if entry.leave_out or entry.released else None


def of_paper(results: StudyResults) -> list[tuple[str, Place]]:
    """(method, place) of all that the paper has, on all labels; of several protocols that are one method the study's first."""
    found: dict[tuple[str, str, str], Place] = {}
    for place in results.places:
        method = method_of(results.config.entry(place.encoder), place)
        if method and place.fraction == 1:
            found.setdefault((method, place.encoder, place.benchmark), place)
    return [(method, place) for (method, *_), place in found.items()]
