"""The table of what a study took: for each place its pretraining and, beside it, tuning with fits.

One decision: all seeds and folds are counted, tuning included, because a cheap winner of a dear search was not cheap.
"""

from raypath.study.cells import Cost
from raypath.study.results import StudyResults
from raypath.study.study_tables import three
from raypath.study.tables import Table


def cost_table(results: StudyResults) -> Table:
    """What each place took: pretraining and, beside it, tuning with fits."""
    rows = []
    for place in results.places:
        training = sum((Cost(**one.record["pretraining_cost"]) for one in place.scored), Cost())
        fitting = sum((Cost(**one.record["cost"]) for one in place.scored), Cost())
        rows.append(
            (
                place.encoder,
                place.benchmark,
                place.protocol,
                f"{place.fraction:.0%}",
                training.tiles_seen,
                three(training.cpu_hours),
                three(training.gpu_hours),
                fitting.tiles_seen,
                three(fitting.cpu_hours),
                three(fitting.gpu_hours),
                fitting.num_trials,
            )
        )
    return Table(
        columns=(
            "encoder",
            "benchmark",
            "protocol",
            "labels",
            *("pretraining: tiles seen", "pretraining: CPU h", "pretraining: GPU h"),
            *("tuning and fits: images seen", "tuning and fits: CPU h", "tuning and fits: GPU h"),
            "trials",
        ),
        rows=tuple(rows),
        footnotes=(
            "All seeds together; hours are those of the processors that were held. A pretraining that several benchmarks share is"
            " counted with each.",
        ),
    )
