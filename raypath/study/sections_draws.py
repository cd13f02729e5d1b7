"""The part of a report that says how much scores hang on the draw of the nested folds.

One decision: the lowest and the highest draw are told, so a reader sees whether another draw would have told another story.

What it costs: nothing.
"""

import numpy as np

from raypath.study.alignment import members_of
from raypath.study.draws import FEWEST_DRAWS, by_draw
from raypath.study.places import Place
from raypath.study.results import StudyResults
from raypath.study.section import Section
from raypath.study.study_figures import point_score
from raypath.study.study_tables import without_constants
from raypath.study.tables import Table


def draws(results: StudyResults) -> Section | None:
    """Score and difference to the reference on every draw, on all labels; None where every set is divided once."""
    rows = []
    for place in results.places:
        own = scores_by_draw(place)
        if place.fraction != results.full or len(own) < 2:
            continue
        reference = results.place(results.config.reference, place.benchmark, place.protocol, place.fraction)
        other = scores_by_draw(reference) if reference not in (None, place) else []
        apart = [100 * (a - b) for a, b in zip(own, other)]  # of the draws that both have
        scores = f"{min(own):.3f} to {max(own):.3f}"
        differences = f"{min(apart):+.1f} to {max(apart):+.1f}" if apart else None
        rows.append((place.benchmark, place.encoder, place.protocol, len(own), scores, differences))
    if not rows:
        return None
    table = Table(
        columns=("benchmark", "encoder", "protocol", "draws", "score", f"minus {results.config.reference}, points"),
        rows=tuple(rows),
        missing="the reference itself, or not scored",
    )
    table, same = without_constants(table, ("protocol", "draws"))
    words = (
        "Nested folds were drawn several times, and scores are means over draws; here are those of the lowest and of the highest"
        f" draw. What draws differ by is part of every interval from {FEWEST_DRAWS} draws on."
    )
    return Section(title="Draws of the folds", words=tuple(filter(None, (words, same))), tables=(table,))


def scores_by_draw(place: Place) -> list[float]:
    """The mean score on each draw, over checkpoints and the fits that had it; one score where there is one draw."""
    members = members_of(place.said)
    scores = np.array([point_score(said, place.metric) for said in members.predictions])
    return by_draw(members, scores, place.num_draws).tolist()
