"""The tables of what a study took: for each place its pretraining and, beside it, tuning with fits; for each grid its search.

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
        training, fitting = place.pretraining, place.fitting
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
            "All seeds and folds together; hours are those of the processors that were reserved. A pretraining that several"
            " benchmarks share is counted with each.",
        ),
    )


def search_table(results: StudyResults) -> Table | None:
    """What selecting among the combinations of a grid took, by encoder; None where nothing was selected."""
    rows = []
    for encoder, one in results.read("search.json", {}).items():
        training, scoring = Cost(**one["pretraining"]), Cost(**one["scoring"])
        hours = [(three(cost.cpu_hours), three(cost.gpu_hours)) for cost in (training, scoring)]
        counts = (one["num_combinations"], one["num_trainings"])
        rows.append((encoder, *counts, training.tiles_seen, *hours[0], scoring.tiles_seen, *hours[1]))
    columns = (
        *("encoder", "combinations", "pretrainings"),
        *("pretraining: tiles seen", "pretraining: CPU h", "pretraining: GPU h"),
        *("transfer scores: images seen", "transfer scores: CPU h", "transfer scores: GPU h"),
    )
    note = (
        "The search of a grid: all combinations, left-out sets and seeds. The pretrainings that were selected are among them, and"
        " stand above as well. A budget of equal compute is about the pretraining of one checkpoint: the search is not in it."
    )
    return Table(columns=columns, rows=tuple(rows), footnotes=(note,)) if rows else None
