"""The runs of a study in MLflow: study > encoder > benchmark > cell; trials hang below the benchmark by their own tracker.

    STUDY/mlflow_runs.json     run ids by what they are of

One decision: the driver alone begins and ends them, all but those of cells, which are only scores; and a study that goes on takes
the same runs up again, so a kill leaves no second tree behind.
"""

from collections.abc import Sequence
from pathlib import Path

import launch
import numpy as np
from scoring import scores_of
from study_fits import Tracked, place_of_cell

from raypath.config import config_hash, to_dict
from raypath.run_folder import RunFolder
from raypath.study.cells import Cell, write_json
from raypath.study.settings import StudyConfig
from raypath.tracking import Tracker, open_tracking

CELL_TAG = "raypath.cell"


class StudyRuns:
    """Begun with the study; `end` is called once."""

    def __init__(self, config: StudyConfig, folder: Path):
        self.config, self.folder = config, folder
        self.tracker: Tracker = launch.start_tracking()
        self._ids: dict[str, str] = RunFolder(folder).read("mlflow_runs.json")
        self.study = self._begun(f"study {config.name}", config.name, None, {"study": config.name}, to_dict(config))

    def encoder(self, name: str) -> str:
        """The run of an encoder, below the study's."""
        tags = {"study": self.config.name, "encoder": name}
        return self._begun(f"encoder {name}", name, self.study, tags, {})

    def scored(self, where: str, encoder: str, tags: dict) -> str:
        """The run of weights on a benchmark (`where` says both), below the encoder's."""
        return self._begun(where, where, self.encoder(encoder), tags, {})

    def end(self, status: str) -> None:
        """End all of them, the study's last."""
        for run_id in reversed(self._ids.values()):
            self.tracker.end_run(run_id, status)

    def _begun(self, key: str, shown: str, parent: str | None, tags: dict, params: dict) -> str:
        known = self._ids.get(key)
        self._ids[key] = self.tracker.start_run(shown, parent=parent, tags=tags, params=params, resume=known)
        write_json(self.folder / "mlflow_runs.json", self._ids)
        return self._ids[key]


def log_cells(tracked: Tracked, cells: Sequence[Cell]) -> None:
    """The scores of cells that are done, means over their fits: into the run they belong to, and a run of each below it."""
    tracker, parent = open_tracking(tracked.tracking, launch.PROJECT), tracked.run_id
    known = tracker.children(parent, CELL_TAG)
    for cell in {cell.key: cell for cell in reversed(cells) if place_of_cell(cell).is_done}.values():
        share = "" if cell.fraction == 1 else f"/{cell.fraction:.0%}".replace("%", "pct")
        fits = [scores_of("test", place_of_cell(cell).said(f"seed-{seed}")) for seed in cell.seeds]
        means = {name: float(np.mean([own[name] for own in fits])) for name in fits[0]}
        means = {name: value for name, value in means.items() if np.isfinite(value)}
        tracker.log_metrics(parent, {f"{cell.protocol}{share}/{name}": value for name, value in means.items()})
        tags = tracked.tags | {"protocol": cell.protocol, "fraction": f"{cell.fraction:.0%}", CELL_TAG: cell.key}
        tags |= {"config_hash": config_hash(cell.config), "data_hash": cell.data_hash}
        name, params = f"{cell.protocol}, {cell.fraction:.0%} of labels", to_dict(cell.config)
        known[cell.key] = run = tracker.start_run(
            name, parent=parent, tags=tags, params=params, resume=known.get(cell.key)
        )
        tracker.log_metrics(run, means)
        tracker.end_run(run, "FINISHED")
