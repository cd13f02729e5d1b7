"""The runs of a study in MLflow: study > encoder > benchmark; trials hang below the benchmark by their own tracker.

    STUDY/mlflow_runs.json     run ids by what they are of

One decision: the driver alone begins and ends them, and a study that goes on takes the same runs up again, so a kill leaves no
second tree behind.
"""

from pathlib import Path

import launch

from raypath.config import to_dict
from raypath.run_folder import RunFolder
from raypath.study.cells import write_json
from raypath.study.settings import StudyConfig
from raypath.tracking import Tracker


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
